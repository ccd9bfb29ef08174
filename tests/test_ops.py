"""Each operation, forward and backward, against its formula written as plainly as possible in float64."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import opened, write
from sambay.batch import Batch
from sambay.config import SambaYConfig
from sambay.ops import reference as ops
from sambay.state import ConvState, SharedKV, SSMState, StatePool, WindowKV

RAGGED = [(6,), (1,), (3, 3, 3), (1, 1), (7, 2, 5, 5, 1), (1, 9), (12, 13), (2, 11, 9, 10)]
BOUND = 1e-5


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 17 * sum(shape)), dtype=dtype)


def batch_of(lengths, slots=None, starts=None, wanted=None):
    ids = torch.zeros(sum(lengths), dtype=torch.int64)
    return Batch.packed(ids, lengths, slots=slots, starts=starts, wanted=wanted)


def assert_close(found, expected, bound=BOUND, what=""):
    assert found.shape == expected.shape, what
    assert found.isfinite().all(), what
    found, expected = found.detach(), expected.detach()
    difference = (found.double() - expected).abs().max() if found.numel() else 0.0
    assert difference <= bound * max(1e-3, float(expected.abs().max()) if expected.numel() else 1.0), what


def assert_same_gradients(operation, formula, inputs, bound=BOUND):
    """Outputs and the gradients of all inputs, for one random projection of the output."""
    single = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    double = {k: v.double().requires_grad_() for k, v in inputs.items()}
    found, expected = operation(**single), formula(**double)
    assert_close(found, expected, bound)
    weight = normal(*expected.shape, seed=5, dtype=torch.float64)
    (found * weight.to(found.dtype)).sum().backward()
    (expected * weight).sum().backward()
    for name in inputs:
        assert single[name].grad is not None, name
        assert_close(single[name].grad, double[name].grad, 3 * bound, name)


# ---- causal convolution


def conv_formula(x, weight, bias, lengths, history=None):
    taps = weight.shape[1]
    outs = []
    for s, document in enumerate(x.split(lengths)):
        past = x.new_zeros(taps - 1, x.shape[1]) if history is None else history[s]
        line = torch.cat([past, document])
        for t in range(len(document)):
            out = sum(weight[:, k] * line[t + k] for k in range(taps))
            outs.append(out if bias is None else out + bias)
    return torch.stack(outs)


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_causal_conv(lengths, taps):
    inputs = {"x": normal(sum(lengths), 5), "weight": normal(5, taps), "bias": normal(5)}
    assert_same_gradients(
        lambda x, weight, bias: ops.causal_conv(x, weight, bias, batch_of(lengths), None),
        lambda x, weight, bias: conv_formula(x, weight, bias, lengths),
        inputs,
    )
    del inputs["bias"]
    assert_same_gradients(
        lambda x, weight: ops.causal_conv(x, weight, None, batch_of(lengths), None),
        lambda x, weight: conv_formula(x, weight, None, lengths),
        inputs,
    )


@pytest.mark.parametrize("lengths", [(4,), (3, 1, 5)], ids=str)
def test_causal_conv_gradcheck(lengths):
    inputs = [normal(*shape, dtype=torch.float64).requires_grad_() for shape in ((sum(lengths), 2), (2, 3), (2,))]
    assert torch.autograd.gradcheck(lambda x, w, b: ops.causal_conv(x, w, b, batch_of(lengths), None), inputs)


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
@pytest.mark.parametrize("lengths", [(6,), (1,), (3, 3), (1, 1), (7, 2, 5), (1, 9)], ids=str)
@pytest.mark.parametrize("slots", [(0, 1, 2), (3, 0, 2), (1, 2, 3)], ids=str)
def test_causal_conv_state_is_exact(lengths, taps, slots):
    slots = slots[: len(lengths)]
    x, weight, bias = normal(sum(lengths), 5), normal(5, taps), normal(5)
    state = ConvState(normal(4, taps - 1, 5))
    before = state.inputs.clone()
    out = ops.causal_conv(x, weight, bias, batch_of(lengths, slots, [9] * len(lengths)), state)
    history = [before[s].double() for s in slots]
    assert_close(out, conv_formula(x.double(), weight.double(), bias.double(), lengths, history))
    for slot, document in zip(slots, x.split(lengths), strict=True):
        line = torch.cat([before[slot], document])
        assert torch.equal(state.inputs[slot], line[len(line) - taps + 1 :])
        before[slot] = state.inputs[slot]
    assert torch.equal(state.inputs, before)  # other slots as they were


@pytest.mark.parametrize("slots", [(0, 1), (2, 0)])
def test_causal_conv_in_half_precision_rounds_once(slots):
    """It accumulates in float32; its state may be of another type than its input, whatever the slots."""
    x, weight, bias = normal(8, 5).bfloat16(), normal(5, 4).bfloat16(), normal(5).bfloat16()
    state = ConvState(normal(3, 3, 5))
    before = state.inputs.clone()
    out = ops.causal_conv(x, weight, bias, batch_of((4, 4), slots), state)
    history = [before[s].double() for s in slots]
    exact = conv_formula(x.double(), weight.double(), bias.double(), (4, 4), history)
    assert out.dtype is torch.bfloat16
    assert torch.equal(out, exact.float().bfloat16())
    assert state.inputs.dtype is torch.float32


# ---- selective scan


def scan_formula(u, dt, a, b, c, skip, lengths, initial=None):
    """Outputs, and the final state (d, n) of every sequence."""
    outs, finals = [], []
    parts = zip(*(x.split(lengths) for x in (u, dt, b, c)), strict=True)
    for s, (us, dts, bs, cs) in enumerate(parts):
        h = torch.zeros_like(a) if initial is None else initial[s]
        for t in range(len(us)):
            h = torch.exp(dts[t, :, None] * a) * h + (dts[t] * us[t])[:, None] * bs[t, None, :]
            outs.append(h @ cs[t] + skip * us[t])
        finals.append(h)
    return torch.stack(outs), torch.stack(finals)


def scan_inputs(rows, d=4, n=3):
    return {
        "u": normal(rows, d), "dt": normal(rows, d, seed=1).exp() * 0.3, "a": -normal(d, n, seed=2).exp(),
        "b": normal(rows, n, seed=3), "c": normal(rows, n, seed=4), "skip": normal(d, seed=5),
    }  # fmt: skip


def run_scan(x, batch, state=None):
    return ops.selective_scan(x["u"], x["dt"], x["a"], x["b"], x["c"], x["skip"], batch, state)


@pytest.mark.parametrize("elements", [1 << 19, 1, 30, 75], ids=lambda e: f"chunk{e}")
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_selective_scan(monkeypatch, lengths, elements):
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    assert_same_gradients(
        lambda **x: run_scan(x, batch_of(lengths)),
        lambda **x: scan_formula(**x, lengths=lengths)[0],
        scan_inputs(sum(lengths)),
    )


@pytest.mark.parametrize(("d", "n"), [(1, 1), (1, 5), (7, 1)])
def test_selective_scan_of_one(d, n):
    assert_same_gradients(
        lambda **x: run_scan(x, batch_of((3, 5))),
        lambda **x: scan_formula(**x, lengths=(3, 5))[0],
        scan_inputs(8, d, n),
    )


@pytest.mark.parametrize("elements", [1 << 19, 20])
@pytest.mark.parametrize("widths", [(1, 1, 1), (3, 3, 2, 1, 1), (2,)], ids=str)
def test_scan_gradcheck(monkeypatch, widths, elements):
    """The hand-written backward pass against finite differences, in float64, of both results."""
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    rows = sum(widths)
    x = {k: v.double() for k, v in scan_inputs(rows, 3, 2).items()}
    inputs = [t.requires_grad_() for t in (x["u"], x["dt"], x["a"].t().contiguous(), x["b"], x["c"])]
    assert torch.autograd.gradcheck(lambda *t: ops._Scan.apply(*t, None, widths), inputs)


@pytest.mark.parametrize("elements", [1 << 19, 1, 40])
@pytest.mark.parametrize("lengths", [(6,), (3, 3), (7, 2, 5), (2, 9)], ids=str)
def test_gradient_through_the_initial_and_the_final_state(monkeypatch, lengths, elements):
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    order, inverse, widths, sequences = batch_of(lengths).layout.time_major
    inputs = scan_inputs(sum(lengths)) | {"initial": normal(len(lengths), 4, 3, seed=6)}
    inputs["skip"] = torch.zeros(4)
    place = torch.tensor(sequences)

    def operation(u, dt, a, b, c, skip, initial):
        rows = [x if order is None else x[order] for x in (u, dt, b, c)]
        start = initial.transpose(1, 2)[place]
        y, final = ops._Scan.apply(rows[0], rows[1], a.t().contiguous(), rows[2], rows[3], start, widths)
        y = (y if inverse is None else y[inverse]) + skip * u
        return torch.cat([y.flatten(), final[torch.argsort(place)].transpose(1, 2).flatten()])

    def formula(u, dt, a, b, c, skip, initial):
        y, final = scan_formula(u, dt, a, b, c, skip, lengths, initial)
        return torch.cat([y.flatten(), final.flatten()])

    assert_same_gradients(operation, formula, inputs)


@pytest.mark.parametrize("elements", [1 << 19, 1, 40])
@pytest.mark.parametrize("lengths", [(6,), (1,), (1, 1, 1), (3, 3), (2, 7, 5), (5, 7)], ids=str)
@pytest.mark.parametrize("slots", [(0, 1, 2), (3, 0, 2), (1, 2, 3)], ids=str)
def test_selective_scan_state(monkeypatch, lengths, slots, elements):
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    slots = slots[: len(lengths)]
    x = scan_inputs(sum(lengths))
    state = SSMState(normal(4, 3, 4, seed=8))
    before = state.hidden.clone()
    out = run_scan(x, batch_of(lengths, slots, [9] * len(lengths)), state)
    initial = [before[s].t().double() for s in slots]
    expected, finals = scan_formula(**{k: v.double() for k, v in x.items()}, lengths=lengths, initial=initial)
    assert_close(out, expected)
    for slot, final in zip(slots, finals, strict=True):
        assert_close(state.hidden[slot], final.t())
        before[slot] = state.hidden[slot]
    assert torch.equal(state.hidden, before)


@pytest.mark.parametrize("steps", [1, 3, 16])
@pytest.mark.parametrize("lengths", [(40, 2, 37, 1), (9,) * 5], ids=str)
def test_the_scan_keeps_few_states(monkeypatch, lengths, steps):
    """One in `_SCAN_STEPS` steps, of the sequences that still run, though a chunk holds less; none for inference."""
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", 1)
    monkeypatch.setattr(ops, "_SCAN_STEPS", steps)
    kept = []

    def pack(tensor):
        if tensor.ndim == 3:
            kept.append(len(tensor))
        return tensor

    x = scan_inputs(sum(lengths))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_scan(x, batch_of(lengths))
        assert kept == []
        run_scan({name: value.clone().requires_grad_() for name, value in x.items()}, batch_of(lengths))
    assert kept == [sum(length > t for length in lengths) for t in range(0, max(lengths), steps)]
    assert_same_gradients(
        lambda **x: run_scan(x, batch_of(lengths)), lambda **x: scan_formula(**x, lengths=lengths)[0], x
    )


def test_a_second_derivative_of_the_scan_is_refused():
    x = {name: value.requires_grad_() for name, value in scan_inputs(4).items()}
    (first,) = torch.autograd.grad(run_scan(x, batch_of((4,))).square().sum(), x["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_selective_scan_forgets_and_remembers_at_the_extremes():
    """A step of 0 keeps the state; a huge one leaves only the input; neither gives a NaN in the gradient."""
    u = torch.ones(3, 1)
    dt = torch.tensor([[1.0], [0.0], [1e4]], requires_grad=True)
    a, ones = torch.tensor([[-1.0]]), torch.ones(3, 1)
    out = ops.selective_scan(u, dt, a, ones, ones, torch.zeros(1), batch_of((3,)), None)
    assert out.flatten().tolist() == [1.0, 1.0, 1e4]
    out.sum().backward()
    assert dt.grad.isfinite().all()


# ---- attention


def attention_formula(q, k, v, lam, visible):
    """(T, H, dh) queries; `visible(t)` is the slice of keys of query t. Pairs of heads if lam is given."""
    heads, kv_heads, width = q.shape[1], k.shape[1], q.shape[2]
    group = heads // kv_heads
    outs = []
    for t in range(len(q)):
        seen = visible(t)

        def weights(head, kv_head, t=t, seen=seen):
            return torch.softmax(k[seen, kv_head] @ q[t, head] / math.sqrt(width), 0)

        row = []
        if lam is None:
            row = [weights(head, head // group) @ v[seen, head // group] for head in range(heads)]
        else:
            for pair in range(heads // 2):
                kv = pair // group
                both = torch.cat([v[seen, 2 * kv], v[seen, 2 * kv + 1]], dim=-1)
                row.append((weights(2 * pair, 2 * kv) - lam * weights(2 * pair + 1, 2 * kv + 1)) @ both)
        outs.append(torch.stack(row))
    return torch.stack(outs)


def window_formula(q, k, v, lam, lengths, window):
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    return torch.cat([
        attention_formula(qs, ks, vs, lam, lambda t: slice(max(0, t - window + 1), t + 1)) for qs, ks,
        vs in parts
    ])  # fmt: skip


def attention_inputs(rows, heads, kv_heads, width, differential):
    inputs = {"q": 2 * normal(rows, heads, width), "k": normal(rows, kv_heads, width, seed=1)}
    inputs["v"] = normal(rows, kv_heads, width, seed=2)
    return inputs | ({"lam": torch.tensor(0.6)} if differential else {})


HEADS = [
    (4, 2, 3, True),
    (6, 2, 4, True),
    (8, 8, 1, True),
    (4, 4, 3, False),
    (6, 3, 2, False),
    (3, 1, 5, False),
]


@pytest.mark.parametrize("block", [256, 1, 4])
@pytest.mark.parametrize("window", [1, 2, 5, 50])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_window_attention(monkeypatch, lengths, window, block):
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    assert_same_gradients(
        lambda q, k, v, lam: ops.window_attention(q, k, v, batch_of(lengths), window, lam, None),
        lambda q, k, v, lam: window_formula(q, k, v, lam, lengths, window),
        attention_inputs(sum(lengths), 4, 2, 3, True),
    )


@pytest.mark.parametrize(("heads", "kv_heads", "width", "differential"), HEADS)
def test_window_attention_heads(heads, kv_heads, width, differential):
    assert_same_gradients(
        lambda q, k, v, lam=None: ops.window_attention(q, k, v, batch_of((9, 4)), 3, lam, None),
        lambda q, k, v, lam=None: window_formula(q, k, v, lam, (9, 4), 3),
        attention_inputs(13, heads, kv_heads, width, differential),
    )


@pytest.mark.parametrize("window", [1, 2, 5, 16])
@pytest.mark.parametrize("lengths", [(6,), (1, 1), (3, 3), (12, 2, 11), (5, 6)], ids=str)
@pytest.mark.parametrize("starts", [(0, 0, 0), (1, 20, 4), (100, 3, 5)], ids=str)
def test_window_attention_state_is_exact(lengths, window, starts):
    """Rings of sequences of any past: filled as the description says, and read back with new tokens."""
    slots, count = (3, 0, 2), len(lengths)
    past = (
        [normal(starts[s], 2, 3, seed=s) for s in range(count)],
        [normal(starts[s], 2, 3, seed=9 + s) for s in range(count)],
    )
    state = WindowKV(4, window, (2, 3), 2, torch.float32, torch.device("cpu"))
    for ring in state.tensors:
        ring.normal_(generator=torch.Generator().manual_seed(50)).mul_(1e3)  # old contents
    places = state.tiles.tokens

    def put(tiles, s, lines, first):
        for position in range(first, len(lines[0])):
            at = torch.tensor([slots[s]]), torch.tensor([position % places])
            tiles.write(*at, *(line[position : position + 1] for line in lines))

    for s in range(count):
        put(state.tiles, s, (past[0][s], past[1][s]), 0)
    rings = copy.deepcopy(state.tiles)
    x = attention_inputs(sum(lengths), 4, 2, 3, True)
    batch = batch_of(lengths, slots[:count], starts[:count])
    out = ops.window_attention(x["q"], x["k"], x["v"], batch, window, x["lam"], state)
    for s, (found, q, k, v) in enumerate(zip(*(t.split(lengths) for t in (out, x["q"], x["k"], x["v"])), strict=True)):
        keys, values = torch.cat([past[0][s], k]), torch.cat([past[1][s], v])
        start = starts[s]
        expected = attention_formula(
            q.double(), keys.double(), values.double(), 0.6,
            lambda t, start=start: slice(max(0, start + t - window + 1), start + t + 1),
        )  # fmt: skip
        assert_close(found, expected)
        put(rings, s, (keys, values), start)
    for ring, expected in zip(state.tensors, rings.tensors, strict=True):
        assert torch.equal(ring, expected)


def shared_formula(q, k, v, lam, lengths, wanted):
    outs, at = [], 0
    for length, count, ks, vs in zip(lengths, wanted, k.split(lengths), v.split(lengths), strict=True):
        first = length - count
        if count:
            outs.append(
                attention_formula(q[at : at + count], ks, vs, lam, lambda t, first=first: slice(0, first + t + 1))
            )
        at += count
    return torch.cat(outs)


def run_shared(q, k, v, lam, batch, cache=None):
    return ops.shared_attention(q, ops.shared_keys_values(k, v, batch, lam, cache), batch, lam)


WANTED = [
    ((6,), (6,)), ((6,), (1,)), ((6,), (3,)), ((3, 3, 3), (3, 3, 3)), ((3, 4), (1, 1)),
    ((9, 10, 11), (1, 1, 1)),
    ((7, 2, 5, 5, 1), (1, 2, 0, 5, 1)), ((8, 8, 7), (8, 7, 6)), ((4, 5), (0, 2)), ((11, 12, 3), (2, 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize("block", [256, 1, 4])
@pytest.mark.parametrize(("lengths", "wanted"), WANTED, ids=str)
def test_shared_attention(monkeypatch, lengths, wanted, block):
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    batch = batch_of(lengths, wanted=wanted)
    inputs = attention_inputs(sum(lengths), 4, 2, 3, True)
    inputs["q"] = inputs["q"][: sum(wanted)]
    assert_same_gradients(
        lambda q, k, v, lam: run_shared(q, k, v, lam, batch),
        lambda q, k, v, lam: shared_formula(q, k, v, lam, lengths, wanted),
        inputs,
    )


@pytest.mark.parametrize(("heads", "kv_heads", "width", "differential"), HEADS)
def test_shared_attention_heads(heads, kv_heads, width, differential):
    batch = batch_of((9, 4), wanted=(2, 4))
    inputs = attention_inputs(13, heads, kv_heads, width, differential)
    inputs["q"] = inputs["q"][:6]
    assert_same_gradients(
        lambda q, k, v, lam=None: run_shared(q, k, v, lam, batch),
        lambda q, k, v, lam=None: shared_formula(q, k, v, lam, (9, 4), (2, 4)),
        inputs,
    )


@pytest.mark.parametrize(("lengths", "wanted"), WANTED, ids=str)
@pytest.mark.parametrize("starts", [(0, 0, 0, 0, 0), (60, 3, 64, 130, 63), (200, 201, 199, 202, 150)], ids=str)
def test_shared_attention_with_a_cache(lengths, wanted, starts):
    count = len(lengths)
    starts, slots = starts[:count], (4, 0, 5, 1, 2)[:count]
    cache = SharedKV(6, 1, (2, 3), 2, torch.float32, torch.device("cpu"))
    past = (
        [normal(starts[s], 2, 3, seed=s) for s in range(count)],
        [normal(starts[s], 2, 3, seed=9 + s) for s in range(count)],
    )
    for at in range(0, max(starts), 50):  # in turns, so that pages of the sequences lie mixed
        for s in range(count):
            new = [side[s][at : at + 50] for side in past]
            cache.reserve(slots[s], min(starts[s], at + 50))
            write(cache, slots[s], at, *new)
    for s in range(count):
        cache.reserve(slots[s], starts[s] + lengths[s])
    x = attention_inputs(sum(lengths), 4, 2, 3, True)
    q = x["q"][: sum(wanted)]
    out = run_shared(q, x["k"], x["v"], x["lam"], batch_of(lengths, slots, starts, wanted), cache)
    whole = [
        [torch.cat([old, new]) for old, new in zip(side, x[name].split(lengths), strict=True)]
        for side, name in zip(past, "kv", strict=True)
    ]
    totals = [start + length for start, length in zip(starts, lengths, strict=True)]
    k, v = (torch.cat(side).double() for side in whole)
    assert_close(out, shared_formula(q.double(), k, v, 0.6, totals, wanted))
    for s in range(count):
        found = cache.read(slots[s], totals[s])
        assert torch.equal(found[0], whole[0][s])
        assert torch.equal(found[1], whole[1][s])


@settings(max_examples=60)
@given(data=st.data())
def test_attention_at_random_shapes(data):
    whole = st.integers
    differential = data.draw(st.booleans())
    kv_heads = data.draw(whole(1, 2)) * (1 + differential)
    heads, width = kv_heads * data.draw(whole(1, 3)), data.draw(whole(1, 4))
    lengths = data.draw(st.lists(whole(1, 9), min_size=1, max_size=5))
    wanted = [data.draw(whole(0, n)) for n in lengths]
    x = attention_inputs(sum(lengths), heads, kv_heads, width, differential)
    lam = x.pop("lam", None)
    double = {k: t.double() for k, t in x.items()}
    window = data.draw(whole(1, 10))
    found = ops.window_attention(**x, batch=batch_of(lengths), window=window, lam=lam, state=None)
    assert_close(found, window_formula(**double, lam=lam, lengths=lengths, window=window))
    if any(wanted):
        q = x["q"][: sum(wanted)]
        found = run_shared(q, x["k"], x["v"], lam, batch_of(lengths, wanted=wanted))
        assert_close(found, shared_formula(q.double(), double["k"], double["v"], lam, lengths, wanted))


@pytest.mark.parametrize("way", ["window", "shared"])
def test_attention_needs_bounded_memory(monkeypatch, way):
    """No product of queries and keys has more elements than `_SCORE_ELEMENTS`, unless it is of a single query."""
    monkeypatch.setattr(ops, "_SCORE_ELEMENTS", 1000)
    sizes, softmax = [], torch.nn.functional.softmax
    monkeypatch.setattr(ops.F, "softmax", lambda x, dim: sizes.append(x.shape) or softmax(x, dim=dim))
    x = attention_inputs(90, 4, 2, 3, True)
    if way == "window":
        ops.window_attention(**{k: x[k] for k in "qkv"}, batch=batch_of((45, 45)), window=20, lam=x["lam"], state=None)
    else:
        run_shared(x["q"], x["k"], x["v"], x["lam"], batch_of((90,)))
    assert sum(shape[4] for shape in sizes) == (45 if way == "window" else 90)
    assert all(math.prod(shape) <= 1000 or shape[4] == 1 for shape in sizes)
    assert max(math.prod(shape) for shape in sizes) > 500


def test_sharp_scores_do_not_overflow():
    """Scores of thousands, in the input dtype of half precision too: finite, and the nearest key wins."""
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.full((3, 2, 4), 60.0, dtype=dtype)
        k = torch.arange(3.0, dtype=dtype).view(3, 1, 1).expand(3, 2, 4) * 60
        v = torch.arange(3.0, dtype=dtype).view(3, 1, 1).expand(3, 2, 4).contiguous()
        out = ops.window_attention(q, k, v, batch_of((3,)), 3, torch.tensor(0.0), None)
        assert out.dtype is dtype
        assert out[:, 0, 0].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("operation", ["conv", "scan", "scan, backward too", "window", "shared"])
def test_autocast_changes_no_bit_of_what_accumulates(operation):
    batch = batch_of((7, 4))
    inputs = attention_inputs(11, 4, 2, 3, True)
    if operation.startswith("scan"):
        inputs = scan_inputs(11)
    elif operation == "conv":
        inputs = {"x": normal(11, 5), "weight": normal(5, 4), "bias": normal(5)}
    run = {
        "conv": lambda x: ops.causal_conv(x["x"], x["weight"], x["bias"], batch, None),
        "scan, backward too": lambda x: run_scan(x, batch),
        "scan": lambda x: run_scan(x, batch),
        "window": lambda x: ops.window_attention(x["q"], x["k"], x["v"], batch, 3, x["lam"], None),
        "shared": lambda x: run_shared(x["q"], x["k"], x["v"], x["lam"], batch),
    }[operation]
    results = []
    for enabled in (False, True):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = run(leaves)
            if "backward" in operation:
                out.square().sum().backward()
        if "backward" not in operation:
            out.square().sum().backward()
        results.append((out, *(leaf.grad for leaf in leaves.values())))
    for plain, autocast in zip(*results, strict=True):
        assert autocast.dtype is torch.float32
        assert torch.equal(plain, autocast)


# ---- the promise of the module: a state is the only thing that changes, and it takes no gradient


def test_operations_leave_their_inputs_alone():
    config = SambaYConfig(
        vocab_size=8, hidden_size=6, intermediate_size=4, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=3, mamba_d_state=3, mamba_dt_rank=1, bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    pool = opened(StatePool(config, 2))
    batch = pool.batch(torch.zeros(7, dtype=torch.int64), (3, 4), (1, 0), (3, 4))
    scan, attention = scan_inputs(7, 12, 3), attention_inputs(7, 2, 2, 3, True)
    conv = {"x": normal(7, 12), "weight": normal(12, 4), "bias": normal(12)}
    tensors = [*scan.values(), *attention.values(), *conv.values()]
    copies = [t.clone() for t in tensors]
    for tensor in tensors:
        tensor.requires_grad_()
    first, second = pool.layers[0], pool.layers[1]
    outs = [
        ops.causal_conv(**conv, batch=batch, state=first.conv),
        run_scan(scan, batch, first.ssm),
        ops.window_attention(**attention, batch=batch, window=3, state=second.window),
        run_shared(attention["q"], attention["k"], attention["v"], attention["lam"], batch, pool.shared),
    ]
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
    assert all(out.requires_grad for out in outs)
    assert not any(t.requires_grad for state in pool.fixed for t in state.tensors)
    assert not any(t.requires_grad for t in pool.shared.tiles.tensors)
