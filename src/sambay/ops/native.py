"""The compiled CPU kernels (csrc/): whether there are any, what they run on, and thin wrappers with types.

The compiled module takes addresses and sizes. A wrapper checks what the addresses stand for, keeps the tensors alive
during the call, and adds nothing else. The environment variable SAMBAY_ISA forces an instruction set; without it the
best one that this CPU has is taken. It is read when the kernels are first asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from sambay.errors import BackendError

__all__ = [
    "OPERATIONS",
    "Bandwidth",
    "NativeReport",
    "available",
    "describe",
    "forced",
    "instruction_sets",
    "multiply_rate",
    "obstacle",
    "read_bandwidth",
    "require",
    "set_threads",
    "threads",
    "usable",
]

OPERATIONS = frozenset(("causal_conv", "selective_scan", "window_attention", "shared_attention"))
"""Operations of the model that have kernels."""

INTERFACE = 6  # as in csrc/bind.cpp
MAX_THREADS = 1024
_AGAIN = "`pip install --force-reinstall --no-deps .` (or `-e .`) in a clone of sambay"
_NOT_BUILT = (
    "sambay was installed without its compiled kernels: there was no C++ compiler, or the build failed; with g++ 10 or "
    f"newer and Python's headers (Debian: apt install g++ python3-dev) run {_AGAIN}"
)

_missing = ""
try:
    import sambay.ops._native as _native
except ModuleNotFoundError:
    _missing = _NOT_BUILT
except ImportError as error:
    _missing = f"the compiled kernels cannot be loaded ({error}); run {_AGAIN}"
else:
    _its = getattr(_native, "INTERFACE", None)
    if _its != INTERFACE:
        _missing = (
            f"the compiled kernels are of another version of sambay (interface {_its}, not {INTERFACE}); run {_AGAIN}"
        )


class NativeReport(NamedTuple):
    """The state of the compiled kernels, for `sambay info`."""

    isa: str | None
    """Instruction set in use; None: there are no compiled kernels."""
    reason: str
    """Why this one, or why none and what helps."""
    threads: int | None
    threads_reason: str
    kernels: dict[str, str]
    """Kernel -> the instruction set that its code is for."""


class Bandwidth(NamedTuple):
    """How fast memory was read."""

    median: float
    """Bytes a second, in the median pass."""
    best: float
    """Bytes a second, in the fastest pass."""
    passes: int
    threads: int
    isa: str


@functools.cache
def _settle() -> bool:
    """Choose the instruction set; False if there is nothing to choose from."""
    forced = os.environ.get("SAMBAY_ISA", "")
    if _missing:
        if forced:
            raise BackendError(f"SAMBAY_ISA={forced} cannot be used: {_missing}")
        return False
    try:
        _native.use_isa(forced)
    except ValueError as error:
        raise BackendError(f"SAMBAY_ISA={forced} {error}") from None
    return True


def usable() -> bool:
    """Whether there are compiled kernels that can be loaded; nothing is chosen yet, and nothing is raised."""
    return not _missing


def instruction_sets() -> list[tuple[str, str]]:
    """Instruction sets of this architecture, the plainest first, each with why it cannot run here ("" if it can)."""
    return [] if _missing else list(_native.obstacles())


@contextlib.contextmanager
def forced(isa: str) -> Iterator[None]:
    """Take the kernels of an instruction set for a while, for a comparison; not while a kernel runs."""
    require()
    before = _native.isa_in_use()
    _native.use_isa(isa)
    try:
        yield
    finally:
        _native.use_isa(before)


def available() -> bool:
    """Whether there are compiled kernels.

    Raises:
        BackendError: SAMBAY_ISA names an instruction set that cannot be used.
    """
    return _settle()


def require() -> None:
    """Make sure that there are compiled kernels.

    Raises:
        BackendError: there are none, or not of the instruction set that SAMBAY_ISA names; it says what helps.
    """
    if not _settle():
        raise BackendError(_missing)


def obstacle(operation: str, device: str) -> str | None:
    """Why the compiled kernels do not serve an operation; None if they do.

    Args:
        operation: a name from `sambay.ops.OPERATIONS`.
        device: type of a torch device, such as "cpu".
    """
    if device != "cpu":
        return "the compiled kernels are for the CPU"
    if not available():
        return "there are no compiled kernels here"
    return None if operation in OPERATIONS else "it has no compiled kernel yet"


def describe() -> NativeReport:
    """What `sambay info` tells about the compiled kernels."""
    if not available():
        return NativeReport(None, _missing, None, "", {})
    isa, possible = _native.isa_in_use(), [name for name, hindrance in _native.obstacles() if not hindrance]
    if os.environ.get("SAMBAY_ISA"):
        reason = "forced by SAMBAY_ISA"
    else:
        names = [name for name, _ in _native.obstacles()]
        better = [one for one in _native.obstacles()[names.index(isa) + 1 :] if not one[1].startswith("it is for")]
        reason = "the best of " + ", ".join(possible) + "".join(f"; not {name}: {why}" for name, why in better)
    (cpus, physical), quota = _native.cores()
    limits = f"{physical} cores ({cpus} CPUs)" + (f", {quota:g} CPUs' worth of time" if quota else "")
    return NativeReport(isa, reason, _native.threads(), f"available: {limits}", dict(_native.kernel_origins()))


def threads() -> int:
    """How many threads the kernels use; by default one per physical core that this process may use."""
    require()
    return _native.threads()


def set_threads(count: int) -> None:
    """Let the kernels use so many threads; waits for a call that is under way.

    Raises:
        BackendError: an impossible number, or there are no compiled kernels.
    """
    if not 1 <= count <= MAX_THREADS:
        raise BackendError(f"{count} threads: it must be from 1 to {MAX_THREADS}")
    require()
    _native.set_threads(count)


def multiply_rate(seconds: float = 0.25) -> float:
    """Operations a second (two for a multiply-add) of products of bytes in the first cache, on all threads of the pool.

    No product of matrices of the same instruction set is faster: there are no scales, and nothing comes from memory.

    Args:
        seconds: how long to measure, about.

    Raises:
        BackendError: there are no compiled kernels.
    """
    import numpy as np

    require()
    dice = np.random.default_rng(0)
    a = dice.integers(-127, 128, (32, 64), np.int8)  # C = A B of csrc/byte_products.h
    b = dice.integers(0, 16, (2, 16, 16, 4), np.uint8)
    whole = b.transpose(1, 3, 0, 2).reshape(64, 32)
    expected = int((a.astype(np.int64) @ whole).sum())
    count, taken, rates = 100, 0.0, []
    while taken < seconds:
        rate = _native.multiply_bytes(b.ctypes.data, a.ctypes.data, count, expected)
        assert rate > 0, "a wrong product"
        taken += 2 * a.size * 32 * count * _native.threads() / rate
        rates.append(rate)
        # Sums are of 32 bits: they hold 64 products of 127 and 15 as often.
        count = min(10_000, 2 * count)
    return statistics.median(rates[len(rates) // 2 :])


def read_bandwidth(nbytes: int = 1 << 29, seconds: float = 1.0) -> Bandwidth:
    """Measure how fast memory is read, by all threads of the pool, one sequential stream each.

    Args:
        nbytes: size of what is read again and again; several times the last cache, or it is the cache that is measured.
        seconds: how long to measure, after one pass that does not count; at least one pass is made.

    Raises:
        BackendError: fewer than 8 bytes, or there are no compiled kernels.
    """
    import numpy as np

    require()
    count = nbytes // 8
    if count < 1:
        raise BackendError(f"{nbytes} bytes: it must be 8 or more")
    buffer = np.empty(count, np.uint64)
    address, value = buffer.ctypes.data, 0x9E3779B97F4A7C15
    _native.fill(address, count, value)
    expected = value * count % 2**64
    times: list[float] = []
    _native.read_sum(address, count)
    while sum(times) < seconds or not times:
        start = time.perf_counter()
        total = _native.read_sum(address, count)
        times.append(time.perf_counter() - start)
        assert total == expected
    size = 8 * count
    return Bandwidth(
        size / statistics.median(times), size / min(times), len(times), _native.threads(), _native.isa_in_use()
    )
