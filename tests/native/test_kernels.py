"""Every compiled kernel against the plain operation, on every instruction set that this CPU has."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from sambay.batch import Batch
from sambay.kv import KVTiles
from sambay.ops import backend, native
from sambay.quant.formats import QuantFormat, Rounded, pack
from sambay.quant.linear import QuantEmbedding, QuantLinear
from sambay.state import ConvState, SharedKV, SSMState, WindowKV

if native.usable():
    from sambay.ops import native_ops

pytestmark = pytest.mark.skipif(not native.usable(), reason="sambay was installed without its compiled kernels")

BOUND = 1e-6
SPLIT = 1e-4
"""With keys and values of one byte, queries and weights are split into two: steps of 1/32512 of the largest."""
ISAS = [name for name, obstacle in native.instruction_sets() if not obstacle]

# lengths of sequences, tokens seen before
BATCHES = [((1,), (0,)), ((5,), (0,)), ((1, 1, 1), (3, 70, 200)), ((7, 1, 40), (0, 9, 130)), ((130,), (5,))]


@pytest.fixture(params=ISAS, autouse=True)
def isa(request):
    with native.forced(request.param), torch.no_grad():
        yield request.param


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found, expected):
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def both(function):
    """What the kernels and what plain torch make of it."""
    found = function()
    with backend.using("reference"):
        return found, function()


def packed(lengths, starts, wanted=None):
    slots = tuple(range(len(lengths)))[::-1]
    ids = torch.zeros(sum(lengths), dtype=torch.long)
    return Batch.packed(ids, lengths, starts=starts, slots=slots, wanted=wanted)


@pytest.mark.parametrize(("lengths", "starts"), BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("d", "taps", "bias"), [(96, 4, True), (52, 4, False), (16, 2, True), (7, 8, True), (20005, 4, True)]
)
def test_convolution(lengths, starts, dtype, d, taps, bias):
    batch, states = packed(lengths, starts), []
    x, weight = torch.randn(sum(lengths), 2 * d)[:, :d], torch.randn(d, 1, taps)
    offset = torch.randn(d) if bias else None
    past = torch.randn(4, taps - 1, d).to(dtype)

    def run():
        states.append(past.clone())
        return backend.causal_conv(x, weight, offset, batch, ConvState(states[-1]), backend.Derived())

    assert error(*both(run)) < BOUND
    assert torch.equal(*states)
    pure = Batch.packed(batch.input_ids, lengths)
    assert error(*both(lambda: backend.causal_conv(x, weight, offset, pure, None, backend.Derived()))) < BOUND


@pytest.mark.parametrize(("lengths", "starts"), BATCHES)
@pytest.mark.parametrize(
    ("d", "n", "bias"), [(96, 16, True), (52, 16, True), (40, 5, False), (7, 64, True), (1029, 16, True)]
)
def test_scan(lengths, starts, d, n, bias):
    batch, states, rows = packed(lengths, starts), [], sum(lengths)
    u, step, z = torch.randn(rows, d), torch.randn(rows, d) * 3, torch.randn(rows, 2 * d)[:, d:]
    mixed, a_log, skip = torch.randn(rows, 2 * n + 5), torch.rand(d, n) * 3, torch.randn(d)
    b, c = mixed[:, :n], mixed[:, n : 2 * n]
    offset = torch.randn(d) - 2 if bias else None
    past = torch.randn(4, n, d)

    def run(batch=batch, state=True):
        states.append(past.clone())
        held = SSMState(states[-1]) if state else None
        return torch.cat(
            backend.selective_scan(u, step, offset, a_log, b, c, skip, z, batch, held, backend.Derived()), dim=1
        )

    assert error(*both(run)) < BOUND
    assert error(*states) < BOUND
    assert error(*both(lambda: run(Batch.packed(batch.input_ids, lengths), state=False))) < BOUND


SHAPES = [
    (backend.HeadShape(8, 4, 32, 2), 16, torch.float32),
    (backend.HeadShape(8, 4, 16, 2), 128, torch.float32),
    (backend.HeadShape(40, 20, 64, 2), 50, torch.bfloat16),
    (backend.HeadShape(6, 2, 16, 1), 33, torch.float32),
    (backend.HeadShape(4, 4, 48, 2), 1, torch.float32),
    (backend.HeadShape(16, 2, 128, 2), 5, torch.bfloat16),
    (backend.HeadShape(40, 20, 64, 2), 128, torch.int8),
    (backend.HeadShape(12, 4, 32, 1), 70, torch.int8),
    (backend.HeadShape(16, 2, 48, 2), 9, torch.int8),
    (backend.HeadShape(8, 4, 24, 2), 16, torch.float32),  # beyond the kernels: plain torch serves
]


def norm_of(shape):
    if shape.maps == 1:
        return None
    lambdas = tuple(torch.randn(shape.width) * 0.1 for _ in range(4))
    return backend.PairNorm(lambdas, 0.4, torch.rand(2 * shape.width) + 0.5, 1e-5)


def keys_values(rows, shape, dtype):
    """New keys and values; if there is no cache that rounds them, those that need no rounding."""
    kept = torch.float32 if dtype is torch.int8 else dtype
    return (torch.randn(rows, shape.kv_heads * shape.width).to(kept).float() for _ in range(2))


def fill(tiles):
    """What was kept before: every place holds something."""
    owners, places = torch.meshgrid(torch.arange(tiles.pages), torch.arange(tiles.tokens), indexing="ij")
    old = (torch.randn(owners.numel(), *tiles.heads) for _ in range(2))
    tiles.write(owners.flatten(), places.flatten(), *old)


@pytest.mark.parametrize(("lengths", "starts"), BATCHES)
@pytest.mark.parametrize(("shape", "window", "dtype"), SHAPES)
def test_window_attention(lengths, starts, shape, window, dtype):
    batch, rings, rows = packed(lengths, starts), [], sum(lengths)
    q, norm = torch.randn(rows, shape.heads * shape.width) * 2, norm_of(shape)
    k, v = keys_values(rows, shape, dtype)
    past = WindowKV(4, window, (shape.kv_heads, shape.width), shape.maps, dtype, torch.device("cpu"))
    fill(past.tiles)

    def run(batch=batch, state=True):
        rings.append(copy.deepcopy(past))
        ring = rings[-1] if state else None
        return backend.window_attention(q, k, v, shape, norm, batch, window, ring, backend.Derived())

    assert error(*both(run)) < (SPLIT if dtype is torch.int8 else BOUND)
    for found, expected in zip(*(ring.tensors for ring in rings), strict=True):
        assert torch.equal(found, expected)
    assert error(*both(lambda: run(Batch.packed(batch.input_ids, lengths), state=False))) < BOUND


@pytest.mark.parametrize(("lengths", "starts"), BATCHES)
@pytest.mark.parametrize(("shape", "window", "dtype"), SHAPES)
@pytest.mark.parametrize("wanted", ["all", "last", "three"])
def test_shared_attention(lengths, starts, shape, window, dtype, wanted):
    del window
    counts = {"all": lengths, "last": (1,) * len(lengths), "three": tuple(min(3, n) for n in lengths)}[wanted]
    batch, rows, norm = packed(lengths, starts, counts), sum(lengths), norm_of(shape)
    k, v = keys_values(rows, shape, dtype)
    ends = list(itertools.accumulate(lengths))
    asking = torch.cat([torch.arange(end - count, end) for end, count in zip(ends, counts, strict=True)])
    q = (torch.randn(rows, shape.heads * shape.width) * 2)[asking]
    cache = SharedKV(4, 4, (shape.kv_heads, shape.width), shape.maps, dtype, torch.device("cpu"))
    for slot, length, start in zip(batch.slots, lengths, starts, strict=True):
        cache.reserve(slot, length + start)
    fill(cache.tiles)

    def run(batch=batch, cache=cache):
        view = backend.shared_keys_values(k, v, shape, norm, batch, cache, backend.Derived())
        return backend.shared_attention(q, view, shape, norm, batch, backend.Derived())

    assert error(*both(run)) < (SPLIT if dtype is torch.int8 else BOUND)
    assert error(*both(lambda: run(Batch.packed(batch.input_ids, lengths, wanted=counts), None))) < BOUND


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("window", [1, 50, 64, 128])
def test_attention_does_not_depend_on_chunks_and_neighbours(dtype, window):
    """Bit for bit: a row meets the same tiles in the same order, however its text was cut."""
    shape, length = backend.HeadShape(8, 4, 32, 2), 200
    norm, rows = norm_of(shape), torch.randn(3, length, 8 * 32)
    results = []
    for cuts in ([200], [1] * 200, [63, 2, 70, 1, 64], [5, 190, 5], [64, 64, 72]):
        ring = WindowKV(2, window, (4, 32), 2, dtype, torch.device("cpu"))
        cache = SharedKV(2, 1, (4, 32), 2, dtype, torch.device("cpu"))
        slid, looked, start = [], [], 0
        for cut in cuts:
            new, lengths = slice(start, start + cut), (3, cut) if start % 2 else (cut,)
            batch = Batch.packed(
                torch.zeros(sum(lengths), dtype=torch.long),
                lengths,
                starts=(0, start)[-len(lengths) :],
                slots=(1, 0)[-len(lengths) :],
            )
            for slot, length in zip(batch.slots, (0, start)[-len(lengths) :], strict=True):
                cache.reserve(slot, length + max(lengths))
            q, k, v = (torch.cat([torch.randn(3 * (len(lengths) - 1), 256), x[new]]) for x in rows)
            k, v = k[:, :128], v[:, :128]
            slid.append(backend.window_attention(q, k, v, shape, norm, batch, window, ring, backend.Derived())[-cut:])
            view = backend.shared_keys_values(k, v, shape, norm, batch, cache, backend.Derived())
            looked.append(backend.shared_attention(q, view, shape, norm, batch, backend.Derived())[-cut:])
            start += cut
        results.append((torch.cat(slid), torch.cat(looked)))
    for slid, looked in results[1:]:
        assert torch.equal(slid, results[0][0])
        assert torch.equal(looked, results[0][1])


def test_a_cache_of_bytes_keeps_what_plain_torch_would():
    """Ties, zeros, numbers too small for a scale of 16 bits, huge ones; a NaN stays one."""
    rows = torch.randn(70, 4, 32) * 10.0 ** torch.arange(-9, 5).repeat(5).view(70, 1, 1)
    rows[3], rows[4, 1], rows[5, 2, 7], rows[6] = 0, 1e-8, float("nan"), torch.arange(32) * 0.5
    tiles = [KVTiles(2, 64, (4, 32), 2, torch.int8, torch.device("cpu")) for _ in range(2)]
    owners, places = torch.arange(70) % 2, torch.arange(70) // 2
    tiles[0].write(owners, places, rows, rows.flip(0))
    heads = native_ops.heads(4, 4, 32, 2, 1.0, 0.0, None, 0.0, 1.0)
    native_ops.keep(rows.flatten(1), rows.flip(0).flatten(1), heads, owners, places, tiles[1])
    for found, expected in zip(tiles[1].tensors, tiles[0].tensors, strict=True):
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    keys, _ = tiles[0].read(owners, places)
    fine = torch.ones(70, dtype=torch.bool)
    fine[[4, 5]] = False
    largest = rows.abs().amax(-1, keepdim=True)
    assert ((keys - rows).abs() <= largest / 127 * 0.52 + 1e-5)[fine].all()
    assert keys[5, 2].isnan().all()


@pytest.mark.parametrize("width", [64, 50, 3])
@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm])
def test_norm(width, kind):
    norm = kind(width, eps=1e-5)
    for parameter in norm.parameters():
        parameter.normal_()
    hidden, mixed = torch.randn(5, width), torch.randn(5, width)
    (found, normed), (expected, expected_normed) = both(lambda: backend.add_norm(hidden.clone(), mixed, 0.5, norm))
    assert error(found, expected) < BOUND
    assert error(normed, expected_normed) < BOUND


@pytest.mark.parametrize("size", [1e3, 0.0])
def test_scores_that_are_huge_or_all_equal(size):
    batch, plain = Batch.packed(torch.zeros(70, dtype=torch.long), (70,)), backend.HeadShape(2, 2, 16, 1)
    q, k, v = torch.randn(70, 32) * size, torch.randn(70, 32) * 1e3, torch.randn(70, 32)
    results = both(lambda: backend.window_attention(q, k, v, plain, None, batch, 9, None, backend.Derived()))
    assert error(*results) < 1e-4


def test_a_number_that_is_none_stays_so():
    """In keys, in step sizes, in gates: a damaged weight must not pass for a small one."""
    batch, plain = Batch.packed(torch.zeros(70, dtype=torch.long), (70,)), backend.HeadShape(2, 2, 16, 1)
    q, k, v = torch.randn(70, 32), torch.randn(70, 32), torch.randn(70, 32)
    k[30, 3] = float("nan")
    found = backend.window_attention(q, k, v, plain, None, batch, 9, None, backend.Derived())
    assert torch.equal(found[:, :16].isnan().all(1).nonzero().flatten(), torch.arange(30, 39))
    assert found[:, 16:].isfinite().all()
    x, state = torch.randn(3, 70, 16), torch.randn(70, 8)
    x[0, 20, 5] = x[1, 40, 7] = float("nan")
    raw, z, u = x
    gated, y = backend.selective_scan(
        u, raw, None, torch.zeros(16, 8), state, state, torch.ones(16), z, batch, None, backend.Derived()
    )
    assert y[20:, 5].isnan().all()
    assert gated[40, 7].isnan()
    assert y[:20].isfinite().all()


def random_codes(format, rows, k):
    codes = torch.randint(format.lowest, format.highest + 1, (rows, k), dtype=torch.int8)
    scales = (torch.rand(rows, format.scales(k)) * 0.1 + 0.01).half()
    factors = torch.randint(-15, 16, (rows, format.groups(k)), dtype=torch.int8) if format.nested else None
    return Rounded(codes, scales, format, factors)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("count", [1, 9, 30])
def test_activations_that_are_no_numbers_stay_so(bits, count):
    format = QuantFormat(bits, 32)
    linear = QuantLinear(128, 40, format)
    linear.packed.copy_(pack(random_codes(format, 40, 128)))
    x = torch.randn(count, 128)
    x[0, 77], x[-1, 31] = float("nan"), float("inf")
    found = linear(x)
    assert not found[[0, -1]].isfinite().any()
    assert found[1:-1].isfinite().all()


def test_step_sizes_of_any_size():
    """softplus from 1e-30 to 1e4: a step that is very small decides about very long memories."""
    steps = torch.cat([torch.linspace(-69, 69, 4000), torch.tensor([-1e4, -90.0, 0.0, 20.0, 1e4])]).view(-1, 1)
    batch = Batch.packed(torch.zeros(len(steps), dtype=torch.long), (1,) * len(steps))
    ones = torch.ones(len(steps), 1)
    arguments = ones, steps, None, torch.full((1, 1), -99.0), ones, ones, torch.zeros(1), ones, batch, None
    _, y = backend.selective_scan(*arguments, backend.Derived())
    expected = F.softplus(steps.double(), threshold=100)
    fine = expected > 1e-35
    assert ((y.double() - expected).abs() <= 1e-6 * expected)[fine].all()
    assert (y[~fine].abs() < 1e-35).all()


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize(("rows", "k"), [(37, 100), (64, 256), (200, 192), (1, 1), (16, 2700)])
def test_packed_product(bits, group, rows, k):
    """Activations are rounded to 8 bits in blocks of 32 or 128, which costs about 5e-3; the rest is exact."""
    format = QuantFormat(bits, group)
    packed = pack(random_codes(format, rows, k))
    linear, table = QuantLinear(k, rows, format, bias=True), QuantEmbedding(rows, k, format)
    for module in (linear, table):
        module.packed.copy_(packed)
    linear.bias.normal_()
    for count in (1, 2, 3, 8, 9, 23, 24, 30, 65, 300):
        x = torch.randn(count, k)
        found, expected = both(lambda x=x: linear(x))
        assert error(found, expected) < 1.5e-2
        # Whatever stands beside a row, and however many rows there are: its results are the same to the bit.
        alone = torch.cat([linear(x[i : i + 1]) for i in (0, count - 1)])
        assert torch.equal(alone, found[[0, count - 1]])
        if rows > 16:
            assert torch.equal(linear.rows(x, slice(16, rows)), found[:, 16:])
    # On activations that need no rounding it is exact but for float32 sums.
    whole = torch.randint(-127, 128, (40, k)).float()
    whole[:, ::32] = 127
    found, expected = both(lambda: linear(whole))
    assert error(found, expected) < 1e-5
    ids = torch.randint(0, rows, (9,))
    assert torch.equal(*both(lambda: table(ids)))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_change_nothing(threads):
    format = QuantFormat(4, 32)
    linear = QuantLinear(320, 500, format)
    linear.packed.copy_(pack(random_codes(format, 500, 320)))
    before, x = native.threads(), torch.randn(30, 320)
    expected = linear(x)
    try:
        native.set_threads(threads)
        assert torch.equal(linear(x), expected)
    finally:
        native.set_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "k"), [(5, 3), (16, 160), (193, 70), (4, 48), (18, 2100)])
def test_plain_linear(dtype, rows, k):
    weight, bias = torch.randn(rows, k).to(dtype), torch.randn(rows)
    x = torch.randn(300, k + 5)[:, :k]
    every = backend.linear(x, weight, bias)
    assert error(every, F.linear(x, weight.float(), bias)) < BOUND
    for count in (1, 3, 8, 131):  # what a row gets does not depend on those beside it
        assert torch.equal(backend.linear(x[:count], weight, bias), every[:count])
    assert error(backend.linear(x[:3], weight, None), F.linear(x[:3], weight.float())) < BOUND
    assert torch.equal(backend.linear(x.unflatten(0, (3, 100)), weight, bias).flatten(0, 1), every)


def test_lookup_and_scale():
    weight, rows = torch.randn(7, 20), torch.tensor([3, 0, 6, 3])
    assert torch.equal(backend.lookup(weight, rows, torch.float32), weight[rows])
    for half in (weight.bfloat16(), weight.half()):
        assert torch.equal(backend.lookup(half, rows, torch.float32), half[rows].float())
        assert torch.equal(backend.lookup(half, rows, half.dtype), half[rows])
    assert torch.equal(backend.scale(weight, 0.25), weight * 0.25)
    x = torch.randn(5, 64)[:, :33]
    assert error(backend.gate(x, 2 * x), 2 * x * F.silu(x)) < BOUND


def test_what_the_kernels_do_not_serve_is_plain_torch():
    x = torch.randn(3, 4)
    assert backend.served_natively(x)
    assert not backend.served_natively(x.half())
    assert not backend.served_natively(x.bfloat16())
    with torch.enable_grad():
        assert not backend.served_natively(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not backend.served_natively(x)
    with backend.using("reference"):
        assert not backend.served_natively(x)


@pytest.mark.parametrize("lengths", [(1,), (40,), (17, 3, 90, 16, 33)])
@pytest.mark.parametrize("d", [16, 52, 1029])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_the_scan(lengths, d, bias):
    rows = sum(lengths)
    batch = Batch.packed(torch.zeros(rows, dtype=torch.long), lengths)
    inputs = {
        "u": torch.randn(rows, d), "step": torch.randn(rows, d) * 2, "step_bias": torch.randn(d) - 2,
        "a_log": torch.rand(d, 16) * 3, "b": torch.randn(rows, 16), "c": torch.randn(rows, 16), "skip": torch.randn(d),
        "z": torch.randn(rows, d),
    }  # fmt: skip
    weights = torch.randn(2, rows, d)

    def run():
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        given = leaves if bias else leaves | {"step_bias": None}
        with torch.enable_grad():
            gated, y = backend.selective_scan(**given, batch=batch, state=None, derived=backend.Derived())
            ((gated * weights[0]).sum() + (y * weights[1]).sum()).backward()
        return [gated.detach(), y.detach(), *(leaf.grad for leaf in leaves.values() if leaf.grad is not None)]

    found, expected = both(run)
    assert len(found) == len(expected) == (10 if bias else 9)
    assert all(error(one, other) < BOUND for one, other in zip(found, expected, strict=True))
