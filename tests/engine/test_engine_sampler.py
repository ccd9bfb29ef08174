import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.engine.params import SamplingParams
from sambay.engine.sampler import Penalties, TokenRules, sample, top_logprobs
from sambay.errors import SambaYError, SamplingError
from sambay.ops.reference import _kept


def naive_probabilities(logits, params):
    """Token -> probability, by the definitions and without any cleverness."""
    scaled = [x / params.temperature for x in torch.as_tensor(logits).tolist()]
    weights = [math.exp(x - max(scaled)) for x in scaled]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if params.top_k > 0:
        order = order[: params.top_k]
    whole = math.fsum(weights[i] for i in order)
    kept, before = [], 0.0
    for i in order:
        if before < params.top_p * whole and weights[i] >= params.min_p * weights[order[0]]:
            kept.append(i)
        before += weights[i]
    total = math.fsum(weights[i] for i in kept)
    return {i: weights[i] / total for i in kept}


def support(logits, params):
    """Token -> probability as the sampler has it."""
    below = logits.double() - logits.double().max()
    mass = (below / params.temperature).exp()
    tokens = _kept(below, mass, params.top_k, params.top_p, params.min_p)
    return dict(zip(tokens.tolist(), (mass[tokens] / mass[tokens].sum()).tolist(), strict=True))


def random_logits(size, seed, scale=2.0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


def draw(logits, params, seed, count=1, prompt_ids=(0,), output_ids=(), banned=(), allowed=None):
    generator = torch.Generator().manual_seed(seed)
    penalties = Penalties.of(params, list(prompt_ids), logits.device)
    for token in output_ids if penalties else ():
        penalties.add(token)
    rules = TokenRules(params, [], len(logits), logits.device)
    allowed = rules.allowed if allowed is None else allowed
    return [sample(logits, params, generator, penalties, banned, rules, allowed) for _ in range(count)]


TRUNCATIONS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 3},
    {"top_k": -1},
    {"top_k": 1000},
    {"top_p": 0.7},
    {"top_p": 1e-9},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 6, "top_p": 0.8},
    {"top_k": 7, "top_p": 0.95, "min_p": 0.05, "temperature": 1.3},
]


@pytest.mark.parametrize("values", TRUNCATIONS)
def test_frequencies_follow_the_formula(values):
    params, logits, count = SamplingParams(**values), random_logits(12, 3), 4000
    expected = naive_probabilities(logits, params)
    drawn = draw(logits, params, 11, count)
    assert set(drawn) <= set(expected)
    cells = {i: p for i, p in expected.items() if p * count >= 5}
    if len(cells) > 1:
        chi2 = sum((drawn.count(i) - p * count) ** 2 / (p * count) for i, p in cells.items())
        # The 99.99 % point of chi-square, by Wilson and Hilferty.
        degrees = len(cells)
        bound = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3
        assert chi2 < bound


@given(
    size=st.sampled_from([1, 2, 5, 40, 255, 256, 257, 700, 3000]),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.01, 0.5, 3.0]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 40, 256, 300, 2049]),
    top_p=st.sampled_from([1.0, 0.97531, 0.61803, 1e-6]),
    min_p=st.sampled_from([0.0, 0.013579, 0.7531]),
)
@settings(max_examples=60)
def test_the_support_is_that_of_the_formula(size, seed, scale, temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = random_logits(size, seed, scale).double()
    expected, got = naive_probabilities(logits, params), support(logits, params)
    if size <= 700:
        assert got.keys() == expected.keys()
    else:  # among thousands some are equal, and the border may fall between them
        assert len(got) == len(expected)
        assert set(logits[list(got)].tolist()) == set(logits[list(expected)].tolist())
    assert sorted(got.values()) == pytest.approx(sorted(expected.values()), rel=1e-9)


@pytest.mark.parametrize("size", [300, 3000])
@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.999])
def test_a_flat_nucleus_grows_beyond_the_first_candidates(size, top_p):
    params, logits = SamplingParams(top_p=top_p), random_logits(size, 1, 0.3).double()
    got = support(logits, params)
    assert len(got) > min(256, size * top_p / 2)
    assert got.keys() == naive_probabilities(logits, params).keys()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=600), st.sampled_from(TRUNCATIONS))
@settings(max_examples=80)
def test_ties(levels, values):
    """Of equal tokens at the border the first are kept."""
    params, logits = SamplingParams(**values), torch.tensor(levels, dtype=torch.float64) * math.log(2)
    expected, got = naive_probabilities(logits, params), support(logits, params)
    near = params.top_p < 1 and len(got) != len(expected)
    if near:  # the running sum meets the border but for rounding
        assert abs(len(got) - len(expected)) == 1
        return
    assert got.keys() == expected.keys()


def test_min_p_of_one_keeps_all_equal_maxima():
    assert support(torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0]), SamplingParams(min_p=1.0)).keys() == {1, 2, 4}


def test_greedy_takes_the_first_maximum_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    params = SamplingParams(temperature=0, top_k=2, top_p=0.1)
    assert sample(torch.tensor([0.0, 3.0, -1.0, 3.0]), params, generator) == 1
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("values", TRUNCATIONS)
@pytest.mark.parametrize("size", [12, 4000])
def test_one_draw_per_token(values, size):
    generator, counter = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    for seed in range(5):
        sample(random_logits(size, seed), SamplingParams(**values), generator)
        torch.rand((), generator=counter, dtype=torch.float64)
        assert torch.equal(generator.get_state(), counter.get_state())


def test_the_seed_decides():
    params, logits = SamplingParams(top_p=0.95), random_logits(500, 0)
    assert draw(logits, params, 1, 20) == draw(logits, params, 1, 20)
    assert draw(logits, params, 1, 20) != draw(logits, params, 2, 20)


def naive_penalties(logits, params, prompt, output):
    logits = logits.tolist()
    for token in set(prompt) | set(output):
        factor = params.repetition_penalty
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token in set(output):
        logits[token] -= params.presence_penalty + params.frequency_penalty * output.count(token)
    return logits


@given(
    seed=st.integers(0, 2**31),
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    output=st.lists(st.integers(0, 9), max_size=8),
    repetition=st.sampled_from([1.0, 0.5, 1.3, 5.0]),
    presence=st.sampled_from([0.0, -1.5, 2.0]),
    frequency=st.sampled_from([0.0, -0.5, 1.25]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_penalties_follow_the_formulas(seed, prompt, output, repetition, presence, frequency, dtype):
    logits = random_logits(10, seed).to(dtype)
    kept = logits.clone()
    params = SamplingParams(
        temperature=0, repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency
    )
    token = draw(logits, params, 0, prompt_ids=prompt, output_ids=output, banned=(3,))[0]
    assert torch.equal(logits, kept)
    expected = naive_penalties(logits, params, prompt, output)
    assert token != 3
    assert expected[token] == pytest.approx(max(x for i, x in enumerate(expected) if i != 3), abs=1e-5)


def rescanned(logits, params, prompt, output):
    """The same, from all tokens at once: what the running counts must equal bit by bit."""
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *output}))
        values, factor = logits[seen], params.repetition_penalty
        logits = logits.index_copy(0, seen, torch.where(values > 0, values / factor, values * factor))
    if output:
        tokens, counts = torch.tensor(output).unique(return_counts=True)
        penalty = params.presence_penalty + params.frequency_penalty * counts
        logits = logits.index_add(0, tokens, -penalty.to(logits.dtype))
    return logits


@pytest.mark.parametrize(
    "values",
    [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.3},
        {"frequency_penalty": -0.7},
        {"presence_penalty": 1},
        {"repetition_penalty": 0.8, "presence_penalty": -1.1, "frequency_penalty": 0.37},
    ],
)
def test_penalties_that_grow_with_the_text_are_those_of_the_whole_text(values):
    params, dice = SamplingParams(**values), torch.Generator().manual_seed(3)
    prompt = torch.randint(0, 60, (30,), generator=dice).tolist()
    penalties, output = Penalties.of(params, prompt, torch.device("cpu")), []
    for step in range(80):
        logits = random_logits(60, step)
        assert torch.equal(logits.index_copy(0, *penalties.changes(logits)), rescanned(logits, params, prompt, output))
        output.append(int(torch.randint(0, 60, (), generator=dice)))
        penalties.add(output[-1])


def test_penalties_look_at_a_token_once():
    """However long the text is, what a step computes with has one entry per distinct token."""
    params = SamplingParams(repetition_penalty=1.1)
    penalties = Penalties.of(params, [5] * 1000, torch.device("cpu"))
    for token in [6, 7, 5] * 1000:
        penalties.add(token)
    assert penalties._tokens.tolist() == [5, 6, 7]
    assert penalties._counts.tolist() == [1000, 1000, 1000]
    assert Penalties.of(SamplingParams(), [5], torch.device("cpu")) is None


def test_penalties_change_the_distribution():
    params = SamplingParams(repetition_penalty=1.7, presence_penalty=0.4, frequency_penalty=0.3)
    logits, prompt, output, count = random_logits(8, 5), [1, 2], [2, 2, 5], 4000
    drawn = draw(logits, params, 3, count, prompt_ids=prompt, output_ids=output)
    expected = naive_probabilities(naive_penalties(logits, params, prompt, output), SamplingParams())
    for token, share in expected.items():
        assert drawn.count(token) / count == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_banned_tokens_never_come(temperature):
    logits = torch.tensor([9.0, 8.0, 1.0, 0.0])
    kept = logits.clone()
    drawn = draw(logits, SamplingParams(temperature=temperature), 0, 200, banned=(0, 1))
    assert set(drawn) <= {2, 3}
    assert torch.equal(logits, kept)


@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([5, 40, 300]),
    bias=st.dictionaries(st.integers(0, 4), st.sampled_from([-100.0, -2.5, 0.5, 3, 100.0]), max_size=4),
    penalties=st.sampled_from([{}, {"repetition_penalty": 1.5, "frequency_penalty": 0.7}]),
    banned=st.lists(st.integers(0, 3), max_size=3),
    allowed=st.one_of(st.none(), st.sets(st.integers(0, 4), min_size=1), st.just(set(range(1, 40, 2)))),
    values=st.sampled_from([{"temperature": 0}, {}, {"top_p": 0.9}, {"top_k": 3, "min_p": 0.02}]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=150)
def test_rules_give_what_logits_changed_beforehand_give(seed, size, bias, penalties, banned, allowed, values, dtype):
    """Each rule as its definition has it, on a copy of all logits: the same tokens from the same draws."""
    allowed = None if allowed is None else {token for token in allowed if token < size}
    logits = random_logits(size, seed).to(dtype)
    kept = logits.clone()
    params = SamplingParams(**values, **penalties, logit_bias=bias, allowed_token_ids=allowed and sorted(allowed))
    whole = [x + bias.get(token, 0.0) for token, x in enumerate(logits.tolist())]
    whole = torch.tensor(naive_penalties(torch.tensor(whole), params, [0, 3], [1, 1]))
    out = [t for t in range(size) if t in banned or (allowed is not None and t not in allowed)]
    whole[out] = -math.inf
    given = {"prompt_ids": (0, 3), "output_ids": (1, 1), "banned": banned}
    if len(out) == size:
        with pytest.raises(SamplingError, match="no token is left to choose"):
            draw(logits, params, seed, **given)
    else:
        assert draw(logits, params, seed, 20, **given) == draw(whole, SamplingParams(**values), seed, 20)
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("values", [{"temperature": 0}, {"temperature": 0.7, "top_p": 0.9}])
def test_many_and_few_allowed_tokens_are_the_same_rule(share, values):
    """However many are left, the choice is that among logits without the others."""
    logits = random_logits(3000, 9)
    allowed = torch.rand(3000, generator=torch.Generator().manual_seed(4)) < share
    expected = draw(logits.masked_fill(~allowed, -math.inf), SamplingParams(**values), 5, 50)
    assert draw(logits, SamplingParams(**values), 5, 50, allowed=allowed) == expected


def test_a_failed_choice_leaves_the_logits_as_they_were():
    logits = torch.tensor([1.0, math.nan, 2.0])
    params = SamplingParams(repetition_penalty=2.0, logit_bias={2: 5.0})
    with pytest.raises(SambaYError, match="largest logit is nan"):
        draw(logits, params, 0, prompt_ids=(0, 2))
    assert logits.tolist()[::2] == [1.0, 2.0]


def test_bad_words_are_banned_where_they_would_be_complete():
    rules = TokenRules(SamplingParams(), [(7,), (3, 4), (3, 5, 6)], 10, torch.device("cpu"))
    for so_far, banned in (
        ([], {7}),
        ([4], {7}),
        ([3], {7, 4}),
        ([3, 5], {7, 6}),
        ([1, 3, 5], {7, 6}),
        ([5, 3], {7, 4}),
        ([3, 5, 1], {7}),
    ):
        assert set(rules.banned(so_far)) == banned


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1e6, 1e300])
def test_extreme_temperatures(temperature):
    drawn = draw(random_logits(50, 1), SamplingParams(temperature=temperature, top_p=0.9), 0, 50)
    assert (len(set(drawn)) == 1) is (temperature < 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("values", [{"temperature": 0}, {}, {"top_p": 0.5}, {"top_k": 2}])
def test_logits_that_are_not_finite_are_an_error(bad, values):
    with pytest.raises(SambaYError, match=r"largest logit is (nan|inf)"):
        draw(torch.tensor([0.0, bad, 1.0]), SamplingParams(**values), 0)


def test_some_infinitely_unlikely_tokens_are_no_error():
    logits = torch.tensor([-math.inf, 1.0, -math.inf])
    assert draw(logits, SamplingParams(), 0, 20) == [1] * 20


@pytest.mark.parametrize("count", [0, 1, 3, 999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_top_logprobs(count, dtype):
    logits = random_logits(30, 2).to(dtype)
    expected = torch.log_softmax(logits.double(), -1)
    order = expected.argsort(descending=True, stable=True).tolist()
    for token in (order[0], order[5], order[-1]):
        got = top_logprobs(logits, token, count)
        assert next(iter(got)) == token
        assert {i: lp.logprob for i, lp in got.items()} == pytest.approx({i: float(expected[i]) for i in got}, abs=1e-5)
        assert got[token].rank == int((expected > expected[token]).sum()) + 1
        best = [lp.logprob for lp in got.values() if lp.rank <= count]
        assert len(best) >= min(count, 30)
        assert len(got) <= min(count, 30) + 1
