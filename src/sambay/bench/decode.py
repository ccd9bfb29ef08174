"""Decoding: how long a step takes at a depth, what it moves through memory, and how near that is to the bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sambay.bench.cost import Traffic, step_traffic
from sambay.bench.fill import Filled, check_context, fill_state
from sambay.bench.probes import bandwidth
from sambay.bench.record import Spread
from sambay.errors import ConfigError
from sambay.model import SambaY

__all__ = ["Decoding", "measure_decode", "measure_latency"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Decoding:
    """Steps of some sequences at one depth.

    Attributes:
        batch: sequences that advance together.
        depth: tokens that each has seen before the first step of a round.
        seconds: of a step.
        traffic: bytes of a step, the mean of a round.
        bandwidth: bytes a second, measured before every round.
        share: of the bandwidth, the median of the rounds, each with what was measured before it.
    """

    batch: int
    depth: int
    seconds: Spread
    traffic: Traffic
    bandwidth: Spread
    share: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {
            "batch": self.batch,
            "depth": self.depth,
            "seconds": self.seconds.to_dict(),
            "tokens_per_second": self.batch / self.seconds.median,
            "bytes": self.traffic.to_dict(),
            "bytes_per_second": self.traffic.total / self.seconds.median,
            "bandwidth": self.bandwidth.to_dict(),
            "share": self.share,
        }


def measure_decode(
    model: SambaY,
    depths: Sequence[int],
    batches: Sequence[int],
    *,
    tokens: int,
    rounds: int,
    progress: Progress | None = None,
) -> list[Decoding]:
    """Time steps at every depth with every number of sequences, in turns.

    The depth is reached by the shortcut of `fill`. One round is `tokens` steps from the depth on; before each the
    bandwidth is measured. A step that does not count comes first.

    Args:
        model: on the CPU.
        depths: tokens seen before.
        batches: sequences that advance together.
        tokens: steps of a round.
        rounds: how often each is measured.
        progress: called with (rounds done, rounds in all).

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: a depth beyond the context.
    """
    _check_positive(tokens=tokens, rounds=rounds)
    if not depths or not batches or min(batches) < 1 or min(depths) < 0:
        raise ConfigError(
            f"batches {list(batches)} at depths {list(depths)}: sequences are 1 or more, depths 0 or more"
        )
    deepest = max(depths)
    check_context(model.config.max_position_embeddings, deepest + tokens, f"a depth of {deepest} and {tokens} steps")
    cells = [(batch, depth) for batch in batches for depth in depths]
    filled = fill_state(model, max(batches), deepest + tokens)
    return _measure(filled, cells, tokens, rounds, progress)


def _measure(
    filled: Filled, cells: Sequence[tuple[int, int]], tokens: int, rounds: int, progress: Progress | None
) -> list[Decoding]:
    for batch in {batch for batch, _ in cells}:  # maps the weights and makes what is made once
        filled.seek(batch, 0)
        filled.step(batch)
    traffics = [_mean([step_traffic(filled.model, batch, depth + i) for i in range(tokens)]) for batch, depth in cells]
    times: list[list[float]] = [[] for _ in cells]
    reads: list[list[float]] = [[] for _ in cells]
    for turn in range(rounds):
        for place, (batch, depth) in enumerate(cells):
            reads[place].append(bandwidth())
            filled.seek(batch, depth)
            start = time.perf_counter()
            for _ in range(tokens):
                filled.step(batch)
            times[place].append((time.perf_counter() - start) / tokens)
            if progress is not None:
                progress(turn * len(cells) + place + 1, rounds * len(cells))
    found = []
    for (batch, depth), traffic, seconds, read in zip(cells, traffics, times, reads, strict=True):
        shares = [traffic.total / s / r for s, r in zip(seconds, read, strict=True)]
        share = statistics.median(shares)
        found.append(Decoding(batch, depth, Spread.of(seconds), traffic, Spread.of(read), share))
    return found


def measure_latency(
    model: SambaY,
    prompt: int,
    generate: int,
    *,
    points: int,
    tokens: int,
    rounds: int,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The time that generating takes, as a curve: steps timed at some depths, and what lies between interpolated.

    The prompt's own time is not in it. The cost of a token is taken to be linear between two depths, as the bytes
    that it moves are once the windows are full.

    Args:
        model: on the CPU.
        prompt: tokens before the first that is generated.
        generate: tokens at the end of the curve.
        points: depths that are measured, from the first token to the last.
        tokens: steps of a round.
        rounds: how often each is measured.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each point: `generated` tokens, the `seconds_since_start` that they took, and the figures of
        `Decoding`.

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: beyond the context.
    """
    _check_positive(prompt=prompt, generate=generate, tokens=tokens, rounds=rounds)
    if points < 2:
        raise ConfigError(f"points is {points}: a curve needs 2 or more")
    context = model.config.max_position_embeddings
    check_context(context, prompt + generate, f"a prompt of {prompt} and {generate} generated tokens")
    generated = sorted({generate * place // (points - 1) for place in range(points)})
    # The last steps must end within the context; those few tokens earlier make no difference.
    depths = [max(0, min(prompt + count, context - tokens)) for count in generated]
    measured = measure_decode(model, depths, (1,), tokens=tokens, rounds=rounds, progress=progress)
    rows, total = [], 0.0
    for place, (count, one) in enumerate(zip(generated, measured, strict=True)):
        if place:
            mean = (one.seconds.median + measured[place - 1].seconds.median) / 2
            total += mean * (count - generated[place - 1])
        rows.append({"generated": count, "seconds_since_start": total} | one.to_dict())
    return rows


def _mean(parts: Sequence[Traffic]) -> Traffic:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Traffic(
        mean([one.weights for one in parts]),
        mean([one.states for one in parts]),
        mean([one.windows for one in parts]),
        mean([one.shared for one in parts]),
    )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}: it must be 1 or more")
