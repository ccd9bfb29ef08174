"""Rounding: each way better than the one before, by what it aims at; codes and scales within their bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.errors import ConfigError
from sambay.quant.formats import QuantFormat
from sambay.quant.rounding import METHODS, output_error, quantise, weight_error

formats = st.builds(QuantFormat, st.sampled_from([4, 6, 8]), st.sampled_from([32, 64, 128]))


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(samples, columns, seed=1):
    """Inputs with a few strong directions and a little of everything."""
    return gaussian(samples, 12, seed=seed) @ gaussian(12, columns, seed=seed + 1) + 0.3 * gaussian(
        samples, columns, seed=seed + 2
    )


@given(formats, st.integers(1, 20), st.integers(1, 200), st.sampled_from(METHODS), st.integers(0, 99))
@settings(max_examples=40)
def test_bounds_and_shapes(format, rows, columns, method, seed):
    weight = gaussian(rows, columns, seed=seed)
    inputs = correlated(30, columns, seed=seed)
    found = quantise(weight, format, method, hessian=inputs.T @ inputs)
    assert found.codes.shape == weight.shape
    assert found.codes.dtype is torch.int8
    assert found.scales.shape == (rows, format.scales(columns))
    assert found.scales.dtype is torch.float16
    if format.nested:
        assert found.factors.shape == (rows, format.groups(columns))
        assert found.factors.abs().max() <= 15
    assert found.codes.min() >= format.lowest
    assert found.codes.max() <= format.highest
    assert torch.isfinite(found.weights()).all()


@given(formats, st.integers(1, 20), st.integers(1, 200), st.integers(0, 99))
@settings(max_examples=30)
def test_no_group_is_worse_for_having_been_searched(format, rows, columns, seed):
    weight = gaussian(rows, columns, seed=seed)
    errors = []
    for method in ("mse", "rtn"):
        off = (weight - quantise(weight, format, method).weights()).square()
        unit = format.columns if format.nested else format.group  # nested scales are searched together
        groups = torch.nn.functional.pad(off, (0, -columns % unit)).view(rows, -1, unit)
        errors.append(groups.sum(2))
    assert (errors[0] <= errors[1] * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize(("bits", "bounds"), [(4, (0.103, 0.083)), (8, (0.0055, 0.0050))])
def test_errors_on_a_gaussian_matrix(bits, bounds):
    weight = gaussian(256, 512)
    format = QuantFormat(bits, 32)
    rtn, mse = (weight_error(weight, quantise(weight, format, method).weights()) for method in ("rtn", "mse"))
    assert mse < rtn
    assert (rtn, mse) < bounds
    assert mse < bounds[1]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_feedback_on_correlated_inputs(bits):
    weight, inputs = gaussian(70, 200), correlated(400, 200)
    hessian = inputs.T @ inputs
    format = QuantFormat(bits, 32)
    found = {method: quantise(weight, format, method, hessian=hessian).weights() for method in METHODS}
    plain = quantise(weight, format, "mse").weights()
    errors = {method: output_error(weight, rounded, hessian) for method, rounded in found.items()}
    direct = {m: float((inputs @ (weight - r).T).norm() / (inputs @ weight.T).norm()) for m, r in found.items()}
    assert errors == pytest.approx(direct, rel=1e-3)
    assert errors["gptq"] < 0.6 * output_error(weight, plain, hessian)
    assert output_error(weight, plain, hessian) < errors["rtn"]


def test_importance_moves_the_error_to_where_it_matters_less():
    weight = gaussian(64, 64)
    importance = torch.ones(64)
    importance[::8] = 50.0
    format = QuantFormat(4, 32)

    def lost(found):
        return float(((weight - found.weights()).square() * importance).sum())

    assert lost(quantise(weight, format, importance=importance)) < 0.8 * lost(quantise(weight, format))


def test_what_is_representable_is_kept():
    format = QuantFormat(4, 32)
    codes = torch.arange(-8, 8).repeat(2, 4).float()
    for scale in (0.25, -0.25):  # a scale of either sign, for -8 stands on one side only
        assert torch.equal(quantise(codes * scale, format).weights(), codes * scale)


def test_blocks_of_rows_and_columns_change_nothing(monkeypatch):
    weight, inputs = gaussian(70, 150), correlated(300, 150)
    format = QuantFormat(4, 32)
    hessian = inputs.T @ inputs
    expected = quantise(weight, format, "gptq", hessian=hessian).weights()
    for name, value in (("_ROWS", 16), ("_COLUMNS", 7), ("_CHUNK", 300)):
        monkeypatch.setattr(f"sambay.quant.rounding.{name}", value)
    found = quantise(weight, format, "gptq", hessian=hessian).weights()
    # Sums in another order: now and then a weight half-way between two codes falls to the other side.
    assert (found != expected).float().mean() < 0.01
    assert output_error(weight, found, hessian) == pytest.approx(output_error(weight, expected, hessian), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_and_untouched_columns(method):
    format = QuantFormat(4, 32)
    inputs = correlated(50, 100)
    inputs[:, 40:70] = 0
    weight = gaussian(5, 100)
    weight[1:3] = 0
    found = quantise(weight, format, method, hessian=inputs.T @ inputs).weights()
    assert found[1:3].count_nonzero() == 0
    assert weight_error(weight[:, 40:70], found[:, 40:70]) < 0.2  # calibration did not see them, others may
    nothing = quantise(weight, format, method, hessian=torch.zeros(100, 100)).weights()
    assert weight_error(weight, nothing) < 0.12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "best"}, "method is 'best': it must be one of rtn, mse, gptq"),
        ({"method": "gptq"}, "'gptq' needs activations"),
        ({"method": "gptq", "hessian": torch.eye(5)}, r"the Hessian is \(5, 5\): the matrix has 40 columns"),
        ({"importance": torch.ones(39)}, "the matrix has 40 columns"),
        ({"importance": -torch.ones(40)}, "negative or not finite"),
        ({"method": "gptq", "hessian": torch.full((40, 40), torch.nan)}, "not finite|NaN"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ConfigError, match=words):
        quantise(gaussian(3, 40), QuantFormat(4, 32), **arguments)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_weights_that_no_code_can_hold(value):
    with pytest.raises(ValueError, match=r"NaN|too large"):
        quantise(torch.full((2, 40), value), QuantFormat(4, 32))
