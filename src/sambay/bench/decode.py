"""Decoding: how long a step takes at a depth, what it moves through memory, and how near that is to the bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from sambay.bench.cost import Traffic, step_traffic
from sambay.bench.fill import Filled, check_context, fill_state
from sambay.bench.peer import Peer, PeerTraffic, Turns, peer_traffic, take_turns
from sambay.bench.probes import bandwidth
from sambay.bench.record import Spread
from sambay.errors import ConfigError
from sambay.model import SambaY

__all__ = [
    "Cell", "Decoding", "PeerDecoding", "check_positive", "figures", "measure_cells", "measure_decode", "measure_later",
]  # fmt: skip

Progress = Callable[[int, int], None]


class _Steps(Protocol):
    """Sequences of ours or of the peer."""

    def seek(self, sequences: int, depth: int) -> None: ...

    def step(self, sequences: int) -> object: ...


class Cell(NamedTuple):
    """What is measured together."""

    batch: int
    """Sequences that advance together."""
    depth: int
    """Tokens before."""
    peer_batch: int
    """Sequences of the peer, if there is one."""


def figures(
    batch: int, times: Sequence[float], reads: Sequence[float], traffic: Traffic | PeerTraffic
) -> dict[str, Any]:
    """What a row says of steps.

    Args:
        batch: sequences that advance together.
        times: seconds of a step in each round.
        reads: bytes a second, measured before each round.
        traffic: bytes of a step.
    """
    seconds, total = Spread.of(times), traffic.total
    return {
        "batch": batch,
        "seconds": seconds.to_dict(),
        "tokens_per_second": batch / seconds.median,
        "bytes": traffic.to_dict(),
        "bytes_per_second": total / seconds.median,
        "bandwidth": Spread.of(reads).to_dict(),
        "share": statistics.median(total / s / r for s, r in zip(times, reads, strict=True)),
    }


@dataclass(frozen=True)
class PeerDecoding:
    """The peer in the same cell.

    Attributes:
        name: of the peer.
        batch: its sequences.
        depth: tokens that each has seen.
        traffic: bytes of a step, the mean of a round.
        turns: the rounds; None if it could not be measured.
        obstacle: why it could not.
    """

    name: str
    batch: int
    depth: int
    traffic: PeerTraffic
    turns: Turns | None
    obstacle: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data; without any there is an `obstacle`."""
        key = {"engine": self.name, "batch": self.batch, "depth": self.depth}
        if self.turns is None:
            return key | {"obstacle": self.obstacle}
        found = figures(self.batch, self.turns.theirs, self.turns.probes, self.traffic)
        return key | found | self.turns.to_dict()


@dataclass(frozen=True)
class Decoding:
    """Steps of some sequences at one depth.

    Attributes:
        batch: sequences that advance together.
        depth: tokens that each has seen before the first step of a round.
        times: seconds of a step in each round.
        traffic: bytes of a step, the mean of a round.
        reads: bytes a second, measured before each round.
        peer: the peer in turns with it.
    """

    batch: int
    depth: int
    times: tuple[float, ...]
    traffic: Traffic
    reads: tuple[float, ...]
    peer: PeerDecoding | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        key = {"engine": "sambay", "batch": self.batch, "depth": self.depth}
        return key | figures(self.batch, self.times, self.reads, self.traffic)

    def rows(self) -> list[dict[str, Any]]:
        """The figures, and those of the peer."""
        return [self.to_dict(), *([] if self.peer is None else [self.peer.to_dict()])]


def measure_decode(
    model: SambaY,
    depths: Sequence[int],
    batches: Sequence[int],
    *,
    tokens: int,
    rounds: int,
    peer: Peer | None = None,
    progress: Progress | None = None,
) -> list[Decoding]:
    """Time steps at every depth with every number of sequences, in turns.

    The depth is reached by the shortcut of `fill`. One round is `tokens` steps from the depth on; before each the
    bandwidth is measured. A step that does not count comes first. With a peer, all rounds of a depth and a number of
    sequences come one after the other, the peer's steps after ours in each.

    Args:
        model: on the CPU.
        depths: tokens seen before.
        batches: sequences that advance together.
        tokens: steps of a round.
        rounds: how often each is measured.
        peer: to measure beside the model.
        progress: called with (rounds done, rounds in all).

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: a depth beyond the context.
        BackendError: the peer fails.
    """
    check_positive(tokens=tokens, rounds=rounds)
    if not depths or not batches or min(batches) < 1 or min(depths) < 0:
        raise ConfigError(
            f"batches {list(batches)} at depths {list(depths)}: sequences are 1 or more, depths 0 or more"
        )
    deepest = max(depths)
    check_context(model.config.max_position_embeddings, deepest + tokens, f"a depth of {deepest} and {tokens} steps")
    cells = [Cell(batch, depth, batch) for batch in batches for depth in depths]
    return measure_cells(model, cells, tokens=tokens, rounds=rounds, peer=peer, progress=progress)


def measure_cells(
    model: SambaY,
    cells: Sequence[Cell],
    *,
    tokens: int,
    rounds: int,
    peer: Peer | None = None,
    progress: Progress | None = None,
) -> list[Decoding]:
    """Time steps of so many sequences at so many depths; `measure_decode` says how.

    Raises:
        ConfigError: more than the memory holds.
        BackendError: the peer fails.
    """
    filled = fill_state(model, max(cell.batch for cell in cells), max(cell.depth for cell in cells) + tokens)
    for batch in {cell.batch for cell in cells}:  # maps the weights, makes what is made once, and records the step
        filled.seek(batch, 0)
        for _ in range(3):
            filled.step(batch)
    done, total = 0, rounds * len(cells) * (1 if peer is None else len(peer.settings))

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    if peer is None:
        return _alone(filled, cells, tokens, rounds, tick)
    return [_beside(filled, cell, peer, tokens, rounds, tick) for cell in cells]


def _alone(filled: Filled, cells: Sequence[Cell], tokens: int, rounds: int, tick: Callable[[], None]) -> list[Decoding]:
    times: list[list[float]] = [[] for _ in cells]
    reads: list[list[float]] = [[] for _ in cells]
    for _ in range(rounds):
        for place, cell in enumerate(cells):
            reads[place].append(bandwidth())
            times[place].append(_seconds(filled, cell.batch, cell.depth, tokens))
            tick()
    return [
        _decoding(filled, cell, tokens, seconds, read) for cell, seconds, read in zip(cells, times, reads, strict=True)
    ]


def _beside(filled: Filled, cell: Cell, peer: Peer, tokens: int, rounds: int, tick: Callable[[], None]) -> Decoding:
    batch, depth, its = cell
    obstacle = peer.obstacle(its, depth + tokens)
    traffic = peer_traffic(peer.shape, its, depth, tokens)
    if obstacle is not None:
        [found] = _alone(filled, [cell], tokens, rounds, tick)
        return replace(found, peer=PeerDecoding(peer.name, its, depth, traffic, None, obstacle))
    turns = take_turns(
        peer,
        lambda flash: peer.at_depth(its, depth, tokens, flash),
        bandwidth,
        lambda: _seconds(filled, batch, depth, tokens),
        lambda caches: _seconds(caches, its, depth, tokens),
        rounds=rounds,
        work=batch / its,
        tick=tick,
    )
    found = _decoding(filled, cell, tokens, turns.ours, turns.probes)
    return replace(found, peer=PeerDecoding(peer.name, its, depth, traffic, turns))


def measure_later(found: Decoding, peer: Peer, sequences: int, *, tokens: int, rounds: int) -> Decoding:
    """The peer of a measurement that had no room for it, now that the memory of ours is free again.

    Args:
        found: ours, measured alone.
        peer: to measure.
        sequences: of the peer.
        tokens: steps of a round, as in `found`.
        rounds: as in `found`.

    Raises:
        BackendError: the peer fails.
    """
    depth = found.depth
    one = PeerDecoding(peer.name, sequences, depth, peer_traffic(peer.shape, sequences, depth, tokens), None)
    obstacle = peer.obstacle(sequences, depth + tokens)
    if obstacle is not None:
        return replace(found, peer=replace(one, obstacle=obstacle))
    turns = take_turns(
        peer,
        lambda flash: peer.at_depth(sequences, depth, tokens, flash),
        bandwidth,
        None,
        lambda caches: _seconds(caches, sequences, depth, tokens),
        rounds=rounds,
        work=found.batch / sequences,
        tick=lambda: None,
    )
    others = tuple(replace(other, ours=found.times, together=False) for other in turns.others)
    return replace(found, peer=replace(one, turns=replace(turns, ours=found.times, together=False, others=others)))


def _decoding(filled: Filled, cell: Cell, tokens: int, seconds: Sequence[float], reads: Sequence[float]) -> Decoding:
    traffic = _mean([step_traffic(filled.model, cell.batch, cell.depth + i) for i in range(tokens)])
    return Decoding(cell.batch, cell.depth, tuple(seconds), traffic, tuple(reads))


def _seconds(sequences: _Steps, batch: int, depth: int, tokens: int) -> float:
    """Of a step, in the mean of some from a depth on."""
    sequences.seek(batch, depth)
    start = time.perf_counter()
    for _ in range(tokens):
        sequences.step(batch)
    return (time.perf_counter() - start) / tokens


def _mean(parts: Sequence[Traffic]) -> Traffic:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Traffic(
        mean([one.weights for one in parts]),
        mean([one.states for one in parts]),
        mean([one.windows for one in parts]),
        mean([one.shared for one in parts]),
    )


def check_positive(**values: int) -> None:
    """Refuse numbers below 1, by their names.

    Raises:
        ConfigError: there is one.
    """
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}: it must be 1 or more")
