"""A quantised model is the model of its dequantised weights, in every way that it can be run."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from sambay.layers import Linear
from sambay.model import SambaY
from sambay.ops import backend, native
from sambay.quant import linear
from sambay.quant.convert import quantize
from sambay.quant.linear import QuantEmbedding, QuantHead, QuantLinear
from sambay.quant.stored import is_quantised, quantisable
from sambay.state import StatePool

BOUND = 1e-4
VARIANTS = ("differential", "plain, untied", "biases", "tied with a bias")


def text(length, seed=0):
    return torch.randint(0, 71, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


def error(found, expected):
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.fixture(scope="session")
def quantised(directories):
    return SambaY.from_pretrained(directories())


def in_bytes(x, block):
    """Activations as the kernels round them: (N, k)."""
    blocks = F.pad(x, (0, -x.shape[1] % block)).unflatten(1, (-1, block))
    most = blocks.abs().amax(-1, keepdim=True)
    codes = (blocks * torch.where(most > 0, 127 / most, 0)).round()
    return (codes * (most / 127)).flatten(1)[:, : x.shape[1]]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (6, 128), (8, 64)])
def test_logits_are_those_of_the_dequantised_weights(directories, plain, variant, bits, group):
    model = SambaY.from_pretrained(directories(variant, bits, group, head_bits=8))
    reference = plain(model)
    assert is_quantised(model)
    assert not is_quantised(reference)
    ids = text(37)
    with torch.no_grad(), backend.using("reference"):
        expected = reference(ids)
        assert error(model(ids), expected) < BOUND
        # Only the last rows: the full-attention layer then projects its rows in two parts.
        assert error(model(ids, logits="last"), expected[-1:]) < BOUND
    # The compiled kernels round activations to 8 bits in blocks of 32 or 128, and compute the rest as torch does.
    plainly = linear._torch_product

    def rounded(packed, x, format, *rest):
        return plainly(packed, in_bytes(x, 128 if format.nested else 32), format, *rest)

    with torch.no_grad(), backend.using("reference"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_torch_product", rounded)
        expected = model(ids)
    with torch.no_grad():
        # Now and then a value on the edge of two codes falls to the other side.
        assert error(model(ids), expected) < 3e-2
        assert error(model(ids, logits="last"), expected[-1:]) < 3e-2


def test_every_large_matrix_is_packed_and_nothing_else(quantised, directories):
    packed = {name for name, module in quantised.named_modules() if isinstance(module, QuantLinear | QuantEmbedding)}
    leaves = {name.rpartition(".")[2] for name in packed}
    assert leaves == {"in_proj", "out_proj", "Wqkv", "fc1", "fc2", "embedding"}
    assert not quantisable(quantised)
    assert isinstance(SambaY.from_pretrained(directories("plain, untied")).lm_head, QuantHead)
    assert quantised.dtype is torch.float32
    assert quantised.device.type == "cpu"


def test_what_stays_plain_stays_as_it_is_stored(random_model, tmp_path):
    quantize(random_model(dtype=torch.bfloat16), tmp_path / "model", bits=4)
    model = SambaY.from_pretrained(tmp_path / "model")
    plain = {name: one for name, one in model.named_modules() if isinstance(one, Linear)}
    assert {name.rpartition(".")[2] for name in plain} == {"x_proj", "dt_proj"}
    assert {one.weight.dtype for one in plain.values()} == {torch.bfloat16}
    assert {p.dtype for name, p in model.named_parameters() if name.rpartition(".")[0] not in plain} == {torch.float32}
    assert model.dtype is torch.float32
    model.save_pretrained(tmp_path / "again")
    again, ids = SambaY.from_pretrained(tmp_path / "again"), text(30)
    pools = [model.new_state(), again.new_state()]
    with torch.no_grad():
        found = model(ids)
        for one in plain.values():
            one.weight.data = one.weight.data.float()
        assert torch.equal(model(ids), found)  # half of the bytes, and the same values
        assert torch.equal(again(ids), found)
        with backend.using("reference"):
            assert error(again(ids), model(ids)) == 0
        for token in ids[:5]:
            assert torch.equal(
                *(one(token.view(1, 1), state=pool) for one, pool in zip((model, again), pools, strict=True))
            )


def test_more_bits_are_closer(random_model, directories):
    original, ids = random_model(), text(30)
    with torch.no_grad():
        four, eight = (
            error(SambaY.from_pretrained(directories(bits=bits, head_bits=8))(ids), original.eval()(ids))
            for bits in (4, 8)
        )
    assert eight < four / 5
    assert eight < 0.05


@pytest.mark.parametrize("backend_name", ["reference", "native"])
def test_chunks_batches_and_packing(directories, backend_name):
    if backend_name == "native" and not native.usable():
        pytest.skip("there are no compiled kernels")
    # With heads that the kernels serve, everything runs on them: then what a token gets is the same to the bit.
    model, bound = SambaY.from_pretrained(directories("wide heads")), BOUND if backend_name == "reference" else 0
    texts = [text(length) for length in (3, 17, 9, 1)]
    with torch.no_grad(), backend.using(backend_name):
        whole = [model(ids) for ids in texts]
        offsets = [0, *itertools.accumulate(map(len, texts))]
        packed = model(torch.cat(texts), offsets=offsets)
        assert error(packed, torch.cat(whole)) <= bound
        pool = StatePool(model.config, 4)
        # Together at first, then one token at a time, in an order of their own.
        first = model(torch.stack([ids[:1] for ids in texts]), state=pool)
        assert error(first[:, 0], torch.stack([logits[0] for logits in whole])) <= bound
        for at in range(1, 17):
            going = [slot for slot, ids in enumerate(texts) if len(ids) > at][::-1]
            if going:
                found = model(torch.stack([texts[slot][at : at + 1] for slot in going]), state=pool, slots=going)
                assert error(found[:, 0], torch.stack([whole[slot][at] for slot in going])) <= bound
        for cut in (1, 5, 12):
            pool = StatePool(model.config)
            pieces = [model(piece, state=pool) for piece in (texts[1][:cut], texts[1][cut:])]
            assert error(torch.cat(pieces), whole[1]) <= bound


def test_a_snapshot_is_resumed(quantised):
    ids = text(20)
    with torch.no_grad():
        pool = StatePool(quantised.config, 2)
        first, second = pool.open(), pool.open()
        quantised(ids[:11], state=pool, slots=[first])
        pool.restore(second, pool.snapshot(first))
        found = quantised(ids[11:], state=pool, slots=[second])
        assert error(found, quantised(ids)[11:]) < BOUND


def test_half_precision_activations(directories, quantised):
    model = SambaY.from_pretrained(directories(), dtype=torch.bfloat16)
    assert model.dtype is torch.bfloat16
    ids = text(20)
    with torch.no_grad():
        found = model(ids)
        assert found.dtype is torch.bfloat16
        assert error(found, quantised(ids)) < 0.1


def test_gradients_pass_through(directories, plain):
    """What an adapter on a quantised model needs."""
    model = SambaY.from_pretrained(directories())
    reference = plain(model)
    ids = text(12)
    for each in (model, reference):
        each(ids).float().square().mean().backward()
    for name in ("layers.0.mixer_norm.weight", "layers.5.mlp_norm.weight", "layers.2.mixer.A_log"):
        assert error(model.get_parameter(name).grad, reference.get_parameter(name).grad) < 1e-3
