"""The layers with weights that a model is made of, as torch has them, computed by `ops`.

They are torch's in everything else: adapters, hooks and optimisers find what they look for.
"""

from __future__ import annotations

from torch import Tensor, nn

from sambay.ops import backend as ops

__all__ = ["Embedding", "Linear", "is_plain", "project_rows"]


class Linear(nn.Linear):
    """`nn.Linear` on the backend that serves its input.

    Attributes:
        as_stored: a checkpoint's bfloat16 stays so, for inputs of float32: the weights of a quantised model that are
            not quantised are exact in it, and half of the bytes.
    """

    as_stored = False

    def reset_parameters(self) -> None:
        """Nothing: the model initialises all of its parts itself."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return ops.linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` on the backend that serves its weights."""

    def reset_parameters(self) -> None:
        """Nothing, as above; on the meta device torch would load its compiler, for a second, to draw no numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Integer ids (N,) -> (N, embedding_dim)."""
        return ops.lookup(self.weight, input)


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
