"""Tokens that are computed at a guess: what holds leaves the states, and the logits, as if nothing else had been."""

import random
from dataclasses import replace

import pytest
import torch

from sambay.config import SambaYConfig
from sambay.model import SambaY
from sambay.ops import native
from sambay.ops.backend import using

needs_kernels = pytest.mark.skipif(not native.usable(), reason="needs the compiled kernels")
BACKENDS = ["reference", pytest.param("native", marks=needs_kernels)]
LENGTHS = (3, 61, 130)  # before a page ends, before it and the ring do, and behind both


@pytest.fixture(scope="module", params=[True, False], ids=["differential", "plain"])
def model(request):
    config = SambaYConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=64, mamba_d_state=4, mamba_dt_rank=2,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        differential_attention=request.param,
    )  # fmt: skip
    return SambaY.random(config, seed=3)


def opened(model, cache_dtype, texts):
    pool = model.new_state(len(texts), cache_dtype=cache_dtype)
    slots = [pool.open() for _ in texts]
    for slot, text in zip(slots, texts, strict=True):
        compute(model, pool, [slot], [text])
    return pool, slots


def compute(model, pool, slots, texts, drafts=()):
    """All logits of some tokens of each; the batch."""
    lengths = tuple(len(text) for text in texts)
    ids = torch.tensor([token for text in texts for token in text])
    batch = replace(pool.batch(ids, lengths, tuple(slots), lengths), drafts=drafts)
    with torch.inference_mode():
        logits = model.run(batch, pool)
    pool.advance(batch)
    return logits.split(lengths), batch


def assert_same_states(model, pool, other, slots, exact):
    """Where the next tokens will look, both have the same."""
    for slot in slots:
        assert pool.lengths[slot] == other.lengths[slot]
        length = pool.lengths[slot]
        for mine, theirs in zip(pool.layers, other.layers, strict=True):
            for kind in ("conv", "ssm"):
                if getattr(mine, kind) is not None:
                    one, two = (getattr(layer, kind).tensors[0][slot] for layer in (mine, theirs))
                    same(one, two, exact)
            if mine.window is not None:
                ring = mine.window.tiles.tokens
                places = torch.arange(max(0, length - model.config.sliding_window + 1), length) % ring
                owners = torch.full_like(places, slot)
                for one, two in zip(
                    mine.window.tiles.read(owners, places), theirs.window.tiles.read(owners, places), strict=True
                ):
                    same(one, two, exact)
        for one, two in zip(pool.shared.read(slot, length), other.shared.read(slot, length), strict=True):
            same(one, two, exact)


def same(one, two, exact):
    if exact:
        assert torch.equal(one, two)
    else:
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_holds_is_all_there_was(model, backend, cache_dtype):
    """Sequences with drafts and without, side by side; any number of drafts holds, again and again."""
    dice = random.Random(1)
    exact = backend == "native"
    texts = [[dice.randrange(model.config.vocab_size) for _ in range(length)] for length in LENGTHS]
    with using(backend):
        pool, slots = opened(model, cache_dtype, texts)
        plain, _ = opened(model, cache_dtype, texts)
        for turn in range(30 if exact else 10):
            members = dice.sample(slots, dice.choice([1, 1, 2, 3]))
            drafts = [dice.choice([0, 1, 2, 5, 9]) for _ in members]
            new = [[dice.randrange(model.config.vocab_size) for _ in range(1 + count)] for count in drafts]
            found, batch = compute(model, pool, members, new, tuple(drafts) if any(drafts) else ())
            held = [1 + dice.randint(0, count) for count in drafts]
            for place, (slot, count, most) in enumerate(zip(members, held, drafts, strict=True)):
                if most:
                    pool.settle(batch, place, count)
                for step in range(count):
                    [logits], _ = compute(model, plain, [slot], [new[place][step : step + 1]])
                    # Rows of torch's products are near; so are what is kept as int8, a step apart at times.
                    if exact or cache_dtype == "float32":
                        same(found[place][step], logits[0], exact)
            if exact or cache_dtype == "float32":
                assert_same_states(model, pool, plain, slots, exact)
            assert pool.lengths == plain.lengths, turn
