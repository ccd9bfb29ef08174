"""Prompts: tokens a second, the operations that they need, and the share of what products of matrices reach."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sambay.bench.cost import prompt_operations
from sambay.bench.fill import check_context
from sambay.bench.probes import MatrixProbe
from sambay.bench.record import Spread
from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.state import StatePool

__all__ = ["measure_prefill"]


def measure_prefill(
    model: SambaY,
    lengths: Sequence[int],
    chunks: Sequence[int],
    *,
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Time prompts of random tokens, in turns, each beside products of as many rows as its chunks have.

    Args:
        model: on the CPU.
        lengths: tokens of a prompt.
        chunks: tokens that are computed at once; 0 takes the prompt whole. Only the last asks for logits, of one token.
        rounds: how often each is measured.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each length and chunk.

    Raises:
        ConfigError: nothing to measure.
        ContextError: a prompt beyond the context.
    """
    if not lengths or min(lengths) < 1 or not chunks or min(chunks) < 0 or rounds < 1:
        raise ConfigError(
            f"lengths {list(lengths)} in chunks of {list(chunks)}, {rounds} rounds: lengths and rounds are 1 or more, "
            "chunks 0 or more"
        )
    check_context(model.config.max_position_embeddings, max(lengths), f"a prompt of {max(lengths)}")
    cells = list(dict.fromkeys((length, min(chunk or length, length)) for length in lengths for chunk in chunks))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (max(lengths),), generator=generator)
    pool = model.new_state(tokens=max(lengths))
    slot = pool.open()
    probes = {rows: MatrixProbe.like(model, rows) for rows in {chunk for _, chunk in cells}}
    _run(model, pool, slot, ids[: min(lengths)], min(lengths))  # maps the weights and makes what is made once
    times: list[list[float]] = [[] for _ in cells]
    rates: list[list[float]] = [[] for _ in cells]
    for turn in range(rounds):
        for place, (length, chunk) in enumerate(cells):
            rates[place].append(probes[chunk].rate())
            pool.reset(slot)
            start = time.perf_counter()
            _run(model, pool, slot, ids[:length], chunk)
            times[place].append(time.perf_counter() - start)
            if progress is not None:
                progress(turn * len(cells) + place + 1, rounds * len(cells))
    rows = []
    for (length, chunk), seconds, rate in zip(cells, times, rates, strict=True):
        operations, spread = prompt_operations(model.config, length), Spread.of(seconds)
        rows.append(
            {
                "length": length,
                "chunk": chunk,
                "seconds": spread.to_dict(),
                "tokens_per_second": length / spread.median,
                "operations": operations,
                "operations_per_second": operations / spread.median,
                "matrix": {"rows": chunk, "weights": str(probes[chunk])} | Spread.of(rate).to_dict(),
                "share": statistics.median(operations / s / r for s, r in zip(seconds, rate, strict=True)),
            }
        )
    return rows


@torch.inference_mode()
def _run(model: SambaY, pool: StatePool, slot: int, ids: Tensor, chunk: int) -> Tensor:
    """Compute a prompt in chunks, of which the last asks for the logits of its last token."""
    for at in range(0, len(ids), chunk):
        part = ids[at : at + chunk]
        wanted = int(at + len(part) == len(ids))
        batch = pool.batch(part, (len(part),), (slot,), (wanted,))
        logits = model.run(batch, pool)
        pool.advance(batch)
    return logits
