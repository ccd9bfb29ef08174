"""Arithmetic that does not depend on what else is computed: the deterministic mode.

The compiled kernels give each row of a product, and each token of a scan or of attention, the same bits whatever stands
beside it and however its text is cut. Torch's matrix products do not: the order of their sums depends on the number of
rows. Models with plain weights use those, and quantised ones for small projections. Here they go to a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sambay.errors import BackendError
from sambay.model import SambaY
from sambay.ops import backend

__all__ = ["Invariant", "is_possible"]


def is_possible(model: SambaY) -> bool:
    """Whether there is such arithmetic for a model here."""
    return model.device.type == "cpu" and model.dtype is torch.float32 and _kernels()


def _kernels() -> bool:
    with torch.inference_mode():
        return backend.serves(torch.float32)


class Invariant(TorchFunctionMode):
    """A context in which torch's products of float32 on the CPU are those of the compiled kernels.

    Args:
        model: that will be run.

    Raises:
        BackendError: it is not in float32 on the CPU, or there are no compiled kernels.
    """

    def __init__(self, model: SambaY) -> None:
        super().__init__()
        if not is_possible(model):
            dtype = str(model.dtype).removeprefix("torch.")
            raise BackendError(
                f"the deterministic mode needs float32 (or a quantised model) on the cpu and compiled kernels; this is "
                f"{dtype} on {model.device}, {'with' if _kernels() else 'without'} kernels: use dtype='float32' and "
                "device='cpu', or leave the mode off"
            )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Serve a product; let everything else pass."""
        del types
        if func is F.linear and not kwargs:
            x, weight, *bias = args
            if x.ndim == 2 and weight.is_contiguous() and weight.dtype is torch.float32 and backend.served_natively(x):
                out: Tensor = backend.plain_linear(x, weight)
                return out if not bias or bias[0] is None else out.add_(bias[0])
        return func(*args, **(kwargs or {}))
