"""Keys and values in tiles: what is written is read back, in every element type, and a model runs on each of them."""

import pytest
import torch

from helpers import error, opened
from sambay.config import PRESETS
from sambay.engine import LLM, SamplingParams
from sambay.errors import ConfigError
from sambay.kv import TILE, KVTiles, cache_dtype_of, entry_bytes
from sambay.model import SambaY
from sambay.ops import backend, native

CPU = torch.device("cpu")
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]
BACKENDS = ["reference", *(["native"] if native.usable() else [])]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("heads", "maps"), [((4, 8), 2), ((3, 4), 1), ((2, 12), 2)])
def test_what_is_written_is_read_back(dtype, heads, maps):
    tiles = KVTiles(3, 2 * TILE, heads, maps, dtype, CPU)
    for tensor in tiles.tensors:
        tensor.random_(0, 99)  # what was there before
    order = torch.randperm(3 * 2 * TILE, generator=torch.Generator().manual_seed(0))
    owners, places = order // (2 * TILE), order % (2 * TILE)
    keys, values = (torch.randn(len(order), *heads) * torch.rand(len(order), 1, 1) * 9 for _ in range(2))
    for part in order.argsort().split(50):  # in pieces, in another order
        tiles.write(owners[part], places[part], keys[part], values[part])
    expected = tiles.rounded(keys, values)
    for found, rounded in zip(tiles.read(owners, places), expected, strict=True):
        assert torch.equal(found, rounded)
    whole = tiles.read_pages(slice(0, 3))
    some = tiles.read_pages(torch.tensor([2, 0]))
    for found, parts, rounded in zip(whole, some, expected, strict=True):
        assert torch.equal(found[order], rounded)
        assert torch.equal(parts, torch.cat([found[4 * TILE :], found[: 2 * TILE]]))
    steps = {torch.float32: 0, torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.int8: 0.51 / 127}[dtype]
    for x, rounded in zip((keys, values), expected, strict=True):
        largest = (
            x.unflatten(1, (-1, maps)).abs().amax((2, 3), keepdim=True).expand(-1, -1, maps, heads[1]).flatten(1, 2)
        )
        # A scale of 16 bits has no steps below 2^-24: 127 times half of that is lost at the most.
        assert ((x - rounded.float()).abs() <= largest * steps + (4e-6 if dtype is torch.int8 else 0)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_bytes_of_a_token(dtype):
    tiles = KVTiles(2, TILE, (4, 8), 2, dtype, CPU)
    assert tiles.nbytes == 2 * TILE * entry_bytes(4, 8, 2, dtype)
    tiles.grow(3)
    assert tiles.nbytes == 5 * TILE * entry_bytes(4, 8, 2, dtype)


def test_a_cache_of_bytes_takes_half_of_bfloat16():
    config = PRESETS["phi4-mini-flash"]
    shape = (config.num_key_value_heads, config.head_dim, 2)
    assert entry_bytes(*shape, torch.bfloat16) == 5120
    assert entry_bytes(*shape, torch.int8) == 2560 + 60


@pytest.fixture(scope="module")
def model():
    model = SambaY.random(PRESETS["tiny"]).eval()
    if model.lm_head.weight is not None:  # muP++ begins with zeros
        torch.nn.init.normal_(model.lm_head.weight, generator=torch.Generator().manual_seed(1))
    return model


def text(length, seed=0):
    return torch.randint(0, 512, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


@pytest.mark.parametrize("which", BACKENDS)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 3e-2), ("float16", 5e-3), ("int8", 4e-2)])
def test_a_model_with_its_keys_and_values_in_other_types(model, which, dtype, bound):
    """In one piece, in chunks, token by token, among others: near the float32 logits, and the same each way."""
    ids = text(150)
    with torch.no_grad(), backend.using(which):
        expected = model(ids).double().numpy()
        runs = []
        for cuts in ([150], [70, 3, 77], [64, *[1] * 20, 66]):
            pool = opened(model.new_state(3, cache_dtype=dtype))
            model(text(30, seed=9), state=pool, slots=[2])
            runs.append(torch.cat([model(part, state=pool, slots=[1]) for part in ids.split(cuts)]))
            assert error(runs[-1], expected) < bound
            pool.copy(1, 0)
            kept = pool.snapshot(1)
            more = [model(text(5, seed=3), state=pool, slots=[slot]) for slot in (0, 1)]
            pool.restore(2, kept)
            more.append(model(text(5, seed=3), state=pool, slots=[2]))
            assert torch.equal(more[0], more[1])
            assert torch.equal(more[0], more[2])
        for run in runs[1:]:  # the last bit of a float32 decides now and then which way a key is rounded
            assert error(run, runs[0].double().numpy()) < (1e-5 if dtype == "float32" else 1e-3)


@pytest.mark.skipif(not native.usable(), reason="of the compiled kernels")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_both_backends_go_on_from_each_other(model, dtype):
    ids, runs = text(140, seed=1), []
    for order in (("native", "reference", "native"), ("reference", "native", "reference")):
        pool = opened(model.new_state(1, cache_dtype=dtype))
        parts = []
        for which, part in zip(order, ids.split([66, 1, 73]), strict=True):
            with torch.no_grad(), backend.using(which):
                parts.append(model(part, state=pool))
        runs.append(torch.cat(parts))
    assert error(runs[0], runs[1].double().numpy()) < 1e-3


def test_the_default_of_a_model(model, tmp_path):
    assert model.cache_dtype is torch.float32
    assert model.new_state().cache_dtype is torch.float32
    other = SambaY.random(PRESETS["tiny"])
    other.cache_dtype = "int8"
    assert other.new_state().shared.tiles.dtype is torch.int8
    assert other.new_state(cache_dtype=torch.bfloat16).cache_dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_engine_generates_with_it(model, tmp_path, dtype):
    model.save_pretrained(tmp_path)
    params = SamplingParams(temperature=0, max_tokens=90, ignore_eos=True)
    llm = LLM(tmp_path, kv_cache_dtype=dtype, max_num_batched_tokens=48)
    together = llm.generate([text(70).tolist(), text(9).tolist(), text(130).tolist()], params)
    assert llm.engine.pool.cache_dtype is cache_dtype_of(dtype)
    alone = [llm.generate(text(n).tolist(), params)[0] for n in (70, 9, 130)]
    assert [len(out.outputs[0].token_ids) for out in alone] == [90] * 3
    if dtype == "float32":
        assert [out.outputs[0].token_ids for out in together] == [out.outputs[0].token_ids for out in alone]


def test_types_that_keys_and_values_cannot_be_kept_in(model):
    message = "the KV cache dtype is 'int4': it must be one of auto, float32, bfloat16, float16, int8"
    with pytest.raises(ConfigError, match=message):
        LLM(kv_cache_dtype="int4")
    with pytest.raises(ConfigError, match=message):
        model.new_state(cache_dtype="int4")
    with pytest.raises(ConfigError, match="heads of a width that 4 divides, not 6"):
        KVTiles(1, TILE, (2, 6), 2, torch.int8, CPU)
    assert cache_dtype_of("auto") is cache_dtype_of(None) is None
