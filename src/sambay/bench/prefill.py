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
from sambay.bench.peer import Peer, take_turns
from sambay.bench.peer_llama import UBATCH, LlamaCaches
from sambay.bench.peer_model import peer_operations
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
    peer: Peer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Time prompts of random tokens, in turns, each beside products of as many rows as its chunks have.

    With a peer, all rounds of a length and a chunk come one after the other, the peer's after ours in each.

    Args:
        model: on the CPU.
        lengths: tokens of a prompt.
        chunks: tokens that are computed at once; 0 takes the prompt whole. Only the last asks for logits, of one token.
        rounds: how often each is measured.
        peer: to measure beside the model, in chunks of its own.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each length and chunk, and for each of the peer.

    Raises:
        ConfigError: nothing to measure.
        ContextError: a prompt beyond the context.
        BackendError: the peer fails.
    """
    if not lengths or min(lengths) < 1 or not chunks or min(chunks) < 0 or rounds < 1:
        raise ConfigError(
            f"lengths {list(lengths)} in chunks of {list(chunks)}, {rounds} rounds: lengths and rounds are 1 or more, "
            "chunks 0 or more"
        )
    check_context(model.config.max_position_embeddings, max(lengths), f"a prompt of {max(lengths)}")
    cells = list(dict.fromkeys((length, min(chunk or length, length)) for length in lengths for chunk in chunks))
    prompts = _Prompts(model, max(lengths), {chunk for _, chunk in cells})
    prompts.seconds(min(lengths), min(lengths))  # maps the weights and makes what is made once
    done, total = 0, rounds * len(cells) * (1 if peer is None else len(peer.settings))

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    if peer is None:
        return _alone(prompts, cells, rounds, tick)
    return [row for cell in cells for row in _beside(prompts, cell, peer, rounds, tick)]


class _Prompts:
    """Prompts of a model, and products of as many rows as their chunks have."""

    def __init__(self, model: SambaY, longest: int, chunks: set[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = model
        self._ids = torch.randint(model.config.vocab_size, (longest,), generator=generator)
        self._pool = model.new_state(tokens=longest)
        self._slot = self._pool.open()
        self.probes = {rows: MatrixProbe.like(model, rows) for rows in chunks}

    def seconds(self, length: int, chunk: int) -> float:
        """Of a prompt in chunks."""
        self._pool.reset(self._slot)
        start = time.perf_counter()
        _run(self.model, self._pool, self._slot, self._ids[:length], chunk)
        return time.perf_counter() - start


def _alone(
    prompts: _Prompts, cells: Sequence[tuple[int, int]], rounds: int, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    times: list[list[float]] = [[] for _ in cells]
    rates: list[list[float]] = [[] for _ in cells]
    for _ in range(rounds):
        for place, (length, chunk) in enumerate(cells):
            rates[place].append(prompts.probes[chunk].rate())
            times[place].append(prompts.seconds(length, chunk))
            tick()
    return [_ours(prompts, cell, seconds, rate) for cell, seconds, rate in zip(cells, times, rates, strict=True)]


def _beside(
    prompts: _Prompts, cell: tuple[int, int], peer: Peer, rounds: int, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    length, chunk = cell
    key = {"engine": peer.name, "length": length, "chunk": min(length, UBATCH)}
    obstacle = peer.obstacle(1, length)
    if obstacle is not None:
        return [*_alone(prompts, [cell], rounds, tick), key | {"obstacle": obstacle}]

    def theirs(caches: LlamaCaches) -> float:
        caches.seek(1, 0)
        start = time.perf_counter()
        caches.prompt(length)
        return time.perf_counter() - start

    turns = take_turns(
        peer,
        lambda flash: peer.for_prompt(length, flash),
        prompts.probes[chunk].rate,
        lambda: prompts.seconds(length, chunk),
        theirs,
        rounds=rounds,
        tick=tick,
    )
    operations = peer_operations(peer.shape, length)
    found = _figures(length, operations, turns.theirs, turns.probes, prompts.probes[chunk])
    return [_ours(prompts, cell, turns.ours, turns.probes), key | found | turns.to_dict()]


def _ours(prompts: _Prompts, cell: tuple[int, int], seconds: Sequence[float], rates: Sequence[float]) -> dict[str, Any]:
    length, chunk = cell
    operations = prompt_operations(prompts.model.config, length)
    key = {"engine": "sambay", "length": length, "chunk": chunk}
    return key | _figures(length, operations, seconds, rates, prompts.probes[chunk])


def _figures(
    length: int, operations: int, seconds: Sequence[float], rates: Sequence[float], probe: MatrixProbe
) -> dict[str, Any]:
    spread = Spread.of(seconds)
    peak = probe.peak()
    return {
        "seconds": spread.to_dict(),
        "tokens_per_second": length / spread.median,
        "operations": operations,
        "operations_per_second": operations / spread.median,
        "matrix": {"rows": probe.rows, "weights": str(probe)} | Spread.of(rates).to_dict(),
        "share": statistics.median(operations / s / r for s, r in zip(seconds, rates, strict=True)),
        "peak": peak,
        "share_of_peak": None if peak is None else operations / spread.median / peak,
    }


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
