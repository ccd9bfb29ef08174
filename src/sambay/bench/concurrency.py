"""Requests that run at once: the same ones, through the engine, with more and more of them together.

Other than `generation`, whose steps have no prompts, no choice of tokens and no texts, this is all that a user waits
for; and it tells how much of it is not the model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sambay.bench.decode import check_positive
from sambay.bench.fill import check_context
from sambay.bench.record import Spread, quantiles
from sambay.data.problems import problem_at
from sambay.engine import Engine, RequestOutput, SamplingParams
from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.tokenizer import Tokenizer

__all__ = ["measure_concurrency", "some_prompts"]

_UNREAD = 128
"""Tokens of a prompt for a model that reads no text."""


@dataclass
class _Pass:
    """All requests, once, so many at a time; times in seconds."""

    seconds: float = 0.0
    steps: int = 0
    stepping: float = 0.0
    model: float = 0.0
    outputs: list[RequestOutput] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(one.token_ids) for output in self.outputs for one in output.outputs)

    def first_tokens(self) -> list[float]:
        return [one.metrics.first_token - one.metrics.arrival for one in self.outputs]


def some_prompts(model: SambaY, tokenizer: Tokenizer | None, count: int, tokens: int | None) -> list[list[int]]:
    """Prompts as token ids.

    Args:
        model: that they are for.
        tokenizer: None for a model that reads no text.
        count: how many.
        tokens: of each, at random; None for school problems, put as questions where there is a chat template.
    """
    if tokens is None and tokenizer is not None:
        texts = [problem_at(0, index, "test").question for index in range(count)]
        if not tokenizer.has_chat_template:
            return [tokenizer.encode(text) for text in texts]
        return [tokenizer.encode_chat([{"role": "user", "content": text}]) for text in texts]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (count, tokens or _UNREAD), generator=generator)
    found: list[list[int]] = ids.tolist()
    return found


def measure_concurrency(
    model: SambaY,
    tokenizer: Tokenizer | None,
    levels: Sequence[int],
    *,
    ends: frozenset[int] = frozenset(),
    requests: int,
    prompt: int | None,
    generate: int,
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Time the same requests with different numbers of them at once; who is done makes room for the next.

    Args:
        model: on the CPU.
        tokenizer: None for a model that reads no text.
        levels: numbers of requests at once; one after another is measured with them.
        requests: how many there are.
        ends: tokens that end a reply.
        prompt: tokens of each, at random; then all generate to the end. None for school problems, which end as they do.
        generate: tokens that each generates at most.
        rounds: how often everything is measured, in turns.
        progress: called with (passes done, passes in all).

    Returns:
        A row for each level: `seconds` of all requests, `tokens_per_second` that were generated, `ratio_to_one`: the
        time of one after another over this, the median of the rounds; `first_token`: seconds that a request waited
        for its first token; `step`: seconds of a step, and `own`, the part of them that is not the model, as a share.

    Raises:
        ConfigError: nothing to measure, or fewer requests than are to run at once.
        ContextError: beyond the context.
    """
    check_positive(requests=requests, generate=generate, rounds=rounds)
    if not levels or min(levels) < 1:
        raise ConfigError(f"concurrency {list(levels)}: numbers are 1 or more")
    if max(levels) > requests:
        raise ConfigError(
            f"{requests} requests cannot be {max(levels)} at once: ask for more requests, or less concurrency"
        )
    levels = sorted({1, *levels})
    prompts = some_prompts(model, tokenizer, requests, prompt)
    longest = max(map(len, prompts)) + generate
    check_context(model.config.max_position_embeddings, longest, f"a prompt and {generate} generated tokens")
    params = SamplingParams(temperature=0.0, max_tokens=generate, ignore_eos=prompt is not None or tokenizer is None)
    engine = Engine(model, tokenizer, end_ids=ends, max_model_len=longest, max_num_seqs=max(levels))
    for level in levels:  # steps are recorded, memory is touched
        _run(engine, prompts[:level], replace(params, max_tokens=min(generate, 8)), level)
    passes: dict[int, list[_Pass]] = {level: [] for level in levels}
    for turn in range(rounds):
        for place in range(len(levels)):
            level = levels[(place + turn) % len(levels)]  # who is first changes
            passes[level].append(_run(engine, prompts, params, level))
            if progress is not None:
                progress(turn * len(levels) + place + 1, rounds * len(levels))
    alone = [one.seconds for one in passes[1]]
    return [_row(level, passes[level], alone) for level in levels]


def _run(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams, level: int) -> _Pass:
    """All of them, with `level` at once, and no state left from what was before."""
    if engine.keeper.prefix is not None:
        engine.keeper.prefix.clear()
    done, waiting = _Pass(), list(prompts)[::-1]
    running: list[RequestOutput] = []
    model_before, begin = engine.model_seconds, time.perf_counter()
    while waiting or running:
        while waiting and len(running) < level:
            running.append(engine.add(None, list(waiting.pop()), params))
            done.outputs.append(running[-1])
        before = time.perf_counter()
        engine.step()
        done.stepping += time.perf_counter() - before
        done.steps += 1
        running = [one for one in running if not one.finished]
    done.seconds, done.model = time.perf_counter() - begin, engine.model_seconds - model_before
    return done


def _row(level: int, passes: Sequence[_Pass], alone: Sequence[float]) -> dict[str, Any]:
    seconds = Spread.of([one.seconds for one in passes])
    tokens = passes[0].tokens
    return {
        "concurrency": level,
        "requests": len(passes[0].outputs),
        "prompt_tokens": sum(len(one.prompt_token_ids) for one in passes[0].outputs),
        "tokens": tokens,
        "seconds": seconds.to_dict(),
        "tokens_per_second": tokens / seconds.median,
        "ratio_to_one": statistics.median(a / one.seconds for a, one in zip(alone, passes, strict=True)),
        "first_token": quantiles([value for one in passes for value in one.first_tokens()]),
        "step": statistics.median(one.stepping / one.steps for one in passes),
        "own": statistics.median(1 - one.model / one.stepping for one in passes),
    }
