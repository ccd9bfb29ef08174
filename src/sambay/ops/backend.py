"""The operations that the model calls: each on the fastest backend that serves the tensors at hand.

The compiled kernels serve float32 on the CPU without gradients; plain torch (`reference`) serves everything. What
lies between two projections is one operation here (a convolution with its SiLU, a scan with its gate), because a
kernel does it in one pass; on the reference it is composed of the plain ones.

Shape legend: N packed tokens, R rows that ask for logits; d = d_inner, n = d_state; H query heads, Hk key-value
heads of width dh; maps = 2 in differential attention, else 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sambay.batch import Batch
from sambay.errors import BackendError
from sambay.ops import native, reference
from sambay.state import ConvState, SharedKV, SlotState, SSMState, WindowKV

if native.usable():
    from sambay.ops import native_ops

__all__ = [
    "Derived",
    "HeadShape",
    "PairNorm",
    "SharedView",
    "Wanted",
    "add_norm",
    "causal_conv",
    "choose",
    "gate",
    "linear",
    "lookup",
    "rest_torch",
    "scale",
    "selective_scan",
    "served_natively",
    "shared_attention",
    "shared_keys_values",
    "top_logprobs",
    "use_threads",
    "using",
    "widens",
    "window_attention",
]

SharedView = Any
"""What `shared_keys_values` returns and `shared_attention` takes: each backend has its own."""

_T = TypeVar("_T")
_forced: str | None = None


@contextlib.contextmanager
def using(backend: str) -> Iterator[None]:
    """Force a backend for a while, for a comparison. Not for several threads at once.

    Args:
        backend: "reference" or "native".

    Raises:
        BackendError: it is unknown, or there are no compiled kernels here.
    """
    global _forced
    if backend not in ("reference", "native"):
        raise BackendError(f"unknown backend {backend!r}: choose reference or native")
    if backend == "native":
        native.require()
    before, _forced = _forced, backend
    try:
        yield
    finally:
        _forced = before


def use_threads(count: int) -> None:
    """Compute with so many CPU threads from now on, in torch and in the compiled kernels."""
    torch.set_num_threads(count)
    if native.available():
        native.set_threads(count)


def rest_torch() -> None:
    """Let torch compute with one thread from now on, where the compiled kernels do the work.

    After each of its operations torch's threads spin for a while, on the cores that the kernels need: steps of 16
    sequences of a quantised model took 1.5 times as long.
    """
    if native.available():
        torch.set_num_threads(1)


def served_natively(x: Tensor) -> bool:
    """Whether the compiled kernels take activations like these, now."""
    return x.device.type == "cpu" and serves(x.dtype)


def widens(dtype: torch.dtype, device: torch.device | str) -> bool:
    """Whether weights of a dtype had better be computed with in float32, if nothing is learned.

    Those of bfloat16 on the CPU: the compiled kernels read them as they are, and compute with no other activations.
    """
    with torch.inference_mode():
        return dtype is torch.bfloat16 and torch.device(device).type == "cpu" and serves(torch.float32)


def serves(dtype: torch.dtype) -> bool:
    """Whether the compiled kernels compute now with CPU activations of this dtype."""
    return (
        dtype is torch.float32
        and not torch.is_grad_enabled()
        and _forced != "reference"
        and not torch.is_autocast_enabled("cpu")
        and native.available()
    )


class Derived:
    """What a module derives from its parameters once, for as long as they stay as they are.

    It is not a part of the module's state: copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[tuple[int, int], ...], Any]] = {}

    def get(self, name: str, sources: tuple[Tensor, ...], make: Callable[[], _T]) -> _T:
        """What `make` returned when the sources were last seen to change."""
        seen = tuple((x.data_ptr(), 0 if x.is_inference() else x._version) for x in sources)
        held = self._made.get(name)
        if held is None or held[0] != seen:
            held = self._made[name] = (seen, make())
        return cast("_T", held[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Derived:
        return Derived()

    def __reduce__(self) -> tuple[type[Derived], tuple[()]]:
        return Derived, ()


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, batch: Batch, state: ConvState | None, derived: Derived
) -> Tensor:
    """SiLU of the causal convolution, see `reference.causal_conv`.

    Args:
        x: (N, d) inputs, rows may have a stride.
        weight: (d, 1, K) taps.
        bias: (d,) or None.
        batch: which rows belong to which sequence.
        state: of the convolution, or None.
        derived: of the module.

    Returns:
        (N, d) in the dtype of x.
    """
    if served_natively(x) and 2 <= weight.shape[2] <= 8 and (state is None or _fits(state.inputs)):
        sources = (weight,) if bias is None else (weight, bias)
        taps, offset = derived.get(
            "conv", sources, lambda: (_float(weight[:, 0].t()), None if bias is None else _float(bias))
        )
        return native_ops.causal_conv(x, taps, offset, batch, state)
    with _held_back(batch, state, lambda part: reference.causal_conv(x[part.taken], weight[:, 0], bias, part, state)):
        return F.silu(reference.causal_conv(x, weight[:, 0], bias, batch, state))


def selective_scan(
    u: Tensor,
    step: Tensor,
    step_bias: Tensor | None,
    a_log: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    z: Tensor,
    batch: Batch,
    state: SSMState | None,
    derived: Derived,
) -> tuple[Tensor, Tensor]:
    """The scan with its step sizes and its gate, see `reference.selective_scan`.

    Args:
        u: (N, d) inputs.
        step: (N, d) step sizes before softplus.
        step_bias: (d,), added to them in float32: it decides the time scale. Or None: they have it.
        a_log: (d, n), the decay rates are -exp of it.
        b: (N, n) input weights.
        c: (N, n) output weights.
        skip: (d,) weight of the direct path.
        z: (N, d) gate.
        batch: which rows belong to which sequence.
        state: of the scan, or None.
        derived: of the module.

    Returns:
        `(gated, y)`, (N, d) each in the dtype of u: `y * silu(z)`, and the output before the gate.
    """
    if served_natively(u) and a_log.shape[1] <= 64:
        sources = (a_log, skip) if step_bias is None else (a_log, skip, step_bias)
        a, direct, bias = derived.get(
            "scan",
            sources,
            lambda: (
                -torch.exp(a_log.float()).t().contiguous(),
                _float(skip),
                None if step_bias is None else _float(step_bias),
            ),
        )
        y, gated = native_ops.selective_scan(u, step, bias, a, b, c, direct, z, batch, state)
        return gated, y
    dt = F.softplus(step.float() if step_bias is None else step.float() + step_bias.float())
    a = -torch.exp(a_log.float())
    ready = u.device.type == "cpu" and u.dtype is not torch.float64 and _forced != "reference" and native.available()
    if ready and state is None and a.shape[1] == 16:
        with torch.autocast("cpu", enabled=False):
            y = native_ops.scan_with_gradients(u, dt, a, b, c, skip, batch).to(u.dtype)
    else:
        rows = (u, dt, b, c)

        def scan(part: Batch) -> Tensor:
            one, step, into, out = (x[part.taken] for x in rows)
            return reference.selective_scan(one, step, a, into, out, skip, part, state)

        with _held_back(batch, state, scan):
            y = reference.selective_scan(u, dt, a, b, c, skip, batch, state).to(u.dtype)
    return y * F.silu(z), y


@contextlib.contextmanager
def _held_back(batch: Batch, state: SlotState | None, redo: Callable[[Batch], object]) -> Iterator[None]:
    """Leave the state of sequences with drafts as it is, on plain torch, and note what brings it on."""
    slots = [slot for slot, drafts in zip(batch.slots or (), batch.drafts, strict=False) if drafts]
    if state is None or not slots:
        yield
        return
    before = [state.snapshot(slot) for slot in slots]
    yield
    for slot, saved in zip(slots, before, strict=True):
        state.restore(slot, saved)
    batch.trail.append(redo)


def gate(x: Tensor, memory: Tensor) -> Tensor:
    """`memory * silu(x)`: (R, d) each -> (R, d)."""
    if served_natively(x) and memory.dtype is torch.float32:
        return native_ops.gate(x, memory)
    return memory * F.silu(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + bias` with plain weights: (..., k), (rows, k) and (rows,) -> (..., rows).

    Weights of bfloat16 serve inputs of float32, too.
    """
    offset = bias is None or (bias.dtype is torch.float32 and bias.is_contiguous())
    if served_natively(x) and weight.dtype in (torch.float32, torch.bfloat16) and weight.is_contiguous() and offset:
        rows = x if x.ndim == 2 and x.stride(1) == 1 else x.reshape(-1, x.shape[-1]).contiguous()
        out = native_ops.plain_linear(rows, weight, bias)
        return out if x.ndim == 2 else out.view(*x.shape[:-1], out.shape[1])
    return F.linear(x, weight.to(x.dtype) if x.dtype is torch.float32 else weight, bias)


def lookup(weight: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a plain matrix: (V, k) and (N,) int64 -> (N, k) of a dtype: that of the weights, or float32."""
    plain = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and weight.is_contiguous()
    if plain and serves(dtype):
        return native_ops.lookup(weight, rows.contiguous())
    return F.embedding(rows, weight).to(dtype)


def scale(x: Tensor, factor: float) -> Tensor:
    """`factor * x`."""
    return native_ops.scale(x.contiguous(), factor) if served_natively(x) else x * factor


@dataclass(frozen=True)
class HeadShape:
    """Sizes of attention: H query heads, Hk key-value heads, dh, and how many softmax maps make one output."""

    heads: int
    kv_heads: int
    width: int
    maps: int

    @property
    def native(self) -> bool:
        """Whether the kernels have room for a group of heads that share their keys and values."""
        return (
            self.width % 16 == 0
            and self.width <= 128
            and self.heads * self.maps // self.kv_heads <= 16
            and self.kv_heads % self.maps == 0
        )


@dataclass(frozen=True)
class PairNorm:
    """The norm over each pair of heads in differential attention, and the lambdas.

    Attributes:
        lambdas: q1, k1, q2, k2, (dh,) each.
        initial: lambda_init.
        weight: (2 dh,) of the RMSNorm.
        eps: of the RMSNorm.
    """

    lambdas: tuple[Tensor, Tensor, Tensor, Tensor]
    initial: float
    weight: Tensor
    eps: float

    def mix(self) -> Tensor:
        """The weight of the second map: float32 scalar."""
        q1, k1, q2, k2 = (x.float() for x in self.lambdas)
        return torch.exp((q1 * k1).sum()) - torch.exp((q2 * k2).sum()) + self.initial

    def __call__(self, mixed: Tensor) -> Tensor:
        """(N, P, 2 dh) -> the same, normalised and scaled."""
        weight = self.weight
        return F.rms_norm(mixed.to(weight.dtype), weight.shape, weight, self.eps) * (1 - self.initial)


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shape: HeadShape,
    norm: PairNorm | None,
    batch: Batch,
    window: int,
    state: WindowKV | None,
    derived: Derived,
) -> Tensor:
    """Sliding-window attention with the norm over pairs, see `reference.window_attention`.

    Args:
        q: (N, H * dh) queries.
        k: (N, Hk * dh) keys.
        v: (N, Hk * dh) values.
        shape: of the heads.
        norm: of differential attention, or None for plain attention.
        batch: which rows belong to which sequence.
        window: W.
        state: the ring, or None.
        derived: of the module.

    Returns:
        (N, H * dh) in the dtype of q.
    """
    if served_natively(q) and shape.native and (state is None or native_ops.keeps(state.tiles)):
        return native_ops.window_attention(q, k, v, _handle(shape, norm, derived), batch, window, state)
    lam = None if norm is None else norm.mix()
    queries, keys, values = (x.unflatten(-1, (-1, shape.width)) for x in (q, k, v))

    def write(part: Batch) -> None:
        assert state is not None
        reference.keep_in_window(keys[part.taken], values[part.taken], part, state)

    with _held_back(batch, state, write):
        mixed = reference.window_attention(queries, keys, values, batch, window, lam, state)
    return (mixed if norm is None else norm(mixed)).flatten(1)


def shared_keys_values(
    k: Tensor,
    v: Tensor,
    shape: HeadShape,
    norm: PairNorm | None,
    batch: Batch,
    state: SharedKV | None,
    derived: Derived,
) -> SharedView:
    """Fill the shared cache, see `reference.shared_keys_values`.

    Args:
        k: (N, Hk * dh) keys.
        v: (N, Hk * dh) values.
        shape: of the heads.
        norm: of differential attention, or None for plain attention.
        batch: which rows belong to which sequence.
        state: the cache, written, or None.
        derived: of the module.
    """
    if served_natively(k) and shape.native and (state is None or native_ops.keeps(state.tiles)):
        heads = _handle(shape, norm, derived)
        return native_ops.shared_keys_values(k, v, (shape.kv_heads, shape.width), shape.maps, heads, batch, state)
    keys, values = (x.unflatten(-1, (-1, shape.width)) for x in (k, v))
    lam = None if norm is None else k.new_zeros(())
    return reference.shared_keys_values(keys, values, batch, lam, state)


def shared_attention(
    q: Tensor, view: SharedView, shape: HeadShape, norm: PairNorm | None, batch: Batch, derived: Derived
) -> Tensor:
    """Attention of the rows that ask to the shared cache, with the norm over pairs: (R, H * dh) -> (R, H * dh)."""
    if not isinstance(view, reference.SharedView):
        return native_ops.shared_attention(q, view, _handle(shape, norm, derived))
    lam = None if norm is None else norm.mix()
    mixed = reference.shared_attention(q.unflatten(-1, (-1, shape.width)), view, batch, lam)
    return (mixed if norm is None else norm(mixed)).flatten(1)


def add_norm(hidden: Tensor, mixed: Tensor | None, scale: float, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Add to the residual stream and normalise: `hidden + scale * mixed`, and its norm in the dtype of the weights.

    Args:
        hidden: (N, h) float32; it may be written over.
        mixed: (N, h); None: nothing is added.
        scale: of what is added.
        norm: LayerNorm or RMSNorm.
    """
    weight = norm.weight
    assert isinstance(weight, Tensor)
    kind = type(norm)
    plain = weight.dtype is torch.float32 and (mixed is None or mixed.dtype is torch.float32)
    if served_natively(hidden) and plain and kind in _NORMS:
        bias, eps = getattr(norm, "bias", None), cast("float", norm.eps)
        out = native_ops.add_norm(hidden, mixed, scale, weight, bias, centred=_NORMS[kind], eps=eps)
        return hidden, out
    if mixed is not None:
        hidden = torch.add(hidden, mixed, alpha=scale)
    return hidden, norm(hidden.to(weight.dtype))


class Wanted(NamedTuple):
    """A token to be chosen; see `reference.choose`.

    Attributes:
        row: of the logits.
        temperature: 0 for the most probable token.
        top_k: 0 or less for all.
        top_p: 1 for all.
        min_p: 0 for all.
        draw: from [0, 1).
    """

    row: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    draw: float


def choose(logits: Tensor, wanted: Sequence[Wanted]) -> list[int | None]:
    """The tokens of (R, vocab) logits that draws fall on; None: the largest logit of the row is not finite."""
    logits = logits.detach().float()
    if _samples_natively(logits):
        return native_ops.choose(logits.contiguous(), wanted)
    return [
        reference.choose(logits[row], temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, draw=draw)
        for row, temperature, top_k, top_p, min_p, draw in wanted
    ]


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[int, list[int], list[float]]:
    """Rank, tokens and log-probabilities of (vocab,) logits, see `reference.top_logprobs`; `count` may be any."""
    logits, count = logits.detach().float(), min(count, len(logits))
    found = native_ops.top_logprobs(logits.contiguous(), token, count) if _samples_natively(logits) else None
    # What comes of logits whose largest is not finite, plain torch says.
    return reference.top_logprobs(logits, token, count) if found is None else found


def _samples_natively(logits: Tensor) -> bool:
    """Nothing differentiable comes out, so that gradients and autocast play no part."""
    return logits.device.type == "cpu" and _forced != "reference" and native.available()


_NORMS: dict[type[torch.nn.Module], bool] = {torch.nn.LayerNorm: True, torch.nn.RMSNorm: False}
"""The norms that the kernels know, and whether they take the mean away."""


PackedMatrix = Any
"""A quantised matrix as the kernels read it; `native_ops.PackedMatrix` where there are kernels."""


def packed_matrix(packed: Tensor, bias: Tensor | None, rows: int, k: int, bits: int, group: int) -> PackedMatrix:
    """Describe a quantised matrix to the kernels; only where `serves` says so."""
    return native_ops.PackedMatrix(packed, bias, rows, k, bits, group)


def packed_product(x: Tensor, matrix: PackedMatrix, first: int, count: int) -> Tensor:
    """Some outputs of a projection with quantised weights: (N, k) -> (N, count) float32."""
    return native_ops.linear(x, matrix, first, count)


def packed_mlp(x: Tensor, fc1: PackedMatrix, fc2: PackedMatrix) -> Tensor:
    """SwiGLU with quantised weights: (N, h) -> (N, h) float32."""
    return native_ops.mlp(x, fc1, fc2)


def packed_rows(matrix: PackedMatrix, rows: Tensor) -> Tensor:
    """Rows of a quantised matrix: (N,) int64 -> (N, k) float32."""
    return native_ops.embedding_rows(matrix, rows)


def _handle(shape: HeadShape, norm: PairNorm | None, derived: Derived) -> Any:  # noqa: ANN401 - the kernels' own type, where there are kernels
    """The heads as the kernels take them, with the weight of the norm kept alive beside them."""

    def make() -> tuple[Any, Tensor | None]:
        weight = None if norm is None else _float(norm.weight)
        lam = 0.0 if norm is None else float(norm.mix())
        eps, scale = (0.0, 1.0) if norm is None else (norm.eps, 1 - norm.initial)
        sizes = (shape.heads, shape.kv_heads, shape.width, shape.maps, shape.width**-0.5)
        return native_ops.heads(*sizes, lam, weight, eps, scale), weight

    return derived.get("heads", () if norm is None else (*norm.lambdas, norm.weight), make)[0]


def _float(x: Tensor) -> Tensor:
    return x.detach().float().contiguous()


def _fits(cache: Tensor) -> bool:
    return cache.dtype in (torch.float32, torch.bfloat16)
