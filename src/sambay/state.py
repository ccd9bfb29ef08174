"""The memory of a sequence: four kinds of state and the pool that owns them.

A SambaY sequence remembers a few convolution inputs and one scan state per Mamba layer, a ring of the last
keys and values per sliding-window layer, and one KV cache that grows, shared by the full attention and all
cross-attention layers. Everything but the last is of fixed size, so that a sequence is cheap to copy, park
and resume: a prefix is its pages plus one fixed-size snapshot.

Shape legend: slots x ...; K = mamba_d_conv, W = sliding_window, Hk = num_key_value_heads, dh = head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from sambay.batch import Batch
from sambay.config import LayerRole, SambaYConfig
from sambay.errors import ContextError, PromptError
from sambay.kv import TILE, Index, KVTiles, copy_bytes, entry_bytes, page_slices, whole_tiles

__all__ = ["ConvState", "Held", "SSMState", "SharedKV", "Snapshot", "StatePool", "WindowKV", "state_bytes"]

PAGE_SIZE = TILE
"""Tokens in a page of the shared KV cache."""


class SlotState:
    """State of fixed size: tensors whose first axis is the slot of a sequence."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    @property
    def nbytes(self) -> int:
        """Bytes held, all slots together."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def reset(self, slot: int) -> None:
        """Bring a slot to the state of a sequence that has seen nothing."""
        for tensor in self.tensors:
            tensor[slot].zero_()

    def copy(self, source: int, target: int) -> None:
        """Make slot `target` equal to slot `source`."""
        for tensor in self.tensors:
            tensor[target].copy_(tensor[source])

    def snapshot(self, slot: int) -> tuple[Tensor, ...]:
        """An independent copy of one slot."""
        return tuple(tensor[slot].clone() for tensor in self.tensors)

    def restore(self, slot: int, saved: tuple[Tensor, ...]) -> None:
        """Put a snapshot back, into any slot."""
        for tensor, value in zip(self.tensors, saved, strict=True):
            tensor[slot].copy_(value)


class ConvState(SlotState):
    """The last K-1 inputs of a causal convolution, oldest first: (slots, K-1, d_inner)."""

    @property
    def inputs(self) -> Tensor:
        """(slots, K-1, d_inner)."""
        return self.tensors[0]


class SSMState(SlotState):
    """The state of a selective scan, always float32: (slots, d_state, d_inner)."""

    @property
    def hidden(self) -> Tensor:
        """(slots, d_state, d_inner) float32."""
        return self.tensors[0]


class WindowKV(SlotState):
    """A ring of the last keys and values for each slot, as a page of `KVTiles`; position p lives at place p mod T.

    Args:
        slots: number of sequences.
        window: W, how many tokens a query sees; T is the next multiple of a tile.
        heads: (Hk, dh).
        maps: 2 in differential attention, else 1.
        dtype: of the elements.
        device: where they live.
    """

    def __init__(
        self, slots: int, window: int, heads: tuple[int, int], maps: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.tiles = KVTiles(slots, whole_tiles(window), heads, maps, dtype, device)
        super().__init__(*self.tiles.tensors)


class SharedKV:
    """The only cache that grows: pages of keys and values with a table of pages per slot.

    A page may have several holders: slots that were forked, and whoever called `share`. It is copied before one of
    them writes to it, and free again when the last one drops it. Holders that can do without it, such as a prefix
    cache, say that it is `spare` to them.

    Args:
        slots: number of sequences.
        pages: pages to begin with.
        heads: (Hk, dh).
        maps: 2 in differential attention, else 1.
        dtype: of the elements.
        device: where the pages live.
        growing: double them whenever they run out; else there are no more than these.

    Attributes:
        idle: pages that all of their holders can do without.
    """

    def __init__(
        self,
        slots: int,
        pages: int,
        heads: tuple[int, int],
        maps: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        growing: bool = True,
    ) -> None:
        self.tiles = KVTiles(pages, PAGE_SIZE, heads, maps, dtype, device)
        self.tables: list[list[int]] = [[] for _ in range(slots)]
        self.free = list(range(pages - 1, -1, -1))
        self.growing, self.idle = growing, 0
        self._holders, self._spares = [0] * pages, [0] * pages

    @property
    def nbytes(self) -> int:
        """Bytes held, used pages and free ones."""
        return self.tiles.nbytes

    def in_use(self, pages: Iterable[int]) -> int:
        """How many of these pages someone cannot do without."""
        return sum(self._holders[page] > self._spares[page] for page in pages)

    def missing(self, slot: int, length: int, start: int | None = None) -> int:
        """How many pages `reserve` would take."""
        table, holders = self.tables[slot], self._holders
        first = len(table) if start is None else start // PAGE_SIZE
        foreign = [page for page in table[first:] if holders[page] > 1]  # as `_foreign`: of every sequence, every step
        return max(0, -(-length // PAGE_SIZE) - len(table)) + len(foreign)

    def _foreign(self, table: list[int], start: int | None) -> list[int]:
        """Places in a table of shared pages that would be written from a position on."""
        first = len(table) if start is None else start // PAGE_SIZE
        return [place for place in range(first, len(table)) if self._holders[table[place]] > 1]

    def reserve(self, slot: int, length: int, start: int | None = None) -> None:
        """Make sure that a slot has pages for `length` tokens, all of its own from position `start` on.

        Raises:
            ContextError: there are not enough, and no more can be made. Nothing has changed then.
        """
        self.need(self.missing(slot, length, start))
        table = self.tables[slot]
        for place in self._foreign(table, start):
            [page] = self.take(1)
            for tensor in self.tiles.tensors:
                tensor[page].copy_(tensor[table[place]])
            self.drop(table[place : place + 1])
            table[place] = page
        table += self.take(max(0, -(-length // PAGE_SIZE) - len(table)))

    def need(self, pages: int) -> None:
        """Make sure that so many pages are free.

        Raises:
            ContextError: they are not, and no more can be made.
        """
        if pages <= len(self.free):
            return
        if not self.growing:
            raise ContextError(
                f"{pages} pages of {PAGE_SIZE} tokens are needed and {len(self.free)} of {self.tiles.pages} are free: "
                "close a sequence or make a larger pool"
            )
        extra = max(have := self.tiles.pages, pages - len(self.free))
        with torch.inference_mode(False):  # the cache may be continued outside of it
            self.tiles.grow(extra)
        self.free[:0] = range(have + extra - 1, have - 1, -1)
        self._holders += [0] * extra
        self._spares += [0] * extra

    def take(self, pages: int, *, spare: bool = False) -> list[int]:
        """So many free pages, for one holder; raises as `need`."""
        self.need(pages)
        taken = [self.free.pop() for _ in range(pages)]
        self.share(taken, spare=spare)
        return taken

    def share(self, pages: Iterable[int], *, spare: bool = False) -> None:
        """Hold pages beside those who do."""
        for page in pages:
            self._count(page, 1, spare)

    def drop(self, pages: Iterable[int], *, spare: bool = False) -> None:
        """Hold pages no longer, as they were taken or shared."""
        for page in pages:
            self._count(page, -1, spare)
            if not self._holders[page]:
                self.free.append(page)

    def _count(self, page: int, change: int, spare: bool) -> None:
        self.idle -= 0 < self._holders[page] == self._spares[page]
        self._holders[page] += change
        self._spares[page] += change if spare else 0
        self.idle += 0 < self._holders[page] == self._spares[page]

    def reset(self, slot: int) -> None:
        """Give all pages of a slot back."""
        table, self.tables[slot] = self.tables[slot], []
        self.drop(reversed(table))

    def first(self, slot: int, length: int) -> tuple[int, ...]:
        """The pages of the first `length` tokens of a slot."""
        return tuple(self.tables[slot][: -(-length // PAGE_SIZE)])

    def adopt(self, slot: int, pages: Sequence[int]) -> None:
        """Let a slot hold these pages, in the place of its own."""
        self.share(pages)
        self.reset(slot)
        self.tables[slot] = list(pages)

    def _pages(self, slot: int, length: int) -> Index:
        return page_slices(self.first(slot, length), self.tiles.keys.device)

    def read(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` tokens, (length, Hk, dh) each; float32 where they are kept as int8."""
        keys, values = self.tiles.read_pages(self._pages(slot, length))
        return keys[:length], values[:length]

    def places(self, slots: Sequence[int], starts: Sequence[int], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Page and place in it of the new tokens of several slots: (N,) int64 each; pages must have been reserved."""
        owners, places = [], []
        for slot, start, length in zip(slots, starts, lengths, strict=True):
            table = self.tables[slot]
            for position in range(start, start + length):
                owners.append(table[position // PAGE_SIZE])
                places.append(position % PAGE_SIZE)
        found = torch.tensor([owners, places], dtype=torch.int64, device=self.tiles.keys.device)
        return found[0], found[1]

    def write_all(
        self, slots: Sequence[int], starts: Sequence[int], lengths: Sequence[int], keys: Tensor, values: Tensor
    ) -> None:
        """Store packed keys and values (N, Hk, dh) of several slots; pages must have been reserved."""
        self.tiles.write(*self.places(slots, starts, lengths), keys, values)

    def gather(self, slots: Sequence[int], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of the first tokens of several slots, (S, longest, Hk, dh) each; their last ones repeat."""
        if len(slots) == 1:
            keys, values = self.read(slots[0], lengths[0])
            return keys.unsqueeze(0), values.unsqueeze(0)
        longest = max(lengths)
        count = -(-longest // PAGE_SIZE)
        table = torch.tensor([(self.tables[slot][:count] + [0] * count)[:count] for slot in slots])
        place = torch.minimum(torch.arange(longest), torch.tensor(lengths).unsqueeze(1) - 1)
        device = self.tiles.keys.device
        return self.tiles.read(table.gather(1, place // PAGE_SIZE).to(device), (place % PAGE_SIZE).to(device))

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target` share the pages of the first `length` tokens of `source`."""
        self.adopt(target, self.first(source, length))

    def snapshot(self, slot: int, length: int) -> tuple[Tensor, ...]:
        """An independent copy of the pages of the first `length` tokens: the tensors of `KVTiles`."""
        pages = self._pages(slot, length)
        return tuple(tensor[pages].clone() for tensor in self.tiles.tensors)

    def restore(self, slot: int, saved: tuple[Tensor, ...]) -> None:
        """Put a snapshot back, into any slot."""
        self.reset(slot)
        self.reserve(slot, saved[0].shape[0] * PAGE_SIZE)
        pages = page_slices(self.tables[slot], self.tiles.keys.device)
        for tensor, value in zip(self.tiles.tensors, saved, strict=True):
            tensor[pages] = value


class Snapshot(NamedTuple):
    """Everything that one sequence remembers, independent of the pool: its length, states and cache."""

    length: int
    fixed: tuple[tuple[Tensor, ...], ...]
    shared: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        fixed = sum(tensor.nbytes for state in self.fixed for tensor in state)
        return fixed + sum(tensor.nbytes for tensor in self.shared)


class Held(NamedTuple):
    """What one sequence remembers, kept in pages of the pool: to be resumed, forked or stored.

    Attributes:
        length: tokens that it has seen.
        pages: of its keys and values.
        fixed: pages that hold the bytes of its states of fixed size.
    """

    length: int
    pages: tuple[int, ...]
    fixed: tuple[int, ...]


@dataclass(frozen=True)
class LayerState:
    """What the mixer of one layer remembers; nothing in the cross-decoder."""

    conv: ConvState | None = None
    ssm: SSMState | None = None
    window: WindowKV | None = None
    shared: SharedKV | None = None


class StatePool:
    """Owns the states of up to `slots` sequences of one model; `SambaY.new_state` makes the one that fits.

    A slot is free or open. `open` takes a free one, always in the state of a sequence that has seen nothing;
    `close` gives it back; in between, and only then, it can be used.

    Args:
        config: the model's configuration.
        slots: how many sequences can live at once.
        dtype: element type of convolution inputs (scan states are float32 always).
        cache_dtype: element type of keys and values, one of `kv.CACHE_DTYPES`; None: `dtype`.
        device: where the tensors live.
        tokens: tokens of shared KV cache to begin with, over all slots.
        growing: let it grow when needed; else the pool never holds more memory than at first.
    """

    def __init__(
        self,
        config: SambaYConfig,
        slots: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        cache_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        tokens: int = PAGE_SIZE,
        growing: bool = True,
    ) -> None:
        device = torch.device(device)
        self.config, self.slots, self.dtype = config, slots, dtype
        self.cache_dtype = dtype if cache_dtype is None else cache_dtype
        heads, maps = (config.num_key_value_heads, config.head_dim), 2 if config.differential_attention else 1
        self.layers: list[LayerState] = []
        with torch.inference_mode(False):  # ordinary tensors: the pool may be continued outside of it
            pages = max(1, -(-tokens // PAGE_SIZE))
            self.shared = SharedKV(slots, pages, heads, maps, self.cache_dtype, device, growing=growing)
            for role in config.layer_plan():
                if role.is_mamba:
                    conv = torch.zeros(slots, config.mamba_d_conv - 1, config.d_inner, dtype=dtype, device=device)
                    ssm = torch.zeros(slots, config.mamba_d_state, config.d_inner, device=device, dtype=torch.float32)
                    self.layers.append(LayerState(conv=ConvState(conv), ssm=SSMState(ssm)))
                elif role is LayerRole.SLIDING:
                    ring = WindowKV(slots, config.sliding_window, heads, maps, self.cache_dtype, device)
                    self.layers.append(LayerState(window=ring))
                else:
                    self.layers.append(LayerState(shared=self.shared if role is LayerRole.FULL else None))
        self.device = self.shared.tiles.keys.device
        self.lengths, self._free = [0] * slots, list(range(slots - 1, -1, -1))

    @property
    def fixed(self) -> tuple[SlotState, ...]:
        """All states of fixed size, layer by layer."""
        return tuple(
            state for layer in self.layers for state in (layer.conv, layer.ssm, layer.window) if state is not None
        )

    @property
    def nbytes(self) -> int:
        """Bytes held, all slots and pages together."""
        return sum(state.nbytes for state in self.fixed) + self.shared.nbytes

    @property
    def free_slots(self) -> int:
        """How many more sequences can be opened."""
        return len(self._free)

    def open(self) -> int:
        """Take a free slot, in the state of a sequence that has seen nothing.

        Raises:
            ContextError: all slots are taken.
        """
        if not self._free:
            raise ContextError(f"all {self.slots} state slots are taken: close a sequence or make a larger pool")
        return self._take(self._free[-1])

    def _take(self, slot: int) -> int:
        self._free.remove(slot)
        self.reset(slot)
        return slot

    def close(self, slot: int) -> None:
        """Give an open slot and its pages back."""
        self._check_open(slot)
        self.shared.reset(slot)
        self.lengths[slot] = 0
        self._free.append(slot)

    def _check_open(self, *slots: int) -> None:
        for slot in slots:
            if not 0 <= slot < self.slots:
                raise PromptError(f"there is no slot {slot}: the pool has slots 0 to {self.slots - 1}")
            if slot in self._free:
                raise PromptError(f"slot {slot} is free: take one with StatePool.open() before it is used")

    def reset(self, slot: int) -> None:
        """Forget everything that the sequence in an open slot has seen."""
        self._check_open(slot)
        for state in self.fixed:
            state.reset(slot)
        self.shared.reset(slot)
        self.lengths[slot] = 0

    def copy(self, source: int, target: int) -> None:
        """Fork: let the sequence in open slot `target` be what that in `source` is; each goes on by itself."""
        self._check_open(source, target)
        for state in self.fixed:
            state.copy(source, target)
        self.shared.copy(source, target, self.lengths[source])
        self.lengths[target] = self.lengths[source]

    def snapshot(self, slot: int) -> Snapshot:
        """An independent copy of all that the sequence in an open slot remembers."""
        self._check_open(slot)
        length = self.lengths[slot]
        return Snapshot(length, tuple(state.snapshot(slot) for state in self.fixed), self.shared.snapshot(slot, length))

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """Put a snapshot back, into any open slot."""
        self._check_open(slot)
        for state, saved in zip(self.fixed, snapshot.fixed, strict=True):
            state.restore(slot, saved)
        self.shared.restore(slot, snapshot.shared)
        self.lengths[slot] = snapshot.length

    @property
    def fixed_nbytes(self) -> int:
        """Bytes of the states of fixed size of one sequence."""
        return sum(state.nbytes for state in self.fixed) // self.slots

    @property
    def fixed_pages(self) -> int:
        """Pages that these take when they are held."""
        return -(-self.fixed_nbytes // self.shared.tiles.page_bytes)

    def hold(self, slot: int, *, spare: bool = False) -> Held:
        """Keep what the sequence in an open slot remembers, which goes on: its pages are shared, the rest is copied.

        Args:
            slot: open.
            spare: the holder can do without it (see `SharedKV`).

        Raises:
            ContextError: `fixed_pages` pages are not free, and no more can be made.
        """
        self._check_open(slot)
        fixed = self.shared.take(self.fixed_pages, spare=spare)
        copy_bytes(self._fixed_parts(slot), self.shared.tiles.bytes_of(fixed))  # once: it is megabytes
        pages = self.shared.first(slot, self.lengths[slot])
        self.shared.share(pages, spare=spare)
        return Held(self.lengths[slot], pages, tuple(fixed))

    def resume(self, slot: int, held: Held) -> None:
        """Let an open slot go on where a sequence was held, which stays held."""
        self._check_open(slot)
        copy_bytes(self.shared.tiles.bytes_of(held.fixed), self._fixed_parts(slot))
        self.shared.adopt(slot, held.pages)
        self.lengths[slot] = held.length

    def release(self, held: Held, *, spare: bool = False) -> None:
        """Keep it no longer; `spare` as it was for `hold`."""
        self.shared.drop((*held.pages, *held.fixed), spare=spare)

    def fixed_bytes(self, slot: int) -> Tensor:
        """A copy of the states of fixed size of a slot, as bytes: (n,) uint8."""
        return torch.cat(self._fixed_parts(slot))

    def set_fixed_bytes(self, slot: int, values: Tensor) -> None:
        """Put states of fixed size back into a slot, from bytes (n or more,) uint8."""
        copy_bytes([values], self._fixed_parts(slot))

    def _fixed_parts(self, slot: int) -> list[Tensor]:
        """Their memory: (n,) uint8 each."""
        return [tensor[slot].view(-1).view(torch.uint8) for state in self.fixed for tensor in state.tensors]

    def batch(
        self,
        input_ids: Tensor,
        lengths: tuple[int, ...],
        slots: tuple[int, ...] | None = None,
        wanted: tuple[int, ...] | None = None,
    ) -> Batch:
        """A batch that continues sequences, with room for its tokens reserved. A pool that raises is as it was.

        Args:
            input_ids: (N,) int64, packed.
            lengths: new tokens per sequence.
            slots: the open slot of each sequence; None: slots 0, 1, ..., of which free ones are opened.
            wanted: for how many last tokens each sequence wants logits (default all).

        Raises:
            ContextError: a sequence would outgrow `max_position_embeddings`, or the pool has too few slots or pages.
            PromptError: slots that are free or that the pool has not got, or what `Batch.packed` refuses.
        """
        if slots is not None:
            self._check_open(*slots)
        elif len(lengths) > self.slots:
            raise ContextError(f"{len(lengths)} sequences do not fit into {self.slots} state slots: make a larger pool")
        chosen = tuple(range(len(lengths))) if slots is None else slots
        starts = [self.lengths[slot] for slot in chosen]
        batch = Batch.packed(input_ids, lengths, starts=starts, slots=chosen, wanted=wanted)
        longest = max(start + length for start, length in zip(batch.starts, batch.lengths, strict=True))
        if longest > self.config.max_position_embeddings:
            raise ContextError(
                f"a sequence of {longest} tokens is longer than the model's context of "
                f"{self.config.max_position_embeddings}: shorten the prompt or generate fewer tokens"
            )
        parts = list(zip(chosen, batch.starts, batch.lengths, strict=True))
        missing = sum(self.shared.missing(slot, start + length, start) for slot, start, length in parts)
        self.shared.need(missing)
        for slot, start, length in parts:
            if slot in self._free:
                self._take(slot)
            if missing:  # the engine has reserved what a step needs
                self.shared.reserve(slot, start + length, start)
        return batch

    def check(self, config: SambaYConfig, dtypes: Sequence[torch.dtype], device: torch.device) -> None:
        """Make sure that the pool fits a model.

        Args:
            config: of the model.
            dtypes: that its states may have.
            device: where it is.

        Raises:
            PromptError: it was made for another model.
        """
        pairs = [
            (field.name, getattr(self.config, field.name), getattr(config, field.name))
            for field in (fields(config) if self.config is not config else ())
            if field.name != "torch_dtype"
        ]
        if self.dtype not in dtypes:
            pairs.append(("dtype", self.dtype, dtypes[0]))
        pairs.append(("device", self.device, device))
        for name, mine, theirs in pairs:
            if mine != theirs:
                raise PromptError(
                    f"the state pool was made for {name} {mine}, but the model has {theirs}: "
                    f"make it with model.new_state(slots={self.slots})"
                )

    def advance(self, batch: Batch) -> None:
        """Record that the tokens of a batch have been seen, but for those of sequences with drafts, see `settle`."""
        for s, (slot, start, length) in enumerate(zip(batch.slots or (), batch.starts, batch.lengths, strict=True)):
            self.lengths[slot] = start if batch.drafts and batch.drafts[s] else start + length

    def settle(self, batch: Batch, sequence: int, count: int) -> None:
        """Record that the first `count` tokens of a sequence with drafts have been seen, and that the rest was not."""
        part = batch.part(sequence, count)
        with torch.no_grad():
            for redo in batch.trail:
                redo(part)
        self.lengths[(batch.slots or ())[sequence]] = batch.starts[sequence] + count


def state_bytes(config: SambaYConfig, dtype: torch.dtype, cache_dtype: torch.dtype | None = None) -> dict[str, int]:
    """Bytes of state of one sequence: of each fixed kind, and of the shared cache per token of context.

    Args:
        config: the model's configuration.
        dtype: element type of convolution inputs.
        cache_dtype: element type of keys and values; None: `dtype`.
    """
    plan = config.layer_plan()
    mambas = sum(role.is_mamba for role in plan)
    windows = sum(role is LayerRole.SLIDING for role in plan)
    maps = 2 if config.differential_attention else 1
    entry = entry_bytes(config.num_key_value_heads, config.head_dim, maps, cache_dtype or dtype)
    return {
        "convolution": mambas * config.d_inner * (config.mamba_d_conv - 1) * dtype.itemsize,
        "scan": mambas * config.d_inner * config.mamba_d_state * 4,
        "windows": windows * whole_tiles(config.sliding_window) * entry,
        "shared KV per token": entry,
    }
