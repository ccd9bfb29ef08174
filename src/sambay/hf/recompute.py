"""Activation checkpointing: trade the memory of a layer's intermediate results for computing them twice.

What is recomputed in the backward pass is each mixer and each MLP; what is kept is their inputs and the
residual stream.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from sambay.model import MLP, Attention, Block, GatedMemoryUnit, Mamba, SambaY

__all__ = ["recomputing"]

_METHODS: dict[type[nn.Module], tuple[str, ...]] = {
    Mamba: ("forward",),
    GatedMemoryUnit: ("forward",),
    MLP: ("forward",),
    Attention: ("slide", "share", "cross"),
}


@contextlib.contextmanager
def recomputing(model: SambaY, checkpoint: Callable[..., Any], every: int) -> Iterator[None]:
    """Run the forward pass inside of this so that its backward pass recomputes.

    Args:
        model: the model.
        checkpoint: `torch.utils.checkpoint.checkpoint`, or something with its signature.
        every: recompute each `every`-th layer, and keep the results of the others.
    """
    # Not reentrant, whatever was asked for: reentrant checkpointing loses the gradients of what is not a
    # plain tensor argument, such as the shared keys and values.
    checkpoint = functools.partial(checkpoint, use_reentrant=False)
    changed: list[tuple[nn.Module, str, Any]] = []
    try:
        for block in list(model.layers)[::every]:
            assert isinstance(block, Block)
            for module in (block.mixer, block.mlp):
                for name in _METHODS.get(type(module), ()):
                    changed.append((module, name, vars(module).get(name)))  # a hook may have put one there
                    setattr(module, name, functools.partial(checkpoint, getattr(module, name)))
        yield
    finally:
        for module, name, before in reversed(changed):
            delattr(module, name)
            if before is not None:
                setattr(module, name, before)
