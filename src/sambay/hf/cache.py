"""The state of the sequences of one `generate` call, as a cache of transformers over our own `StatePool`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from sambay.config import SambaYConfig
from sambay.errors import PromptError, SambaYError
from sambay.hf.config import Phi4FlashConfig
from sambay.hf.packing import Packing
from sambay.model import SambaY
from sambay.state import StatePool

__all__ = ["SambaYCache"]


class SambaYCache(Cache):
    """Everything that the sequences of a batch remember: scan states, windows and the shared KV cache.

    Each row of the batch has a slot in a `StatePool` and a length of its own, without its padding. A row can
    be copied, dropped and reordered, but not shortened: a scan state cannot forget its last token.

    Args:
        config: of the model that the cache will be used with.
    """

    def __init__(self, config: SambaYConfig | Phi4FlashConfig) -> None:
        super().__init__(layers=[])
        self.config = config.to_sambay() if isinstance(config, Phi4FlashConfig) else config
        self.pool: StatePool | None = None
        self.slots: list[int] = []
        self.columns = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rows={len(self.slots)}, columns={self.columns})"

    def run(self, model: SambaY, input_ids: Tensor, packing: Packing, keep: int, **kwargs: Any) -> Tensor:  # noqa: ANN401 - passed on to the model
        """Continue every row by its new tokens.

        Args:
            model: the model; without gradients.
            input_ids: (N,) the packed new tokens.
            packing: which row they belong to.
            keep: columns whose logits are wanted.
            **kwargs: what else `SambaY.run` takes.

        Returns:
            (R, vocab) logits.

        Raises:
            PromptError: another number of rows than before, or several documents in one row.
            ContextError: a row would outgrow the context.
        """
        rows, columns = packing.shape
        if not packing.one_per_row:
            raise PromptError(
                "position_ids restart within a row, which packs several documents into it: "
                "a cache holds one sequence per row, so pass use_cache=False, or one document per row"
            )
        if self.pool is None:
            self._open(rows, model, sum(packing.lengths))
        assert self.pool is not None
        if rows != len(self.slots):
            raise PromptError(f"input_ids have {rows} rows but the cache holds {len(self.slots)} sequences")
        if not packing.lengths:  # nothing but padding
            self.columns += columns
            return torch.zeros(0, self.config.vocab_size, dtype=model.dtype, device=model.device)
        slots = tuple(self.slots[row] for row in packing.owners)
        batch = self.pool.batch(input_ids, packing.lengths, slots, packing.wanted(keep))
        logits = model.run(batch, self.pool, **kwargs)
        self.pool.advance(batch)
        self.columns += columns
        return logits

    def _open(self, rows: int, model: SambaY, tokens: int) -> None:
        kind = model.device.type
        autocast = torch.is_autocast_enabled(kind)  # then keys and values are not in the dtype of the weights
        dtype, kept = (torch.get_autocast_dtype(kind), None) if autocast else (model.dtype, model.cache_dtype)
        self.pool = StatePool(
            self.config, rows, dtype=dtype, cache_dtype=kept, device=model.device, tokens=tokens + rows * 64
        )
        self.slots = [self.pool.open() for _ in range(rows)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns seen so far, padding included, as `generate` counts them."""
        del layer_idx
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: the cache grows."""
        del layer_idx
        return -1

    @property
    def batch_size(self) -> int:
        """Rows of the batch, -1 before the first use."""
        return len(self.slots) if self.pool is not None else -1

    @property
    def is_initialized(self) -> bool:
        """Whether it has been used."""
        return self.pool is not None

    @property
    def is_compileable(self) -> bool:
        """False: its tensors change their addresses when the cache grows."""
        return False

    @property
    def is_croppable(self) -> bool:
        """False: a scan state cannot forget its last token."""
        return False

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, without padding."""
        return [] if self.pool is None else [self.pool.lengths[slot] for slot in self.slots]

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether any token has been seen."""
        del layer_idx, state_idx
        return self.columns > 0

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self.columns = 0
        for slot in self.slots:
            assert self.pool is not None
            self.pool.reset(slot)

    @torch.no_grad()
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row `i` continue what row `beam_idx[i]` was. Only rows that are continued twice are copied."""
        if self.pool is None:
            return
        sources = [self.slots[row] for row in beam_idx.tolist()]
        taken: set[int] = set()
        slots: list[int | None] = []
        for source in sources:
            slots.append(None if source in taken else source)
            taken.add(source)
        spare = [slot for slot in self.slots if slot not in taken]
        for row, source in enumerate(sources):
            if slots[row] is None:
                target = spare.pop()
                self.pool.copy(source, target)
                slots[row] = target
        self.slots = [slot for slot in slots if slot is not None]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, its copies next to it."""
        self._rebuild([row for row in range(len(self.slots)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        self._rebuild(torch.arange(len(self.slots))[indices.cpu()].tolist())

    @torch.no_grad()
    def _rebuild(self, rows: Sequence[int]) -> None:
        old, slots = self.pool, self.slots
        if old is None:
            return
        tokens = sum(old.lengths[slots[row]] + 64 for row in rows)
        self.pool = StatePool(
            self.config, len(rows), dtype=old.dtype, cache_dtype=old.cache_dtype, device=old.device, tokens=tokens
        )
        self.slots = [self.pool.open() for _ in rows]
        for row, slot in zip(rows, self.slots, strict=True):
            self.pool.restore(slot, old.snapshot(slots[row]))

    def crop(self, tokens_to_remove: int) -> None:
        """Not possible, except for nothing at all.

        Raises:
            SambaYError: always, unless `tokens_to_remove` is 0.
        """
        if tokens_to_remove:
            raise SambaYError(
                "the cache of a SambaY model cannot be cropped, because a scan state cannot forget its last "
                "tokens: start again with a new cache (assisted and prompt-lookup decoding are not supported)"
            )

    def activate_past_recording(self) -> None:
        """Not possible.

        Raises:
            SambaYError: always.
        """
        self.crop(1)

    def update(self, *args: object, **kwargs: object) -> NoReturn:
        """Not possible: only `SambaY` writes its state.

        Raises:
            SambaYError: always.
        """
        raise SambaYError("a SambaYCache belongs to a SambaY model: other models need a cache of their own")
