"""Packed weights in memory of their own, made of large pages.

A step of decoding reads all weights once, as fast as the memory gives them. From a mapped file they come in pages of
4 KiB, and at the end of each the processor must find the next: on some machines that costs a third of the speed, or
half. A copy in pages of 2 MiB does not have that cost. It takes a second or two, and memory that the system cannot
take back, so it is made only where there is plenty.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from sambay.layers import Embedding, Head, Linear
from sambay.ops import native
from sambay.quant.linear import QuantEmbedding, QuantHead, QuantLinear

__all__ = ["free_memory", "make_resident"]

_ALIGNMENT = 64
_WORTH_IT = 1 << 28
"""Bytes from which on it matters: what is less lies in the caches for a good part."""


def make_resident(
    model: nn.Module, wanted: bool | None = None, progress: Callable[[int, int], None] | None = None
) -> bool:
    """Copy the matrices of a model on the CPU into large pages: packed ones, and those that stay as they were stored.

    Args:
        model: with its weights loaded.
        wanted: True: copy; False: leave them mapped; None: copy if the kernels will read them, if they are large, and
            if so much memory again is free.
        progress: called with (bytes copied, bytes in all).

    Returns:
        Whether they were copied. Where the system has no large pages they never are.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    packed = [one for one in model.modules() if isinstance(one, QuantLinear | QuantEmbedding | QuantHead)]
    plain = [one for one in model.modules() if isinstance(one, Linear | Embedding | Head) and one.as_stored]
    matrices: list[tuple[nn.Module, str, Tensor]] = [(one, "packed", one.packed) for one in packed]
    matrices += [(one, "weight", one.weight.data) for one in plain if one.weight is not None]
    matrices = [one for one in matrices if one[2].device.type == "cpu"]
    total = sum(_aligned(x.nbytes) for _, _, x in matrices)
    if wanted is False or advice is None or not total:
        return False
    if wanted is None:
        free = free_memory()
        if not native.available() or total < _WORTH_IT or free is None or free < 2 * total:
            return False
    pages = mmap.mmap(-1, total)
    pages.madvise(advice)
    room = torch.frombuffer(pages, dtype=torch.uint8)

    def place(one: tuple[nn.Module, str, Tensor], at: int) -> int:
        module, name, old = one
        new = room[at : at + old.nbytes].view(old.dtype).view(old.shape)
        getattr(module, name).data = new.copy_(old)
        return _aligned(old.nbytes)

    places, done = itertools.accumulate((_aligned(x.nbytes) for _, _, x in matrices), initial=0), 0
    with ThreadPoolExecutor(native.threads() if native.available() else 1) as pool:  # copying needs no lock of Python's
        for nbytes in pool.map(place, matrices, places):
            done += nbytes
            if progress is not None:
                progress(done, total)
    return True


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def free_memory() -> int | None:
    """Bytes that programs can have, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
