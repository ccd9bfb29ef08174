"""What it takes for no token to depend on its company.

The compiled kernels give each row of a product, and each token of a scan or of attention, the same bits whatever stands
beside it and however its text is cut; all that a model in float32 (or a quantised one) computes on the CPU, they do.
Torch's products do not: the order of their sums depends on the number of rows.
"""

from __future__ import annotations

import torch

from sambay.errors import BackendError
from sambay.model import SambaY
from sambay.ops import backend

__all__ = ["is_invariant", "require_invariant"]


def is_invariant(model: SambaY) -> bool:
    """Whether no bit of what a model computes here depends on the batch, or on how a text was cut."""
    return model.device.type == "cpu" and model.dtype is torch.float32 and _kernels()


def _kernels() -> bool:
    with torch.inference_mode():
        return backend.serves(torch.float32)


def require_invariant(model: SambaY) -> None:
    """Refuse a model whose results depend on the batch.

    Raises:
        BackendError: it is not in float32 on the CPU, or there are no compiled kernels.
    """
    if not is_invariant(model):
        dtype = str(model.dtype).removeprefix("torch.")
        raise BackendError(
            f"the deterministic mode needs float32 (or a quantised model) on the cpu and compiled kernels; this is "
            f"{dtype} on {model.device}, {'with' if _kernels() else 'without'} kernels: use dtype='float32' and "
            "device='cpu', or leave the mode off"
        )
