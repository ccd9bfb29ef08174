"""The model against the float64 oracle and the golden data, at many shapes and precisions, and how it is made."""

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn

from helpers import BOUND, error, in_chunks, text
from oracle import Oracle
from sambay.checkpoint import to_disk_name, to_memory_name
from sambay.config import SambaYConfig
from sambay.model import Block, Mamba, SambaY

GOLDEN_LENGTHS = (1, 5, 8, 9, 33, 64)


# ---- golden data


@pytest.fixture(scope="session")
def golden(golden_dir):
    return SambaY.from_pretrained(golden_dir), np.load(golden_dir / "cases.npz")


@pytest.mark.parametrize("length", GOLDEN_LENGTHS)
def test_oracle_is_the_golden_computation(golden_dir, length):
    config = json.loads((golden_dir / "config.json").read_text())
    cases = np.load(golden_dir / "cases.npz")
    found = Oracle(config, load_file(golden_dir / "model.safetensors")).logits(cases[f"ids_{length}"])
    assert error(found, cases[f"logits_{length}"]) < 1e-9


@pytest.mark.parametrize("length", GOLDEN_LENGTHS)
def test_golden_logits(golden, length):
    model, cases = golden
    ids, expected = torch.from_numpy(cases[f"ids_{length}"]), cases[f"logits_{length}"]
    with torch.no_grad():
        assert error(model(ids), expected) < BOUND
        assert error(model(ids, logits="last"), expected[-1:]) < BOUND
        assert error(model(ids[None]), expected[None]) < BOUND
    assert error(in_chunks(model, ids, range(1, length)), expected) < BOUND
    assert error(in_chunks(model, ids, range(3, length, 7)), expected) < BOUND


def test_golden_batch_of_mixed_lengths(golden):
    model, cases = golden
    ids = torch.cat([torch.from_numpy(cases[f"ids_{n}"]) for n in GOLDEN_LENGTHS])
    offsets = np.cumsum([0, *GOLDEN_LENGTHS])
    with torch.no_grad():
        assert (
            error(model(ids, offsets=offsets), np.concatenate([cases[f"logits_{n}"] for n in GOLDEN_LENGTHS])) < BOUND
        )
        last = model(ids, offsets=offsets, logits="last")
    assert error(last, np.stack([cases[f"logits_{n}"][-1] for n in GOLDEN_LENGTHS])) < BOUND


@pytest.mark.parametrize("cached", [True, False], ids=["state", "recomputed"])
def test_golden_greedy(golden, golden_dir, cached):
    model, _ = golden
    expected = json.loads((golden_dir / "greedy.json").read_text())
    ids, pool = list(expected["prompt"]), model.new_state()
    new = ids
    with torch.no_grad():
        for _ in expected["greedy"]:
            given_ids = torch.tensor(new if cached else ids)
            logits = model(given_ids, state=pool if cached else None, logits="last")
            new = [int(logits[-1].argmax())]
            ids += new
    assert ids[len(expected["prompt"]) :] == expected["greedy"]


# ---- the oracle at other shapes

SHAPES = {
    "default": {},
    "window 1": {"sliding_window": 1},
    "window 2": {"sliding_window": 2},
    "window beyond the text": {"sliding_window": 100},
    "4 layers": {"num_hidden_layers": 4},
    "12 layers": {"num_hidden_layers": 12},
    "conv 1": {"mamba_d_conv": 1},
    "conv 2": {"mamba_d_conv": 2},
    "conv beyond the chunks": {"mamba_d_conv": 7},
    "one state": {"mamba_d_state": 1, "mamba_dt_rank": 1},
    "many states": {"mamba_d_state": 9, "mamba_dt_rank": 5, "mamba_expand": 3},
    "one pair": {"num_attention_heads": 2, "num_key_value_heads": 2},
    "groups of 3": {"num_attention_heads": 12, "num_key_value_heads": 4},
    "no groups": {"num_attention_heads": 6, "num_key_value_heads": 6},
    "wide heads": {"head_dim": 10},
    "plain": {"differential_attention": False},
    "plain, odd heads": {"differential_attention": False, "num_attention_heads": 6, "num_key_value_heads": 3},
    "plain, one key": {"differential_attention": False, "num_attention_heads": 3, "num_key_value_heads": 1},
    "rmsnorm": {"norm_type": "rmsnorm", "layer_norm_eps": 1e-2},
    "untied": {"tie_word_embeddings": False},
    "all biases": {
        "mamba_proj_bias": True, "mlp_bias": True, "lm_head_bias": True, "tie_word_embeddings": False,
    },
    "no biases": {"mamba_conv_bias": False, "attention_bias": False},
    "multipliers": {"residual_multiplier": 0.3, "logits_multiplier": 2.5},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_oracle_at_many_shapes(build, name):
    model, oracle = build(seed=len(name), **SHAPES[name])
    ids = text(21)
    expected = oracle.logits(ids)
    with torch.no_grad():
        assert error(model(ids), expected) < BOUND
        assert error(model(ids, logits="last"), expected[-1:]) < BOUND
    assert error(in_chunks(model, ids, [1, 3, 9, 10, 16]), expected) < BOUND


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 40])
def test_oracle_at_lengths_about_the_window(pair, length):
    model, oracle = pair
    ids = text(length, seed=2)
    with torch.no_grad():
        assert error(model(ids), oracle.logits(ids)) < BOUND


def configurations():
    whole = st.integers
    base = st.fixed_dictionaries({
        "num_hidden_layers": st.sampled_from([4, 8, 12]), "sliding_window": whole(1, 12),
        "mamba_d_conv": whole(1, 5),
        "mamba_d_state": whole(1, 6), "mamba_expand": whole(1, 3), "mamba_dt_rank": whole(1, 5),
        "hidden_size": whole(3, 20),
        "intermediate_size": whole(1, 20), "vocab_size": whole(2, 48), "head_dim": whole(1, 6),
        "norm_type": st.sampled_from(["layernorm", "rmsnorm"]),
        "residual_multiplier": st.sampled_from([1.0, 0.25]),
        "logits_multiplier": st.sampled_from([1.0, 0.5]), **{
            key: st.booleans()
            for key in (
                "mamba_conv_bias", "mamba_proj_bias", "mlp_bias", "lm_head_bias", "tie_word_embeddings",
                "attention_bias",
            )
        },
    })  # fmt: skip
    heads = st.tuples(st.booleans(), whole(1, 3), whole(1, 3)).map(
        lambda x: {
            "differential_attention": x[0],
            "num_key_value_heads": x[1] * (1 + x[0]),
            "num_attention_heads": x[1] * x[2] * (1 + x[0]),
        }
    )
    return st.tuples(base, heads).map(lambda x: x[0] | x[1])


def bound_of(oracle, ids, expected):
    """What weights that are off by 1e-6 do, in the worst of three draws: a norm over three channels can divide by
    almost nothing. Models in which that changes the logits by a hundredth are passed over: they would say nothing."""
    rng = np.random.default_rng(0)
    weights, worst = oracle.weights, BOUND
    for _ in range(3):
        oracle.weights = {name: w * (1 + 1e-6 * rng.standard_normal(w.shape)) for name, w in weights.items()}
        worst = max(worst, error(oracle.logits(ids), expected))
        oracle.weights = weights
    assume(worst < 1e-2)
    return worst


@settings(max_examples=40)
@given(config=configurations(), data=st.data())
def test_oracle_at_random_shapes(build, config, data):
    model, oracle = build(seed=data.draw(st.integers(0, 99)), **config)
    ids = text(data.draw(st.integers(1, 18)), vocab=config["vocab_size"])
    expected = oracle.logits(ids)
    cuts = data.draw(st.lists(st.integers(0, len(ids)), max_size=5))
    bound = bound_of(oracle, ids, expected)
    with torch.no_grad():
        assert error(model(ids), expected) < bound
    assert error(in_chunks(model, ids, cuts), expected) < bound


@pytest.mark.slow
@settings(max_examples=400)
@given(config=configurations(), length=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_oracle_at_random_shapes_long(build, config, length, seed):
    model, oracle = build(seed=seed, **config)
    ids = text(length, vocab=config["vocab_size"])
    expected = oracle.logits(ids)
    bound = bound_of(oracle, ids, expected)
    with torch.no_grad():
        assert error(model(ids), expected) < bound


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 6e-2), (torch.float16, 2e-2)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["default", "4 layers", "12 layers", "plain", "multipliers", "all biases"])
def test_half_precision(build, dtype, bound, name):
    model, oracle = build(seed=5, dtype=dtype, **SHAPES[name])
    ids = text(24)
    expected = oracle.logits(ids)
    pool = model.new_state()
    with torch.no_grad():
        whole = model(ids)
    assert whole.dtype is dtype
    assert error(whole, expected) < bound
    assert error(in_chunks(model, ids, [5, 6, 17], pool), expected) < bound
    assert pool.layers[0].ssm.hidden.dtype is torch.float32


def test_the_residual_stream_is_float32(build, monkeypatch):
    model, _ = build(dtype=torch.bfloat16)
    seen, add = [], Block.add

    def spy(block, hidden, mixed, after):
        out, normed = add(block, hidden, mixed, after)
        seen.extend([hidden.dtype, out.dtype])
        assert mixed.dtype is normed.dtype is torch.bfloat16
        return out, normed

    monkeypatch.setattr(Block, "add", spy)
    with torch.no_grad():
        model(text(5))
    assert seen == [torch.float32] * 16


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # subln falls back, rightly
@pytest.mark.parametrize("stateful", [False, True])
def test_autocast(build, stateful):
    """Float32 weights, matrix products in bfloat16: as good as bfloat16 weights; states keep their types."""
    model, oracle = build(seed=5)
    ids = text(24)
    pool = model.new_state() if stateful else None
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(not stateful):
        parts = ids.split([7, 17]) if stateful else [ids]
        out = torch.cat([model(part, state=pool) for part in parts])
    assert error(out, oracle.logits(ids)) < 6e-2
    if stateful:
        assert {t.dtype for state in pool.fixed for t in state.tensors} == {torch.float32}
    else:
        out.float().square().mean().backward()
        gradients = [p.grad for p in model.parameters()]
        assert all(g.dtype is torch.float32 and g.isfinite().all() for g in gradients)


# ---- making a model


def test_random_models_are_seeded(build):
    config = SambaYConfig.from_dict(build()[1].config)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, again, other = (
        SambaY.random(config, seed=1),
        SambaY.random(config, seed=1),
        SambaY.random(config, seed=2),
    )
    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert value.isfinite().all()
        assert torch.equal(value, again.state_dict()[name])
    same = [name for name, value in one.state_dict().items() if torch.equal(value, other.state_dict()[name])]
    assert all(name.endswith(("A_log", ".D", "norm.weight", "norm.bias", "subln.weight", "Wqkv.bias"))
               or ("mixer.out_proj.bias" in name) for name in same)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_are_those_of_mup(build, dtype, tied):
    values = build()[1].config | {
        "tie_word_embeddings": tied,
        "hidden_size": 64,
        "vocab_size": 500,
        "mamba_dt_rank": 16,
    }
    model = SambaY.random(SambaYConfig.from_dict(values), dtype=dtype)
    assert model.dtype is dtype
    assert all(p.dtype is dtype and p.requires_grad for p in model.parameters())
    embedding = model.embedding.weight.float()
    assert abs(embedding.std() / (0.02 if tied else 1e-4) - 1) < 0.03
    if not tied:
        assert not model.lm_head.weight.any()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            limit = module.in_features**-0.5
            weight = module.weight.float()
            assert weight.abs().max() <= limit * 1.01, name
            assert abs(weight.std() * 3**0.5 / limit - 1) < 0.1, name  # uniform
        if isinstance(module, Mamba):
            steps = nn.functional.softplus(module.dt_proj.bias.float())
            assert 0.0009 < steps.min() < 0.004
            assert 0.03 < steps.max() < 0.11
            assert torch.allclose(module.A_log.float().exp(), torch.arange(1.0, 4.0).expand(128, 3), rtol=1e-2)
            assert (module.D == 1).all()


def test_a_model_made_plainly_is_initialised(build):
    config = SambaYConfig.from_dict(build()[1].config)
    torch.manual_seed(0)
    model = SambaY(config)
    with torch.no_grad():
        assert model(text(9)).isfinite().all()
    with torch.device("meta"):
        assert all(p.is_meta for p in SambaY(config).parameters())


def test_parameter_names_are_those_on_disk(build):
    """The oracle lists names and shapes by itself; neither side has more."""
    model, oracle = build(tie_word_embeddings=False, lm_head_bias=True, mamba_proj_bias=True, mlp_bias=True)
    assert {to_disk_name(name): tuple(p.shape) for name, p in model.named_parameters()} == {
        name: value.shape for name, value in oracle.weights.items()
    }
    assert all(to_disk_name(to_memory_name(name)) == name for name in oracle.weights)
