"""The model against the float64 oracle, in every way that it can be run.

Bounds: errors are the largest difference over the largest logit. Float32 gives about 1e-6 and is held to
2e-5; bfloat16 keeps 8 bits and float16 11 through all layers, and they are held to 6e-2 and 2e-2 (two to three
times what is measured).
"""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from oracle import Oracle
from sambay.batch import Batch
from sambay.checkpoint import to_disk_name, to_memory_name
from sambay.config import LayerRole, SambaYConfig
from sambay.errors import ContextError, PromptError, SambaYError
from sambay.model import Block, Mamba, SambaY
from sambay.ops import reference as ops
from sambay.state import StatePool

BOUND = 2e-5
GOLDEN_LENGTHS = (1, 5, 8, 9, 33, 64)


def error(found, expected):
    """Largest difference, relative to the largest expected value."""
    found = np.asarray(found.detach().double() if torch.is_tensor(found) else found)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return np.abs(found - expected).max() / np.abs(expected).max()


def text(length, seed=0, vocab=48):
    return torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


def in_chunks(model, ids, cuts, pool=None, slot=0):
    """Logits at all positions, with the text given in pieces."""
    pool = pool or StatePool(model.config)
    bounds = sorted({0, *cuts, len(ids)})
    with torch.no_grad():
        pieces = [model(ids[a:b], state=pool, slots=[slot]) for a, b in itertools.pairwise(bounds)]
    assert pool.lengths[slot] == len(ids)
    return torch.cat(pieces)


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
    ids, pool = list(expected["prompt"]), StatePool(model.config)
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
    """What weights that are off by 1e-6 do: a norm over three channels can divide by almost nothing."""
    rng = np.random.default_rng(0)
    weights = oracle.weights
    oracle.weights = {name: w * (1 + 1e-6 * rng.standard_normal(w.shape)) for name, w in weights.items()}
    bound = max(BOUND, error(oracle.logits(ids), expected))
    oracle.weights = weights
    assert bound < 0.2  # or the test would say nothing
    return bound


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
    with torch.no_grad():
        assert error(model(ids), expected) < bound_of(oracle, ids, expected)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 6e-2), (torch.float16, 2e-2)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["default", "4 layers", "12 layers", "plain", "multipliers", "all biases"])
def test_half_precision(build, dtype, bound, name):
    model, oracle = build(seed=5, dtype=dtype, **SHAPES[name])
    ids = text(24)
    expected = oracle.logits(ids)
    pool = StatePool(model.config, dtype=dtype)
    with torch.no_grad():
        whole = model(ids)
    assert whole.dtype is dtype
    assert error(whole, expected) < bound
    assert error(in_chunks(model, ids, [5, 6, 17], pool), expected) < bound
    assert pool.layers[0].ssm.hidden.dtype is torch.float32


def test_the_residual_stream_is_float32(build, monkeypatch):
    model, _ = build(dtype=torch.bfloat16)
    seen, add = [], Block.add

    def spy(block, hidden, mixed):
        out = add(block, hidden, mixed)
        seen.extend([hidden.dtype, out.dtype])
        assert mixed.dtype is torch.bfloat16
        return out

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
    pool = StatePool(model.config) if stateful else None
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


# ---- state: chunks, packed documents, batches


@settings(max_examples=40)
@given(length=st.integers(1, 40), cuts=st.sets(st.integers(1, 39), max_size=12))
def test_any_chunking(pair, length, cuts):
    model, oracle = pair
    ids = text(length, seed=3)
    assert error(in_chunks(model, ids, [c for c in cuts if c < length]), oracle.logits(ids)) < BOUND


def test_token_by_token_over_pages(build):
    model, oracle = build(seed=7, num_hidden_layers=4)
    ids = text(150)
    assert error(in_chunks(model, ids, range(1, 150)), oracle.logits(ids)) < BOUND


def test_default_slots_continue_a_dense_batch(pair):
    model, oracle = pair
    ids = text(24, seed=4).view(3, 8)
    pool = StatePool(model.config, 3)
    with torch.no_grad():
        first, second = model(ids[:, :5], state=pool), model(ids[:, 5:], state=pool, logits="last")
    assert first.shape == (3, 5, 48)
    assert second.shape == (3, 1, 48)
    for row, whole in enumerate(oracle.logits(document) for document in ids):
        assert error(first[row], whole[:5]) < BOUND
        assert error(second[row], whole[-1:]) < BOUND


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=7))
def test_packed_documents(pair, lengths):
    model, oracle = pair
    documents = [text(n, seed=i) for i, n in enumerate(lengths)]
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=offsets)
        last = model(torch.cat(documents), offsets=offsets, logits="last")
    assert last.shape == (len(lengths), 48)
    for document, found, final in zip(documents, packed.split(lengths), last, strict=True):
        expected = oracle.logits(document)
        assert error(found, expected) < BOUND
        assert error(final, expected[-1]) < BOUND


@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 9, 8, 1, 7), (1, 1, 1), (2, 30, 2)])
@pytest.mark.parametrize("logits", ["all", "last"])
def test_neighbours_change_no_bit(build, lengths, logits):
    """Not even a neighbour that is NaN all over, in any place of the pack."""
    model, _ = build(seed=2, tie_word_embeddings=False)
    with torch.no_grad():
        model.embedding.weight[0] = float("nan")
    documents = [text(n, seed=i).clamp(min=1) for i, n in enumerate(lengths)]
    offsets = [0, *np.cumsum(lengths)]
    rows = lengths if logits == "all" else (1,) * len(lengths)
    for keep in range(len(lengths)):
        poisoned = [d if i == keep else torch.zeros_like(d) for i, d in enumerate(documents)]
        others = [d if i == keep else (d + 7) % 47 + 1 for i, d in enumerate(documents)]
        with torch.no_grad():
            runs = [
                model(torch.cat(pack), offsets=offsets, logits=logits).split(rows)
                for pack in (documents, poisoned, others)
            ]
        assert runs[0][keep].isfinite().all()
        assert torch.equal(runs[0][keep], runs[1][keep])
        assert torch.equal(runs[0][keep], runs[2][keep])
        other = (keep + 1) % len(lengths)
        assert runs[1][other].isnan().all()
        assert not torch.equal(runs[0][other], runs[2][other])


@pytest.mark.parametrize("lengths", [(3, 4), (9, 10, 11, 12), (12, 11, 10, 9), (10, 12, 3, 11, 4), (7, 7, 7)])
def test_last_logits_and_steps_of_sequences_of_similar_length(pair, lengths):
    """Sequences of similar length are computed together, longest first; each gets its own result back."""
    model, oracle = pair
    documents = [text(n + 2, seed=i) for i, n in enumerate(lengths)]
    expected = [oracle.logits(d) for d in documents]
    prompts = torch.cat([d[:-2] for d in documents])
    offsets = [0, *np.cumsum(lengths)]
    slots = list(range(len(lengths)))[::-1]
    pool = StatePool(model.config, len(lengths))
    with torch.no_grad():
        pure = model(prompts, offsets=offsets, logits="last")
        first = model(prompts, offsets=offsets, logits="last", state=pool, slots=slots)
        steps = [
            model(torch.stack([d[place] for d in documents])[:, None], state=pool, slots=slots)[:, 0]
            for place in (-2, -1)
        ]
    for found, place in ((pure, -3), (first, -3), (steps[0], -2), (steps[1], -1)):
        for row, whole in zip(found, expected, strict=True):
            assert error(row, whole[place]) < BOUND


@settings(max_examples=30)
@given(data=st.data())
def test_batches_of_mixed_sequences_through_the_pool(pair, data):
    """Any of the sequences, in any slots and order, chunks of any size, logits for none, one, some or all."""
    model, oracle = pair
    slots, count = 6, data.draw(st.integers(1, 4))
    documents = [text(data.draw(st.integers(4, 26)), seed=i) for i in range(count)]
    expected = [oracle.logits(d) for d in documents]
    home = data.draw(st.permutations(range(slots)))[:count]
    pool = StatePool(model.config, slots)
    done = [0] * count
    for _ in range(6):
        order = [i for i in data.draw(st.permutations(range(count))) if done[i] < len(documents[i])]
        order = order[: data.draw(st.integers(1, count))]
        if not order:
            break
        lengths = [data.draw(st.integers(1, min(11, len(documents[i]) - done[i]))) for i in order]
        wanted = [data.draw(st.sampled_from(sorted({0, 1, n // 2, n}))) for n in lengths]
        ids = torch.cat([documents[i][done[i] : done[i] + n] for i, n in zip(order, lengths, strict=True)])
        batch = pool.batch(ids, tuple(lengths), tuple(home[i] for i in order), tuple(wanted))
        with torch.no_grad():
            out = model.run(batch, pool)
        pool.advance(batch)
        assert len(out) == sum(wanted)
        for i, n, w, rows in zip(order, lengths, wanted, out.split(wanted), strict=True):
            done[i] += n
            if w:
                assert error(rows, expected[i][done[i] - w : done[i]]) < BOUND
    for i in range(count):
        assert pool.lengths[home[i]] == done[i]


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_chunk_in_the_middle_of_prompts(pair, sequences):
    """No sequence of the pass asks for logits: its states advance all the same."""
    model, oracle = pair
    documents = [text(9, seed=s) for s in range(sequences)]
    pool = StatePool(model.config, sequences)
    every = tuple(range(sequences))
    ids = torch.cat([d[: 4 + s] for s, d in enumerate(documents)])
    batch = pool.batch(ids, tuple(4 + s for s in every), every, (0,) * sequences)
    with torch.no_grad():
        out = model.run(batch, pool)
    pool.advance(batch)
    assert out.shape == (0, 48)
    for s, document in enumerate(documents):
        with torch.no_grad():
            rest = model(document[4 + s :], state=pool, slots=[s])
        assert error(rest, oracle.logits(document)[4 + s :]) < BOUND


def test_state_is_the_only_thing_changed(pair):
    model, _ = pair
    pool = StatePool(model.config, 3)
    with torch.no_grad():
        model(text(30).view(3, 10), state=pool)
        before = pool.snapshot(0), pool.snapshot(2)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        ids = text(5)
        given_ids = ids.clone()
        model(ids, state=pool, slots=[1])
        model(ids)
    assert torch.equal(ids, given_ids)
    for saved, slot in zip(before, (0, 2), strict=True):
        now = pool.snapshot(slot)
        flat = [t for state in (*now.fixed, now.shared) for t in state]
        assert now.length == saved.length == 10
        assert all(
            torch.equal(a, b) for a, b in zip(flat, [t for s in (*saved.fixed, saved.shared) for t in s], strict=True)
        )
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("block", [1, 3, 8])
def test_long_inputs_are_cut_into_query_blocks(pair, monkeypatch, block):
    model, oracle = pair
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    documents = [text(23), text(20), text(4)]
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=[0, 23, 43, 47]).split([23, 20, 4])
    for document, found in zip(documents, packed, strict=True):
        assert error(found, oracle.logits(document)) < BOUND
    assert error(in_chunks(model, documents[0], [5, 19]), oracle.logits(documents[0])) < BOUND


@pytest.mark.parametrize("elements", [1, 500, 1500])  # a step is 144 elements per sequence
def test_long_inputs_are_cut_into_scan_chunks(pair, monkeypatch, elements):
    model, oracle = pair
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    documents = [text(23), text(20), text(4)]
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=[0, 23, 43, 47]).split([23, 20, 4])
    for document, found in zip(documents, packed, strict=True):
        assert error(found, oracle.logits(document)) < BOUND
    assert error(in_chunks(model, documents[0], [5, 19]), oracle.logits(documents[0])) < BOUND


def test_blocks_of_the_real_size(build):
    """More queries than `_QUERY_BLOCK`, unpatched."""
    model, oracle = build(num_hidden_layers=4, sliding_window=16)
    ids = text(ops._QUERY_BLOCK + 9)
    expected = oracle.logits(ids)
    with torch.no_grad():
        assert error(model(ids), expected) < BOUND
    assert error(in_chunks(model, ids, [len(ids) - 3]), expected) < BOUND


# ---- gradients


def packed_loss(model, documents, weights):
    offsets = [0, *np.cumsum([len(d) for d in documents])]
    return (model(torch.cat(documents), offsets=offsets) * torch.cat(weights)).sum()


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 3},
        {
            "differential_attention": False, "norm_type": "rmsnorm", "tie_word_embeddings": False,
            "residual_multiplier": 0.5,
        },
        {"mamba_proj_bias": True, "mlp_bias": True, "lm_head_bias": True, "logits_multiplier": 2.0},
    ],
    ids=["phi4flash", "plain", "biases"],
)  # fmt: skip
def test_gradient_of_every_parameter(build, changes):
    """Directional derivatives by central differences of the float64 oracle, on packed documents.

    The step is 1e-5, on directions of length one: the truncation and the rounding of the float64 difference
    are both below 1e-6 of the gradient, so what is compared is the float32 backward pass.
    """
    model, oracle = build(seed=4, vocab_size=16, hidden_size=12, intermediate_size=10, **changes)
    documents = [text(n, seed=n, vocab=16) for n in (5, 2, 4)]
    rng = np.random.default_rng(0)
    weights = [torch.from_numpy(rng.standard_normal((len(d), 16))) for d in documents]
    packed_loss(model, documents, [w.float() for w in weights]).backward()

    def loss():
        return sum((oracle.logits(d) * w.numpy()).sum() for d, w in zip(documents, weights, strict=True))

    kinds = set()
    for name, parameter in model.named_parameters():
        kinds.add(name.split(".", 2)[-1])
        gradient = parameter.grad.double().numpy()
        value = oracle.weights[to_disk_name(name)]
        original = value.copy()
        along = gradient / np.linalg.norm(gradient)
        across = rng.standard_normal(value.shape)
        for direction in (along, across / np.linalg.norm(across)):
            ends = []
            for step in (1e-5, -1e-5):
                value[...] = original + step * direction
                ends.append(loss())
            value[...] = original
            expected = (ends[0] - ends[1]) / 2e-5
            found = (gradient * direction).sum()
            assert abs(found - expected) < 2e-4 * np.linalg.norm(gradient), (name, found, expected)
    assert {
        "mixer.A_log",
        "mixer.D",
        "mixer.conv1d.weight",
        "mixer.dt_proj.bias",
        "mixer.Wqkv.weight",
        "mlp.fc1.weight",
    } <= kinds


@pytest.mark.parametrize("elements", [1 << 19, 700])
def test_training_on_packed_documents_is_training_on_each(build, monkeypatch, elements):
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    model, _ = build(seed=6)
    documents = [text(n, seed=n) for n in (3, 17, 12, 1, 16)]
    weights = [torch.randn(len(d), 48, generator=torch.Generator().manual_seed(len(d))) for d in documents]
    packed_loss(model, documents, weights).backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for document, weight in zip(documents, weights, strict=True):
        (model(document[None])[0] * weight).sum().backward()
    for name, parameter in model.named_parameters():
        assert (packed[name] - parameter.grad).norm() < 1e-4 * parameter.grad.norm(), name


def test_gradient_of_the_last_logits(build):
    """The path that drops rows at the border has the gradient of the one that does not."""
    model, _ = build(seed=6)
    ids, offsets = text(19), [0, 7, 19]
    weight = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    (model(ids, offsets=offsets)[[6, 18]] * weight).sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (model(ids, offsets=offsets, logits="last") * weight).sum().backward()
    for name, parameter in model.named_parameters():
        assert (whole[name] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm(), name


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.95), (torch.float16, 0.99)])
def test_half_precision_gradients_point_the_same_way(build, dtype, least):
    documents = [text(n, seed=n) for n in (9, 4)]
    weights = [torch.randn(len(d), 48, generator=torch.Generator().manual_seed(len(d))) for d in documents]
    half, exact = build(seed=6, dtype=dtype)[0], build(seed=6, dtype=dtype)[0].float()
    for model in (exact, half):
        packed_loss(model, documents, [w.to(model.dtype) for w in weights]).backward()
    pairs = zip(exact.parameters(), half.parameters(), strict=True)
    flat = [torch.cat([g.grad.flatten().double() for g in side]) for side in zip(*pairs, strict=True)]
    assert torch.cosine_similarity(*flat, dim=0) > least


def test_a_state_may_be_given_while_gradients_are_on(pair):
    """States hold no graph: nothing of an earlier pass is kept alive or differentiated."""
    model, _ = pair
    pool = StatePool(model.config)
    for _ in range(2):
        assert model(text(6), state=pool).requires_grad
    assert not any(t.requires_grad for state in pool.fixed for t in state.tensors)
    assert not pool.shared.keys.requires_grad


# ---- what is computed


def macs_of_prompt(config, length, last, block):
    """Multiply-adds of matrix products by the description: layers 0 to L/2 and K and V of layer L/2+1 for all
    tokens; the rest for `rows` tokens. Attention is cut into blocks of queries,
    each with the keys that any of
    the block sees."""
    h, d, n, r, m = (
        config.hidden_size, config.d_inner, config.mamba_d_state, config.mamba_dt_rank,
        config.intermediate_size,
    )  # fmt: skip
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    quarter = config.num_hidden_layers // 4
    rows = 1 if last else length
    mamba = h * 2 * d + d * (r + 2 * n) + r * d + d * h + n * d  # the last: the scan's C h
    sliding = h * (q + 2 * kv) + q * h
    mlp = 3 * h * m
    every_token = (quarter + 1) * mamba + quarter * sliding + (2 * quarter + 1) * mlp + h * 2 * kv
    gmu, cross = 2 * h * d, 2 * h * q
    every_row = cross + mlp + (quarter - 1) * (gmu + cross + 2 * mlp) + h * config.vocab_size

    def attention(queries, window):  # q k and weights v: 2 products of H dh
        total = 0
        for low in range(0, queries, block):
            high = min(low + block, queries)
            first = length - queries
            seen = first + high - (0 if window is None else max(0, first + low - window + 1))
            total += 2 * q * (high - low) * seen
        return total

    scores = quarter * attention(length, config.sliding_window) + quarter * attention(rows, None)
    return length * every_token + rows * every_row + scores


@pytest.mark.parametrize("block", [256, 8])
@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 12}, {"differential_attention": False}])
def test_a_prompt_computes_only_what_it_needs(build, monkeypatch, changes, length, block):
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    model, _ = build(**changes)
    for last in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(length), logits="last" if last else "all")
        assert counter.get_total_flops() == 2 * macs_of_prompt(model.config, length, last, block)


def test_a_prompt_costs_about_half(build):
    """In figures that a wrong formula above could not hide."""
    model, _ = build(num_hidden_layers=12, vocab_size=48)
    flops = {}
    for last in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(200), logits="last" if last else "all")
        flops[last] = counter.get_total_flops()
    assert flops[True] < 0.62 * flops[False]


def test_a_new_token_costs_one_token(build):
    """With a state nothing of the past is computed again: attention alone grows, 2 H dh products a token."""
    model, _ = build()
    config = model.config
    pool = StatePool(config)
    costs = []
    for length in (30, 1, 1, 50, 1):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(length), state=pool, logits="last")
        costs.append(counter.get_total_flops() // 2)
    one = macs_of_prompt(config, 1, True, 256)
    q, quarter = config.num_attention_heads * config.head_dim, config.num_hidden_layers // 4
    for cost, seen in ((costs[1], 31), (costs[2], 32), (costs[4], 83)):
        # a text of one token attends to one key everywhere; here to a whole window, and to all `seen`
        assert cost == one + quarter * 2 * q * (config.sliding_window - 1) + quarter * 2 * q * (seen - 1)


@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 12, "differential_attention": False}])
@pytest.mark.parametrize("stateful", [False, True])
def test_rows_that_each_module_sees(build, changes, stateful):
    model, _ = build(**changes)
    length, lengths = 23, [11, 2, 10]
    seen = {}

    def record(name):
        def hook(module, args, output):
            assert name not in seen, f"{name} ran twice"
            seen[name] = args[0].shape[0]

        return hook

    leaves = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
    handles = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if isinstance(m, leaves)]
    pool = StatePool(model.config, 3) if stateful else None
    with torch.no_grad():
        model(text(length), offsets=[0, *np.cumsum(lengths)], logits="last", state=pool)
    for handle in handles:
        handle.remove()
    full = model.config.full_layer
    for name, rows in seen.items():
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "layers" else None
        border = layer == full and parts[2] == "mixer_norm"  # the keys and values need it
        everything = name == "embedding" or border or (layer is not None and layer < full)
        assert rows == (length if everything else len(lengths)), name
    # dt_proj and the border's Wqkv are used by their weights: the multiply-adds above count them
    hidden = {name for name, m in model.named_modules() if isinstance(m, leaves)} - set(seen)
    assert all(name.endswith("dt_proj") or name == f"layers.{full}.mixer.Wqkv" for name in hidden)


class Wrapped(nn.Module):
    """Stands where a projection stood, as an adapter does; it must be called, and may be called once only."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x)


@pytest.mark.parametrize("logits", ["all", "last"])
def test_wrapped_projections_are_called(build, logits):
    model, oracle = build(seed=8)
    ids = text(13)
    expected = oracle.logits(ids)[-1 if logits == "last" else 0 :]
    wrapped = {}
    for block in model.layers:
        for parent in (block.mixer, block.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    wrapped[len(wrapped)] = block.role, name, Wrapped(child)
                    setattr(parent, name, wrapped[len(wrapped) - 1][2])
    with torch.no_grad():
        assert error(model(ids, logits=logits), expected) < BOUND
    for role, name, module in wrapped.values():
        twice = role is LayerRole.FULL and name == "Wqkv" and logits == "last"  # queries apart from keys and values
        assert module.calls == (2 if twice else 1), (role, name)


# ---- input that cannot be run

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
    pool = StatePool(model.config, 2)
    for state in (None, pool):
        with pytest.raises(PromptError) as caught:
            model(ids, offsets=offsets, state=state)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
    assert pool.lengths == [0, 0]


def test_slots_that_do_not_fit(pair):
    model, _ = pair
    pool = StatePool(model.config, 2)
    with pytest.raises(PromptError, match="slots"):
        model(torch.tensor([[1, 2], [3, 4]]), state=pool, slots=[1, 1])
    for ids, slots in (
        (torch.tensor([[1, 2], [3, 4]]), [0]),
        (torch.tensor([[1, 2]]), [0, 1]),
        (torch.tensor([1, 2]), [2]),
        (torch.tensor([1, 2]), [-1]),
        (torch.tensor([[1], [2], [3]]), None),  # more sequences than slots
    ):
        with pytest.raises(SambaYError, match="slots"):
            model(ids, state=pool, slots=slots)
    assert pool.lengths == [0, 0]


def test_text_longer_than_the_context(build):
    model, oracle = build(max_position_embeddings=10)
    pool = StatePool(model.config)
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


def test_a_batch_without_state_may_want_any_rows(pair):
    """`run` on a hand-made batch: rows of one sequence only."""
    model, oracle = pair
    documents = [text(6, seed=1), text(9, seed=2), text(6, seed=3)]
    batch = Batch.packed(torch.cat(documents), [6, 9, 6], wanted=[0, 4, 1])
    with torch.no_grad():
        out = model.run(batch, None)
    assert error(out[:4], oracle.logits(documents[1])[-4:]) < BOUND
    assert error(out[4:], oracle.logits(documents[2])[-1:]) < BOUND
