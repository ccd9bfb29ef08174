"""Speculation: whatever is drafted, each request gets what it gets without, and no state remembers what was not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.engine import SamplingParams
from sambay.engine.params import StructuredOutputsParams
from sambay.engine.speculation import Speculation
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
        self.settings, self.known = ON, {}
        self._dice, self._spoilt = dice, spoilt

    def propose(self, sequences):
        for one in sequences:
            count = min(one.most_drafts, self._dice.choice([0, 1, 3, 7]))
            known = self.known[one.request.output.request_id][one.index]
            draft = known[len(one.output.token_ids) :][:count]
            one.draft = [t if self._dice.random() >= self._spoilt else self._dice.randrange(320) for t in draft]

    def took(self, sequences, rows, seconds):
        assert rows >= sequences
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
