"""From weights to codes and scales, in three ways of growing care.

`rtn` rounds to nearest with the scale that just holds the largest weight. `mse` needs no data either: it searches
scales of both signs (the codes -8..7 reach further on one side), then alternates between the best scale for the
codes and the best codes for the scale, all with the scale as float16 stores it. `gptq` starts from those scales and
rounds column after column, letting the columns that are still to come make up for the error so far, as the inputs
that were seen weigh it.

Source: GPTQ (arXiv 2210.17323), with scales fixed beforehand, so that columns can go in order of importance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sambay.errors import ConfigError
from sambay.quant.formats import FACTOR, QuantFormat, Rounded, group_scales

__all__ = ["METHODS", "check_method", "output_error", "quantise", "weight_error"]

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

_LARGEST_FACTORS = (8.0, 12.9, 13.5, 14.1, 14.6, 15.0, 15.5)
"""What the largest factor of a nested scale may be before it is rounded; of 8, equal scales stay what they are."""

# The largest weight of a group becomes one of these codes: as far as -8 with a scale of one sign, 7 of the other.
_REACH = {
    4: ((-1, 5.5, 9.0, 15), (1, 5.5, 8.0, 11)),
    6: ((-1, 24.0, 33.5, 16), (1, 24.0, 32.0, 12)),
    8: ((1, 112.0, 130.0, 20),),
}


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
    feedback = None if method != "gptq" or hessian is None else _feedback_factors(hessian)
    codes, scales, small = [], [], []
    for part in weight.split(_ROWS):
        part = part.float()
        found, factors = _scales(part, format, None if method == "rtn" else importance, search=method != "rtn")
        scales.append(found)
        if factors is not None:
            small.append(factors)
        steps = group_scales(found, factors)
        codes.append(_nearest(part, steps, format) if feedback is None else _feedback(part, steps, format, *feedback))
    return Rounded(torch.cat(codes), torch.cat(scales), format, torch.cat(small) if small else None)


def weight_error(weight: Tensor, rounded: Tensor) -> float:
    """Relative error of weights: root of the sum of squares of the differences over that of the weights."""
    return float((weight.float() - rounded).norm() / weight.float().norm().clamp_min(1e-30))


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """Relative error of the outputs for the inputs X whose X'X is given: (k, k)."""
    weight, hessian = weight.double(), hessian.double()
    difference = weight - rounded.double()
    lost, whole = ((difference @ hessian) * difference).sum(), ((weight @ hessian) * weight).sum()
    return float((lost / whole.clamp_min(1e-300)).clamp_min(0).sqrt())


def _by_column(steps: Tensor, format: QuantFormat, columns: int) -> Tensor:
    """(rows, groups) -> (rows, k)."""
    return steps.repeat_interleave(format.group, dim=1)[:, :columns]


def _tidy(importance: Tensor, columns: int) -> Tensor:
    """Importance of mean 1, never 0: a column that calibration did not touch may still be used one day."""
    if importance.shape != (columns,):
        raise ConfigError(f"importance has shape {tuple(importance.shape)}: the matrix has {columns} columns")
    importance = importance.float()
    mean = importance.mean()
    if not (bool(torch.isfinite(importance).all()) and float(importance.min()) >= 0):
        raise ConfigError("importance holds values that are negative or not finite: give squares of activations")
    return importance / mean.clamp_min(1e-30) + _DAMPING if float(mean) > 0 else torch.ones_like(importance)


def _nearest(weight: Tensor, steps: Tensor, format: QuantFormat) -> Tensor:
    """The nearest codes, int8: (rows, k), for the scales of the groups, (rows, groups)."""
    inverse = _reciprocal(_by_column(steps, format, weight.shape[1]))
    return (weight * inverse).round_().clamp_(format.lowest, format.highest).to(torch.int8)


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x == 0, 0.0, x.reciprocal())


def _error(cells: Tensor, steps: Tensor, importance: Tensor, format: QuantFormat) -> Tensor:
    """Weighted squared error of groups (n, g) by scales (n,): (n,)."""
    wide = steps.unsqueeze(1)
    codes = (cells * _reciprocal(wide)).round_().clamp_(format.lowest, format.highest)
    off = cells - codes * wide
    lost: Tensor = torch.linalg.vecdot(importance * off, off)
    return lost


def _scales(
    weight: Tensor, format: QuantFormat, importance: Tensor | None, *, search: bool
) -> tuple[Tensor, Tensor | None]:
    """The scales of some rows, (rows, scales) float16, and their factors, (rows, groups) int8 or None."""
    rows, columns = weight.shape
    unit = format.columns if format.nested else format.group
    padding = -columns % unit
    groups = (columns + padding) // format.group
    cells = F.pad(weight, (0, padding)).view(rows * groups, format.group)
    if not bool(torch.isfinite(cells).all()):
        raise ValueError("the weights hold a NaN or an infinity")
    if importance is None:
        importance = weight.new_ones(columns)
    per_group = F.pad(importance, (0, padding)).view(groups, format.group)
    found, factors = [], []
    for part in cells.split(max(1, _CHUNK // (groups * format.group)) * groups):
        weights_of = per_group.repeat(part.shape[0] // groups, 1)
        scales = _search(part, weights_of, format) if search else _plain(part, format)
        if format.nested:
            scales, small = _nest(part, scales.float(), weights_of, format, search=search)
            factors.append(small)
        found.append(scales)
    every = torch.cat(found)
    if not bool(torch.isfinite(every).all()):
        raise ValueError("the weights are too large for a float16 scale")
    every = every.view(rows, -1)
    return every, torch.cat(factors).view(rows, groups)[:, : format.groups(columns)] if factors else None


def _plain(cells: Tensor, format: QuantFormat) -> Tensor:
    """The scales that just hold the largest weight of each group: (n, g) -> (n,) float16."""
    return (cells.abs().amax(1) / format.highest).half()


def _nest(
    cells: Tensor, wanted: Tensor, importance: Tensor, format: QuantFormat, *, search: bool
) -> tuple[Tensor, Tensor]:
    """Scales and factors that come close to the scales wanted.

    Without a search every factor is rounded up, so that no weight is cut off. With one the scales are tried that make
    the largest factor one of several numbers, for each the neighbours of the nearest factors; the best is refined.

    Args:
        cells: (n, g) weights, with n a multiple of the groups of a superblock.
        wanted: (n,) scale of each group by itself.
        importance: (n, g).
        format: with nested scales.
        search: for the least error.

    Returns:
        (n / 8,) float16, and (n / 8, 8) int8.
    """
    of_block = format.columns // format.group
    wanted = wanted.view(-1, of_block)

    def plainly(wanted: Tensor) -> tuple[Tensor, Tensor]:
        scale = (wanted.amax(1) / FACTOR).half()
        return scale, (wanted * _reciprocal(scale.float()).unsqueeze(1) - 1e-3).ceil_().clamp_(0, FACTOR)

    def error(scale: Tensor, factors: Tensor) -> Tensor:  # of each group
        steps = (scale.float().unsqueeze(1) * factors).flatten()
        return _error(cells, steps, importance, format).view(-1, of_block)

    if not search:
        best, chosen = plainly(wanted)
        return best, chosen.to(torch.int8)
    # What rounding to nearest would do is the first candidate: no superblock is ever worse for having been searched.
    best, chosen = plainly(_plain(cells, format).float().view(-1, of_block))
    least = error(best, chosen).sum(1)

    def keep(scale: Tensor, factors: Tensor, lost: Tensor) -> None:
        nonlocal best, chosen, least
        better = lost < least
        best, least = torch.where(better, scale, best), torch.where(better, lost, least)
        chosen = torch.where(better.unsqueeze(1), factors, chosen)

    for largest in _LARGEST_FACTORS:
        scale = (wanted.abs().amax(1) / largest).half()
        nearest = (wanted * _reciprocal(scale.float()).unsqueeze(1)).round_()
        factors = nearest.clamp(-FACTOR, FACTOR)
        lost = error(scale, factors)
        for step in (-1, 1):
            other = (nearest + step).clamp_(-FACTOR, FACTOR)
            found = error(scale, other)
            better = found < lost
            factors, lost = torch.where(better, other, factors), torch.where(better, found, lost)
        keep(scale, factors, lost.sum(1))
    for _ in range(_REFINEMENTS // 2):
        steps = (best.float().unsqueeze(1) * chosen).view(-1, 1)
        codes = (cells * _reciprocal(steps)).round_().clamp_(format.lowest, format.highest)
        whole = codes * chosen.view(-1, 1)
        product, square = (
            torch.linalg.vecdot(importance * each, whole).view(-1, of_block).sum(1) for each in (cells, whole)
        )
        scale = (product / square.clamp_min(1e-30)).half()
        keep(scale, chosen, error(scale, chosen).sum(1))
    return best, chosen.to(torch.int8)


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
        return _error(cells, scale.float(), importance, format)

    chosen = best.half()
    least = error(chosen)
    for _ in range(_REFINEMENTS):
        refined = fit(_reciprocal(chosen.float()).unsqueeze(1))[0].half()
        found = error(refined)
        better = found < least
        chosen, least = torch.where(better, refined, chosen), torch.where(better, found, least)
    # The plain choice is one of the candidates: no group is ever worse for having been searched.
    plain = _plain(cells, format)
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


def _feedback(weight: Tensor, steps: Tensor, format: QuantFormat, order: Tensor, upper: Tensor) -> Tensor:
    """Codes of some rows, (rows, k) int8: each column's error is spread over the columns after it."""
    columns = weight.shape[1]
    work = weight[:, order].contiguous()
    scale = _by_column(steps, format, columns)[:, order]
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
