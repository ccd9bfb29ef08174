"""Decoding steps as lists of kernels: recorded once, then run again without Python between the kernels.

A step of one token for each of some sequences calls the same kernels with the same addresses every time. What differs
are tokens, positions, slots and pages, which the kernels read from tables; so a step is recorded while it is computed,
on tables and memory of its own, and from then on only the tables are filled. The kernels are the same, and so are the
results, to the bit.

Nothing is assumed of the model: whatever it computes with by other means than the kernels is noticed while recording,
and such a model goes on as before. A record holds for the weights, the modules, the states, the instruction set and the
threads that it was made with; when one of them changes, a new one is made.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sambay.batch import Batch
from sambay.ops import backend, native
from sambay.state import PAGE_SIZE, StatePool

if native.usable():
    from sambay.ops import _native, native_ops

__all__ = ["Programs"]

Compute = Callable[[Batch], Tensor]
"""The pass itself: batch -> (R, vocab) logits."""


class _Watch(TorchDispatchMode):
    """Notes whether torch computes anything: views do not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.strangers: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be wrapped for torch's compiler, which would be loaded for that, for two seconds, in a step."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own types
        returned = func._schema.returns
        if not returned or any(one.alias_info is None or one.alias_info.is_write for one in returned):
            self.strangers.add(str(func))
        return func(*args, **(kwargs or {}))


class _Arena:
    """Memory for what a pass computes on its way. What is let go of is given out again, in every pass alike."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[np.ndarray[Any, Any]]] = defaultdict(list)

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Room for float32 values, aligned to a cache line."""
        count = int(np.prod(shape))
        size = 1 << (max(64, 4 * count) - 1).bit_length()  # few sizes, so that steps of other batches find a use
        free = self._free[size]
        if free:
            block = free.pop()
        else:
            block = np.empty(size + 63, np.uint8)
            block = block[-block.ctypes.data % 64 :][:size]
        out = block[: 4 * count].view(np.float32).reshape(shape)
        # torch's storage holds this very array until the last view of it is gone.
        weakref.finalize(out, free.append, block).atexit = False
        return torch.from_numpy(out)


class _Sources:
    """What the addresses in a record depend on: modules, weights, states, kernels, threads."""

    def __init__(self, model: nn.Module, pool: StatePool) -> None:
        modules = list(model.modules())
        holders = [holder for m in modules for holder in (m._modules, m._parameters, m._buffers)]
        held = [(holder, name, one) for holder in holders for name, one in holder.items() if one is not None]
        self._holders, self._names, self._held = zip(*held, strict=True)
        self._hooks = [hooks for m in modules[1:] for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._tensors = [one for one in self._held if isinstance(one, Tensor)]
        self._counting = [one for one in self._tensors if not one.is_inference()]
        self._addresses, self._versions = self._read()
        self._rest = self._others(pool)

    def _read(self) -> tuple[list[int], list[int]]:
        return [one.data_ptr() for one in self._tensors], [one._version for one in self._counting]

    @staticmethod
    def _others(pool: StatePool) -> tuple[object, ...]:
        tensors = [tensor for state in pool.fixed for tensor in state.tensors]
        addresses = [tensor.data_ptr() for tensor in (*tensors, *pool.shared.tiles.tensors)]
        return (_native.isa_in_use(), _native.threads(), *addresses)

    def unchanged(self, pool: StatePool) -> bool:
        """Whether all of it is as it was, and nothing looks on."""
        # In every step of some hundred weights: what loops here are lists and maps, at a third of a loop's time.
        if any(self._hooks) or not all(map(is_, map(dict.get, self._holders, self._names), self._held)):
            return False
        if self._read() != (self._addresses, self._versions):
            return False
        return self._others(pool) == self._rest


class _Step:
    """One token for each of `count` sequences.

    Args:
        count: sequences.
        context: tokens that one can be long.
        arena: memory for what is computed on the way.
    """

    def __init__(self, count: int, context: int, arena: _Arena) -> None:
        self._count, self._room = count, -(-context // PAGE_SIZE)
        self._ids = torch.zeros(count, dtype=torch.int64)
        table = native_ops.int64_table
        offsets, starts, slots = table(range(count + 1)), table((), count), table((), count)
        handle = _native.Sequences(count, offsets.data_ptr(), starts.data_ptr(), slots.data_ptr())
        self._places = native_ops.Places(handle, offsets, starts, slots)
        begin = table(range(0, count * self._room, self._room))
        self._shared = native_ops.SharedPlaces(
            table((), count), table((), count), table((), count), begin, table((), count * self._room)
        )
        self._tables: list[list[int]] = [[]] * count
        self._arena, self._program, self._threads, self._size = arena, _native.Program(), 0, 0

    def _fill(self, batch: Batch, pool: StatePool) -> None:
        assert batch.slots is not None
        self._ids.copy_(batch.input_ids)
        starts = np.array(batch.starts)
        self._places.starts.numpy()[:] = starts
        self._places.slots.numpy()[:] = batch.slots
        self._shared.places.numpy()[:] = starts % PAGE_SIZE
        self._shared.seen.numpy()[:] = starts + 1
        owners, pages = self._shared.owners.numpy(), self._shared.pages.numpy()
        for row, (slot, start) in enumerate(zip(batch.slots, batch.starts, strict=True)):
            table = pool.shared.tables[slot][: start // PAGE_SIZE + 1]
            owners[row] = table[-1]
            if table != self._tables[row]:  # seldom: a page is many tokens
                pages[row * self._room :][: len(table)] = table
                self._tables[row] = table

    def record(self, batch: Batch, pool: StatePool, compute: Compute) -> tuple[Tensor, bool]:
        """Compute it, and note how.

        Returns:
            (count, vocab) logits, and whether it can be run again.
        """
        self._fill(batch, pool)
        own = replace(batch, input_ids=self._ids)
        own.__dict__.update(_native_places=self._places, _native_shared=self._shared)
        self._threads, watch = _native.threads(), _Watch()
        with native_ops.memory_from(self._arena.take), watch:
            _native.start_recording(self._program)
            try:
                out = compute(own)
            finally:
                _native.stop_recording()
        self._size = out.shape[1]
        return out.clone(), not watch.strangers and self._program.result() == out.data_ptr() and out.is_contiguous()

    def run(self, batch: Batch, pool: StatePool) -> Tensor:
        """The same again with other tokens: (count, vocab) float32 logits."""
        self._fill(batch, pool)
        out = torch.empty(self._count, self._size, dtype=torch.float32)
        _native.run_program(self._program, out.data_ptr(), self._threads)
        return out


class _OfPool:
    """The records for one pool; a number of sequences that was met but not recorded yet has None."""

    def __init__(self, model: nn.Module, pool: StatePool) -> None:
        self.sources, self.arena = _Sources(model, pool), _Arena()
        self.steps: dict[int, _Step | None] = {}
        self.fit = True


class Programs:
    """The recorded steps of a model, for every pool of states that it runs with.

    They are not a part of the model's state: copies and pickles are empty.
    """

    def __init__(self) -> None:
        self._pools: weakref.WeakKeyDictionary[StatePool, _OfPool] = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        return Programs()

    def __reduce__(self) -> tuple[type[Programs], tuple[()]]:
        return Programs, ()

    def run(self, model: nn.Module, batch: Batch, pool: StatePool, compute: Compute) -> Tensor:
        """Compute a batch by what was recorded, where that can be.

        Args:
            model: whose weights and modules `compute` uses.
            batch: of this pool.
            pool: the states.
            compute: computes a batch that differs from this one by its tables alone.

        Returns:
            (R, vocab) logits.
        """
        if set(batch.lengths) != {1} or batch.wanted != batch.lengths or not backend.serves(torch.float32):
            return compute(batch)
        found = self._pools.get(pool)
        if found is not None and not found.fit:
            return compute(batch)
        if found is None or not found.sources.unchanged(pool):
            found = self._pools[pool] = _OfPool(model, pool)
        count = len(batch)
        if count not in found.steps:  # at first what is derived from the weights is made
            found.steps[count] = None
            return compute(batch)
        step = found.steps[count]
        if step is not None:
            return step.run(batch, pool)
        step = _Step(count, pool.config.max_position_embeddings, found.arena)
        out, found.fit = step.record(batch, pool, compute)
        found.steps[count] = step
        return out
