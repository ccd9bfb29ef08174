"""Choosing a token on the kernels: the same one as plain torch for every draw, on every instruction set."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sambay.engine.params import SamplingParams
from sambay.engine.sampler import Penalties, sample, top_logprobs
from sambay.errors import SambaYError
from sambay.ops import backend, native

pytestmark = pytest.mark.skipif(not native.usable(), reason="sambay was installed without its compiled kernels")

ISAS = [name for name, obstacle in native.instruction_sets() if not obstacle]
SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 300, 511, 513, 1000, 5003, 70001]
VOCAB = 200_064
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
DRAWS = [0.0, 1e-9, 0.1234567, 0.5, 0.7654321, 0.99, 1 - 1e-9, 1 - 2**-53]


@pytest.fixture(params=ISAS, autouse=True)
def isa(request):
    with native.forced(request.param):
        yield request.param


@pytest.fixture
def threads():
    """`set_threads`, undone afterwards; more than one matter from 65,536 logits on."""
    before = native.threads()
    yield native.set_threads
    native.set_threads(before)


def random_logits(size, seed, scale=2.0):
    """A row of a larger tensor, with NaN on both sides: what lies there must not be read."""
    around = torch.full((size + 128,), math.nan)
    row = around[64:-64]
    row.copy_(torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale)
    return row


def choose(logits, **how):
    [token] = backend.choose(logits.unsqueeze(0), [backend.Wanted(0, **PLAIN | how)])
    return token


def expected(logits, **how):
    with backend.using("reference"):
        return choose(logits, **how)


def same_token(logits, draws, **how):
    for draw in draws:
        assert choose(logits, draw=draw, **how) == expected(logits, draw=draw, **how), (draw, how)


@pytest.mark.parametrize("size", SIZES)
def test_every_token_may_come(size):
    for temperature in (0, 0.01, 0.6, 1.0, 5.0):
        same_token(random_logits(size, size), DRAWS, temperature=temperature)


@pytest.mark.parametrize("size", [1, 17, 256, 300, 5003])
def test_truncations_and_their_combinations(size):
    logits = random_logits(size, size + 1)
    for temperature, top_k in itertools.product((0.01, 0.6, 5.0), (0, 1, 7, 200)):
        for top_p, min_p in itertools.product((1.0, 0.95031, 0.4321, 1e-6), (0.0, 0.05123, 0.7531, 1.0)):
            how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
            same_token(logits, (0.0, 0.31, 1 - 2**-53), **how)


@pytest.mark.parametrize("scale", [0.5, 2.5])
@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {},
        {"temperature": 0.6, "top_p": 0.95},
        {"top_p": 0.999},
        {"top_k": 50},
        {"top_k": 3000, "top_p": 0.9},
        {"min_p": 0.05},
        {"min_p": 1e-4, "top_p": 0.97, "temperature": 1.5},
    ],
    ids=str,
)
def test_a_whole_vocabulary(scale, how, threads):
    logits = random_logits(VOCAB, 3, scale)
    for draw in (0.2, 0.9999):
        token = expected(logits, draw=draw, **how)
        for count in (1, 2, 3):
            threads(count)
            assert choose(logits, draw=draw, **how) == token


@given(
    size=st.integers(1, 3000),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 3.0, 1e6]),
    levels=st.sampled_from([0, 1, 3]),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    temperature=st.sampled_from([0.01, 0.3, 1.0, 2.5, 5.0, 1e-300, 1e300]),
    top_k=st.sampled_from([-1, 0, 1, 2, 11, 12, 40, 256, 2049]),
    top_p=st.sampled_from([1.0, 0.97531, 0.61803, 1e-6, 1 - 1e-16]),
    min_p=st.sampled_from([0.0, 0.013579, 0.7531, 1.0, 1e-300]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_choice(size, seed, scale, levels, draws, temperature, top_k, top_p, min_p):
    """With few levels many tokens are equal, and the place where equal ones are cut decides."""
    logits = random_logits(size, seed, scale)
    if levels:
        logits.copy_((logits / (scale or 1) * levels).round() * math.log(2))
    same_token(logits, draws, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)


@pytest.mark.parametrize("size", [700, VOCAB])
def test_the_running_sum_is_right_to_1e_12(size):
    """Draws just before and just behind the end of a token's share, in extended precision, by id and by probability."""
    logits = random_logits(size, 5)
    below = (logits - logits.max()).numpy().astype(np.longdouble)
    rng = np.random.default_rng(0)
    for temperature in (0.6, 5.0):
        mass = np.exp(below / temperature)
        order = np.argsort(-below, kind="stable")
        for ids, top_p in ((np.arange(size), 1.0), (order, 1 - 1e-15)):
            sums = np.cumsum(mass[ids])
            ends = (sums / sums[-1]).astype(float)
            wide = np.flatnonzero(np.minimum(mass[ids][:-1], mass[ids][1:]) / sums[-1] > 1e-11)
            how = {"temperature": temperature, "top_p": top_p}
            for at in rng.choice(wide, 8):
                assert choose(logits, draw=ends[at] - 2e-12, **how) == ids[at]
                assert choose(logits, draw=ends[at] + 2e-12, **how) == ids[at + 1]


@pytest.mark.parametrize("scale", [0.1, 4.0])
def test_the_nucleus_ends_where_it_should_to_1e_10(scale):
    """Shares just under and just over those of the first tokens; the last draw shows the last token of a nucleus."""
    logits = random_logits(5003, 6, scale)
    below = (logits - logits.max()).numpy().astype(np.longdouble)
    order, mass = np.argsort(-below, kind="stable"), np.exp(below / 0.6)
    shares = (np.cumsum(mass[order]) / mass.sum()).astype(float)
    for at in range(0, 40, 3):
        for top_p, last in ((shares[at] - 1e-10, at), (shares[at] + 1e-10, at + 1)):
            token = choose(logits, temperature=0.6, top_p=top_p, draw=1 - 1e-13)
            assert token == order[last]


@pytest.mark.parametrize("size", [5, 600, 5000])
def test_of_equal_tokens_the_first_are_kept(size):
    logits = torch.zeros(size)
    logits[size // 2 :] = -0.0
    for draw in (0.0, 0.3, 0.999):
        assert choose(logits, draw=draw, top_k=3) == int(draw * 3)
        assert choose(logits, draw=draw, top_p=0.75) == int(draw * math.ceil(0.75 * size))
        for how in ({"top_k": 3}, {"top_p": 0.75}, {"min_p": 1.0}, {}):
            same_token(logits, [draw], **how)
    assert choose(logits.neg(), draw=0.0, temperature=0) == expected(logits.neg(), draw=0.0, temperature=0) == 0


@pytest.mark.parametrize("size", [3, 40, 1000, 70_001])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}], ids=str)
def test_logits_that_are_not_finite(size, bad, how):
    for at in {0, size // 2, size - 1}:
        logits = random_logits(size, 0)
        logits[at] = bad
        assert choose(logits, draw=0.5, **how) is expected(logits, draw=0.5, **how) is None
        with pytest.raises(SambaYError, match=rf"largest logit is {bad}, so no token"):
            sample(logits, SamplingParams(**how), torch.Generator().manual_seed(0))
        logits[(at + 1) % size] = -math.inf
        assert choose(logits, draw=0.5, **how) is expected(logits, draw=0.5, **how) is None
    logits.fill_(-math.inf)
    assert choose(logits, draw=0.5, **how) is expected(logits, draw=0.5, **how) is None
    logits[-1] = -3
    for draw in DRAWS:
        assert choose(logits, draw=draw, **how) == expected(logits, draw=draw, **how) == size - 1


@pytest.mark.parametrize("size", [40, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {},
        {"temperature": 0.6, "top_p": 0.95},
        {"top_k": 5, "repetition_penalty": 1.3},
        {"min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": -0.2},
        {"temperature": 0, "repetition_penalty": 1.5, "frequency_penalty": 0.7},
    ],
)
def test_the_same_seed_gives_the_same_tokens(size, dtype, values):
    def run():
        params, generator = SamplingParams(**values), torch.Generator().manual_seed(5)
        penalties, out = Penalties.of(params, [1, 2, 3, 2], torch.device("cpu")), []
        for step in range(15):
            logits = random_logits(size, step % 4).to(dtype)
            kept = logits.clone()
            out.append(sample(logits, params, generator, penalties, (2, size - 1) if step % 2 else ()))
            assert torch.equal(logits, kept)
            assert not (step % 2 and out[-1] in (2, size - 1))
            if penalties is not None:
                penalties.add(out[-1])
        return out

    tokens = run()
    with backend.using("reference"):
        assert tokens == run()


@pytest.mark.parametrize("size", [1, 2, 17, 300, 5003, VOCAB])
@pytest.mark.parametrize("levels", [0, 2])
def test_top_logprobs(size, levels, threads):
    logits = random_logits(size, 1)
    if levels:
        logits.copy_((logits * levels).round())
    exact = torch.log_softmax(logits.double(), -1)
    order = logits.argsort(descending=True, stable=True).tolist()
    for token, count in itertools.product((order[0], order[-1], order[size // 2]), (0, 1, 5, 1000)):
        threads(1 + count % 2)
        rank, tokens, logprobs = backend.top_logprobs(logits, token, count)
        assert rank == int((logits > logits[token]).sum()) + 1
        assert tokens == [token, *order[:count]]
        assert logprobs == pytest.approx(exact[tokens].tolist(), abs=1e-6)
        with backend.using("reference"):
            plain = backend.top_logprobs(logits, token, count)
        assert (rank, tokens) == plain[:2]
        assert logprobs == pytest.approx(plain[2], abs=2e-5)
    assert list(top_logprobs(logits, order[0], 5)) == order[:5]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [1024, 20_000])
def test_rows_that_are_chosen_together(threads, count, size):
    """Each as if it were alone, in any order, whichever thread takes it; a row without a finite largest has none."""
    threads(count)
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(size)) * 3
    logits[4, 17] = math.nan
    hows = [
        {"temperature": 0.0},
        {},
        {"top_k": 40},
        {"top_p": 0.9},
        {},
        {"min_p": 0.1, "temperature": 0.7},
        {"top_k": -1},
    ]
    wanted = [backend.Wanted(row, **PLAIN | {"draw": (row + 0.5) / 7} | hows[row]) for row in (3, 0, 6, 4, 1, 5, 2)]
    alone = [backend.choose(logits[one.row : one.row + 1], [one._replace(row=0)])[0] for one in wanted]
    assert backend.choose(logits, wanted) == alone
    assert [one.row for one, token in zip(wanted, alone, strict=True) if token is None] == [4]
    assert backend.choose(logits, []) == []
    with backend.using("reference"):
        assert backend.choose(logits, wanted) == alone


def test_logprobs_of_logits_that_are_not_finite_are_those_of_torch():
    logits = random_logits(20, 1)
    logits[3] = math.inf
    rank, tokens, logprobs = backend.top_logprobs(logits, 5, 2)
    assert rank >= 1
    assert tokens[0] == 5
    assert all(math.isnan(x) for x in logprobs)
    logits[3] = -math.inf
    assert backend.top_logprobs(logits, 3, 0) == (20, [3], [-math.inf])
