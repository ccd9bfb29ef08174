"""Gradients of the model against differences of the oracle, and of one way of running against another."""

import numpy as np
import pytest
import torch

from helpers import text
from sambay.checkpoint import to_disk_name
from sambay.ops import reference as ops


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


def test_a_state_carries_no_gradients(pair):
    """Those that stop at a state would be wrong: there are none at all, and nothing of the pass is kept alive."""
    model, _ = pair
    pool = model.new_state()
    for _ in range(2):
        assert not model(text(6), state=pool).requires_grad
    batch = pool.batch(text(6), (6,))
    assert not model.run(batch, pool).requires_grad
    assert not any(t.requires_grad for state in pool.fixed for t in state.tensors)
    assert model(text(6)).requires_grad
