"""Layers that compute with packed weights: a projection, and an embedding that also unembeds.

The arithmetic is float32 whatever the activations are; results come in the dtype of the activations. Gradients
reach the activations (an adapter on a quantised model can be trained), never the codes.

Shape legend: N rows of activations, k in_features, packed (P, S, nbytes) as in `formats`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sambay.ops import backend
from sambay.quant.formats import PANEL, QuantFormat, dequantise, packed_shape

__all__ = [
    "QuantEmbedding",
    "QuantHead",
    "QuantLinear",
    "packed_matrices",
]

_BLOCK = 1 << 20
"""Weights that the torch path holds in float32 at once."""


def _product(packed: Tensor, x: Tensor, format: QuantFormat, rows: int, start: int, stop: int) -> Tensor:
    """Some outputs of x W', in float32: (N, k) -> (N, stop - start).

    The specification, and the path of gradients; the compiled kernels are called by `_Packed`.

    Args:
        packed: (P, S, nbytes) uint8 of all rows.
        x: (N, k) float32.
        format: of the buffer.
        rows: of the whole matrix.
        start: the first row wanted.
        stop: after the last row wanted.
    """
    if x.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Product.apply(x, packed, format, rows, start, stop)  # type: ignore[no-untyped-call]  # torch's
        return out
    return _torch_product(packed, x, format, rows, start, stop)


def _torch_product(packed: Tensor, x: Tensor, format: QuantFormat, rows: int, start: int, stop: int) -> Tensor:
    """The specification: dequantise some rows at a time and multiply."""
    out = x.new_empty(x.shape[0], stop - start)
    for first, last in _blocks(start, stop, x.shape[1]):
        weight = dequantise(packed, format, rows, x.shape[1], slice(first, last))
        torch.mm(x, weight.t(), out=out[:, first - start : last - start])
    return out


def _blocks(start: int, stop: int, columns: int) -> list[tuple[int, int]]:
    """Ranges of rows of at most `_BLOCK` weights, cut at panels."""
    step = max(16, _BLOCK // columns // 16 * 16)
    return [(first, min(first + step, stop)) for first in range(start, stop, step)]


class _Product(torch.autograd.Function):
    """`_product` that keeps no float32 weights for the backward pass: they are dequantised once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, format: QuantFormat, rows: int, start: int, stop: int) -> Tensor:  # noqa: ANN401 - torch's context has no type
        ctx.save_for_backward(packed)
        ctx.rest = (format, rows, start, stop, x.shape[1])
        return _product(packed, x.detach(), format, rows, start, stop)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context has no type
        (packed,), (format, rows, start, stop, columns) = ctx.saved_tensors, ctx.rest
        out = grads[0].new_zeros(grads[0].shape[0], columns)
        for first, last in _blocks(start, stop, columns):
            weight = dequantise(packed, format, rows, columns, slice(first, last))
            out.addmm_(grads[0][:, first - start : last - start], weight)
        return out, None, None, None, None, None


class _Packed(nn.Module):
    """A matrix (rows, columns) in a packed buffer; made on torch's default device, with nothing in it yet."""

    packed: Tensor

    def __init__(self, rows: int, columns: int, format: QuantFormat) -> None:
        super().__init__()
        self.format = format
        self._rows, self._columns = rows, columns
        self.derived = backend.Derived()
        self.register_buffer("packed", torch.empty(packed_shape(format, rows, columns), dtype=torch.uint8))

    def dequantised(self) -> Tensor:
        """The weights that the codes stand for: (rows, columns) float32."""
        return dequantise(self.packed, self.format, self._rows, self._columns)

    def matrix(self, bias: Tensor | None) -> backend.PackedMatrix:
        """What the compiled kernels take in the place of this matrix."""
        name, sources = ("matrix", (self.packed,)) if bias is None else ("biased", (self.packed, bias))
        return self.derived.get(name, sources, lambda: self._matrix(bias))

    def _matrix(self, bias: Tensor | None) -> backend.PackedMatrix:
        offset = None if bias is None else bias.detach().float().contiguous()
        return backend.packed_matrix(
            self.packed, offset, self._rows, self._columns, self.format.bits, self.format.group
        )

    def extra_repr(self) -> str:
        """Sizes and format, for `print(model)`."""
        return f"{self._columns}, {self._rows}, {self.format}"

    def _multiply(self, x: Tensor, rows: slice, bias: Tensor | None) -> Tensor:
        """(..., columns) -> (..., len(rows)) in the dtype of x."""
        start, stop, step = rows.indices(self._rows)
        assert step == 1, rows
        assert x.shape[-1] == self._columns, x.shape
        whole = start % PANEL == 0 and start < stop
        if whole and x.ndim == 2 and x.stride(1) == 1 and backend.served_natively(x):  # every step goes this way
            return backend.packed_product(x, self.matrix(bias), start, stop - start)
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, self._columns).float()
            if whole and flat.stride(1) == 1 and backend.served_natively(flat):
                out = backend.packed_product(flat, self.matrix(bias), start, stop - start)
                return out.view(*x.shape[:-1], out.shape[1]).to(x.dtype)
            out = _product(self.packed, flat, self.format, self._rows, start, max(start, stop))
            if bias is not None:
                out = out + bias[rows].float()
        return out.view(*x.shape[:-1], out.shape[1]).to(x.dtype)


class QuantLinear(_Packed):
    """`nn.Linear` with packed weights.

    Args:
        in_features: k.
        out_features: rows of the weight.
        format: of the buffer `packed`.
        bias: whether there is one, a float parameter.
    """

    def __init__(self, in_features: int, out_features: int, format: QuantFormat, bias: bool = False) -> None:
        super().__init__(out_features, in_features, format)
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., k) -> (..., out_features), computed in float32, in the dtype of x."""
        return self._multiply(x, slice(None), self.bias)

    def rows(self, x: Tensor, rows: slice) -> Tensor:
        """Some of the outputs: (..., k) -> (..., len(rows)); only those rows of the weight are read."""
        return self._multiply(x, rows, self.bias)


def packed_matrices(fc1: nn.Module, fc2: nn.Module) -> tuple[backend.PackedMatrix, backend.PackedMatrix] | None:
    """Two projections as the kernels take them, or None unless both are quantised."""
    if isinstance(fc1, QuantLinear) and isinstance(fc2, QuantLinear):
        return fc1.matrix(fc1.bias), fc2.matrix(fc2.bias)
    return None


class QuantHead(QuantLinear):
    """An unembedding of its own, in the place of `Head`."""

    def forward(self, x: Tensor, embedding: nn.Module | None = None) -> Tensor:
        """(R, h) -> (R, vocab); the embedding is not needed."""
        del embedding
        return super().forward(x)


class QuantEmbedding(_Packed):
    """`nn.Embedding` with packed rows, of which a look-up reads only those that it needs.

    Args:
        num_embeddings: tokens.
        embedding_dim: width.
        format: of the buffer `packed`.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, format: QuantFormat) -> None:
        super().__init__(num_embeddings, embedding_dim, format)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Integer ids (...) -> (..., width) float32."""
        if ids.device.type == "cpu" and backend.serves(torch.float32):
            found = backend.packed_rows(self.matrix(None), ids.reshape(-1).long())
            return found.view(*ids.shape, self._columns)
        found = dequantise(self.packed, self.format, self._rows, self._columns, ids.reshape(-1).long())
        return found.view(*ids.shape, self._columns)

    def logits(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Unembed by the same matrix: (..., width) and (tokens,) -> (..., tokens) in the dtype of x."""
        return self._multiply(x, slice(None), bias)
