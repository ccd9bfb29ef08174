"""Every operation of the model in plain torch: the specification that fast paths are tested against.

Shape legend: N packed tokens of S sequences, R rows that ask for logits; d = d_inner, n = d_state,
K = d_conv; H query heads, Hk key-value heads of width dh; P = H / 2 pairs of heads with values of width 2 dh.

Each operation takes any number of tokens and an optional state. Without a state it is a pure function and
differentiable; a given state is the only thing that it changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sambay.batch import Batch, Group, Ragged, SharedPart, Sight
from sambay.kv import KVTiles
from sambay.state import ConvState, SharedKV, SSMState, WindowKV

__all__ = [
    "SharedView",
    "causal_conv",
    "choose",
    "keep_in_window",
    "selective_scan",
    "shared_attention",
    "shared_keys_values",
    "top_logprobs",
    "window_attention",
]

_SCAN_ELEMENTS = 1 << 19
"""Elements of scan state that are computed at once: small enough for the last-level cache."""

_SCAN_STEPS = 4
"""Steps for which the scan keeps one state for the backward pass, at least: a quarter of all states, at most.
More would need less memory, but chunks of fewer steps, of many sequences, are then run once more."""

_QUERY_BLOCK = 256
"""Queries of each sequence whose scores are computed at once, at most."""

_SCORE_ELEMENTS = 1 << 24
"""Scores that are computed at once: without gradients no more exist at any time (unless a single query of all
sequences and heads has more), however long the prompt. With gradients all of them are kept."""

_FIRST_CANDIDATES = 256
"""Tokens looked at first: a nucleus is rarely larger, and sorting a vocabulary of 200,064 takes 20 ms, this 0.4 ms."""

_MASKED = -1e30
"""Score of a forbidden key. Finite, so that a padded row without any key gives no NaN, not even in a gradient."""


_P = ParamSpec("_P")


def _own_precision(operation: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Keep autocast out: the operation chooses its precision itself (float32 for what accumulates)."""

    @functools.wraps(operation)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        first = next(iter((*args, *kwargs.values())))
        assert isinstance(first, Tensor)
        with torch.autocast(first.device.type, enabled=False):
            return operation(*args, **kwargs)

    return run


@_own_precision
def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, batch: Batch, state: ConvState | None) -> Tensor:
    """Depthwise causal convolution over each sequence, accumulated in float32.

    Args:
        x: (N, d) inputs.
        weight: (d, K) taps, oldest first.
        bias: (d,) or None.
        batch: which rows belong to which sequence.
        state: the last K-1 inputs of each slot; read, then replaced. None: the sequences begin here.

    Returns:
        (N, d), same dtype as x.
    """
    size = weight.shape[1] - 1
    layout = batch.layout
    history = x.new_zeros(len(layout), size, x.shape[1]) if state is None else state.inputs[batch.slot_index]
    if layout.equal:
        extended = torch.cat([history, x.view(len(layout), -1, x.shape[1])], dim=1)
        out = _convolve(extended, weight, bias).flatten(0, 1)
        tail = extended[:, extended.shape[1] - size :]
    else:
        pieces = [part for pair in zip(history, x.split(layout.lengths), strict=True) for part in pair]
        padded = torch.cat(pieces)
        rows, tails = layout.padded(size)  # a row of `padded` looks back over the history of its own sequence only
        out = _convolve(padded.unsqueeze(0), weight, bias)[0].index_select(0, rows)
        tail = padded[tails]
    if state is not None:
        state.inputs[batch.slot_index] = tail.detach().to(state.inputs.dtype)
    return out.to(x.dtype)


def _convolve(extended: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, K-1+T, d) -> (B, T, d), in float32 or better: a sum of shifted copies, which keeps channels contiguous."""
    dtype = torch.promote_types(extended.dtype, torch.float32)
    extended, weight = extended.to(dtype), weight.to(dtype)
    taps = weight.shape[1]
    steps = extended.shape[1] - taps + 1
    out = extended[:, taps - 1 :] * weight[:, taps - 1]
    for tap in range(taps - 1):
        out = torch.addcmul(out, extended[:, tap : tap + steps], weight[:, tap])
    return out if bias is None else out + bias.to(dtype)


@_own_precision
def selective_scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, batch: Batch, state: SSMState | None
) -> Tensor:
    """The Mamba-1 recurrence `h = exp(dt a) h + dt b u`, `y = c h + skip u`, in float32.

    Args:
        u: (N, d) inputs.
        dt: (N, d) positive step sizes (after softplus).
        a: (d, n) negative decay rates.
        b: (N, n) input weights.
        c: (N, n) output weights.
        skip: (d,) weight of the direct path.
        batch: which rows belong to which sequence.
        state: scan state of each slot; read, then replaced. None: it begins at zero.

    Returns:
        (N, d) float32.
    """
    order, inverse, widths, _ = batch.layout.time_major
    u, dt, b, c = (x.float() if order is None else x.float().index_select(0, order) for x in (u, dt, b, c))
    decay = a.float().t().contiguous()
    initial = None if state is None else state.hidden[batch.time_major_slots]
    scan: Callable[..., tuple[Tensor, Tensor]] = _Scan.apply  # torch leaves it without types
    y, final = scan(u, dt, decay, b, c, initial, widths)
    if state is not None:
        state.hidden[batch.time_major_slots] = final.detach()
    y = torch.addcmul(y, skip.float(), u)
    return y if inverse is None else y.index_select(0, inverse)


class _Scan(torch.autograd.Function):
    """The recurrence over time-major rows, in chunks whose states are recomputed in the backward pass.

    Keeping every state for autograd would take n times the memory of the activations; instead one state in
    `_SCAN_STEPS` steps is kept, and none when no gradient is asked for. All tensors are (rows, n, d): channels
    are contiguous, and sums over n are matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context has no type
        u: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        initial: Tensor | None,
        widths: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(u)
        hidden = u.new_zeros(widths[0], *a.shape) if initial is None else initial.float().clone()
        keep = any(ctx.needs_input_grad)
        starts = []
        for segment in _segments(widths, a.numel()):
            if keep:
                starts.append(hidden[: widths[segment[0].first]].clone())
            for first, last, row, end in segment:
                _, states = _run(u[row:end], dt[row:end], a, b[row:end], hidden, widths[first:last])
                torch.bmm(c[row:end].unsqueeze(1), states, out=y[row:end].unsqueeze(1))
        if keep:
            ctx.save_for_backward(u, dt, a, b, c, *starts)
            ctx.widths, ctx.has_initial = widths, initial is not None
        return y, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context has no type
        with torch.autocast(grad_y.device.type, enabled=False):
            return _scan_backward(ctx, grad_y, grad_final.clone())


def _scan_backward(ctx: Any, grad_y: Tensor, carried: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context has no type
    """The gradients of the inputs of `_Scan`; `carried` (S, n, d), that of the final states, is worked on."""
    u, dt, a, b, c, *starts = ctx.saved_tensors
    grad_u, grad_dt, grad_a = torch.empty_like(u), torch.empty_like(dt), torch.zeros_like(a)
    grad_b, grad_c = torch.empty_like(b), torch.empty_like(c)
    for segment, start in zip(reversed(_segments(ctx.widths, a.numel())), reversed(starts), strict=True):
        entries, hidden = [start], start.clone()  # the states in which the chunks of the segment begin
        for first, last, row, end in segment[:-1]:
            _run(u[row:end], dt[row:end], a, b[row:end], hidden, ctx.widths[first:last])
            entries.append(hidden[: ctx.widths[last]].clone())
        for (first, last, row, end), entry in zip(reversed(segment), reversed(entries), strict=True):
            widths = ctx.widths[first:last]
            rows = slice(row, end)
            decays, states = _run(u[rows], dt[rows], a, b[rows], entry.clone(), widths)
            grad_c[rows] = torch.linalg.vecdot(states, grad_y[rows].unsqueeze(1))
            grad = c[rows].unsqueeze(2) * grad_y[rows].unsqueeze(1)  # of every state, directly
            ends = [0]
            for width in widths:
                ends.append(ends[-1] + width)
            for step in range(len(widths) - 1, -1, -1):
                low, high, width = ends[step], ends[step + 1], widths[step]
                grad[low:high] += carried[:width]
                torch.mul(grad[low:high], decays[low:high], out=carried[:width])
            grad_b[rows] = torch.linalg.vecdot(grad, (dt[rows] * u[rows]).unsqueeze(1))
            grad_input = torch.bmm(b[rows].unsqueeze(1), grad).squeeze(1)
            grad_u[rows] = grad_input * dt[rows]
            # d(decay) = grad * previous state; d(dt a) = that * decay
            grad.mul_(decays)
            grad[: widths[0]] *= entry[: widths[0]]
            for step in range(1, len(widths)):
                low, high, width = ends[step], ends[step + 1], widths[step]
                grad[low:high] *= states[ends[step - 1] : ends[step - 1] + width]
            torch.mul(grad, a, out=decays)
            grad_dt[rows] = torch.addcmul(decays.sum(1), grad_input, u[rows])
            grad_a += grad.mul_(dt[rows].unsqueeze(1)).sum(0)
    return grad_u, grad_dt, grad_a, grad_b, grad_c, carried if ctx.has_initial else None, None


class _Chunk(NamedTuple):
    """Steps that are computed at once, and their rows; ends exclusive."""

    first: int
    last: int
    row: int
    end: int


def _segments(widths: tuple[int, ...], size: int) -> list[list[_Chunk]]:
    """Cut steps into chunks of bounded size, and these into segments, of each of which one state is kept."""
    segments: list[list[_Chunk]] = []
    first, row, rows = 0, 0, 0
    for step, width in enumerate((*widths, None)):
        if width is None or (rows and (rows + width) * size > _SCAN_ELEMENTS):
            if not segments or first - segments[-1][0].first >= _SCAN_STEPS:
                segments.append([])
            segments[-1].append(_Chunk(first, step, row, row + rows))
            first, row, rows = step, row + rows, 0
        rows += width or 0
    return segments


def _run(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, hidden: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Run some steps; `hidden` (S, n, d) is carried in place. Returns decays and states, (rows, n, d) each."""
    decays = (dt.unsqueeze(1) * a).exp_()
    states = b.unsqueeze(2) * (dt * u).unsqueeze(1)
    low, before = 0, hidden
    for width in widths:
        now = states[low : low + width]
        now.addcmul_(before[:width], decays[low : low + width])
        if width < before.shape[0]:  # sequences that end here leave their final state behind
            hidden[width : before.shape[0]] = before[width:]
        before, low = now, low + width
    hidden[: before.shape[0]] = before
    return decays, states


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: Batch,
    window: int,
    lam: Tensor | None,
    state: WindowKV | None,
) -> Tensor:
    """Causal attention in which a token sees itself and the `window - 1` tokens before it.

    Args:
        q: (N, H, dh) queries.
        k: (N, Hk, dh) keys.
        v: (N, Hk, dh) values.
        batch: which rows belong to which sequence.
        window: W.
        lam: the lambda of differential attention (scalar), or None for plain attention.
        state: the ring of each slot: attended to first, then written. None: the sequences begin here.

    Returns:
        (N, P, 2 dh) for differential attention, else (N, H, dh); dtype of q.
    """
    outs: list[tuple[Group, Tensor]] = []
    for part in batch.window_parts(window):
        fresh = (k, v) if state is None else _as_kept(k, v, state.tiles)
        keys, values = (_rectangle(x, part.group) for x in fresh)
        if state is not None:
            assert part.read is not None
            assert part.write is not None
            past = state.tiles.read(*part.read)
            keys, values = (
                torch.cat([old.to(new.dtype), new], dim=1) for old, new in zip(past, (keys, values), strict=True)
            )
            state.tiles.write(*part.write, k[part.rows].detach(), v[part.rows].detach())
        laid = _lay_out(keys, values, lam)
        outs.append((part.group, _attend(_rectangle(q, part.group), *laid, part.sight, lam)))
    return _packed(outs, batch.layout)


def keep_in_window(k: Tensor, v: Tensor, part: Batch, state: WindowKV) -> None:
    """Write new keys and values (N, Hk, dh) of one sequence to its ring, fewer than it holds."""
    assert part.slots is not None
    places = torch.arange(part.starts[0], part.starts[0] + len(k), device=k.device) % state.tiles.tokens
    state.tiles.write(torch.full_like(places, part.slots[0]), places, k.detach(), v.detach())


def _as_kept(k: Tensor, v: Tensor, tiles: KVTiles) -> tuple[Tensor, Tensor]:
    """New keys and values as the cache keeps them, so that it makes no difference where a chunk ends."""
    return (k, v) if tiles.dtype is k.dtype else tiles.rounded(k, v)


@dataclass(frozen=True)
class SharedView:
    """Keys and values that the full and all cross-attention layers of one pass read, gathered and laid out once.

    Attributes:
        parts: the rows that are computed together, with their keys and values as `_lay_out` gives them.
    """

    parts: tuple[tuple[SharedPart, Tensor, Tensor], ...]


def shared_keys_values(k: Tensor, v: Tensor, batch: Batch, lam: Tensor | None, state: SharedKV | None) -> SharedView:
    """Append keys and values to the shared cache and gather what the rows of this pass will attend to.

    Args:
        k: (N, Hk, dh) keys of all tokens.
        v: (N, Hk, dh) values of all tokens.
        batch: which rows belong to which sequence, and which ask for logits.
        lam: None if the attention will be plain, not differential.
        state: the cache, with pages reserved; written. None: the sequences begin here.
    """
    if state is not None:
        assert batch.slots is not None
        state.write_all(batch.slots, batch.starts, batch.lengths, k.detach(), v.detach())
    parts = []
    for part in batch.shared_parts:
        if state is not None:
            keys, values = state.gather(part.slots, part.totals)
        else:
            assert part.keys is not None
            keys, values = _rectangle(k, part.keys), _rectangle(v, part.keys)
        parts.append((part, *_lay_out(keys, values, lam)))
    return SharedView(tuple(parts))


def shared_attention(q: Tensor, view: SharedView, batch: Batch, lam: Tensor | None) -> Tensor:
    """Causal attention of the rows that ask for logits to the shared keys and values.

    Args:
        q: (R, H, dh) queries of those rows.
        view: what `shared_keys_values` gathered.
        batch: which rows belong to which sequence.
        lam: the lambda of differential attention (scalar), or None for plain attention.

    Returns:
        (R, P, 2 dh) for differential attention, else (R, H, dh); dtype of q. R must not be 0.
    """
    outs = [
        (part.group, _attend(_rectangle(q, part.group), keys, values, part.sight, lam))
        for part, keys, values in view.parts
    ]
    return _packed(outs, batch.row_layout)


def _rectangle(x: Tensor, group: Group) -> Tensor:
    """Packed rows (N, ...) -> (members, width, ...)."""
    if group.rows.numel() == x.shape[0] and group.valid is None and group.ordered:
        return x.view(*group.rows.shape, *x.shape[1:])
    return x.index_select(0, group.rows.flatten()).view(*group.rows.shape, *x.shape[1:])


def _packed(outs: list[tuple[Group, Tensor]], layout: Ragged) -> Tensor:
    """The inverse of `_rectangle` over all groups."""
    if len(outs) == 1 and layout.equal and outs[0][0].members == tuple(range(len(layout))):
        return outs[0][1].flatten(0, 1)
    values = [out.flatten(0, 1) if g.valid is None else out[g.valid] for g, out in outs]
    rows = [g.rows.flatten() if g.valid is None else g.rows[g.valid] for g, _ in outs]
    return torch.cat(values).index_select(0, torch.argsort(torch.cat(rows)))


def _lay_out(k: Tensor, v: Tensor, lam: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values as the matrix products of attention take them, in float32; views where they can be.

    Args:
        k: (S, Tk, Hk, dh).
        v: (S, Tk, Hk, dh).
        lam: None for plain attention, in which each key head has a value head of its own: maps = 1. In
            differential attention maps = 2 of them share their two values, side by side.

    Returns:
        (S * Hk, Tk, dh) and (S * Hk / maps, Tk, maps * dh).
    """
    pairs = v if lam is None else v.unflatten(2, (-1, 2)).flatten(3)
    keys, values = (x.float().transpose(1, 2).flatten(0, 1) for x in (k, pairs))
    return keys, values


@_own_precision
def _attend(q: Tensor, keys: Tensor, values: Tensor, sight: Sight, lam: Tensor | None) -> Tensor:
    """Attention over a padded rectangle, block of queries by block of queries, in float32.

    Args:
        q: (S, Tq, H, dh).
        keys: (S * Hk, Tk, dh), as `_lay_out` gives them.
        values: (S * Hk / maps, Tk, maps * dh), likewise.
        sight: which keys the queries see.
        lam: lambda, or None for plain attention.

    Returns:
        (S, Tq, P, 2 dh), or (S, Tq, H, dh) for plain attention; dtype of q.
    """
    size, _, heads, width = q.shape
    maps = 1 if lam is None else 2
    groups = values.shape[0] // size
    outs = []
    for block in sight.blocks(_QUERY_BLOCK, _SCORE_ELEMENTS // (size * heads)):
        # Query head = (group, member, map), key head = (group, map); the members of a group share keys and values.
        queries = q[:, block.queries].float().unflatten(2, (groups, -1, maps)).permute(0, 2, 4, 3, 1, 5)
        members, steps = queries.shape[3:5]
        queries = queries.reshape(-1, members * steps, width) / math.sqrt(width)
        scores = torch.bmm(queries, keys[:, block.keys].transpose(1, 2))
        scores = scores.view(size, groups, maps, members, steps, -1)
        if block.hidden is not None:
            hidden = block.hidden
            scores.masked_fill_(hidden.view(hidden.shape[0], 1, 1, 1, *hidden.shape[1:]), _MASKED)
        weights = F.softmax(scores, dim=-1)
        mixed = weights[:, :, 0] if lam is None else weights[:, :, 0] - lam.float() * weights[:, :, 1]
        out = torch.bmm(mixed.reshape(size * groups, members * steps, -1), values[:, block.keys])
        out = out.view(size, groups, members, steps, maps * width).permute(0, 3, 1, 2, 4)
        outs.append(out.reshape(size, steps, groups * members, maps * width).to(q.dtype))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


def choose(logits: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float, draw: float) -> int | None:
    """The token that a draw falls on. Equally probable ones stand in the order of their ids.

    Args:
        logits: (vocab,) float32.
        temperature: 0 takes the largest, the first of equals.
        top_k: keep so many tokens; 0 or less: all.
        top_p: keep the most probable tokens up to this share of what `top_k` leaves, in (0, 1].
        min_p: drop tokens less probable than this share of the most probable one, in [0, 1].
        draw: from [0, 1): the place in the running sum of the probabilities, by id if all tokens are kept, else the
            most probable first.

    Returns:
        A token id; None: the largest logit is NaN or infinite.
    """
    best = int(logits.argmax())
    if not bool(logits[best].isfinite()):
        return None
    if temperature == 0:
        return best
    # float64 on the CPU: the cumulated sum of 200K probabilities must reach 1.
    below = (logits - logits[best]).cpu()
    mass = (below.double() / temperature).exp()
    if (top_k <= 0 or top_k >= len(mass)) and top_p >= 1 and min_p <= 0:
        tokens, sums = None, mass.cumsum(0)
    else:
        tokens = _kept(below, mass, top_k, top_p, min_p)
        sums = mass[tokens].cumsum(0)
    # Where rounding lets the place be the very end, it is the last token that can come.
    index = min(int(torch.searchsorted(sums, draw * sums[-1], right=True)), int(torch.searchsorted(sums, sums[-1])))
    return index if tokens is None else int(tokens[index])


def _kept(below: Tensor, mass: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """The ids of the tokens that truncation leaves, the most probable first."""
    size = mass.numel()
    count = limit = min(top_k, size) if top_k > 0 else size
    if top_k <= 0:
        count = min(size, _FIRST_CANDIDATES)
    total = mass.sum()
    while True:
        tokens = _first(below, count)
        values = mass[tokens]
        kept = values >= min_p * values[0]
        if top_p < 1:  # a share of what top-k leaves; both rules keep a prefix of the sorted tokens
            kept &= values.cumsum(0) - values < top_p * (values.sum() if top_k > 0 else total)
        if count == limit or not bool(kept[-1]):
            return tokens[kept]
        count = min(limit, count * 8)


def _first(values: Tensor, count: int) -> Tensor:
    """The places of the largest values, the largest first and equal ones in their order: (count,) int64."""
    if count < values.numel():
        places = (values >= torch.topk(values, count).values[-1]).nonzero().flatten()
        return places[values[places].sort(descending=True, stable=True).indices[:count]]
    return values.sort(descending=True, stable=True).indices


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[int, list[int], list[float]]:
    """Log-probabilities of a token and of the most probable ones.

    Args:
        logits: (vocab,) float32.
        token: a token.
        count: how many of the most probable ones, at most vocab.

    Returns:
        The token's rank, 1 for the most probable; the ids of the token itself and of the `count` most probable ones,
        equal ones in the order of their ids; their log-probabilities.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    below = logits - logits.max()
    rank = int((below > below[token]).sum()) + 1
    tokens = torch.tensor([token], device=logits.device)
    if count:
        tokens = torch.cat((tokens, _first(below, count)))
    return rank, tokens.tolist(), logprobs[tokens].tolist()
