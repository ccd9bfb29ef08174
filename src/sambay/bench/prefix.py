"""Conversations of several turns, with the prefix cache and without: how long the first token of each answer takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from sambay.bench.decode import check_positive
from sambay.bench.fill import check_context
from sambay.bench.record import Spread
from sambay.engine import Engine, SamplingParams
from sambay.model import SambaY

__all__ = ["measure_prefix"]


def measure_prefix(
    model: SambaY,
    prompt: int,
    *,
    turns: int,
    new: int,
    generate: int,
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Time the turns of a conversation; the same one with the cache and without it, turn by turn.

    Args:
        model: on the CPU.
        prompt: tokens of the first question.
        turns: of the conversation.
        new: tokens of each further question, after the answer before it.
        generate: tokens of an answer.
        rounds: how often the conversation is held.
        progress: called with (turns done, turns in all).

    Returns:
        For each turn a row without the cache and one with it: `prompt` tokens, of which `cached_tokens` were not
        computed; `seconds` until the first token of the answer; `share`: the part of the time without the cache, the
        median of the rounds.

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: beyond the context.
    """
    check_positive(prompt=prompt, turns=turns, new=new, generate=generate, rounds=rounds)
    longest = prompt + turns * generate + (turns - 1) * new
    check_context(model.config.max_position_embeddings, longest, f"{turns} turns")
    engines = {
        cache: Engine(
            model, None, end_ids=frozenset(), max_model_len=longest, max_num_seqs=1, enable_prefix_caching=cache
        )
        for cache in (False, True)
    }
    params = SamplingParams(temperature=0.0, max_tokens=generate, ignore_eos=True)
    rows: dict[tuple[int, bool], dict[str, Any]] = {}
    times: dict[tuple[int, bool], list[float]] = {}
    for round_ in range(rounds):
        generator = torch.Generator().manual_seed(round_)
        ids = torch.randint(model.config.vocab_size, (prompt,), generator=generator).tolist()
        for turn in range(turns):
            # Who is first changes, so that neither always finds the other's weights in the caches.
            for cache in (False, True) if (round_ + turn) % 2 else (True, False):
                output = engines[cache].add(None, ids, params)
                while engines[cache].busy:
                    engines[cache].step()
                metrics = output.metrics
                times.setdefault((turn, cache), []).append(metrics.first_token - metrics.arrival)
                rows[turn, cache] = {
                    "cache": cache, "turn": turn + 1, "prompt": len(ids), "cached_tokens": output.cached_tokens
                }  # fmt: skip
            further = torch.randint(model.config.vocab_size, (new,), generator=generator).tolist()
            ids = [*ids, *output.outputs[0].token_ids, *further]
            if progress is not None:
                progress(round_ * turns + turn + 1, rounds * turns)
        for engine in engines.values():
            if engine.keeper.prefix is not None:
                engine.keeper.prefix.clear()
    for (turn, cache), row in rows.items():
        mine, without = times[turn, cache], times[turn, False]
        row["seconds"] = Spread.of(mine).to_dict()
        row["share"] = statistics.median(a / b for a, b in zip(mine, without, strict=True))
    return [rows[key] for key in sorted(rows)]
