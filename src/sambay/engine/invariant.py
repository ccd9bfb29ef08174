"""Whether tokens depend on what else is computed.

The compiled kernels give each row of a product, and each token of a convolution, a scan or of attention, the same bits
whatever stands beside it and however its text is cut. Torch's products do not: the order of their sums depends on the
number of rows. So it is enough that nothing of a model is left to torch.
"""

from __future__ import annotations

import torch

from sambay.errors import BackendError
from sambay.model import Attention, SambaY
from sambay.ops import backend

__all__ = ["check_deterministic", "is_deterministic"]


def is_deterministic(model: SambaY) -> bool:
    """Whether no bit of a logit depends on what is computed beside it, nor on how its text was cut."""
    config = model.config
    heads = all(one.shape.native for one in model.modules() if isinstance(one, Attention))
    mamba = config.mamba_d_state <= 64 and 2 <= config.mamba_d_conv <= 8
    return model.device.type == "cpu" and model.dtype is torch.float32 and heads and mamba and _kernels()


def _kernels() -> bool:
    with torch.inference_mode():
        return backend.serves(torch.float32)


def check_deterministic(model: SambaY) -> None:
    """Make sure of it.

    Raises:
        BackendError: it is not so.
    """
    if is_deterministic(model):
        return
    dtype = str(model.dtype).removeprefix("torch.")
    kernels = "with" if _kernels() else "without"
    raise BackendError(
        "tokens are the same whatever else is computed only in float32 (or quantised) on the cpu, with compiled "
        f"kernels and heads of a width that 16 divides; this is {dtype} on {model.device}, {kernels} kernels and heads "
        f"of {model.config.head_dim}: use dtype='float32' and device='cpu', or do not ask for it"
    )
