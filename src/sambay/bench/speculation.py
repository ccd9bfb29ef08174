"""Speculation by prompt lookup, on and off: how much faster texts are generated that repeat themselves, or do not.

What is said is given beforehand, token by token, so that any model says it, one with random weights, too: the model
computes every token, and no choice among its logits is made. So the gain is that of the steps.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sambay.bench.decode import check_positive
from sambay.bench.fill import check_context
from sambay.bench.record import Spread
from sambay.engine import Engine, SamplingParams
from sambay.engine.guide import Guide
from sambay.engine.outputs import RequestOutput
from sambay.engine.speculation import Speculation
from sambay.errors import ConfigError
from sambay.model import SambaY

__all__ = ["TEXTS", "measure_speculation"]

_FIRST = 5
"""Token ids from here on are words."""


def _repeats(dice: random.Random, prompt: Sequence[int], vocab: int) -> list[int]:
    """Pieces of the prompt of 20 to 60 tokens, and one to four new ones between them: an edited text."""
    begin, length = dice.randrange(len(prompt)), dice.randint(20, 60)
    return [*prompt[begin : begin + length], *(dice.randrange(_FIRST, vocab) for _ in range(dice.randint(1, 4)))]


def _quotes(dice: random.Random, prompt: Sequence[int], vocab: int) -> list[int]:
    """Pieces of 4 to 12 tokens, and as many new ones between them: an answer about the prompt."""
    begin = dice.randrange(len(prompt))
    return [
        *prompt[begin : begin + dice.randint(4, 12)],
        *(dice.randrange(_FIRST, vocab) for _ in range(dice.randint(4, 12))),
    ]


def _new(dice: random.Random, prompt: Sequence[int], vocab: int) -> list[int]:
    """Nothing that was there before."""
    del prompt
    return [dice.randrange(_FIRST, vocab)]


def _misleads(dice: random.Random, prompt: Sequence[int], vocab: int) -> list[int]:
    """Few words in any order: what followed them before says nothing."""
    del prompt, vocab
    return [_FIRST + dice.randrange(12)]


TEXTS: dict[str, Callable[[random.Random, Sequence[int], int], list[int]]] = {
    "repeats": _repeats,
    "quotes": _quotes,
    "new": _new,
    "misleads": _misleads,
}
"""What is generated after a prompt of random tokens, piece by piece."""


class _Script(Guide):
    """Says what comes next, always.

    Args:
        tokens: all of it.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._left = list(reversed(tokens))
        self.reasoning_tokens, self.settled = 0, False

    def forced(self) -> int:
        return self._left[-1]

    @property
    def idle(self) -> bool:
        return False

    @property
    def complete(self) -> bool:
        return False

    def push(self, token: int, text: str) -> None:
        del token, text
        self._left.pop()


def measure_speculation(
    model: SambaY,
    prompt: int,
    *,
    texts: Sequence[str],
    batches: Sequence[int],
    generate: int,
    rounds: int,
    modes: Sequence[str] = ("off", "auto"),
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Time generation with and without, step by step in turns.

    Args:
        model: on the CPU.
        prompt: tokens of each prompt.
        texts: names of `TEXTS`.
        batches: numbers of sequences that are generated together.
        generate: tokens of each.
        rounds: how often each is measured, with another text each time.
        modes: of `Speculation`, the first of which the others are compared with.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each: `tokens_per_second` after the first token, `seconds`, `drafted` and `accepted`
        tokens, and `ratio`: the time without over its own, the median of the rounds.

    Raises:
        ConfigError: nothing to measure, an unknown text or mode, or more than the memory holds.
        ContextError: beyond the context.
    """
    check_positive(prompt=prompt, generate=generate, rounds=rounds, batch=min(batches))
    for name in texts:
        if name not in TEXTS:
            raise ConfigError(f"there is no text {name!r}: choose from {', '.join(TEXTS)}")
    longest = prompt + generate
    check_context(model.config.max_position_embeddings, longest, f"{prompt} tokens and {generate} more")
    rows = []
    done, total = 0, len(texts) * len(batches) * rounds
    for batch in batches:
        for name in texts:
            engines = {
                mode: Engine(
                    model, None, end_ids=frozenset(), max_model_len=longest, max_num_seqs=batch,
                    enable_prefix_caching=False, speculation=Speculation(mode),
                )
                for mode in modes
            }  # fmt: skip
            times: dict[str, list[float]] = {mode: [] for mode in modes}
            guessed = {mode: [0, 0] for mode in modes}
            for turn in range(rounds):
                scripts = [_scripted(name, prompt, generate, model.config.vocab_size, turn, i) for i in range(batch)]
                found = _generate(engines, scripts)
                for mode, (seconds, drafted, accepted) in found.items():
                    times[mode].append(seconds)
                    guessed[mode][0] += drafted
                    guessed[mode][1] += accepted
                done += 1
                if progress is not None:
                    progress(done, total)
            for mode in modes:
                rows.append({
                    "text": name,
                    "batch": batch,
                    "mode": mode,
                    "tokens_per_second": batch * (generate - 1) / statistics.median(times[mode]),
                    "seconds": Spread.of(times[mode]).to_dict(),
                    "drafted": guessed[mode][0],
                    "accepted": guessed[mode][1],
                    "ratio": statistics.median(a / b for a, b in zip(times[modes[0]], times[mode], strict=True)),
                })  # fmt: skip
    return rows


def _scripted(
    name: str, prompt: int, generate: int, vocab: int, turn: int, sequence: int
) -> tuple[list[int], list[int]]:
    """A prompt and what follows it; of the same arguments the same."""
    dice = random.Random(f"{name} {turn} {sequence}")
    ids = [dice.randrange(_FIRST, vocab) for _ in range(prompt)]
    text: list[int] = []
    while len(text) < generate:
        text += TEXTS[name](dice, ids, vocab)
    return ids, text[:generate]


def _generate(
    engines: Mapping[str, Engine], scripts: Sequence[tuple[list[int], list[int]]]
) -> dict[str, tuple[float, int, int]]:
    """By mode: seconds from when all have a token to the last, and how many were drafted and accepted.

    The engines take turns, step by step, so that a busy neighbour disturbs all alike.
    """
    outputs: dict[str, list[RequestOutput]] = {mode: [] for mode in engines}
    for mode, engine in engines.items():
        for ids, text in scripts:
            params = SamplingParams(temperature=0.0, max_tokens=len(text), ignore_eos=True)
            outputs[mode].append(engine.add(None, ids, params))
            engine.scheduler.waiting[-1].guide = _Script(text)
        while not all(output.metrics.first_token for output in outputs[mode]):
            engine.step()
    seconds = dict.fromkeys(engines, 0.0)
    order = list(engines)
    while busy := [mode for mode in order if engines[mode].busy]:
        order.reverse()
        for mode in busy:
            begin = time.perf_counter()
            engines[mode].step()
            seconds[mode] += time.perf_counter() - begin
    out = {}
    for mode, ended in outputs.items():
        assert [output.outputs[0].token_ids for output in ended] == [text for _, text in scripts]
        metrics = [output.metrics for output in ended]
        out[mode] = seconds[mode], sum(one.drafted for one in metrics), sum(one.accepted for one in metrics)
    return out
