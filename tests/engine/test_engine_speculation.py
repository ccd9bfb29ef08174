"""Speculation: whatever is drafted, each request gets what it gets without, and no state remembers what was not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.engine import LLM, SamplingParams
from sambay.engine.params import StructuredOutputsParams
from sambay.engine.speculation import MODES, Chances, Lookup, Speculation, Speculator
from sambay.errors import ConfigError
from sambay.ops import native

needs_kernels = pytest.mark.skipif(not native.usable(), reason="needs the compiled kernels")
ON = Speculation("on")

KINDS = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.7, "top_p": 0.9},
    {"top_k": 20, "repetition_penalty": 1.3},
    {"presence_penalty": 0.5, "frequency_penalty": 0.3, "logprobs": 2},
    {"n": 3, "logprobs": 0},
    {"min_tokens": 20, "max_tokens": 30, "stop_token_ids": [9, 40, 77, 150, 200, 250]},
    {"stop": ["e", "th"]},
    {"ignore_eos": False, "structured_outputs": StructuredOutputsParams(regex="(the|cat|dog| ){1,30}")},
    {"max_thinking_tokens": 6},
    {"logit_bias": {7: 3.0}, "bad_words": ["cat"]},
]


class Prophet:
    """Drafts what is known to come, and spoils some of it."""

    def __init__(self, dice, spoilt):
        self.settings, self.known, self.chances = ON, {}, None
        self._dice, self._spoilt = dice, spoilt

    def propose(self, sequences):
        for one in sequences:
            count = min(one.most_drafts, self._dice.choice([0, 1, 3, 7]))
            known = self.known[one.request.output.request_id][one.index]
            draft = known[len(one.output.token_ids) :][:count]
            one.draft = [t if self._dice.random() >= self._spoilt else self._dice.randrange(320) for t in draft]

    def took(self, sequences, rows, tokens, seconds):
        assert rows >= sequences
        assert tokens <= rows
        assert seconds > 0


def said(output):
    """All that a request gives back."""
    return [
        (one.token_ids, one.text, one.reasoning, one.finish_reason, one.stop_reason, one.logprobs, one.reasoning_tokens)
        for one in output.outputs
    ]


def some_request(dice):
    ids = ([5, 6, 7, 8] * 40)[: dice.choice([0, 0, 3, 70, 130])]
    ids += [dice.randrange(5, 318) for _ in range(dice.choice([1, 2, 9, 30]))]
    common = {
        "seed": dice.randrange(1000),
        "max_tokens": dice.choice((1, 2, 9, 40, 90)),
        "ignore_eos": dice.random() < 0.5,
    }
    return ids, SamplingParams(**common | dice.choice(KINDS))


@needs_kernels
@given(data=st.data())
@settings(max_examples=8)
def test_any_draft_gives_what_comes_without(make_engine, model, solo, assert_idle, data):
    run_any_draft(make_engine, model, solo, assert_idle, data)


@needs_kernels
@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60, derandomize=False)
def test_many_drafts(make_engine, model, solo, assert_idle, data):
    run_any_draft(make_engine, model, solo, assert_idle, data)


def run_any_draft(make_engine, model, solo, assert_idle, data):
    """Any source, interleaving, chunk, memory, cache, priority: tokens, text, logprobs and reasons are the same."""
    slots, chunk = data.draw(st.integers(1, 4), "slots"), data.draw(st.integers(1, 90), "chunk")
    caching, spoilt = data.draw(st.booleans(), "caching"), data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]), "spoilt")
    dice = random.Random(data.draw(st.integers(0, 10**6), "seed"))
    engine = make_engine(
        max_num_seqs=slots, max_num_batched_tokens=chunk, enable_prefix_caching=caching, speculation=ON,
        memory=data.draw(st.sampled_from([None, 400_000, 700_000]), "memory"),
    )  # fmt: skip
    engine._speculator = prophet = Prophet(dice, spoilt)
    waiting = [some_request(dice) for _ in range(data.draw(st.integers(1, 6), "count"))]
    going = []
    while waiting or engine.busy:
        if waiting and dice.random() < 0.4:
            ids, params = waiting.pop()
            if going and dice.random() < 0.3:  # a second turn
                before, *_ = dice.choice(going)
                ids = [*before.prompt_token_ids, *before.outputs[0].token_ids, *ids][:200]
            expected, events = solo(ids, params), []
            output = engine.add(None, ids, params, priority=dice.choice([0, 0, 1]), on_event=events.append)
            prophet.known[output.request_id] = [one.token_ids for one in expected.outputs]
            going.append((output, expected, events))
        engine.step()
    for output, expected, events in going:
        assert said(output) == said(expected)
        for one in output.outputs:
            assert [event.token_id for event in events if event.index == one.index] == one.token_ids
        assert 0 <= output.metrics.accepted <= output.metrics.drafted
        if not spoilt:
            ends = sum(one.finish_reason != "length" for one in output.outputs)
            assert output.metrics.drafted - output.metrics.accepted <= 7 * ends
    assert_idle(engine)


@needs_kernels
def test_a_model_that_repeats_itself_is_read_ahead(make_engine, solo):
    """In each mode the same; on, most of it comes from drafts."""
    ids, params = [5, 6, 7, 8] * 3, SamplingParams(temperature=0.0, max_tokens=100, logit_bias={9: 50.0, 10: 49.0})
    expected = said(solo(ids, params))
    for mode in MODES:
        engine = make_engine(speculation=Speculation(mode))
        output = engine.add(None, ids, params)
        steps = 0
        while engine.busy:
            engine.step()
            steps += 1
        assert said(output) == expected
        metrics = output.metrics
        assert (metrics.drafted > 0) == (mode != "off") or mode == "auto"
        assert steps == 100 - metrics.accepted
        assert (engine.drafted, engine.accepted) == (metrics.drafted, metrics.accepted)
        if mode == "on":
            assert metrics.accepted > 80


@needs_kernels
def test_an_abort_in_the_middle_of_a_draft(make_engine, solo, assert_idle):
    """What was accepted with the token that made the listener abort is not told any more."""
    ids, params = [5, 6, 7, 8], SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    expected, told = solo(ids, params).outputs[0].token_ids, []
    engine = make_engine(speculation=ON)
    engine._speculator = prophet = Prophet(random.Random(0), 0.0)

    def listen(event):
        told.append(event.token_id)
        if len(told) == 20:
            engine.abort(output.request_id)

    output = engine.add(None, ids, params, on_event=listen)
    prophet.known[output.request_id] = [expected]
    while engine.busy:
        engine.step()
    assert told == output.outputs[0].token_ids == expected[:20]
    assert output.outputs[0].finish_reason == "abort"
    assert_idle(engine)


@needs_kernels
def test_a_listener_that_fails_in_the_middle_of_a_draft(make_engine, solo, assert_idle):
    ids, params = [5, 6, 7, 8], SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    expected = solo(ids, params).outputs[0].token_ids
    engine = make_engine(speculation=ON)
    engine._speculator = prophet = Prophet(random.Random(0), 0.0)

    def listen(event):
        if len(event.output.outputs[0].token_ids) == 20:
            raise ValueError("enough")

    output, other = engine.add(None, ids, params, on_event=listen), engine.add(None, ids, params)
    prophet.known = {one.request_id: [expected] for one in (output, other)}
    while engine.busy:
        engine.step()
    assert str(output.error) == "enough"
    assert output.outputs[0].token_ids == expected[:20]
    assert other.outputs[0].token_ids == expected
    assert_idle(engine)


@given(data=st.data())
@settings(max_examples=60)
def test_a_lookup_finds_the_longest_match(data):
    """Beside a search of the whole text: as much agrees, and what comes is right as often as it says."""
    least, longest = data.draw(st.integers(1, 3)), data.draw(st.integers(3, 8))
    ids = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    more = data.draw(st.lists(st.integers(0, 3), max_size=30))
    lookup = Lookup(ids, Speculation("on", least=least, longest=longest))
    for token in [*more, None]:
        found = lookup.draft(5)
        assert len(found) == len(lookup.chances(5))
        assert all(0 < chance <= 1 for chance in lookup.chances(5))
        known = [ids[end - least : end] == ids[-least:] for end in range(least, len(ids))]
        assert bool(found) == any(known)
        if found:
            # It stands somewhere after the same words, and goes on in itself beyond the end.
            whole = ids + found
            assert any(
                whole[end : end + 5] == found and ids[end - least : end] == ids[-least:]
                for end in range(least, len(ids))
            )
        if token is not None:
            ids.append(token)
            lookup.push(token)


def test_of_several_places_that_with_most_in_common():
    words = Lookup([1, 2, 3, 4, 50, 9, 9, 3, 4, 60, 7, 7, 2, 3, 4], Speculation("on"))
    assert words.draft(2) == [50, 9]  # three words, though those of the two are nearer
    assert Lookup([8, 8, 3, 4, 50, 9, 9, 3, 4, 60, 7, 3, 4], Speculation("on")).draft(2) == [60, 7]
    assert Lookup([1, 2, 3, 1, 2, 3, 1], Speculation("on")).draft(7) == [2, 3, 1, 2, 3, 1, 2]
    assert Lookup([1, 2, 3], Speculation("on")).draft(7) == []
    assert Lookup([], Speculation("on")).draft(7) == []


class Sequence:
    """Of which a lookup says what it is told to."""

    def __init__(self, chance, most=20):
        self.lookup, self.most_drafts, self.draft, self.chance = self, most, [], chance

    def chances(self, most):
        return [self.chance ** (i + 1) for i in range(most)] if self.chance else []

    def draft_of(self, most):
        return list(range(most))


def drafts(speculator, chances, most=20):
    found = [Sequence(chance, most) for chance in chances]
    for one in found:
        one.lookup = type("L", (), {"chances": staticmethod(one.chances), "draft": staticmethod(one.draft_of)})
    speculator.propose(found)
    return [len(one.draft) for one in found]


def told(times):
    """A speculator that has seen steps of so many seconds: {(sequences, rows): seconds}."""
    speculator = Speculator(Speculation("auto"))
    for (sequences, rows), seconds in times.items():
        for _ in range(3):
            speculator.took(sequences, rows, rows, seconds)
    return speculator


def test_auto_weighs_chances_against_measured_steps():
    assert drafts(Speculator(Speculation("auto")), [0.99]) == [0]  # nothing is measured yet
    flat = {(1, rows): 1.0 for rows in (1, 2, 4, 8)}
    assert drafts(told(flat), [0.9]) == [7]  # a row costs nothing
    assert drafts(told(flat), [0.0]) == [0]
    assert drafts(told(flat), [0.02]) == [0]  # a gain that is none
    steep = {(1, rows): float(rows) for rows in range(1, 9)}
    assert drafts(told(steep), [0.9]) == [0]  # a row costs what a step does
    knee = {(1, 1): 1.0, (1, 3): 1.05, (1, 4): 2.0, (1, 8): 6.0}
    assert drafts(told(knee), [0.9]) == [2]
    assert drafts(told(knee), [0.9], most=1) == [1]
    # Those who are more likely right have them; a row more costs the others, too.
    several = {(3, 3): 1.0, (3, 5): 1.1, (3, 6): 2.0}
    assert drafts(told(several), [0.0, 0.95, 0.3]) == [0, 2, 0]
    assert drafts(Speculator(Speculation("on")), [0.5, 0.0]) == [7, 0]
    assert drafts(Speculator(Speculation("on", tokens=3)), [0.5]) == [3]
    assert sum(drafts(Speculator(Speculation("on", tokens=20)), [0.5] * 3)) == 32


def test_auto_measures_again():
    steep = told({(1, 1): 1.0, (1, 2): 2.0, (1, 8): 8.0})
    assert drafts(steep, [0.9]) == [0]
    for _ in range(200):
        steep.took(1, 1, 1, 1.0)
    assert drafts(steep, [0.9]) == [7]  # long ago: as if it had never been
    steep.took(1, 8, 8, 9.0)
    steep.took(1, 8, 8, 9.0)
    assert drafts(steep, [0.9]) == [2]  # the first rows may cost less: worth a try
    for rows in (3, 3, 2):
        steep.took(1, rows, rows, float(rows))
    assert drafts(steep, [0.9]) == [0]
    for _ in range(200):
        steep.took(1, 1, 1, 1.0)
    assert drafts(steep, [0.9], most=1) == [0]  # what is measured again is kept for longer
    odd = told({(1, 1): 1.0, (1, 3): 1.0})
    for seconds in (1.0, 500.0, 1.0):  # a pause of the machine is not the price of a row
        odd.took(1, 3, 3, seconds)
    assert drafts(odd, [0.9], most=2) == [2]


def test_auto_keeps_account_of_what_it_loses():
    """Whatever it believes of its chances: three steps, and a hundredth."""
    flat, lost, plain = told({(1, rows): 1.0 for rows in range(1, 9)}), 0.0, 0
    for _ in range(2000):
        if drafts(flat, [0.9]) == [0]:
            flat.took(1, 1, 1, 1.0)
            plain += 1
        else:
            flat.took(1, 8, 1, 1.9)  # for nothing
            lost += 0.9
    assert 0 < lost <= 3 * 2 + plain * 0.01 + 0.9
    flat.took(1, 1, 1, 1.0)
    while drafts(flat, [0.9]) == [0]:
        flat.took(1, 1, 1, 1.0)
    for _ in range(20):  # when it gains, it goes on at once
        assert drafts(flat, [0.9]) != [0]
        flat.took(1, 8, 6, 1.9)


def test_what_is_seen_in_one_text_is_expected_of_the_next():
    dice, all_texts = random.Random(0), Chances()
    first = Lookup([], ON, all_texts)
    for _ in range(400):
        first.push(dice.randrange(12))
    second = Lookup([1, 2, 3, 1, 2], ON, all_texts)
    assert second.chances(1)[0] < 0.15 < Lookup([1, 2, 3, 1, 2], ON).chances(1)[0]
    for token in [3, 1, 2] * 30:
        second.push(token)
    assert second.chances(1)[0] > 0.9


def test_settings():
    assert Speculation.of(None, None) == Speculation("auto")
    assert Speculation.of("off", None).mode == "off"
    vllm = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 5, "prompt_lookup_min": 3}
    assert Speculation.of(None, vllm) == Speculation("on", tokens=4, least=3, longest=5)
    assert Speculation.of(None, {"method": "ngram", "prompt_lookup_max": 1}).least == 1
    for mode, config, words in (
        ("fast", None, "speculation is 'fast': it must be one of off, on, auto"),
        ("on", {"method": "ngram"}, "give one of them"),
        (None, {}, "method is None: "),
        (None, {"method": "eagle"}, "method is 'eagle'"),
        (None, {"method": "ngram", "model": "x"}, "has no model: it takes method, num_speculative_tokens"),
        (None, {"method": "ngram", "num_speculative_tokens": 0}, "num_speculative_tokens is 0"),
        (None, {"method": "ngram", "prompt_lookup_min": 9, "prompt_lookup_max": 5}, "prompt_lookup_min is 9"),
        (
            None,
            {"method": "ngram", "prompt_lookup_max": True},
            "prompt_lookup_max is True: it must be an integer from 1 to 64",
        ),
        (None, {"method": "ngram", "prompt_lookup_max": "x"}, "prompt_lookup_max is 'x'"),
    ):
        with pytest.raises(ConfigError, match=words):
            Speculation.of(mode, config)


def test_the_library_and_a_model_whose_tokens_could_change(checkpoint):
    ids, params = [5, 6, 7, 8] * 4, SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    plain = LLM(checkpoint, device="cpu", speculation="off").generate([ids], params)[0]
    assert plain.metrics.drafted == 0
    vllm = {"method": "ngram", "num_speculative_tokens": 3}
    if native.usable():
        for options in ({"speculation": "on"}, {"speculative_config": vllm}, {}):
            assert said(LLM(checkpoint, device="cpu", **options).generate([ids], params)[0]) == said(plain)
    assert LLM(checkpoint, device="cpu", dtype="bfloat16").engine._speculator is None  # auto leaves it alone
    assert LLM(checkpoint, device="cpu", dtype="bfloat16", speculation="on").engine._speculator is not None
    with pytest.raises(ConfigError, match="speculation is 'yes'"):
        LLM(checkpoint, speculation="yes")
