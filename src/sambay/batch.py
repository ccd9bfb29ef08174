"""What one pass of the model computes: packed tokens of any number of sequences, and where each one stands.

Shape legend: N tokens in all, S sequences, R rows that logits are asked for. Sequence `s` contributes
`lengths[s]` consecutive tokens; a dense (batch, time) input is the same thing with equal lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sambay.errors import PromptError
from sambay.kv import Index, whole_tiles

__all__ = ["Batch", "Block", "Group", "Ragged", "SharedPart", "Sight", "WindowPart"]


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
    def _padded(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def padded(self, size: int) -> tuple[Tensor, Tensor]:
        """Where things are when `size` rows of history stand before the rows of every sequence.

        Returns:
            `(rows, tails)`: (N,) where each row goes, less `size`; (S, size) the last rows of each sequence.
        """
        if size not in self._padded:
            count = torch.arange(len(self))
            rows = torch.arange(self.total) + torch.repeat_interleave(count * size, torch.tensor(self.lengths))
            ends = torch.tensor(self.offsets[1:]) + (count + 1) * size
            tails = ends.unsqueeze(1) + torch.arange(-size, 0)
            self._padded[size] = rows.to(self.device), tails.to(self.device)
        return self._padded[size]

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
        return tuple(self.rectangle(tuple(members)) for members in parts)

    def rectangle(self, members: tuple[int, ...]) -> Group:
        """These sequences, padded to the longest of them."""
        lengths = torch.tensor([self.lengths[s] for s in members]).unsqueeze(1)
        starts = torch.tensor([self.offsets[s] for s in members]).unsqueeze(1)
        steps = torch.arange(int(lengths.max()))
        rows = (starts + torch.minimum(steps, lengths - 1)).to(self.device)
        valid = None if bool((lengths == lengths[0]).all()) else (steps < lengths).to(self.device)
        return Group(members, rows, valid)


class Block(NamedTuple):
    """Some queries of a rectangle, the keys that any of them sees, and what is hidden.

    Attributes:
        queries: a range of queries.
        keys: a range of keys.
        hidden: (members or 1, queries, keys) bool, True where a query must not look; None: nothing is hidden.
    """

    queries: slice
    keys: slice
    hidden: Tensor | None


class Sight:
    """Which keys the queries of a padded rectangle see, in blocks of queries.

    A query at key index `i` sees the keys up to `i`.

    Args:
        queries: of each member, padding included.
        keys: of each member, padding included.
        begin: per member, the key index at which its first query stands.
        first: per member, the lowest key index that exists.
        window: if given, of these a query sees the last so many only.
        device: where the masks live.
    """

    def __init__(
        self,
        queries: int,
        keys: int,
        begin: Sequence[int],
        *,
        first: Sequence[int] = (0,),
        window: int | None = None,
        device: torch.device,
    ) -> None:
        self.queries, self.keys, self.begin, self.first = queries, keys, tuple(begin), tuple(first)
        self.window, self.device = window, device
        self._only: Block | None = None

    def blocks(self, most: int, room: int) -> Iterable[Block]:
        """Cut the queries; a single block is kept for the next layer, several are made anew for each.

        Args:
            most: queries in a block at most.
            room: pairs of a query and a key in a block at most, though a block has one query at least.
        """
        if self._only is not None:
            return (self._only,)
        if self.queries <= most and self.queries * self._seen(0, self.queries)[1] <= room:
            self._only = self._block(0, self.queries)
            return (self._only,)
        return self._cut(most, room)

    def _cut(self, most: int, room: int) -> Iterator[Block]:
        low = 0
        while low < self.queries:
            high = min(low + most, self.queries)
            fro, to = self._seen(low, high)
            if (high - low) * (to - fro) > room:
                high = low + max(1, room // (to - fro))
            yield self._block(low, high)
            low = high

    def _seen(self, low: int, high: int) -> tuple[int, int]:
        """The range of keys that any of these queries sees."""
        fro = 0 if self.window is None else max(0, min(self.begin) + low - self.window + 1)
        return fro, min(self.keys, max(self.begin) + high)

    def _block(self, low: int, high: int) -> Block:
        fro, to = self._seen(low, high)
        early, late = min(self.begin) + low, max(self.begin) + high - 1  # of all queries of the block
        future = to - 1 > early
        past = self.window is not None and fro <= late - self.window
        absent = fro < max(self.first)
        hidden = None
        if future or past or absent:
            seen = torch.arange(fro, to)
            begin = torch.tensor(self.begin if len(set(self.begin)) > 1 else self.begin[:1])
            place = begin.view(-1, 1, 1) + torch.arange(low, high).view(1, -1, 1)
            hidden = seen > place
            if past:
                hidden = hidden | (seen <= place - (self.window or 0))
            if absent:
                hidden = hidden | (seen < torch.tensor(self.first).view(-1, 1, 1))
            hidden = hidden.to(self.device)
        return Block(slice(low, high), slice(fro, to), hidden)


class WindowPart(NamedTuple):
    """Sequences whose sliding-window attention is computed as one rectangle, and their places in the ring.

    Attributes:
        group: the sequences.
        sight: what they see: the past that is read, and their own new tokens behind it.
        read: slots (members, 1) of the rings and the places in them of the past, (members, W - 1).
        rows: the packed rows whose keys and values the ring keeps.
        write: slots and places in the rings where these go.
    """

    group: Group
    sight: Sight
    read: tuple[Tensor, Tensor] | None = None
    rows: Tensor | None = None
    write: tuple[Tensor, Tensor] | None = None


class SharedPart(NamedTuple):
    """Rows that ask for logits, of sequences whose full attention is computed as one rectangle.

    Attributes:
        group: the sequences, numbered among those that ask.
        sight: what they see.
        totals: tokens of each, past ones and new ones: as many keys it has.
        slots: the slot of each; or else
        keys: the packed rows of their keys.
    """

    group: Group
    sight: Sight
    totals: tuple[int, ...]
    slots: tuple[int, ...] = ()
    keys: Group | None = None


def _index(places: Sequence[int], device: torch.device) -> Index:
    if tuple(places) == tuple(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return torch.tensor(places, device=device)


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
        drafts: how many of its last tokens are guesses, which may be taken back. A sequence that has any leaves its
            states of fixed size as they are, until `StatePool.settle` is told how many tokens hold. Empty: none has.
        trail: what a pass leaves for that: called with `part`, each brings one state to the end of those tokens.
        first: in a `part`, the row at which it begins in what the pass has computed; else 0.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    slots: tuple[int, ...] | None
    wanted: tuple[int, ...]
    drafts: tuple[int, ...] = ()
    trail: list[Callable[[Batch], object]] = field(default_factory=list)
    first: int = 0

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
            PromptError: an empty sequence, lengths that do not add up, or anything else out of its range.
        """
        lengths = tuple(int(length) for length in lengths)
        starts = (0,) * len(lengths) if starts is None else tuple(int(start) for start in starts)
        wanted = lengths if wanted is None else tuple(int(count) for count in wanted)
        if not lengths or min(lengths) < 1:
            raise PromptError("a sequence without tokens was given: every sequence needs at least one token")
        if input_ids.ndim != 1 or sum(lengths) != input_ids.numel():
            raise PromptError(
                f"packed input_ids have shape {tuple(input_ids.shape)} but the lengths add up to {sum(lengths)}"
            )
        if slots is not None:
            slots = tuple(int(slot) for slot in slots)
            if len(slots) != len(lengths) or len(set(slots)) != len(slots) or min(slots) < 0:
                raise PromptError(f"{len(lengths)} sequences were given slots {slots}: each needs one of its own")
        for name, values in (("starts", starts), ("wanted", wanted)):
            if len(values) != len(lengths):
                raise PromptError(f"{name} has {len(values)} numbers for {len(lengths)} sequences: give one for each")
        if min(starts) < 0:
            raise PromptError(f"starts has {min(starts)}: the tokens that came before are 0 or more")
        for count, length in zip(wanted, lengths, strict=True):
            if not 0 <= count <= length:
                raise PromptError(
                    f"wanted has {count} for a sequence of {length} tokens: ask for the logits of 0 to {length} of them"
                )
        return cls(input_ids, lengths, starts, slots, wanted)

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, sequence: int, count: int) -> Batch:
        """The first tokens of one sequence, which go into its states."""
        assert self.slots is not None
        first = self.layout.offsets[sequence]
        ids, start, slot = self.input_ids[first : first + count], self.starts[sequence], self.slots[sequence]
        return Batch(ids, (count,), (start,), (slot,), (0,), first=first)

    @property
    def taken(self) -> slice:
        """The rows of a `part` in what the pass has computed."""
        return slice(self.first, self.first + self.layout.total)

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
    def slot_index(self) -> Index:
        """The slots as an index: a slice, hence a view and no copy, when they are consecutive."""
        assert self.slots is not None
        return _index(self.slots, self.input_ids.device)

    @cached_property
    def time_major_slots(self) -> Index:
        """The slots in the order of `layout.time_major`: longest sequence first."""
        assert self.slots is not None
        return _index([self.slots[s] for s in self.layout.time_major[3]], self.input_ids.device)

    @cached_property
    def _windows(self) -> dict[int, tuple[WindowPart, ...]]:
        return {}

    def window_parts(self, window: int) -> tuple[WindowPart, ...]:
        """Tables for attention to the last `window` tokens, made once for all layers."""
        if window not in self._windows:
            self._windows[window] = tuple(self._window_part(group, window) for group in self.layout.groups)
        return self._windows[window]

    def _window_part(self, group: Group, window: int) -> WindowPart:
        device, members, width = self.input_ids.device, group.members, group.rows.shape[1]
        if self.slots is None:
            sight = Sight(width, width, [0] * len(members), window=window, device=device)
            return WindowPart(group, sight)
        slots, starts = [self.slots[s] for s in members], [self.starts[s] for s in members]
        lengths = [self.lengths[s] for s in members]
        ring = whole_tiles(window)
        kept = [min(length, ring) for length in lengths]
        rows = [
            r
            for s, n in zip(members, kept, strict=True)
            for r in range(self.layout.offsets[s + 1] - n, self.layout.offsets[s + 1])
        ]
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        places = [p % ring for end, n in zip(ends, kept, strict=True) for p in range(end - n, end)]
        owners = [slot for slot, n in zip(slots, kept, strict=True) for _ in range(n)]
        write = torch.tensor(owners, device=device), torch.tensor(places, device=device)
        row = torch.tensor(rows, device=device)
        past = window - 1
        first = [max(0, past - start) for start in starts]
        sight = Sight(width, past + width, [past] * len(members), first=first, window=window, device=device)
        behind = (torch.tensor(starts).unsqueeze(1) - past + torch.arange(past)) % ring
        read = torch.tensor(slots, device=device).unsqueeze(1), behind.to(device)
        return WindowPart(group, sight, read, row, write)

    @cached_property
    def shared_parts(self) -> tuple[SharedPart, ...]:
        """Tables for the attention of the rows that ask to all tokens of their sequences, for all layers."""
        layout = self.row_layout
        totals = [self.starts[s] + self.lengths[s] for s in self.asking]
        parts = []
        for group in layout.grouped(list(zip(layout.lengths, totals, strict=True))):
            ends = tuple(totals[i] for i in group.members)
            begin = [end - layout.lengths[i] for end, i in zip(ends, group.members, strict=True)]
            sight = Sight(group.rows.shape[1], max(ends), begin, device=layout.device)
            members = tuple(self.asking[i] for i in group.members)
            if self.slots is not None:
                parts.append(SharedPart(group, sight, ends, slots=tuple(self.slots[s] for s in members)))
            else:
                parts.append(SharedPart(group, sight, ends, keys=self.layout.rectangle(members)))
        return tuple(parts)
