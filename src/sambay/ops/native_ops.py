"""Operations of the model on the compiled kernels: the signatures of `reference`, float32, without gradients.

A wrapper checks what the kernels take for granted (dtype, contiguity, sizes), passes addresses, and keeps every
tensor alive during the call. Where a shape is beyond the kernels, `hindrance` says so beforehand.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sambay.batch import Batch
from sambay.kv import TILE, KVTiles
from sambay.ops import _native
from sambay.state import PAGE_SIZE, ConvState, SharedKV, SSMState, WindowKV

__all__ = [
    "PackedMatrix",
    "PagedView",
    "SharedPlaces",
    "add_norm",
    "causal_conv",
    "choose",
    "gate",
    "linear",
    "lookup",
    "memory_from",
    "mlp",
    "plain_linear",
    "scale",
    "selective_scan",
    "shared_attention",
    "shared_keys_values",
    "top_logprobs",
    "window_attention",
]


class PackedMatrix:
    """A quantised matrix as the kernels read it; see `quant/formats.py` for the layout.

    Args:
        packed: (panels, superblocks, bytes) uint8, contiguous.
        bias: (rows,) float32 or None.
        rows: outputs, without padding.
        k: inputs, without padding.
        bits: 4, 6 or 8.
        group: weights that share a scale.
    """

    def __init__(self, packed: Tensor, bias: Tensor | None, rows: int, k: int, bits: int, group: int) -> None:
        panels, superblocks, nbytes = packed.shape
        assert packed.dtype is torch.uint8
        assert packed.is_contiguous()
        assert packed.device.type == "cpu"
        assert 16 * panels >= rows
        self.packed, self.bias, self.rows, self.k = packed, bias, rows, k
        address = 0 if bias is None else _address(bias)
        self.handle = _native.Matrix(packed.data_ptr(), address, rows, k, 16 * panels, superblocks, bits, group)
        assert nbytes == self.handle.superblock_bytes
        assert self.handle.k_padded >= k


def _address(x: Tensor, dtype: torch.dtype = torch.float32) -> int:
    assert x.dtype is dtype
    assert x.is_contiguous()
    assert x.device.type == "cpu"
    return x.data_ptr()


class _Memory(threading.local):
    """Where results are put, by each thread."""

    take: Callable[[tuple[int, ...]], Tensor] | None = None


_memory = _Memory()


@contextlib.contextmanager
def memory_from(take: Callable[[tuple[int, ...]], Tensor]) -> Iterator[None]:
    """Put what the operations of this thread return where `take` says: shape -> float32 tensor."""
    assert _memory.take is None
    _memory.take = take
    try:
        yield
    finally:
        _memory.take = None


def _empty(*shape: int) -> Tensor:
    take = _memory.take
    return torch.empty(shape, dtype=torch.float32) if take is None else take(shape)


def _strided(x: Tensor) -> tuple[int, int]:
    """Address and row stride of (N, ...) float32 whose rows are contiguous."""
    assert x.dtype is torch.float32
    assert x.device.type == "cpu"
    assert x.stride(-1) == 1
    return x.data_ptr(), x.stride(0)


def _cache(x: Tensor | None) -> tuple[int, bool]:
    """Address of a cache, and whether it is bfloat16 (else float32)."""
    if x is None:
        return 0, False
    assert x.is_contiguous()
    assert x.dtype in (torch.float32, torch.bfloat16)
    return x.data_ptr(), x.dtype is torch.bfloat16


def linear(x: Tensor, weight: PackedMatrix, first: int = 0, count: int | None = None) -> Tensor:
    """`x W^T + bias`, or some of its columns.

    Args:
        x: (N, k) float32, contiguous rows.
        weight: the matrix.
        first: first row of the matrix, a multiple of 16.
        count: rows; None: to the end.

    Returns:
        (N, rows) or (N, count) float32.
    """
    count = weight.rows - first if count is None else count
    assert first % 16 == 0
    assert x.shape[1] == weight.k
    assert first + count <= weight.rows
    out = _empty(x.shape[0], count)
    address, stride = _strided(x)
    if count == weight.rows:
        _native.linear(weight.handle, address, x.shape[0], stride, out.data_ptr(), count)
    else:
        _native.linear_rows(weight.handle, first, count, address, x.shape[0], stride, out.data_ptr(), count)
    return out


def plain_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias`: (N, k) and (rows, k) float32 or bfloat16, (rows,) float32 -> (N, rows) float32."""
    out = _empty(x.shape[0], weight.shape[0])
    address, stride = _strided(x)
    pointer, half = _cache(weight)
    _native.plain_linear(
        pointer, half, 0 if bias is None else _address(bias), weight.shape[0], weight.shape[1], address, x.shape[0],
        stride, out.data_ptr(), weight.shape[0],
    )  # fmt: skip
    return out


def lookup(weight: Tensor, rows: Tensor) -> Tensor:
    """Rows of a plain matrix: (V, k) float32 or bfloat16 and (N,) int64 -> (N, k) float32."""
    out = _empty(rows.shape[0], weight.shape[1])
    pointer, half = _cache(weight)
    _native.lookup(pointer, half, _address(rows, torch.int64), rows.shape[0], weight.shape[1], out.data_ptr())
    return out


def scale(x: Tensor, factor: float) -> Tensor:
    """`factor * x` in float32."""
    out = _empty(*x.shape)
    _native.scale(x.numel(), _address(x), factor, out.data_ptr())
    return out


def gate(x: Tensor, memory: Tensor) -> Tensor:
    """`memory * silu(x)`: (N, d) float32 each, rows with a stride -> (N, d)."""
    assert x.shape == memory.shape
    out = _empty(*x.shape)
    _native.gate(x.shape[0], x.shape[1], *_strided(x), *_strided(memory), out.data_ptr())
    return out


def mlp(x: Tensor, fc1: PackedMatrix, fc2: PackedMatrix) -> Tensor:
    """`fc2(up * silu(gate))` with `[gate, up] = fc1(x)`: (N, h) -> (N, h) float32."""
    assert x.shape[1] == fc1.k
    assert fc1.rows == 2 * fc2.k
    out = _empty(x.shape[0], fc2.rows)
    address, stride = _strided(x)
    _native.mlp(fc1.handle, fc2.handle, address, x.shape[0], stride, out.data_ptr(), fc2.rows)
    return out


def embedding_rows(weight: PackedMatrix, rows: Tensor) -> Tensor:
    """Rows of the matrix: (N,) int64 -> (N, k) float32."""
    out = _empty(rows.shape[0], weight.k)
    _native.embedding_rows(weight.handle, _address(rows, torch.int64), rows.shape[0], out.data_ptr())
    return out


def int64_table(values: Sequence[int], size: int | None = None) -> Tensor:
    """(size,) int64 that begins with these values, by default nothing else."""
    table = np.zeros(len(values) if size is None else size, np.int64)
    table[: len(values)] = values
    return torch.from_numpy(table)


class Places(NamedTuple):
    """The sequences of a batch as the kernels read them: int64 tables, and the handle that has their addresses."""

    handle: _native.Sequences
    offsets: Tensor
    starts: Tensor
    slots: Tensor
    drafts: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Places:
        """Those of a batch, made once like its other tables."""
        made: Places | None = batch.__dict__.get("_native_places")
        if made is None:
            none = (0,) * len(batch)
            offsets = [batch.first + row for row in batch.layout.offsets]
            made = cls.over(
                *(int64_table(x) for x in (offsets, batch.starts, batch.slots or none, batch.drafts or none))
            )
            batch.__dict__["_native_places"] = made
        return made

    @classmethod
    def over(cls, offsets: Tensor, starts: Tensor, slots: Tensor, drafts: Tensor) -> Places:
        """These tables, with their handle."""
        tables = offsets, starts, slots, drafts
        return cls(_native.Sequences(len(starts), *(x.data_ptr() for x in tables)), *tables)


class RingPlaces(NamedTuple):
    """Where in the rings those rows of a pass go that are part of a sequence with drafts: int64 tables.

    Attributes:
        owners: (N,) its slot, -1 for the other rows.
        places: (N,) in its ring.
    """

    owners: Tensor
    places: Tensor

    @classmethod
    def of(cls, part: Batch, rows: int, ring: int) -> RingPlaces:
        """Those of a `Batch.part`.

        Args:
            part: of a pass of so many
            rows: in all.
            ring: tokens of a ring.
        """
        made: RingPlaces | None = part.__dict__.get("_native_ring")
        if made is None:
            made = cls(int64_table((), rows), int64_table((), rows))
            made.fill(part, ring)
        return made

    def fill(self, part: Batch, ring: int) -> None:
        """Set them anew."""
        assert part.slots is not None
        owners = self.owners.numpy()
        owners[:] = -1
        owners[part.taken] = part.slots[0]
        self.places.numpy()[part.taken] = np.arange(part.starts[0], part.starts[0] + part.lengths[0]) % ring


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, batch: Batch, state: ConvState | None) -> Tensor:
    """As `reference.causal_conv`, followed by SiLU: (N, d) and the taps transposed, (K, d) -> (N, d) float32."""
    width, d = weight.shape
    assert 2 <= width <= 8
    assert x.shape[1] == d
    out = _empty(*x.shape)
    address, stride = _strided(x)
    held, half = _cache(None if state is None else state.inputs)
    taps = 0 if bias is None else _address(bias)
    _native.causal_conv(
        Places.of(batch).handle, address, stride, _address(weight), taps, width, d, held, half, out.data_ptr()
    )
    if state is not None and batch.drafts:
        batch.trail.append(lambda part: causal_conv(x, weight, bias, part, state))
    return out


def selective_scan(
    u: Tensor,
    raw: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    z: Tensor,
    batch: Batch,
    state: SSMState | None,
) -> tuple[Tensor, Tensor]:
    """The scan with its step sizes and its gate.

    Args:
        u: (N, d) inputs.
        raw: (N, d) step sizes before bias and softplus.
        bias: (d,) or None.
        a: (n, d) negative decay rates, transposed.
        b: (N, n) input weights, rows with a stride.
        c: (N, n) output weights, the same stride.
        skip: (d,).
        z: (N, d) gate, rows with a stride.
        batch: which rows belong to which sequence.
        state: scan state of each slot.

    Returns:
        `(y, y * silu(z))`, (N, d) float32 each.
    """
    n, d = a.shape
    assert n <= 64
    assert b.stride(0) == c.stride(0)
    y, gated = _empty(*u.shape), _empty(*u.shape)
    z_address, z_stride = _strided(z)
    offset, held = 0 if bias is None else _address(bias), 0 if state is None else _address(state.hidden)
    _native.selective_scan(
        Places.of(batch).handle, _address(u), _address(raw), offset, _address(a), _strided(b)[0], _strided(c)[0],
        b.stride(0), _address(skip), held, n, d, y.data_ptr(), z_address, z_stride, gated.data_ptr(),
    )  # fmt: skip
    if state is not None and batch.drafts:
        batch.trail.append(lambda part: selective_scan(u, raw, bias, a, b, c, skip, z, part, state))
    return y, gated


class _Scan(torch.autograd.Function):
    """The recurrence of sequences that begin here, with gradients: (N, d) float32. Nothing but the inputs is saved."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, batch: Batch) -> Tensor:  # noqa: ANN401 - torch's context has no type
        y = torch.empty_like(u)
        _native.plain_scan(
            Places.of(batch).handle, _address(u), _address(dt), _address(a), _address(b), _address(c), b.shape[1],
            u.shape[1], y.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(u, dt, a, b, c)
        ctx.batch = batch
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context has no type
        u, dt, a, b, c = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (u, dt, a, b, c)]
        to_u, to_dt, to_a, to_b, to_c = (x.data_ptr() for x in grads)
        grad_y = grad_y.contiguous()
        _native.scan_backward(
            Places.of(ctx.batch).handle, _address(u), _address(dt), _address(a), _address(b), _address(c), b.shape[1],
            u.shape[1], ctx.batch.layout.longest, _address(grad_y), to_u, to_dt, to_a, to_b, to_c,
        )  # fmt: skip
        return (*grads, None)


def scan_with_gradients(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, batch: Batch) -> Tensor:
    """As `reference.selective_scan` without a state, for d_state 16: (N, d) float32, differentiable."""
    assert a.shape[1] == 16
    wide = tuple(x.float().contiguous() for x in (u, dt, a.t(), b, c))
    y = cast("Tensor", _Scan.apply(*wide, batch))  # type: ignore[no-untyped-call]  # torch's apply
    return torch.addcmul(y, skip.float(), wide[0])


def heads(
    count: int,
    kv_heads: int,
    width: int,
    maps: int,
    scale: float,
    lam: float,
    norm: Tensor | None,
    eps: float,
    norm_scale: float,
) -> _native.Heads:
    """The heads of an attention layer as the kernels read them; `norm` must outlive it."""
    address = 0 if norm is None else _address(norm)
    return _native.Heads(count, kv_heads, width, maps, scale, lam, address, eps, norm_scale)


_KEPT = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""How the kernels number the element types of keys and values."""


def _cache_of(tiles: KVTiles | None) -> _native.Cache:
    """The pages as the kernels read them; without any, new keys and values are float32."""
    if tiles is None:
        return _native.Cache(0, 0, 0, 0, 0, 0)
    assert all(x.is_contiguous() and x.device.type == "cpu" for x in tiles.tensors)
    key_scales, value_scales = (0 if x is None else x.data_ptr() for x in (tiles.key_scales, tiles.value_scales))
    count = tiles.tokens // TILE
    return _native.Cache(
        tiles.keys.data_ptr(), tiles.values.data_ptr(), key_scales, value_scales, count, _KEPT[tiles.dtype]
    )


def keeps(tiles: KVTiles) -> bool:
    """Whether the kernels know the element type."""
    return tiles.dtype in _KEPT


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: _native.Heads, batch: Batch, window: int, state: WindowKV | None
) -> Tensor:
    """As `reference.window_attention`, with the norm over each pair: -> (N, H * dh) float32.

    Args:
        q: (N, H * dh), rows with a stride.
        k: (N, Hk * dh), rows with a stride.
        v: (N, Hk * dh), the same stride.
        heads: what `_native.Heads` takes: sizes, scale, lambda, norm.
        batch: which rows belong to which sequence.
        window: W.
        state: the ring of each slot, read, then written; or None.
    """
    out = _empty(*q.shape)
    q_address, q_stride = _strided(q)
    k_address, kv_stride = _strided(k)
    assert v.stride(0) == kv_stride
    _native.window_attention(
        Places.of(batch).handle, heads, q_address, q_stride, k_address, _strided(v)[0], kv_stride,
        _cache_of(None if state is None else state.tiles), window, out.data_ptr(),
    )  # fmt: skip
    if state is not None and batch.drafts:
        tiles, rows = state.tiles, q.shape[0]
        batch.trail.append(lambda part: keep(k, v, heads, *RingPlaces.of(part, rows, tiles.tokens), tiles))
    return out


class SharedPlaces(NamedTuple):
    """Where in the shared cache the keys and values of a batch go, and where they are: int64 tables.

    Attributes:
        owners: (N,) the page of each new token.
        places: (N,) its place in the page.
        seen: (R,) how many tokens each row that asks attends to.
        table_start: (R,) where in `pages` those of its sequence begin.
        pages: the pages of one sequence after the other.
    """

    owners: Tensor
    places: Tensor
    seen: Tensor
    table_start: Tensor
    pages: Tensor

    @classmethod
    def of(cls, batch: Batch, slots: Sequence[int], state: SharedKV) -> SharedPlaces:
        """Those of a batch that the cache has room for."""
        made: SharedPlaces | None = batch.__dict__.get("_native_shared")
        if made is not None:
            return made
        seen: list[int] = []
        starts: list[int] = []
        table: list[int] = []
        for s in batch.asking:
            total, wanted = batch.starts[s] + batch.lengths[s], batch.wanted[s]
            starts.extend([len(table)] * wanted)
            seen.extend(range(total - wanted + 1, total + 1))
            table.extend(state.tables[slots[s]][: -(-total // PAGE_SIZE)])
        where = state.places(slots, batch.starts, batch.lengths)
        return cls(*where, *(int64_table(x) for x in (seen, starts, table)))


class PagedView(NamedTuple):
    """What the rows that ask will attend to: the cache itself, and where in it the tokens of each row lie."""

    tiles: KVTiles
    places: SharedPlaces


def keep(k: Tensor, v: Tensor, heads: _native.Heads, owners: Tensor, places: Tensor, tiles: KVTiles) -> None:
    """As `KVTiles.write`, with k and v (N, Hk * dh), rows with a stride."""
    k_address, k_stride = _strided(k)
    v_address, v_stride = _strided(v)
    _native.keep(
        heads, k.shape[0], _address(owners, torch.int64), _address(places, torch.int64), k_address, k_stride,
        v_address, v_stride, _cache_of(tiles),
    )  # fmt: skip


def shared_keys_values(
    k: Tensor,
    v: Tensor,
    shape: tuple[int, int],
    maps: int,
    heads: _native.Heads,
    batch: Batch,
    state: SharedKV | None,
) -> PagedView:
    """As `reference.shared_keys_values`: the cache is written, and nothing is gathered.

    Args:
        k: (N, Hk * dh) keys of all tokens, rows with a stride.
        v: (N, Hk * dh) values of all tokens, likewise.
        shape: (Hk, dh).
        maps: 2 in differential attention, else 1.
        heads: what `_native.Heads` takes.
        batch: which rows belong to which sequence, and which ask for logits.
        state: the cache, with pages reserved; None: one is made for the pass.
    """
    if state is None:
        slots = tuple(range(len(batch)))
        pages = sum(-(-length // PAGE_SIZE) for length in batch.lengths)
        state = SharedKV(len(slots), pages, shape, maps, k.dtype, k.device)
        for slot, length in enumerate(batch.lengths):
            state.reserve(slot, length)
    else:
        assert batch.slots is not None
        slots = batch.slots
    places = SharedPlaces.of(batch, slots, state)
    keep(k, v, heads, places.owners, places.places, state.tiles)
    return PagedView(state.tiles, places)


def shared_attention(q: Tensor, view: PagedView, heads: _native.Heads) -> Tensor:
    """As `reference.shared_attention`, with the norm over each pair: (R, H * dh) -> (R, H * dh) float32."""
    out = _empty(*q.shape)
    address, stride = _strided(q)
    _, _, seen, table_start, pages = (x.data_ptr() for x in view.places)
    _native.shared_attention(
        q.shape[0], seen, table_start, pages, heads, address, stride, _cache_of(view.tiles), out.data_ptr()
    )
    return out


def add_norm(
    hidden: Tensor,
    mixed: Tensor | None,
    scale: float,
    weight: Tensor,
    bias: Tensor | None,
    *,
    centred: bool,
    eps: float,
) -> Tensor:
    """`hidden += scale * mixed` in place (unless None), then LayerNorm (`centred`) or RMSNorm: (N, h) -> (N, h)."""
    out = _empty(*hidden.shape)
    _native.add_norm(
        hidden.shape[0], hidden.shape[1], _address(hidden), 0 if mixed is None else _address(mixed), scale,
        _address(weight), 0 if bias is None else _address(bias), centred, eps, out.data_ptr(),
    )  # fmt: skip
    return out


def choose(logits: Tensor, wanted: Sequence[tuple[int, float, int, float, float, float]]) -> list[int | None]:
    """As `reference.choose`, of rows of (R, vocab) logits: row, temperature, top_k, top_p, min_p and draw of each."""
    rows, size = logits.shape
    assert 0 < size < 2**31
    assert all(0 <= one[0] < rows and 0 <= one[5] < 1 for one in wanted)
    # The kernel takes 0 for all tokens.
    known = [one if one[2] < size else (*one[:2], 0, *one[3:]) for one in wanted]
    return [None if token < 0 else token for token in _native.choose(_address(logits), size, known)]


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[int, list[int], list[float]] | None:
    """As `reference.top_logprobs`; None: the largest logit is not finite."""
    size = len(logits)
    assert 0 <= token < size < 2**31
    assert 0 <= count <= size
    tokens, logprobs = torch.empty(count + 1, dtype=torch.int64), torch.empty(count + 1, dtype=torch.float64)
    rank = _native.top_logprobs(_address(logits), size, token, count, tokens.data_ptr(), logprobs.data_ptr())
    return (rank, tokens.tolist(), logprobs.tolist()) if rank else None
