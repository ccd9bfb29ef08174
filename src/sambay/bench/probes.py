"""What the machine can do, measured: reading memory, multiplying matrices, waking the threads."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sambay.model import SambaY
from sambay.ops import backend, native
from sambay.quant.formats import QuantFormat, Rounded, pack
from sambay.quant.linear import QuantLinear

__all__ = ["SIDE", "MatrixProbe", "Served", "bandwidth", "pool_latency", "repeat", "served_by"]

SIDE = 2560
"""Rows and columns of the matrix that the rate of products is measured on: a projection of Phi-4-mini-flash."""

_BUFFER = 1 << 28
"""Bytes that are read: several times the caches."""

_CALLS = 100
"""Empty calls that are timed together."""


class Served(NamedTuple):
    """Which backend computes with a model."""

    backend: str
    """"native" or "torch"."""
    reason: str
    isa: str | None
    """Instruction set of the compiled kernels, if they compute."""

    def __str__(self) -> str:
        if self.isa:
            return f"compiled kernels ({self.isa})"
        return f"torch ({self.reason})"


def served_by(dtype: torch.dtype) -> Served:
    """The backend of a model with weights of a dtype on the CPU, and why."""
    found = native.describe()
    if found.isa is None:
        return Served("torch", found.reason, None)
    with torch.inference_mode():
        if backend.serves(dtype):
            return Served("native", f"instruction set {found.reason}", found.isa)
    if dtype is torch.float32:
        return Served("torch", "it is forced", None)
    name, other = str(dtype).removeprefix("torch."), "auto" if dtype is torch.bfloat16 else "float32"
    return Served("torch", f"the weights are {name}, and the compiled kernels compute in float32: try --dtype {other}",
                  None)  # fmt: skip


def repeat(function: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, after one that does not count; at least one is made.

    Args:
        function: what to time.
        seconds: how long to go on.
    """
    function()
    times: list[float] = []
    while sum(times) < seconds or not times:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def bandwidth(seconds: float = 0.25) -> float:
    """Bytes a second that all threads together read from memory, the median of some passes over 256 MiB.

    The compiled loop where there is one; otherwise torch adds the numbers up, which may read more slowly.
    """
    if native.available():
        return native.read_bandwidth(_BUFFER, seconds).median
    buffer = torch.ones(_BUFFER // 4)
    return _BUFFER / statistics.median(repeat(buffer.sum, seconds))


class MatrixProbe:
    """Multiplies so many rows of activations with a matrix of 2560 x 2560.

    Args:
        rows: of activations.
        format: of a packed matrix, for the compiled kernels; None: a plain one.
        dtype: of a plain matrix.
        activations: their dtype beside a plain matrix, if a model's own product is meant; None for torch's.
    """

    def __init__(
        self,
        rows: int,
        format: QuantFormat | None,
        dtype: torch.dtype = torch.float32,
        activations: torch.dtype | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows, self._format, self._own = rows, format, activations is not None
        self._x = torch.rand(rows, SIDE, generator=generator).sub_(0.5)
        self._x = self._x.to(activations or (torch.float32 if format else dtype))
        self._plain: Tensor | None = None
        if format is None:
            self._plain = torch.rand(SIDE, SIDE, generator=generator).sub_(0.5).to(dtype)
            return
        codes = torch.randint(format.lowest, format.highest + 1, (SIDE, SIDE), generator=generator)
        scales = torch.full((SIDE, format.scales(SIDE)), 0.01, dtype=torch.float16)
        factors = torch.full((SIDE, format.groups(SIDE)), 11, dtype=torch.int8) if format.nested else None
        packed = pack(Rounded(codes, scales, format, factors))
        self._packed = packed  # the description below holds its address
        self._matrix = backend.packed_matrix(packed, None, SIDE, SIDE, format.bits, format.group)

    def __str__(self) -> str:
        if self._plain is None:
            return str(self._format)
        return str(self._plain.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def rate(self, seconds: float = 0.25) -> float:
        """Operations a second (two for a multiply-add), in the median product."""
        return 2 * self.rows * SIDE * SIDE / statistics.median(repeat(self._product, seconds))

    def peak(self) -> float | None:
        """Operations a second of products of bytes without scales, from the first cache: None where torch computes."""
        return native.multiply_rate() if self._plain is None else None

    def _product(self) -> Tensor:
        if self._plain is not None:
            return backend.linear(self._x, self._plain, None) if self._own else self._x @ self._plain.t()
        return backend.packed_product(self._x, self._matrix, 0, SIDE)

    @classmethod
    def like(cls, model: SambaY, rows: int) -> MatrixProbe:
        """The products that a model makes: of its packed format on the kernels, or of its plain matrices."""
        formats = [module.format for module in model.modules() if isinstance(module, QuantLinear)]
        if formats and served_by(model.dtype).backend == "native":
            return cls(rows, formats[0])
        return cls(rows, None, model.matrix_dtype, model.dtype)


def pool_latency(barrier: bool, seconds: float = 0.2) -> float:
    """Seconds that a call of the thread pool takes which does nothing.

    Args:
        barrier: whether its threads wait for each other once.
        seconds: how long to measure.

    Raises:
        BackendError: there are no compiled kernels.
    """
    native.require()
    from sambay.ops import _native

    return statistics.median(repeat(functools.partial(_native.empty_runs, _CALLS, barrier), seconds)) / _CALLS
