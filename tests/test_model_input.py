"""Input that cannot be run is refused with one sentence, and changes nothing."""

from dataclasses import replace

import pytest
import torch

from helpers import BOUND, error, opened, text
from sambay.errors import ContextError, PromptError, SambaYError
from sambay.state import StatePool

BAD_INPUT = {
    "float ids": (torch.tensor([1.0, 2.0]), None, "torch.float32"),
    "bool ids": (torch.tensor([True]), None, "torch.bool"),
    "no ids": (torch.empty(0, dtype=torch.int64), None, "(0,)"),
    "no time": (torch.empty(2, 0, dtype=torch.int64), None, "(2, 0)"),
    "no batch": (torch.empty(0, 2, dtype=torch.int64), None, "(0, 2)"),
    "scalar": (torch.tensor(3), None, "()"),
    "three axes": (torch.zeros(1, 2, 3, dtype=torch.int64), None, "(1, 2, 3)"),
    "negative id": (torch.tensor([1, -1, 3]), None, "-1"),
    "id beyond": (torch.tensor([[1, 48, 3]]), None, "48"),
    "huge id": (torch.tensor([2**62]), None, str(2**62)),
    "no offsets": (torch.tensor([1, 2, 3]), [], "[]"),
    "one offset": (torch.tensor([1, 2, 3]), [0], "[0]"),
    "late start": (torch.tensor([1, 2, 3]), [1, 3], "[1, 3]"),
    "early end": (torch.tensor([1, 2, 3]), [0, 2], "[0, 2]"),
    "late end": (torch.tensor([1, 2, 3]), [0, 4], "[0, 4]"),
    "empty document": (torch.tensor([1, 2, 3]), [0, 2, 2, 3], "[0, 2, 2, 3]"),
    "falling offsets": (torch.tensor([1, 2, 3]), [0, 2, 1, 3], "[0, 2, 1, 3]"),
    "offsets of a dense batch": (torch.tensor([[1, 2, 3]]), [0, 3], "(1, 3)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUT)
def test_input_that_cannot_be_run(pair, name):
    model, _ = pair
    ids, offsets, named = BAD_INPUT[name]
    pool = model.new_state(2)
    for state in (None, pool):
        with pytest.raises(PromptError) as caught:
            model(ids, offsets=offsets, state=state)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
    assert pool.lengths == [0, 0]


def test_slots_that_do_not_fit(pair):
    model, _ = pair
    pool = opened(model.new_state(2))
    for ids, slots in (
        (torch.tensor([[1, 2], [3, 4]]), [1, 1]),
        (torch.tensor([[1, 2], [3, 4]]), [0]),
        (torch.tensor([[1, 2]]), [0, 1]),
        (torch.tensor([[1, 2]]), []),
        (torch.tensor([1, 2]), [2]),
        (torch.tensor([1, 2]), [-1]),
        (torch.tensor([[1], [2], [3]]), None),  # more sequences than slots
    ):
        with pytest.raises(SambaYError, match="slots"):
            model(ids, state=pool, slots=slots)
    assert pool.lengths == [0, 0]


def test_a_slot_that_is_free_is_refused(pair):
    model, _ = pair
    pool = model.new_state(2)
    first = pool.open()
    pool.close(first)
    for slot in range(2):
        with pytest.raises(PromptError, match=rf"slot {slot} is free.*open\(\)"):
            model(text(3), state=pool, slots=[slot])
    assert (pool.free_slots, pool.lengths, pool.shared.tables) == (2, [0, 0], [[], []])


def test_default_slots_are_opened(pair):
    """What a closed slot held does not come back, and no one else is given a slot in use."""
    model, _ = pair
    pool = model.new_state(3)
    model(text(9), state=pool)
    assert pool.free_slots == 2
    pool.close(0)
    again = model(text(6, seed=1), state=pool)
    assert torch.equal(again, model(text(6, seed=1), state=model.new_state()))
    assert pool.open() != 0
    kept = pool.snapshot(0)
    with pytest.raises(SambaYError):
        model(text(8).view(4, 2), state=pool)
    assert pool.free_slots == 1
    assert (kept.length, pool.lengths[0]) == (6, 6)


@pytest.mark.parametrize(
    ("config", "kwargs", "named"),
    [
        ({"sliding_window": 8}, {}, "sliding_window 8, but the model has 4"),
        ({"mamba_d_state": 4}, {}, "mamba_d_state 4, but the model has 3"),
        ({}, {"dtype": torch.bfloat16}, "dtype torch.bfloat16, but the model has torch.float32"),
        ({}, {"device": "meta"}, "device meta, but the model has cpu"),
    ],
)
def test_the_pool_of_another_model_is_refused(pair, config, kwargs, named):
    model, _ = pair
    pool = StatePool(replace(model.config, **config), 2, **kwargs)
    with pytest.raises(PromptError) as caught:
        model(text(3), state=pool)
    assert named in str(caught.value)
    assert "model.new_state(slots=2)" in str(caught.value)


def test_a_pool_of_the_dtype_of_autocast_fits(pair):
    model, _ = pair
    pool = StatePool(model.config, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        parts = [model(part, state=pool) for part in text(9).split([5, 1, 3])]
    assert torch.cat(parts).isfinite().all()
    assert {t.dtype for state in pool.fixed for t in state.tensors} == {torch.bfloat16, torch.float32}


def test_a_pool_made_and_grown_in_inference_mode_lives_on(pair):
    model, _ = pair
    with torch.inference_mode():
        pool = model.new_state()
        parts = [model(text(100), state=pool)]
    parts += [model(part, state=pool) for part in text(40, seed=1).split([1, 39])]
    whole = torch.cat([text(100), text(40, seed=1)])
    assert torch.allclose(torch.cat(parts), model(whole), rtol=0, atol=1e-4)


def test_text_longer_than_the_context(build):
    model, oracle = build(max_position_embeddings=10)
    pool = model.new_state()
    ids = text(10)
    with torch.no_grad():
        with pytest.raises(ContextError, match=r"11 .*10"):
            model(text(11), state=pool)
        model(ids[:9], state=pool)
        with pytest.raises(ContextError, match=r"11 .*10"):
            model(text(2), state=pool)
        assert error(model(ids[9:], state=pool), oracle.logits(ids)[9:]) < BOUND
        with pytest.raises(ContextError):
            model(ids[:1], state=pool)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_of_ids(pair, dtype):
    model, _ = pair
    with torch.no_grad():
        assert torch.equal(model(text(5).to(dtype)), model(text(5)))
