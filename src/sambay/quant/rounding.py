"""From weights to codes and scales, in three ways of growing care.

`rtn` rounds to nearest with the scale that just holds the largest weight. `mse` needs no data either: it searches
scales of both signs (the codes -8..7 reach further on one side), then alternates between the best scale for the
codes and the best codes for the scale, all with the scale as float16 stores it. `gptq` starts from those scales and
rounds column after column, letting the columns that are still to come make up for the error so far, as the inputs
that were seen weigh it.

Source: GPTQ (arXiv 2210.17323), with scales fixed beforehand, so that columns can go in order of importance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sambay.errors import ConfigError
from sambay.quant.formats import QuantFormat

__all__ = ["METHODS", "Rounded", "check_method", "output_error", "quantise", "weight_error"]

METHODS = ("rtn", "mse", "gptq")

_CHUNK = 1 << 18
"""Weights that are worked on at once by the search: few enough to stay in the cache."""

_ROWS = 1024
"""Rows that the feedback works on at once: each needs k floats of working memory."""

_COLUMNS = 128
"""Columns whose errors are carried on together."""

_DAMPING = 0.01
"""Share of the mean of the Hessian's diagonal that is added to it."""

_REFINEMENTS = 4

# The largest weight of a group becomes one of these codes: as far as -8 with a scale of one sign, 7 of the other.
_REACH = {
    4: ((-1, 5.5, 9.0, 15), (1, 5.5, 8.0, 11)),
    6: ((-1, 24.0, 33.5, 16), (1, 24.0, 32.0, 12)),
    8: ((1, 112.0, 130.0, 20),),
}


@dataclass(frozen=True)
class Rounded:
    """A matrix as codes and scales.

    Attributes:
        codes: (rows, k) int8.
        scales: (rows, groups) float16.
        format: that they are made for.
    """

    codes: Tensor
    scales: Tensor
    format: QuantFormat

    def weights(self) -> Tensor:
        """The weights that they stand for: (rows, k) float32."""
        return self.codes.float() * _by_column(self.scales, self.format, self.codes.shape[1])


def check_method(method: str) -> None:
    """Raise unless there is such a way of rounding.

    Raises:
        ConfigError: there is none.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")


@torch.no_grad()
def quantise(
    weight: Tensor,
    format: QuantFormat,
    method: str = "mse",
    *,
    importance: Tensor | None = None,
    hessian: Tensor | None = None,
) -> Rounded:
    """Round a matrix.

    Args:
        weight: (rows, k), any floating dtype.
        format: bits and group.
        method: "rtn", "mse" or "gptq".
        importance: (k,) how much an error in a column counts, not negative; by default the diagonal of the
            Hessian, or all alike. "rtn" has no use for it.
        hessian: (k, k) X'X of the inputs X of this matrix; "gptq" needs it.

    Raises:
        ConfigError: no such method, "gptq" without a Hessian, or one of another size.
        ValueError: weights that are not finite, or too large for a float16 scale.
    """
    check_method(method)
    columns = weight.shape[1]
    if method == "gptq" and hessian is None:
        raise ConfigError("method 'gptq' needs activations: give calibration data, or choose 'mse'")
    if hessian is not None and hessian.shape != (columns, columns):
        raise ConfigError(f"the Hessian is {tuple(hessian.shape)}: the matrix has {columns} columns")
    if importance is None and hessian is not None:
        importance = hessian.diagonal()
    if importance is not None:
        importance = _tidy(importance, columns)
    factors = None if method != "gptq" or hessian is None else _feedback_factors(hessian)
    codes, scales = [], []
    for part in weight.split(_ROWS):
        part = part.float()
        found = _scales(part, format, None if method == "rtn" else importance, search=method != "rtn")
        scales.append(found)
        codes.append(_nearest(part, found, format) if factors is None else _feedback(part, found, format, *factors))
    return Rounded(torch.cat(codes), torch.cat(scales), format)


def weight_error(weight: Tensor, rounded: Tensor) -> float:
    """Relative error of weights: root of the sum of squares of the differences over that of the weights."""
    return float((weight.float() - rounded).norm() / weight.float().norm().clamp_min(1e-30))


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """Relative error of the outputs for the inputs X whose X'X is given: (k, k)."""
    weight, hessian = weight.double(), hessian.double()
    difference = weight - rounded.double()
    lost, whole = ((difference @ hessian) * difference).sum(), ((weight @ hessian) * weight).sum()
    return float((lost / whole.clamp_min(1e-300)).clamp_min(0).sqrt())


def _by_column(scales: Tensor, format: QuantFormat, columns: int) -> Tensor:
    """(rows, groups) -> (rows, k) float32."""
    return scales.float().repeat_interleave(format.group, dim=1)[:, :columns]


def _tidy(importance: Tensor, columns: int) -> Tensor:
    """Importance of mean 1, never 0: a column that calibration did not touch may still be used one day."""
    if importance.shape != (columns,):
        raise ConfigError(f"importance has shape {tuple(importance.shape)}: the matrix has {columns} columns")
    importance = importance.float()
    mean = importance.mean()
    if not (bool(torch.isfinite(importance).all()) and float(importance.min()) >= 0):
        raise ConfigError("importance holds values that are negative or not finite: give squares of activations")
    return importance / mean.clamp_min(1e-30) + _DAMPING if float(mean) > 0 else torch.ones_like(importance)


def _nearest(weight: Tensor, scales: Tensor, format: QuantFormat) -> Tensor:
    """The nearest codes, int8: (rows, k)."""
    inverse = _reciprocal(_by_column(scales, format, weight.shape[1]))
    return (weight * inverse).round_().clamp_(format.lowest, format.highest).to(torch.int8)


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x == 0, 0.0, x.reciprocal())


def _scales(weight: Tensor, format: QuantFormat, importance: Tensor | None, *, search: bool) -> Tensor:
    """The scales of some rows, (rows, groups) float16."""
    rows, columns = weight.shape
    groups = format.groups(columns)
    padding = groups * format.group - columns
    cells = F.pad(weight, (0, padding)).view(rows * groups, format.group)
    if not bool(torch.isfinite(cells).all()):
        raise ValueError("the weights hold a NaN or an infinity")
    if not search:
        scales = (cells.abs().amax(1) / format.highest).half()
    else:
        if importance is None:
            importance = weight.new_ones(columns)
        per_group = F.pad(importance, (0, padding)).view(groups, format.group)
        step = max(1, _CHUNK // (groups * format.group))
        pieces = [
            _search(part, per_group.repeat(part.shape[0] // groups, 1), format) for part in cells.split(step * groups)
        ]
        scales = torch.cat(pieces)
    if not bool(torch.isfinite(scales).all()):
        raise ValueError("the weights are too large for a float16 scale")
    return scales.view(rows, groups)


def _search(cells: Tensor, importance: Tensor, format: QuantFormat) -> Tensor:
    """The scale of least weighted squared error of each group: (n, g) and (n, g) -> (n,) float16."""
    top = cells.gather(1, cells.abs().argmax(1, keepdim=True))
    reciprocal = _reciprocal(top)
    weighted = importance * cells

    def fit(inverse: Tensor) -> tuple[Tensor, Tensor]:
        """The best scale for the codes that `inverse` (n, 1) gives, and what it explains of the squares."""
        codes = (cells * inverse).round_().clamp_(format.lowest, format.highest)
        product, square = torch.linalg.vecdot(weighted, codes), torch.linalg.vecdot(importance * codes, codes)
        scale = product / square.clamp_min(1e-30)
        return scale, product * scale

    best, explained = fit(reciprocal * format.highest)
    for sign, low, high, count in _REACH[format.bits]:
        for reach in torch.linspace(low, high, count).tolist():
            scale, gain = fit(reciprocal * (sign * reach))
            better = gain > explained
            best, explained = torch.where(better, scale, best), torch.where(better, gain, explained)

    def error(scale: Tensor) -> Tensor:
        wide = scale.float().unsqueeze(1)
        codes = (cells * _reciprocal(wide)).round_().clamp_(format.lowest, format.highest)
        off = cells - codes * wide
        lost: Tensor = torch.linalg.vecdot(importance * off, off)
        return lost

    chosen = best.half()
    least = error(chosen)
    for _ in range(_REFINEMENTS):
        refined = fit(_reciprocal(chosen.float()).unsqueeze(1))[0].half()
        found = error(refined)
        better = found < least
        chosen, least = torch.where(better, refined, chosen), torch.where(better, found, least)
    # The plain choice is one of the candidates: no group is ever worse for having been searched.
    plain = (cells.abs().amax(1) / format.highest).half()
    return torch.where(error(plain) < least, plain, chosen)


def _feedback_factors(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, most important first, and the upper Cholesky factor of the inverse Hessian in it."""
    hessian = hessian.float()
    diagonal = hessian.diagonal()
    if not bool(torch.isfinite(hessian).all()):
        raise ConfigError("the Hessian holds a NaN or an infinity: the calibration ran into overflow")
    mean = diagonal.mean().clamp_min(1e-30)
    order = torch.argsort(diagonal, descending=True, stable=True)
    damping = _DAMPING
    while True:
        damped = hessian[order][:, order]
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not bool(failed):
                return order, upper
        damping *= 10  # of few samples, or badly conditioned


def _feedback(weight: Tensor, scales: Tensor, format: QuantFormat, order: Tensor, upper: Tensor) -> Tensor:
    """Codes of some rows, (rows, k) int8: each column's error is spread over the columns after it."""
    columns = weight.shape[1]
    work = weight[:, order].contiguous()
    scale = _by_column(scales, format, columns)[:, order]
    inverse = _reciprocal(scale)
    codes = torch.empty_like(work)
    for start in range(0, columns, _COLUMNS):
        end = min(start + _COLUMNS, columns)
        block, factors = work[:, start:end].t().contiguous(), upper[start:end, start:end]
        errors = torch.empty_like(block)
        for at in range(end - start):
            column = start + at
            code = (block[at] * inverse[:, column]).round_().clamp_(format.lowest, format.highest)
            errors[at] = (block[at] - code * scale[:, column]) / factors[at, at]
            codes[:, column] = code
            block[at + 1 :].addr_(factors[at, at + 1 :], errors[at], alpha=-1)
        work[:, end:].addmm_(errors.t(), upper[start:end, end:], alpha=-1)
    out = torch.empty_like(codes, dtype=torch.int8)
    out[:, order] = codes.to(torch.int8)
    return out
