"""From padded batches to packed documents and back: padding is never computed, documents never mix.

Shape legend: a batch of B rows and T columns holds N real tokens in D documents; of each row the last K
columns are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sambay.errors import PromptError

__all__ = ["IGNORED", "Packing", "document_numbers"]

IGNORED = -100
"""The label of a token that is not to be learned."""


def document_numbers(
    shape: tuple[int, int], position_ids: Tensor | None, kwargs: Mapping[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """What says where documents begin in a packed row, in the three ways that collators use.

    Args:
        shape: (B, T).
        position_ids: (B, T), restarting in each document.
        kwargs: may hold `seq_idx` (B, T), the number of the document, or `cu_seq_lens_q`, the boundaries.

    Returns:
        Positions and document numbers, (B, T) each or None.

    Raises:
        PromptError: shapes that do not fit the tokens.
    """
    numbers = kwargs.get("seq_idx")
    bounds = kwargs.get("cu_seq_lens_q")
    if numbers is None and bounds is not None:
        total = shape[0] * shape[1]
        if shape[0] != 1 or int(bounds[0]) != 0 or int(bounds[-1]) != total:
            raise PromptError(
                f"cu_seq_lens_q runs from {int(bounds[0])} to {int(bounds[-1])}: for input_ids of shape "
                f"{shape} it must run from 0 to {total}, and all documents be in one row"
            )
        places = torch.arange(total, device=bounds.device)
        numbers = torch.bucketize(places, bounds[1:], right=True).view(shape)
    given = {"position_ids": position_ids, "seq_idx": numbers}
    for name, values in given.items():
        if values is None:
            continue
        if values.ndim != 2 or values.shape[0] not in (1, shape[0]) or values.shape[1] != shape[1]:
            raise PromptError(f"{name} has shape {tuple(values.shape)}: it must fit input_ids of shape {shape}")
        given[name] = values.expand(shape)
    return given["position_ids"], given["seq_idx"]


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a padded batch are, and which of them form one document.

    Attributes:
        shape: (B, T).
        places: (N,) where each real token is in the flattened batch, or None when all are real.
        lengths: tokens of each document.
        owners: the row that each document is in.
    """

    shape: tuple[int, int]
    places: Tensor | None
    lengths: tuple[int, ...]
    owners: tuple[int, ...]

    @classmethod
    def of(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> Packing:
        """Read masks and positions.

        Args:
            input_ids: (B, T).
            attention_mask: (B, >= T), of which the last T columns count; zero where a token is padding.
            position_ids: (B, T): a document begins where they do not rise.
            numbers: (B, T): a document begins where they change.

        Raises:
            PromptError: a mask of another shape.
        """
        rows, columns = input_ids.shape
        places = None
        if attention_mask is not None:
            if attention_mask.ndim != 2 or attention_mask.shape[0] != rows or attention_mask.shape[1] < columns:
                raise PromptError(
                    f"attention_mask has shape {tuple(attention_mask.shape)} for input_ids of shape "
                    f"{(rows, columns)}: it must be (batch, time), zero where a token is padding"
                )
            mask = attention_mask[:, -columns:].bool()
            if not bool(mask.all()):
                places = mask.flatten().nonzero().squeeze(1).to(input_ids.device)
        if columns == 1 or (position_ids is None and numbers is None and places is None):
            owners = tuple(range(rows)) if places is None else tuple(places.tolist())
            return cls((rows, columns), places, (columns,) * len(owners), owners)
        at = torch.arange(rows * columns, device=input_ids.device) if places is None else places
        row = at // columns
        begins = torch.ones_like(row, dtype=torch.bool)
        begins[1:] = row[1:] != row[:-1]
        if position_ids is not None:
            values = position_ids.flatten()[at]
            begins[1:] |= values[1:] <= values[:-1]
        if numbers is not None:
            values = numbers.flatten()[at]
            begins[1:] |= values[1:] != values[:-1]
        firsts = begins.nonzero().squeeze(1)
        bounds = [*firsts.tolist(), at.numel()]
        lengths = tuple(b - a for a, b in itertools.pairwise(bounds))
        return cls((rows, columns), places, lengths, tuple(row[firsts].tolist()))

    @property
    def one_per_row(self) -> bool:
        """Whether no row holds more than one document."""
        return len(set(self.owners)) == len(self.owners)

    def pack(self, values: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        flat = values.flatten(0, 1)
        return flat if self.places is None else flat[self.places.to(flat.device)]

    def wanted(self, keep: int) -> tuple[int, ...]:
        """How many tokens of each document are in the last `keep` columns."""
        kept = self._kept(keep)
        if kept is None:
            return self.lengths
        if self.places is None and len(self.lengths) == self.shape[0]:
            return (keep,) * len(self.lengths)
        owner = torch.repeat_interleave(torch.tensor(self.lengths)).to(kept.device)
        return tuple(torch.bincount(owner[kept], minlength=len(self.lengths)).tolist())

    def unpack(self, values: Tensor, keep: int) -> Tensor:
        """Put the tokens of the last columns, (R, ...), into (B, keep, ...), zeros where there is padding."""
        rows, columns = self.shape
        if self.places is None:
            return values.view(rows, keep, *values.shape[1:])
        kept = self._kept(keep)
        at = self.places if kept is None else self.places[kept]
        out = values.new_zeros(rows * keep, *values.shape[1:])
        out = out.index_copy(0, at // columns * keep + at % columns - (columns - keep), values)
        return out.view(rows, keep, *values.shape[1:])

    def targets(self, labels: Tensor, keep: int, *, shifted: bool = False) -> Tensor:
        """What the tokens of the last columns are to predict, (R,).

        Nothing is predicted across the end of a document, whatever the labels say.

        Args:
            labels: (B, T), aligned with the tokens.
            keep: K.
            shifted: the labels are those of the next token already.
        """
        packed = self.pack(labels)
        if not shifted:
            packed = torch.cat([packed[1:], packed.new_full((1,), IGNORED)])
            ends = torch.tensor(self.lengths, device=packed.device).cumsum(0) - 1
            packed[ends] = IGNORED
        kept = self._kept(keep)
        return packed if kept is None else packed[kept.to(packed.device)]

    def _kept(self, keep: int) -> Tensor | None:
        """(N,) which real tokens are in the last `keep` columns, or None for all."""
        rows, columns = self.shape
        if keep >= columns:
            return None
        at = torch.arange(rows * columns) if self.places is None else self.places
        return at % columns >= columns - keep
