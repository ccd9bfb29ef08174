"""The shortcut to a depth: a step after it does what a step after a real text of that length does."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import text
from sambay.bench import fill
from sambay.bench.fill import check_context, fill_state
from sambay.config import preset
from sambay.errors import ConfigError, ContextError
from sambay.model import SambaY
from sambay.ops import backend, native
from sambay.ops.backend import using

DEPTHS = [0, 5, 15, 16, 63, 64, 130, 2048]


class Calls(TorchDispatchMode):
    """Every operation of torch, with the shape, stride and place in memory (from its storage on) of its tensors."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        leaves = [x for x in torch.utils._pytree.tree_leaves((arguments, out)) if isinstance(x, torch.Tensor)]
        self.seen.append((str(function), [(x.shape, x.stride(), x.storage_offset()) for x in leaves]))
        return out


def really_filled(model, batch, depth):
    """A pool of the same size with real texts in it, computed one after the other."""
    pool = model.new_state(batch, tokens=batch * fill.PAGE_SIZE * -(-(depth + 1) // fill.PAGE_SIZE))
    for slot in range(batch):
        assert pool.open() == slot
        pool.shared.reserve(slot, depth + 1)
        if depth:
            model(text(depth), offsets=[0, depth], state=pool, slots=[slot], logits="last")
    return fill.Filled(model, pool)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_is_the_same_on_torch(tiny, batch, depth):
    steps = []
    with using("reference"):
        for filled in (fill_state(tiny, batch, depth + 1), really_filled(tiny, batch, depth)):
            filled.seek(batch, depth)
            with Calls() as calls:
                assert filled.step(batch).shape == (batch, 512)
            steps.append(calls.seen)
    assert len(steps[0]) > 100
    assert steps[0] == steps[1]


@pytest.mark.skipif(not native.usable(), reason="of the compiled kernels")
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_is_the_same_on_the_kernels(packed, monkeypatch, batch, depth):
    steps, seen = [], []
    looks = 0
    ops = backend.native_ops

    def look(q, view, heads, look=ops.shared_attention):
        nonlocal looks
        looks += 1
        seen.append((*(x.tolist() for x in view.places[2:]), view.tiles.keys.shape))
        return look(q, view, heads)

    def slide(q, k, v, heads, batch, window, state, slide=ops.window_attention):
        seen.append((batch.starts, batch.slots, batch.lengths, state.tiles.keys.shape))
        return slide(q, k, v, heads, batch, window, state)

    fill_state(packed, 1, 1).step(1)  # makes what a model makes once
    monkeypatch.setattr(ops, "shared_attention", look)
    monkeypatch.setattr(ops, "window_attention", slide)
    for filled in (fill_state(packed, batch, depth + 1), really_filled(packed, batch, depth)):
        filled.seek(batch, depth)
        seen.clear()
        with Calls() as calls:
            filled.step(batch)
        steps.append((calls.seen, list(seen)))
    assert looks >= 4
    assert steps[0][1][-1][0] == [depth + 1] * batch  # rows of the cache that each sequence looks at
    assert steps[0] == steps[1]


def test_seeking_back_and_forth_reserves_nothing_more(tiny):
    filled = fill_state(tiny, 3, 130)
    pages = filled.pool.shared.tiles.pages
    for batch, depth in ((3, 126), (1, 0), (2, 64), (3, 126)):
        filled.seek(batch, depth)
        for _ in range(4):
            assert filled.step(batch).isfinite().all()
        assert filled.pool.lengths[:batch] == [depth + 4] * batch
    assert filled.pool.shared.tiles.pages == pages == 9


def test_states_hold_random_numbers(tiny):
    pool = fill_state(tiny, 2, 70).pool
    again = fill_state(tiny, 2, 70).pool
    for one, other in zip(pool.fixed, again.fixed, strict=True):
        for first, second in zip(one.tensors, other.tensors, strict=True):
            assert first.std() > 0.4
            assert torch.equal(first, second)
    assert pool.shared.tiles.keys.std() > 0.4
    assert pool.shared.tiles.values.std() > 0.4


def test_a_cache_of_bytes_holds_random_ones():
    model = SambaY.random(preset("tiny"))
    model.cache_dtype = "int8"
    tiles = fill_state(model, 2, 70).pool.shared.tiles
    for codes in (tiles.keys, tiles.values):
        assert codes.float().std() > 60  # evenly from 0 to 255
    assert tiles.key_scales.isfinite().all()
    assert tiles.key_scales.float().std() > 0.4


def test_what_does_not_fit(tiny, monkeypatch):
    check_context(100, 100, "this")
    with pytest.raises(ContextError, match="make 101 tokens, more than the model's context of 100: choose 1 less"):
        check_context(100, 101, "a prompt")
    monkeypatch.setattr(fill, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"2 sequences of 10 tokens take .* GB, and 0.0 GB of memory are free"):
        fill_state(tiny, 2, 10)
