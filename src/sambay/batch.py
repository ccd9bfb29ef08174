"""What one pass of the model computes: packed tokens of any number of sequences, and where each one stands.

Shape legend: N tokens in all, S sequences, R rows that logits are asked for. Sequence `s` contributes
`lengths[s]` consecutive tokens; a dense (batch, time) input is the same thing with equal lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sambay.errors import PromptError

__all__ = ["Batch", "Group", "Ragged"]


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of similar length, to be computed together as one padded rectangle.

    Attributes:
        members: positions of the sequences in the batch.
        rows: (len(members), width) int64, indices of packed rows; a padded place repeats the last row of its
            sequence, and its result is dropped.
        valid: (len(members), width) bool, or None when nothing is padded.
    """

    members: tuple[int, ...]
    rows: Tensor
    valid: Tensor | None

    @property
    def ordered(self) -> bool:
        """True when the members stand in the order of the batch."""
        return all(a < b for a, b in zip(self.members, self.members[1:], strict=False))


class Ragged:
    """Index arithmetic of packed rows; each table is made once, when first asked for.

    Args:
        lengths: rows of each sequence, all positive.
        device: where index tensors live.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.device = device
        offsets = [0]
        for length in self.lengths:
            offsets.append(offsets[-1] + length)
        self.offsets = tuple(offsets)
        self.equal = len(set(self.lengths)) <= 1

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def total(self) -> int:
        """Number of packed rows."""
        return self.offsets[-1]

    @property
    def longest(self) -> int:
        """Rows of the longest sequence (0 when there is none)."""
        return max(self.lengths, default=0)

    @cached_property
    def time_major(self) -> tuple[Tensor | None, Tensor | None, tuple[int, ...], tuple[int, ...]]:
        """The order in which a recurrence visits the rows: all first rows, then all second rows, and so on.

        Returns:
            `(order, inverse, widths, sequences)`: `order` (N,) gathers packed rows into time-major rows and
            `inverse` brings them back (both None when nothing moves); `widths[t]` sequences are still running
            at step t; `sequences` lists them longest first, so that those running are always a prefix.
        """
        sequences = tuple(sorted(range(len(self)), key=lambda s: -self.lengths[s]))
        if len(self) <= 1 or self.longest == 1:
            return None, None, (len(self),) * self.longest, sequences
        lengths = torch.tensor([self.lengths[s] for s in sequences])
        starts = torch.tensor([self.offsets[s] for s in sequences])
        steps = torch.arange(self.longest).unsqueeze(1)
        running = steps < lengths
        order = (starts + steps)[running].to(self.device)
        return order, torch.argsort(order), tuple(running.sum(1).tolist()), sequences

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The sequences sorted by length and cut where padding would waste more than a quarter."""
        if self.equal:
            rows = torch.arange(self.total, device=self.device).view(len(self), -1)
            return (Group(tuple(range(len(self))), rows, None),)
        return self.grouped([(length,) for length in self.lengths])

    def grouped(self, sizes: Sequence[tuple[int, ...]]) -> tuple[Group, ...]:
        """Group sequences whose every size is within a quarter of the largest of the group.

        Args:
            sizes: for each sequence the sizes that padding would equalise (rows, keys).
        """
        order = sorted(range(len(self)), key=lambda s: sizes[s], reverse=True)
        parts: list[list[int]] = []
        for s in order:
            head = sizes[parts[-1][0]] if parts else None
            if head and all(
                4 * mine >= 3 * theirs and mine <= theirs for mine, theirs in zip(sizes[s], head, strict=True)
            ):
                parts[-1].append(s)
            else:
                parts.append([s])
        out = []
        for members in parts:
            lengths = torch.tensor([self.lengths[s] for s in members]).unsqueeze(1)
            starts = torch.tensor([self.offsets[s] for s in members]).unsqueeze(1)
            steps = torch.arange(int(lengths.max()))
            rows = (starts + torch.minimum(steps, lengths - 1)).to(self.device)
            valid = None if bool((lengths == lengths[0]).all()) else (steps < lengths).to(self.device)
            out.append(Group(tuple(members), rows, valid))
        return tuple(out)


@dataclass(frozen=True, eq=False)
class Batch:
    """Packed tokens with their places.

    Attributes:
        input_ids: (N,) int64 token ids.
        lengths: new tokens of each sequence in this pass.
        starts: how many tokens of each sequence came before (0 without state).
        slots: state slot of each sequence, or None for a pure pass.
        wanted: for how many of its last tokens each sequence wants logits: `lengths[s]` for all, 1 for the
            next token, 0 in the middle of a prompt.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    slots: tuple[int, ...] | None
    wanted: tuple[int, ...]

    @classmethod
    def packed(
        cls,
        input_ids: Tensor,
        lengths: Sequence[int],
        *,
        starts: Sequence[int] | None = None,
        slots: Sequence[int] | None = None,
        wanted: Sequence[int] | None = None,
    ) -> Batch:
        """Describe packed tokens.

        Args:
            input_ids: (N,) integer token ids of all sequences, one after another.
            lengths: tokens of each sequence; their sum is N.
            starts: tokens that came before, per sequence (default 0).
            slots: state slots, per sequence, each at most once.
            wanted: how many last tokens need logits, per sequence (default all).

        Raises:
            PromptError: an empty sequence, or lengths that do not add up.
        """
        lengths = tuple(int(length) for length in lengths)
        if not lengths or min(lengths) < 1:
            raise PromptError("a sequence without tokens was given: every sequence needs at least one token")
        if input_ids.ndim != 1 or sum(lengths) != input_ids.numel():
            raise PromptError(
                f"packed input_ids have shape {tuple(input_ids.shape)} but the lengths add up to {sum(lengths)}"
            )
        if slots is not None and len(set(slots)) != len(lengths):
            raise PromptError(f"{len(lengths)} sequences were given slots {tuple(slots)}: each needs one of its own")
        return cls(
            input_ids,
            lengths,
            (0,) * len(lengths) if starts is None else tuple(starts),
            None if slots is None else tuple(slots),
            lengths if wanted is None else tuple(wanted),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def layout(self) -> Ragged:
        """Index tables over all tokens."""
        return Ragged(self.lengths, self.input_ids.device)

    @cached_property
    def asking(self) -> tuple[int, ...]:
        """The sequences that want any logits at all."""
        return tuple(s for s, count in enumerate(self.wanted) if count)

    @cached_property
    def row_layout(self) -> Ragged:
        """Index tables over the rows that logits are asked for (sequences that want none left out)."""
        return Ragged([self.wanted[s] for s in self.asking], self.input_ids.device)

    @cached_property
    def rows(self) -> Tensor | None:
        """(R,) int64 indices of the tokens that want logits, or None for all of them."""
        if self.wanted == self.lengths:
            return None
        ends = self.layout.offsets[1:]
        pieces = [torch.arange(ends[s] - self.wanted[s], ends[s]) for s in self.asking]
        return torch.cat(pieces or [torch.empty(0, dtype=torch.int64)]).to(self.input_ids.device)

    @cached_property
    def slot_index(self) -> slice | Tensor:
        """The slots as an index: a slice, hence a view and no copy, when they are consecutive."""
        assert self.slots is not None
        first, count = self.slots[0], len(self.slots)
        if self.slots == tuple(range(first, first + count)):
            return slice(first, first + count)
        return torch.tensor(self.slots, device=self.input_ids.device)
