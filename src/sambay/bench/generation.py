"""Long generations, of one sequence or of several together: steps timed at some depths, what lies between interpolated.

The prompt's own time is in none of the figures. The cost of a token is taken to be linear between two depths, as the
bytes that it moves are once the windows are full.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from sambay.bench.cost import Traffic
from sambay.bench.decode import (
    Cell,
    Decoding,
    PeerDecoding,
    check_positive,
    figures,
    measure_cells,
    measure_decode,
    measure_later,
)
from sambay.bench.fill import check_context, check_memory, states_bytes
from sambay.bench.peer import Peer, PeerTraffic
from sambay.bench.peer_llama import cache_bytes
from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.quant.resident import free_memory

__all__ = ["generation_bytes", "measure_latency", "measure_throughput", "sequences_that_fit"]

Progress = Callable[[int, int], None]


def measure_latency(
    model: SambaY,
    prompt: int,
    generate: int,
    *,
    points: int,
    tokens: int,
    rounds: int,
    peer: Peer | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The time that generating takes, as a curve.

    Args:
        model: on the CPU.
        prompt: tokens before the first that is generated.
        generate: tokens at the end of the curve.
        points: depths that are measured, from the first token to the last.
        tokens: steps of a round.
        rounds: how often each is measured.
        peer: to measure beside the model.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each point, and for each of the peer: `generated` tokens, the `seconds_since_start` that they took,
        and the figures of `Decoding`. The peer's have `ratio_since_start`, too: its seconds over ours.

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: beyond the context.
        BackendError: the peer fails.
    """
    check_positive(tokens=tokens, rounds=rounds)
    generated, depths = _sampled(model, prompt, generate, points, tokens)
    measured = measure_decode(model, depths, (1,), tokens=tokens, rounds=rounds, peer=peer, progress=progress)
    since = _cumulated(generated, [statistics.median(one.times) for one in measured])
    rows = []
    for place, (count, one, seconds) in enumerate(zip(generated, measured, since, strict=True)):
        rows.append({"generated": count, "seconds_since_start": seconds} | one.to_dict())
        if one.peer is not None:
            rows.append({"generated": count} | one.peer.to_dict() | _peer_so_far(generated, measured[: place + 1]))
    return rows


def _peer_so_far(generated: Sequence[int], measured: Sequence[Decoding]) -> dict[str, Any]:
    """The peer's time until the last of some points; the ratio is the median of those of the rounds."""
    all_turns = [one.peer.turns for one in measured if one.peer is not None and one.peer.turns is not None]
    if len(all_turns) < len(measured):
        return {"obstacle": "it could not be measured at this or an earlier depth"} if all_turns else {}
    part = generated[: len(measured)]
    seconds = _cumulated(part, [statistics.median(turns.theirs) for turns in all_turns])[-1]
    if len(part) == 1:
        return {"seconds_since_start": seconds, "ratio_since_start": None}
    ours = _each_round(part, [turns.ours for turns in all_turns])
    theirs = _each_round(part, [turns.theirs for turns in all_turns])
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return {"seconds_since_start": seconds, "ratio_since_start": ratio}


def measure_throughput(
    model: SambaY,
    batches: Sequence[int],
    prompt: int,
    generate: int,
    *,
    points: int,
    tokens: int,
    rounds: int,
    memory: int | None = None,
    peer: Peer | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Tokens a second of several sequences that are generated together, in the mean of a generation.

    Args:
        model: on the CPU.
        batches: numbers of sequences.
        prompt: tokens that each has before the first that is generated.
        generate: tokens of each.
        points: depths that are measured, from the first token to the last.
        tokens: steps of a round.
        rounds: how often each is measured.
        memory: bytes; if given, there is a row for as many sequences as it holds to the end, with the weights. It has
            as many of the peer as it holds of those.
        peer: to measure beside the model.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each number, and for each of the peer: `seconds` are of a mean step, `ratio_to_one` is tokens a
        second over those of one sequence, if 1 is among `batches`, `memory` the bytes of weights and states at the
        end, `depths` the figures of `Decoding`.

    Raises:
        ConfigError: nothing to measure, or more than the memory holds.
        ContextError: beyond the context.
        BackendError: the peer fails.
    """
    check_positive(tokens=tokens, rounds=rounds)
    if not batches or min(batches) < 1:
        raise ConfigError(f"batches {list(batches)}: sequences are 1 or more")
    generated, depths = _sampled(model, prompt, generate, points, tokens)
    end = prompt + generate
    filling = None
    if memory is not None:
        fit = sequences_that_fit(model, end, memory)
        with nullcontext() if peer is None else peer.unloaded():
            check_memory(model, fit, depths[-1] + tokens)  # now, not after all that is smaller
        filling = Cell(fit, end, 0 if peer is None else _peer_fit(peer, end, memory))
    passes = 1 if peer is None else len(peer.settings)
    small = rounds * passes * len(batches) * len(depths)
    total = small + (0 if filling is None else rounds * passes * len(depths))

    def told(before: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    cells = [Cell(batch, depth, batch) for batch in batches for depth in depths]
    measured = measure_cells(model, cells, tokens=tokens, rounds=rounds, peer=peer, progress=told(0))
    groups: list[tuple[int, int, int | None, list[Decoding]]] = [
        (batch, batch, None, measured[i * len(depths) :][: len(depths)]) for i, batch in enumerate(batches)
    ]
    if filling is not None:
        found = []
        for place, depth in enumerate(depths):
            cell, before = filling._replace(depth=depth), small + place * rounds * passes
            found.append(_filling(model, cell, peer, tokens, rounds, told(before)))
        groups.append((filling.batch, filling.peer_batch, memory, found))
    rows = []
    ones: dict[str, list[float]] = {}
    for batch, peer_batch, budget, group in groups:
        about = {"prompt": prompt, "generate": generate, "budget": budget}
        needed = generation_bytes(model, batch, end)
        rows.append(about | _ours(generated, group, needed, ones) | {"depths": [one.to_dict() for one in group]})
        if peer is not None:
            rows.append(about | _theirs(generated, group, peer, peer_batch, end, ones))
    return rows


def _filling(
    model: SambaY, cell: Cell, peer: Peer | None, tokens: int, rounds: int, progress: Progress | None
) -> Decoding:
    """As many sequences as a memory holds: there is hardly room beside them for the peer, then it comes afterwards."""
    if peer is None or not cell.peer_batch:
        return measure_cells(model, [cell], tokens=tokens, rounds=rounds, progress=progress)[0]
    needed, free = states_bytes(model, cell.batch, cell.depth + tokens), free_memory()
    if free is None or peer.obstacle(cell.peer_batch, cell.depth + tokens, free - needed) is None:
        return measure_cells(model, [cell], tokens=tokens, rounds=rounds, peer=peer, progress=progress)[0]
    with peer.unloaded():
        [alone] = measure_cells(model, [cell], tokens=tokens, rounds=rounds, progress=progress)
    return measure_later(alone, peer, cell.peer_batch, tokens=tokens, rounds=rounds)


def _ours(
    generated: Sequence[int], group: Sequence[Decoding], memory: int, ones: dict[str, list[float]]
) -> dict[str, Any]:
    batch, times = group[0].batch, _each_round(generated, [one.times for one in group])
    reads = [statistics.fmean(values) for values in zip(*(one.reads for one in group), strict=True)]
    traffic = Traffic(
        weights=_mean(generated, [one.traffic.weights for one in group]),
        states=_mean(generated, [one.traffic.states for one in group]),
        windows=_mean(generated, [one.traffic.windows for one in group]),
        shared=_mean(generated, [one.traffic.shared for one in group]),
    )
    found = {"engine": "sambay"} | figures(batch, times, reads, traffic) | {"memory": memory}
    return found | {"ratio_to_one": _to_one("sambay", batch, times, ones)}


def _theirs(
    generated: Sequence[int],
    group: Sequence[Decoding],
    peer: Peer,
    batch: int,
    end: int,
    ones: dict[str, list[float]],
) -> dict[str, Any]:
    key = {"engine": peer.name, "batch": batch}
    if not batch:
        return key | {"obstacle": f"its weights and one sequence of {end:,} tokens need more"}
    found: list[PeerDecoding] = [one.peer for one in group if one.peer is not None]
    all_turns = [one.turns for one in found if one.turns is not None]
    if len(all_turns) < len(group):
        return key | {"obstacle": next(one.obstacle for one in found if one.turns is None)}
    times = _each_round(generated, [turns.theirs for turns in all_turns])
    ours = _each_round(generated, [turns.ours for turns in all_turns])
    reads = [statistics.fmean(values) for values in zip(*(turns.probes for turns in all_turns), strict=True)]
    cache = _mean(generated, [one.traffic.cache for one in found])
    work = group[0].batch / batch
    return (
        {"engine": peer.name}
        | figures(batch, times, reads, PeerTraffic(found[0].traffic.weights, cache))
        | {
            "memory": peer.shape.nbytes + cache_bytes(peer.shape, batch, end),
            "ratio_to_one": _to_one(peer.name, batch, times, ones),
            "ratio": work * statistics.median(b / a for a, b in zip(ours, times, strict=True)),
            "in_turns": all(turns.together for turns in all_turns),
            "depths": [one.to_dict() for one in found],
        }
    )


def _to_one(engine: str, batch: int, times: list[float], ones: dict[str, list[float]]) -> float | None:
    """Tokens a second over those of one sequence, the median of the rounds; one sequence is kept for the others."""
    if batch == 1:
        ones.setdefault(engine, times)
    one = ones.get(engine)
    return None if one is None else statistics.median(batch * a / b for a, b in zip(one, times, strict=True))


def generation_bytes(model: SambaY, sequences: int, tokens: int) -> int:
    """Bytes of the weights and of the states of sequences of so many tokens each."""
    weights: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return weights + states_bytes(model, sequences, tokens)


def sequences_that_fit(model: SambaY, tokens: int, memory: int) -> int:
    """How many sequences of so many tokens each a memory holds, with the weights.

    Args:
        model: decides shapes and dtypes.
        tokens: of a sequence at its end.
        memory: bytes.

    Raises:
        ConfigError: not one.
    """
    nothing = generation_bytes(model, 0, tokens)
    each = generation_bytes(model, 1, tokens) - nothing
    if memory < nothing + each:
        raise ConfigError(
            f"a memory of {memory / 1e9:g} GB is too small: the weights and one sequence of {tokens} tokens take "
            f"{(nothing + each) / 1e9:.3g} GB"
        )
    return (memory - nothing) // each


def _peer_fit(peer: Peer, tokens: int, memory: int) -> int:
    return min(peer.most, max(0, (memory - peer.shape.nbytes) // cache_bytes(peer.shape, 1, tokens)))


def _sampled(model: SambaY, prompt: int, generate: int, points: int, tokens: int) -> tuple[list[int], list[int]]:
    """Tokens generated at each point, and the depths there."""
    check_positive(prompt=prompt, generate=generate)
    if points < 2:
        raise ConfigError(f"points is {points}: a curve needs 2 or more")
    context = model.config.max_position_embeddings
    check_context(context, prompt + generate, f"a prompt of {prompt} and {generate} generated tokens")
    generated = sorted({generate * place // (points - 1) for place in range(points)})
    # The last steps must end within the context; those few tokens earlier make no difference.
    return generated, [max(0, min(prompt + count, context - tokens)) for count in generated]


def _cumulated(at: Sequence[int], values: Sequence[float]) -> list[float]:
    """The integral from the first place to each, linear in between."""
    found = [0.0]
    for place in range(1, len(at)):
        found.append(found[-1] + (values[place] + values[place - 1]) / 2 * (at[place] - at[place - 1]))
    return found


def _mean(at: Sequence[int], values: Sequence[float]) -> float:
    return _cumulated(at, values)[-1] / (at[-1] - at[0])


def _each_round(at: Sequence[int], times: Sequence[Sequence[float]]) -> list[float]:
    """The mean over a generation, for each round; times are of points, then of rounds."""
    return [_mean(at, values) for values in zip(*times, strict=True)]
