"""Matrices that stay bfloat16 beside activations of float32: for inference on the compiled kernels."""

import json
import mmap

import pytest
import torch

from sambay.config import SambaYConfig
from sambay.engine import LLM, SamplingParams
from sambay.model import SambaY
from sambay.ops import native
from sambay.ops.backend import using
from sambay.quant.resident import make_resident
from test_programs import CONFIG, VARIANTS, Counter

# What torch does without kernels is in test_checkpoint.py.
pytestmark = pytest.mark.skipif(not native.usable(), reason="only the compiled kernels read weights of another dtype")

IDS = torch.arange(150) % 97


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """`stored(variant, dtype)` -> the directory of a random checkpoint."""

    def make(variant="differential", dtype=torch.bfloat16):
        directory = tmp_path_factory.mktemp("stored") / "model"
        config = SambaYConfig.from_dict(CONFIG | VARIANTS[variant])
        SambaY.random(config, seed=3, dtype=dtype).save_pretrained(directory)
        return directory

    return make


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_float32_model_of_the_same_weights(stored, variant):
    directory = stored(variant)
    model = SambaY.from_pretrained(directory, inference=True)
    wide = SambaY.from_pretrained(directory, dtype="float32", inference=True)
    assert (model.dtype, model.matrix_dtype, model.cache_dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    assert (wide.dtype, wide.matrix_dtype, wide.cache_dtype) == (torch.float32,) * 3
    halves = [name for name, x in model.state_dict().items() if x.dtype is torch.bfloat16]
    wanted = [name for name, x in wide.state_dict().items() if x.ndim == 2 and name.endswith("weight")]
    assert halves == wanted
    # The kernels add up in the same order, whatever the weights are read from.
    assert torch.equal(model(IDS), wide(IDS))
    state = model.new_state(cache_dtype="float32")
    parts = [model(IDS[at : at + 50].view(1, -1), state=state) for at in (0, 50, 100)]
    assert torch.equal(torch.cat(parts, 1)[0], wide(IDS.view(1, -1))[0])


@torch.no_grad()
def test_plain_torch_computes_the_same_model(stored):
    model = SambaY.from_pretrained(stored(), inference=True)
    native_logits = model(IDS)
    with using("reference"):
        assert model.dtype is torch.float32
        torch.testing.assert_close(model(IDS), native_logits, atol=2e-5, rtol=1e-4)
    assert SambaY.from_pretrained(stored()).dtype is torch.bfloat16  # it may be trained


def test_gradients_reach_what_comes_in(stored):
    model = SambaY.from_pretrained(stored(), inference=True)
    wide = SambaY.from_pretrained(stored(), dtype="float32")
    for one in (model, wide):
        one(IDS).square().sum().backward()
    torch.testing.assert_close(
        model.layers[0].mixer_norm.weight.grad, wide.layers[0].mixer_norm.weight.grad, atol=1e-3, rtol=1e-3
    )


@torch.no_grad()
def test_other_dtypes(stored):
    plain = stored(dtype=torch.float32)
    assert SambaY.from_pretrained(plain, inference=True).matrix_dtype is torch.float32
    rounded = SambaY.from_pretrained(plain, dtype="bfloat16", inference=True)
    assert (rounded.dtype, rounded.matrix_dtype) == (torch.float32, torch.bfloat16)
    other = SambaY.from_pretrained(plain, dtype="bfloat16").state_dict()
    for name in ("layers.0.mlp.fc1.weight", "embedding.weight"):
        assert torch.equal(rounded.state_dict()[name], other[name])
    assert SambaY.from_pretrained(stored(), dtype="float16", inference=True).dtype is torch.float16


@torch.no_grad()
def test_a_step_is_recorded(stored, monkeypatch):
    model = SambaY.from_pretrained(stored(), inference=True)
    counter, state = Counter(monkeypatch), model.new_state()
    model(IDS.view(1, -1), state=state)
    for token in range(6):
        model(torch.tensor([[token]]), state=state)
    assert counter.recorded == 1
    assert counter.rerun >= 4


def test_an_engine(stored):
    directory, params = stored(), SamplingParams(temperature=0.7, seed=1, max_tokens=20, ignore_eos=True)
    prompts = [list(range(1, 60)), [5, 6, 7], list(range(20, 90))]
    llm = LLM(directory, deterministic=True, kv_cache_dtype="float32", max_num_batched_tokens=32)
    together = [out.outputs[0].token_ids for out in llm.generate(prompts, params)]
    wide = LLM(directory, dtype="float32")
    assert together == [wide.generate([one], params)[0].outputs[0].token_ids for one in prompts]


@torch.no_grad()
# What happens without is in quant/test_resident.py.
@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has large pages to ask for")
def test_a_copy_in_large_pages(stored):
    model = SambaY.from_pretrained(stored(), inference=True)
    before = model(IDS)
    assert make_resident(model, True)
    places = {x.untyped_storage().data_ptr() for x in model.state_dict().values() if x.dtype is torch.bfloat16}
    assert len(places) == 1
    assert torch.equal(model(IDS), before)
    assert not make_resident(SambaY.from_pretrained(stored()), True)  # torch's products gain nothing


@torch.no_grad()
def test_saved_again(stored, tmp_path):
    model = SambaY.from_pretrained(stored(), inference=True)
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert torch.equal(SambaY.from_pretrained(tmp_path / "again", inference=True)(IDS), model(IDS))


@torch.no_grad()
def test_looked_up_rows_have_the_dtype_that_is_asked_for(stored):
    model = SambaY.from_pretrained(stored(), inference=True)
    plain = SambaY.from_pretrained(stored())
    found, kept = model.embedding(IDS), plain.embedding(IDS)
    assert (found.dtype, kept.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(found, kept.float())
    with using("reference"):
        assert torch.equal(model.embedding(IDS), found)
