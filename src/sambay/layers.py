"""The layers with weights that a model is made of, as torch has them, computed by `ops`.

They are torch's in everything else: adapters, hooks and optimisers find what they look for.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sambay.config import SambaYConfig
from sambay.ops import backend as ops

__all__ = ["Embedding", "Head", "Linear", "is_plain", "keep_as_stored", "project_rows"]


class Linear(nn.Linear):
    """`nn.Linear` on the backend that serves its input.

    Attributes:
        as_stored: its weights are of bfloat16 for inputs of float32: exact as they were stored, and half of the bytes.
    """

    as_stored = False

    def reset_parameters(self) -> None:
        """Nothing: the model initialises all of its parts itself."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return ops.linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` on the backend that serves its weights.

    Attributes:
        as_stored: as that of `Linear`: it gives float32.
    """

    as_stored = False

    def reset_parameters(self) -> None:
        """Nothing, as above; on the meta device torch would load its compiler, for a second, to draw no numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Integer ids (N,) -> (N, embedding_dim)."""
        return ops.lookup(self.weight, input, torch.float32 if self.as_stored else self.weight.dtype)


class Head(nn.Module):
    """The unembedding: logits from the last hidden states. When tied it has no weight of its own.

    Args:
        config: the model's configuration.

    Attributes:
        as_stored: as that of `Linear`.
    """

    as_stored = False

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        shape = (config.vocab_size, config.hidden_size)
        self.weight = None if config.tie_word_embeddings else nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.lm_head_bias else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Zero, as muP++ asks of an untied unembedding."""
        for parameter in self.parameters():
            parameter.zero_()

    def forward(self, x: Tensor, embedding: nn.Module) -> Tensor:
        """(R, h) and the embedding of the model, whose matrix a tied head shares -> (R, vocab)."""
        logits = getattr(embedding, "logits", None)  # of a quantised one
        if self.weight is None and logits is not None:
            return cast("Tensor", logits(x, self.bias))
        weight = cast("Tensor", embedding.weight) if self.weight is None else self.weight
        return ops.linear(x, weight, self.bias)


def keep_as_stored(model: nn.Module) -> None:
    """Say of every matrix of a model, before its weights are loaded, that it stays `as_stored`."""
    for module in model.modules():
        if isinstance(module, Linear | Embedding | Head):
            module.as_stored = True


def is_plain(linear: nn.Module) -> bool:
    """True unless something (a LoRA adapter, a quantised layer) stands in the place of the projection."""
    return type(linear) in (Linear, nn.Linear)


def project_rows(linear: nn.Module, x: Tensor, rows: slice) -> Tensor:
    """Some output rows of a projection: (N, h) -> (N, len(rows)).

    An adapter that wraps the projection must see its input whole, so there the rest is computed and dropped.
    """
    some = getattr(linear, "rows", None)
    if some is not None:
        out: Tensor = some(x, rows)
        return out
    if not is_plain(linear):
        whole: Tensor = linear(x)
        return whole[..., rows]
    assert isinstance(linear, nn.Linear)
    return ops.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])
