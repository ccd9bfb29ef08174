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
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sambay.batch import Batch, Group, Ragged
from sambay.state import ConvState, SharedKV, SSMState, WindowKV

__all__ = [
    "SharedView",
    "causal_conv",
    "selective_scan",
    "shared_attention",
    "shared_keys_values",
    "window_attention",
]

_SCAN_ELEMENTS = 1 << 19
"""Elements of scan state that are held at once: small enough for the last-level cache."""

_QUERY_BLOCK = 256
"""Queries whose scores are held at once, so that a long prompt needs bounded memory."""

_MASKED = -1e30
"""Score of a forbidden key. Finite, so that a padded row without any key gives no NaN, not even in a gradient."""


_F = TypeVar("_F", bound=Callable[..., Tensor])


def _own_precision(operation: _F) -> _F:
    """Keep autocast out: the operation chooses its precision itself (float32 for what accumulates)."""

    @functools.wraps(operation)
    def run(first: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
        with torch.autocast(first.device.type, enabled=False):
            return operation(first, *rest)

    return cast("_F", run)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, batch: Batch, state: ConvState | None) -> Tensor:
    """Depthwise causal convolution over each sequence.

    Args:
        x: (N, d) inputs.
        weight: (d, K) taps, oldest first.
        bias: (d,) or None.
        batch: which rows belong to which sequence.
        state: the last K-1 inputs of each slot; read, then replaced. None: the sequences begin here.

    Returns:
        (N, d), same dtype as x.
    """
    taps = weight.shape[1]
    layout = batch.layout
    history = x.new_zeros(len(layout), taps - 1, x.shape[1]) if state is None else state.inputs[batch.slot_index]
    if layout.equal:
        extended = torch.cat([history, x.view(len(layout), -1, x.shape[1])], dim=1)
        out = _convolve(extended, weight, bias).flatten(0, 1)
        tail = extended[:, extended.shape[1] - taps + 1 :]
    else:
        pieces = [part for pair in zip(history, x.split(layout.lengths), strict=True) for part in pair]
        padded = torch.cat(pieces)
        # Rows shift by K-1 for every sequence begun: a place in `padded` looks back over its own history only.
        shift = torch.repeat_interleave(torch.arange(len(layout)) * (taps - 1), torch.tensor(layout.lengths))
        out = _convolve(padded.unsqueeze(0), weight, bias)[0]
        out = out.index_select(0, torch.arange(layout.total, device=x.device) + shift.to(x.device))
        ends = torch.tensor(layout.offsets[1:]) + torch.arange(1, len(layout) + 1) * (taps - 1)
        tail = padded[(ends.unsqueeze(1) + torch.arange(1 - taps, 0)).to(x.device)]
    if state is not None:
        state.inputs[batch.slot_index] = tail.detach()
    return out


def _convolve(extended: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, K-1+T, d) -> (B, T, d): a sum of shifted copies, which keeps channels contiguous."""
    taps = weight.shape[1]
    steps = extended.shape[1] - taps + 1
    out = extended[:, taps - 1 :] * weight[:, taps - 1]
    for tap in range(taps - 1):
        out = out + extended[:, tap : tap + steps] * weight[:, tap]
    return out if bias is None else out + bias


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
    order, inverse, widths, sequences = batch.layout.time_major
    u, dt, b, c = (x.float() if order is None else x.float().index_select(0, order) for x in (u, dt, b, c))
    decay = a.float().t().contiguous()
    moved = sequences != tuple(range(len(sequences)))
    permutation = torch.tensor(sequences, device=u.device)
    initial = None
    if state is not None:
        initial = state.hidden[batch.slot_index]
        initial = initial[permutation] if moved else initial
    y, final = cast("tuple[Tensor, Tensor]", _Scan.apply(u, dt, decay, b, c, initial, widths))  # type: ignore[no-untyped-call]
    if state is not None:
        if moved:
            final = final[torch.argsort(permutation)]
        state.hidden[batch.slot_index] = final.detach()
    y = torch.addcmul(y, skip.float(), u)
    return y if inverse is None else y.index_select(0, inverse)


class _Scan(torch.autograd.Function):
    """The recurrence over time-major rows, in chunks whose states are recomputed in the backward pass.

    Keeping every state for autograd would take n times the memory of the activations; instead one state per
    chunk is kept. All tensors are (rows, n, d): channels are contiguous, and sums over n are matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
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
        starts = []
        for first, last, row, end in _chunks(widths, a.numel()):
            starts.append(hidden.clone())
            _, states = _run(u[row:end], dt[row:end], a, b[row:end], hidden, widths[first:last])
            torch.bmm(c[row:end].unsqueeze(1), states, out=y[row:end].unsqueeze(1))
        ctx.save_for_backward(u, dt, a, b, c, *starts)
        ctx.widths, ctx.has_initial = widths, initial is not None
        return y, hidden

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        u, dt, a, b, c, *starts = ctx.saved_tensors
        grad_u, grad_dt, grad_a = torch.empty_like(u), torch.empty_like(dt), torch.zeros_like(a)
        grad_b, grad_c = torch.empty_like(b), torch.empty_like(c)
        carried = torch.zeros_like(starts[0]) if grad_final is None else grad_final.clone()
        chunks = list(_chunks(ctx.widths, a.numel()))
        for (first, last, row, end), start in zip(reversed(chunks), reversed(starts), strict=True):
            widths = ctx.widths[first:last]
            rows = slice(row, end)
            decays, states = _run(u[rows], dt[rows], a, b[rows], start.clone(), widths)
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
            grad[: widths[0]] *= start[: widths[0]]
            for step in range(1, len(widths)):
                low, high, width = ends[step], ends[step + 1], widths[step]
                grad[low:high] *= states[ends[step - 1] : ends[step - 1] + width]
            torch.mul(grad, a, out=decays)
            grad_dt[rows] = torch.addcmul(decays.sum(1), grad_input, u[rows])
            grad_a += grad.mul_(dt[rows].unsqueeze(1)).sum(0)
        return grad_u, grad_dt, grad_a, grad_b, grad_c, carried if ctx.has_initial else None, None


def _chunks(widths: tuple[int, ...], size: int) -> list[tuple[int, int, int, int]]:
    """Cut steps into chunks of bounded size: (first step, last step, first row, last row), ends exclusive."""
    out, first, row, rows = [], 0, 0, 0
    for step, width in enumerate(widths):
        if rows and (rows + width) * size > _SCAN_ELEMENTS:
            out.append((first, step, row, row + rows))
            first, row, rows = step, row + rows, 0
        rows += width
    return [*out, (first, len(widths), row, row + rows)]


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
    for group in batch.layout.groups:
        queries, keys, values = (_rectangle(x, group) for x in (q, k, v))
        past = 0
        first = None
        if state is not None:
            past = window - 1
            slots = [batch.slots[s] for s in group.members]  # type: ignore[index]
            starts = torch.tensor([batch.starts[s] for s in group.members])
            places = (starts.unsqueeze(1) - past + torch.arange(past)) % window
            index = (torch.tensor(slots).unsqueeze(1).to(q.device), places.to(q.device))
            keys = torch.cat([state.keys[index], keys], dim=1)
            values = torch.cat([state.values[index], values], dim=1)
            first = (past - starts).clamp(min=0).to(q.device)
        begin = torch.full((len(group.members),), past)
        outs.append((group, _attend(queries, keys, values, begin, first, window, lam)))
    if state is not None:
        _write_ring(k, v, batch, window, state)
    return _packed(outs, batch.layout)


def _write_ring(k: Tensor, v: Tensor, batch: Batch, window: int, state: WindowKV) -> None:
    """Store the last `window` keys and values of each sequence at their positions modulo the window."""
    rows, places, slots = [], [], []
    for s, (length, start) in enumerate(zip(batch.lengths, batch.starts, strict=True)):
        count = min(length, window)
        end = batch.layout.offsets[s + 1]
        rows.append(torch.arange(end - count, end))
        places.append(torch.arange(start + length - count, start + length) % window)
        slots.append(torch.full((count,), batch.slots[s]))  # type: ignore[index]
    row = torch.cat(rows).to(k.device)
    index = (torch.cat(slots).to(k.device), torch.cat(places).to(k.device))
    state.keys[index] = k[row].detach().to(state.keys.dtype)
    state.values[index] = v[row].detach().to(state.values.dtype)


@dataclass(frozen=True)
class SharedView:
    """Keys and values that the full and all cross-attention layers of one pass read, gathered once.

    Attributes:
        groups: queries that are computed together, with keys and values (members, Tk, Hk, dh) and the
            position of each member's first query.
    """

    groups: tuple[tuple[Group, Tensor, Tensor, Tensor], ...]


def shared_keys_values(k: Tensor, v: Tensor, batch: Batch, state: SharedKV | None) -> SharedView:
    """Append keys and values to the shared cache and gather what the rows of this pass will attend to.

    Args:
        k: (N, Hk, dh) keys of all tokens.
        v: (N, Hk, dh) values of all tokens.
        batch: which rows belong to which sequence, and which ask for logits.
        state: the cache, with pages reserved; written. None: the sequences begin here.
    """
    if state is not None:
        parts = zip(k.detach().split(batch.lengths), v.detach().split(batch.lengths), strict=True)
        for (keys, values), slot, start in zip(parts, batch.slots or (), batch.starts, strict=True):
            state.write(slot, start, keys, values)
    layout, asking = batch.row_layout, batch.asking
    totals = [batch.starts[s] + batch.lengths[s] for s in asking]
    groups = []
    for group in layout.grouped([(layout.lengths[i], totals[i]) for i in range(len(asking))]):
        ends = torch.tensor([totals[i] for i in group.members])
        begin = ends - torch.tensor([layout.lengths[i] for i in group.members])
        if state is None:
            rows = batch.layout.offsets
            index = torch.tensor([rows[asking[i]] for i in group.members]).unsqueeze(1)
            index = index + torch.minimum(torch.arange(int(ends.max())), ends.unsqueeze(1) - 1)
            keys, values = (x.index_select(0, index.flatten().to(x.device)).unflatten(0, index.shape) for x in (k, v))
        else:
            slots = [batch.slots[asking[i]] for i in group.members]  # type: ignore[index]
            held = [state.read(slot, totals[i]) for slot, i in zip(slots, group.members, strict=True)]
            keys, values = (_stack([pair[side] for pair in held]) for side in (0, 1))
        groups.append((group, keys, values, begin))
    return SharedView(tuple(groups))


def _stack(parts: list[Tensor]) -> Tensor:
    """Pad (T, Hk, dh) tensors at the end to one length; a single one stays a view."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


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
        (group, _attend(_rectangle(q, group), keys, values, begin, None, None, lam))
        for group, keys, values, begin in view.groups
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


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    begin: Tensor,
    first: Tensor | None,
    window: int | None,
    lam: Tensor | None,
) -> Tensor:
    """Attention over a padded rectangle, query block by query block, in float32.

    Args:
        q: (S, Tq, H, dh).
        k: (S, Tk, Hk, dh).
        v: (S, Tk, Hk, dh).
        begin: (S,) on the CPU: the key index at which the first query of each sequence stands.
        first: (S,) lowest key index that exists, or None for 0.
        window: a query at key index i sees keys i - window + 1 to i; None: all up to i.
        lam: lambda, or None for plain attention.

    Returns:
        (S, Tq, P, 2 dh), or (S, Tq, H, dh) for plain attention; dtype of q.
    """
    steps, keys = q.shape[1], k.shape[1]
    early, late = int(begin.min()), int(begin.max())
    outs = []
    for low in range(0, steps, _QUERY_BLOCK):
        high = min(low + _QUERY_BLOCK, steps)
        to = min(keys, late + high)
        fro = 0 if window is None else max(0, early + low - window + 1)
        place = begin.to(q.device).view(-1, 1, 1) + torch.arange(low, high, device=q.device).view(1, -1, 1)
        seen = torch.arange(fro, to, device=q.device)
        mask = seen <= place
        if window is not None:
            mask &= seen > place - window
        if first is not None:
            mask &= seen >= first.view(-1, 1, 1)
        outs.append(_attend_block(q[:, low:high], k[:, fro:to], v[:, fro:to], mask, lam))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


@_own_precision
def _attend_block(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, lam: Tensor | None) -> Tensor:
    """One block of scores, (S, Tq, Tk) of which `mask` allows."""
    size, steps, _, width = q.shape
    maps = 1 if lam is None else 2
    groups = k.shape[2] // maps
    # Query head = (group, member, map), key head = (group, map); the members of a group share keys and values.
    queries = q.float().view(size, steps, groups, -1, maps, width).permute(0, 2, 4, 3, 1, 5)
    members = queries.shape[3]
    queries = queries.reshape(size, groups, maps, members * steps, width) / math.sqrt(width)
    keys = k.float().view(size, -1, groups, maps, width).permute(0, 2, 3, 4, 1)
    values = v.float().view(size, -1, groups, maps * width).transpose(1, 2)
    scores = (queries @ keys).view(size, groups, maps, members, steps, -1)
    scores = scores.masked_fill(~mask.view(size, 1, 1, 1, *mask.shape[1:]), _MASKED)
    weights = F.softmax(scores, dim=-1)
    mixed = weights[:, :, 0] if lam is None else weights[:, :, 0] - lam.float() * weights[:, :, 1]
    out = mixed.flatten(2, 3) @ values  # (S, groups, members * Tq, maps * dh)
    out = out.view(size, groups, members, steps, maps * width).permute(0, 3, 1, 2, 4)
    return out.reshape(size, steps, groups * members, maps * width).to(q.dtype)
