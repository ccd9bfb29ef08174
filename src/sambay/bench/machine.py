"""The machine by itself: reading memory, multiplying matrices on every instruction set, waking the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sambay.bench.probes import SIDE, MatrixProbe, bandwidth, pool_latency
from sambay.bench.record import Spread
from sambay.ops import native
from sambay.quant.formats import QuantFormat

__all__ = ["ROWS", "measure_machine"]

ROWS = 256
"""Rows of activations in a product."""


def measure_machine(*, rounds: int, progress: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
    """Measure all of it, in turns.

    Args:
        rounds: how often each figure is measured.
        progress: called with (rounds done, rounds in all).

    Returns:
        A row for each figure: `what`, `variant`, `unit` ("B/s", "op/s" or "s") and its spread. Without compiled
        kernels there are only those of torch.
    """
    probes = _probes()
    values: list[list[float]] = [[] for _ in probes]
    for turn in range(rounds):
        for place, (_, _, _, probe) in enumerate(probes):
            values[place].append(probe())
            if progress is not None:
                progress(turn * len(probes) + place + 1, rounds * len(probes))
    return [
        {"what": what, "variant": variant, "unit": unit} | Spread.of(found).to_dict()
        for (what, variant, unit, _), found in zip(probes, values, strict=True)
    ]


def _probes() -> list[tuple[str, str, str, Callable[[], float]]]:
    """What is measured, in which variant and unit, and by what."""
    product = f"{ROWS} rows x {SIDE} x {SIDE}"
    plain = (product, "float32, torch", "op/s", MatrixProbe(ROWS, None).rate)
    if not native.available():
        return [("reading memory", "torch", "B/s", bandwidth), plain]
    most = native.threads()
    counts = sorted({most} | {1 << power for power in range(most.bit_length()) if 1 << power <= most})
    packed = MatrixProbe(ROWS, QuantFormat(4, 32))

    def reading(count: int) -> Callable[[], float]:
        def measure() -> float:
            native.set_threads(count)
            try:
                return bandwidth()
            finally:
                native.set_threads(most)

        return measure

    def multiplying(isa: str) -> Callable[[], float]:
        def measure() -> float:
            with native.forced(isa):
                return packed.rate()

        return measure

    def peak(isa: str) -> Callable[[], float]:
        def measure() -> float:
            with native.forced(isa):
                return native.multiply_rate()

        return measure

    named = [(f"{count} thread{'s' if count > 1 else ''}", count) for count in counts]
    able = [isa for isa, obstacle in native.instruction_sets() if not obstacle]
    return [
        *(("reading memory", name, "B/s", reading(count)) for name, count in named),
        *(("bytes in the first cache", isa, "op/s", peak(isa)) for isa in able),
        *((product, f"4 bits, {isa}", "op/s", multiplying(isa)) for isa in able),
        plain,
        ("call of the thread pool", "empty", "s", lambda: pool_latency(barrier=False)),
        ("call of the thread pool", "with a barrier", "s", lambda: pool_latency(barrier=True)),
    ]
