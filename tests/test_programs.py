"""A decoding step that is run again as it was recorded is the step itself, to the bit."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from sambay.config import SambaYConfig
from sambay.model import SambaY
from sambay.ops import native, programs
from sambay.quant.convert import quantize

pytestmark = pytest.mark.skipif(not native.usable(), reason="there are no compiled kernels")

CONFIG = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 40, "mamba_d_state": 16, "mamba_dt_rank": 4,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "torch_dtype": "float32",
}  # fmt: skip

VARIANTS = {
    "differential": {},
    "plain": {"differential_attention": False, "norm_type": "rmsnorm", "attention_bias": False},
    "untied": {"tie_word_embeddings": False, "lm_head_bias": True, "mamba_proj_bias": True, "mlp_bias": True},
    "tied, scaled": {"lm_head_bias": True, "logits_multiplier": 0.5, "residual_multiplier": 0.3},
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """`build(variant, bits)`: a random model, plain for 0 bits."""

    def make(variant="differential", bits=4):
        model = SambaY.random(SambaYConfig.from_dict(CONFIG | VARIANTS[variant]), seed=3).eval()
        if not bits:
            return model
        directory = tmp_path_factory.mktemp("quant") / "model"
        quantize(model, directory, bits=bits)
        return SambaY.from_pretrained(directory)

    return make


class Counter:
    """How often the model itself was run, and how often a record of it."""

    def __init__(self, monkeypatch):
        self.computed = self.recorded = self.rerun = 0
        original = SambaY._run
        record, run = programs._Step.record, programs._Step.run

        def _run(model, *arguments):
            self.computed += 1
            return original(model, *arguments)

        def _record(*arguments):
            self.recorded += 1
            return record(*arguments)

        def _rerun(*arguments):
            self.rerun += 1
            return run(*arguments)

        monkeypatch.setattr(SambaY, "_run", _run)
        monkeypatch.setattr(programs._Step, "record", _record)
        monkeypatch.setattr(programs._Step, "run", _rerun)


@pytest.fixture
def counter(monkeypatch):
    return Counter(monkeypatch)


def eagerly(monkeypatch):
    monkeypatch.setattr(programs.Programs, "run", lambda self, model, batch, pool, compute: compute(batch))


def steps(model, pool, schedule, seed=0):
    """Logits of steps for the slots that each entry names, in its order."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for slots in schedule:
        ids = torch.randint(97, (len(slots),), generator=generator)
        batch = pool.batch(ids, (1,) * len(slots), tuple(slots))
        out.append(model.run(batch, pool))
        pool.advance(batch)
    return out


def prompted(model, lengths, *, tokens=2048, **options):
    pool = model.new_state(len(lengths), tokens=tokens, **options)
    for slot, length in enumerate(lengths):
        assert pool.open() == slot
        ids = torch.randint(97, (length,), generator=torch.Generator().manual_seed(length))
        model(ids, offsets=[0, length], state=pool, slots=[slot], logits="last")
    return pool


def same(found, expected):
    assert len(found) == len(expected)
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


SCHEDULE = [[0]] * 3 + [[2, 0]] * 60 + [[1, 2, 0], [0, 1, 2], [2, 1, 0]] * 30 + [[1]] * 5 + [[0, 2]] * 9
"""Over borders of pages and of the window, in any order of slots, with sequences that come and go."""


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [0, 4, 8])
def test_steps_are_the_same(build, variant, bits, counter):
    model = build(variant, bits)
    found = steps(model, prompted(model, (5, 63, 130)), SCHEDULE)
    assert counter.recorded == 3  # for one, two and three sequences: recorded, then run again
    assert counter.rerun == len(SCHEDULE) - 4  # the very first was computed alone
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        assert same(found, steps(model, prompted(model, (5, 63, 130)), SCHEDULE))


@pytest.mark.parametrize("cache", ["float32", "bfloat16", "int8"])
def test_every_kind_of_cache(build, cache, counter):
    model = build()
    found = steps(model, prompted(model, (70, 3), cache_dtype=cache), [[1, 0]] * 140)
    assert counter.rerun > 130
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        assert same(found, steps(model, prompted(model, (70, 3), cache_dtype=cache), [[1, 0]] * 140))


def test_logits_stay_what_they_were(build):
    model = build()
    pool = prompted(model, (4,))
    found = steps(model, pool, [[0]] * 6)
    kept = [one.clone() for one in found]
    steps(model, pool, [[0]] * 6, seed=1)
    assert same(found, kept)


def test_the_cache_grows(build, counter):
    model = build()
    pool = prompted(model, (60,), tokens=64)
    address = pool.shared.tiles.keys.data_ptr()
    found = steps(model, pool, [[0]] * 80)
    assert pool.shared.tiles.keys.data_ptr() != address
    assert counter.recorded >= 2
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        assert same(found, steps(model, prompted(model, (60,)), [[0]] * 80))


def changed(model, how):
    block = model.layers[2]
    if how == "in place":
        block.mixer.A_log.mul_(1.1)
    elif how == "codes":
        block.mlp.fc1.packed.add_(1)
    elif how == "a parameter":
        block.mixer_norm.weight = torch.nn.Parameter(block.mixer_norm.weight * 2)
    elif how == "data":
        block.mixer.D.data = block.mixer.D * 3
    elif how == "a module":
        block.mlp.fc1 = model.layers[3].mlp.fc1
    elif how == "a hook":
        block.mlp.fc2.register_forward_hook(lambda module, arguments, out: out * 2)
        block.mixer.in_proj.register_forward_hook(lambda module, arguments, out: out * 2)


@pytest.mark.parametrize("how", ["in place", "codes", "a parameter", "data", "a module", "a hook"])
def test_changes_are_seen(build, how, counter):
    model, other = build(), build()
    pool = prompted(model, (9,))
    steps(model, pool, [[0]] * 5)
    assert counter.rerun == 3
    changed(model, how)
    found = steps(model, pool, [[0]] * 5, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        pool = prompted(other, (9,))
        steps(other, pool, [[0]] * 5)
        changed(other, how)
        expected = steps(other, pool, [[0]] * 5, seed=1)
    assert same(found, expected)


def test_threads_and_instruction_sets(build):
    model, before = build(), native.threads()
    usable = [name for name, obstacle in native.instruction_sets() if not obstacle]
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        expected = {}
        for isa in usable:
            with native.forced(isa):
                expected[isa] = steps(model, prompted(model, (9,)), [[0]] * 4)
    pools = {isa: prompted_by(model, isa) for isa in usable}
    try:
        for isa in usable:
            with native.forced(isa):
                found = []
                generator = torch.Generator().manual_seed(0)
                for threads in (1, 2, 5, 5):
                    native.set_threads(threads)
                    ids = torch.randint(97, (1,), generator=generator)
                    batch = pools[isa].batch(ids, (1,), (0,))
                    found.append(model.run(batch, pools[isa]))
                    pools[isa].advance(batch)
                assert same(found, expected[isa])
    finally:
        native.set_threads(before)


def prompted_by(model, isa):
    with native.forced(isa):
        return prompted(model, (9,))


def test_pools_do_not_mix(build):
    model = build()
    pools = [prompted(model, (length,)) for length in (7, 90)]
    found = [[], []]
    for _ in range(6):
        for i in (0, 1):
            ids = torch.tensor([11])
            batch = pools[i].batch(ids, (1,), (0,))
            found[i].append(model.run(batch, pools[i]))
            pools[i].advance(batch)
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        for i, length in enumerate((7, 90)):
            pool = prompted(model, (length,))
            for one in found[i]:
                batch = pool.batch(torch.tensor([11]), (1,), (0,))
                assert torch.equal(one, model.run(batch, pool))
                pool.advance(batch)


def test_a_model_that_torch_computes_goes_on_as_before(build, counter):
    model = build("differential", 0).to(torch.bfloat16)
    pool = prompted(model, (5,))
    found = steps(model, pool, [[0]] * 6)
    assert counter.recorded == 1  # which showed it
    assert counter.rerun == 0
    assert len(found) == 6


def test_what_torch_computes_in_between_is_noticed(build, counter):
    model = build()
    mixer = model.layers[3].mixer
    inner = mixer.out_proj

    class Twice(torch.nn.Module):
        def forward(self, x):
            return inner(x) * 2

    mixer.out_proj = Twice()
    pool = prompted(model, (5,))
    found = steps(model, pool, [[0]] * 6)
    assert counter.recorded == 1
    assert counter.rerun == 0
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        assert same(found, steps(model, prompted(model, (5,)), [[0]] * 6))


def test_prompts_and_chosen_rows_are_computed(build, counter):
    model = build()
    pool = prompted(model, (5,))
    steps(model, pool, [[0]] * 4)
    assert counter.rerun == 2
    before = counter.computed
    batch = pool.batch(torch.tensor([1, 2]), (2,), (0,), (1,))
    model.run(batch, pool)
    pool.advance(batch)
    batch = pool.batch(torch.tensor([1]), (1,), (0,), (0,))  # nothing is asked
    assert model.run(batch, pool).shape == (0, 97)
    pool.advance(batch)
    seen = []
    batch = pool.batch(torch.tensor([1]), (1,), (0,))
    model.run(batch, pool, hidden_states=seen)
    assert len(seen) == 9
    assert counter.computed == before + 3


def test_a_recording_that_fails_leaves_nothing_behind(build, counter, monkeypatch):
    model = build()
    pool = prompted(model, (5,))
    steps(model, pool, [[0]])
    with monkeypatch.context() as patch:

        def broken(*arguments):
            raise RuntimeError("broken")

        patch.setattr(type(model.layers[5].mlp), "forward", broken)
        with pytest.raises(RuntimeError, match="broken"):
            steps(model, pool, [[0]])
    pool.reset(0)
    ids = torch.tensor([5, 6])
    model(ids, offsets=[0, 2], state=pool, slots=[0], logits="last")
    found = steps(model, pool, [[0]] * 4)
    assert counter.rerun >= 2
    pool = model.new_state(1)
    pool.open()
    with pytest.MonkeyPatch.context() as other:
        eagerly(other)
        model(ids, offsets=[0, 2], state=pool, slots=[0], logits="last")
        assert same(found, steps(model, pool, [[0]] * 4))


def test_copies_and_pickles_have_no_records(build):
    model = build()
    pool = prompted(model, (5,))
    found = steps(model, pool, [[0]] * 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not twin._programs._pools
        assert same(found, steps(twin, prompted(twin, (5,)), [[0]] * 4))
    assert len(model._programs._pools) == 1
    del pool
    assert not model._programs._pools


def test_torchs_compiler_is_not_loaded():
    """It takes two seconds: at the start, or in the midst of the first answer."""
    code = (
        "import sys; from sambay import LLM, SamplingParams\n"
        "LLM(device='cpu').generate('12 + 7', SamplingParams(max_tokens=6, ignore_eos=True))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
