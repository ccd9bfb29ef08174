"""The layers against plain ones with the weights that the codes stand for."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.quant import linear as module
from sambay.quant.formats import QuantFormat, pack
from sambay.quant.linear import QuantEmbedding, QuantLinear
from sambay.quant.rounding import quantise

formats = st.builds(QuantFormat, st.sampled_from([4, 6, 8]), st.sampled_from([32, 64, 128]))


def filled(kind, rows, columns, format, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    layer = kind(*((columns, rows) if kind is QuantLinear else (rows, columns)), format, **options)
    found = quantise(torch.randn(rows, columns, generator=generator), format)
    layer.packed = pack(found)
    if getattr(layer, "bias", None) is not None:
        torch.nn.init.normal_(layer.bias, generator=generator)
    return layer, found.weights()


def inputs(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected, bound=1e-5):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= bound * expected.abs().max() + 1e-12


@given(formats, st.integers(1, 70), st.integers(1, 200), st.integers(1, 5), st.booleans(), st.data())
@settings(max_examples=30)
def test_products(format, rows, columns, tokens, bias, data):
    layer, weight = filled(QuantLinear, rows, columns, format, bias=bias)
    x = inputs(tokens, columns)
    expected = F.linear(x, weight, layer.bias)
    close(layer(x), expected)
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    close(layer.rows(x, slice(start, stop)), expected[:, start:stop])
    close(layer.rows(x, slice(start, None)), expected[:, start:])
    close(layer(x.view(tokens, 1, 1, columns)), expected.view(tokens, 1, 1, rows))


def test_blocks_of_rows_change_nothing(monkeypatch):
    layer, weight = filled(QuantLinear, 100, 50, QuantFormat(4, 32))
    monkeypatch.setattr(module, "_BLOCK", 16 * 50)
    x = inputs(3, 50)
    close(layer(x), x @ weight.T)
    close(layer.rows(x, slice(5, 99)), (x @ weight.T)[:, 5:99])


def test_no_rows_at_all():
    layer, _ = filled(QuantLinear, 20, 40, QuantFormat(4, 32), bias=True)
    assert layer(torch.empty(0, 40)).shape == (0, 20)
    assert layer.rows(inputs(3, 40), slice(5, 5)).shape == (3, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    layer, weight = filled(QuantLinear, 20, 300, QuantFormat(4, 32), bias=True)
    x = inputs(4, 300).to(dtype)
    found = layer(x)
    assert found.dtype is dtype
    assert torch.equal(found, F.linear(x.float(), weight, layer.bias).to(dtype))


def test_autocast_stays_out():
    layer, weight = filled(QuantLinear, 20, 300, QuantFormat(4, 32))
    x = inputs(4, 300)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    close(found, x @ weight.T)


def test_gradients_reach_the_activations():
    layer, weight = filled(QuantLinear, 37, 50, QuantFormat(4, 32), bias=True)
    x = inputs(5, 50).requires_grad_()
    y = inputs(5, 50).requires_grad_()
    outer = inputs(5, 37, seed=8)
    layer(x).backward(outer)
    F.linear(y, weight).backward(outer)
    close(x.grad, y.grad)
    close(layer.bias.grad, outer.sum(0))


def test_embedding_and_logits():
    table, weight = filled(QuantEmbedding, 71, 40, QuantFormat(8, 128))
    ids = torch.tensor([[0, 70, 3], [3, 15, 16]])
    assert torch.equal(table(ids), weight[ids])
    assert torch.equal(table(ids.int()), weight[ids])
    x = inputs(3, 40)
    close(table.logits(x, None), x @ weight.T)
    assert table.logits(x.bfloat16(), None).dtype is torch.bfloat16


def test_moving_and_casting_leave_the_codes_alone():
    layer, _ = filled(QuantLinear, 20, 40, QuantFormat(4, 32), bias=True)
    before = layer.packed.clone()
    layer.to(torch.bfloat16)
    assert layer.bias.dtype is torch.bfloat16
    assert layer.packed.dtype is torch.uint8
    assert torch.equal(layer.packed, before)
    assert "40, 20, 4 bits, group 32" in repr(layer)
