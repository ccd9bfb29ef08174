"""The engine itself: requests that run together, in any way of scheduling, give what each gives alone."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import dictate
from sambay.engine import Engine, SamplingParams
from sambay.errors import ContextError, PromptError, SambaYError, SamplingError

CONTEXT = 256


def drain(engine):
    events = []
    while engine.busy:
        events += engine.step()
    return events


def tokens(output):
    return [completion.token_ids for completion in output.outputs]


def some_requests(seed, count=7):
    """Prompts of many lengths with parameters of many kinds."""
    dice = random.Random(seed)
    kinds = [
        {"temperature": 0.0},
        {"seed": 5},
        {"seed": 6, "temperature": 0.7, "top_p": 0.9},
        {"seed": 7, "top_k": 20, "repetition_penalty": 1.3},
        {"seed": 8, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": 0.5},
        {"seed": 9, "ignore_eos": True, "logprobs": 2},
        {"seed": 10, "n": 3},
        {"seed": 11, "stop": ["a", " s"], "min_tokens": 1},
    ]
    out = []
    for i in range(count):
        ids = [dice.randrange(5, 318) for _ in range(dice.choice([1, 2, 3, 9, 17, 40]))]
        out.append((ids, SamplingParams(max_tokens=dice.choice([1, 2, 6, 12]), **kinds[(seed + i) % len(kinds)])))
    return out


@pytest.mark.parametrize("max_num_seqs", [1, 2, 5])
@pytest.mark.parametrize("max_num_batched_tokens", [1, 3, 7, 512])
def test_each_request_gives_what_it_gives_alone(make_engine, solo, assert_idle, max_num_seqs, max_num_batched_tokens):
    engine = make_engine(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
    requests = some_requests(max_num_seqs * 10 + max_num_batched_tokens)
    outputs = [engine.add(None, ids, params) for ids, params in requests]
    events = drain(engine)
    for (ids, params), output in zip(requests, outputs, strict=True):
        alone = solo(ids, params)
        assert tokens(output) == tokens(alone)
        assert [c.text for c in output.outputs] == [c.text for c in alone.outputs]
        assert [c.finish_reason for c in output.outputs] == [c.finish_reason for c in alone.outputs]
        assert output.finished
        mine = [event for event in events if event.output is output]
        for completion in output.outputs:
            own = [event for event in mine if event.index == completion.index]
            assert [event.token_id for event in own] == completion.token_ids
            assert "".join(event.text for event in own) == completion.text
            assert [event.finish_reason for event in own[:-1]] == [None] * (len(own) - 1)
            assert own[-1].finish_reason == completion.finish_reason is not None
    assert_idle(engine)


@given(data=st.data())
@settings(max_examples=4)
def test_requests_that_arrive_at_any_time(make_engine, solo, assert_idle, data):
    engine = make_engine(
        max_num_seqs=data.draw(st.integers(1, 4)),
        max_num_batched_tokens=data.draw(st.integers(1, 20)),
    )
    waiting = some_requests(data.draw(st.integers(0, 1000)), 5)
    outputs = []
    while waiting or engine.busy:
        if waiting and data.draw(st.booleans()):
            ids, params = waiting.pop()
            outputs.append((engine.add(None, ids, params), ids, params))
        engine.step()
    for output, ids, params in outputs:
        assert tokens(output) == tokens(solo(ids, params))
    assert_idle(engine)


def count_tokens(engine, monkeypatch):
    computed = []
    run = engine.model.run

    def counting(batch, pool):
        computed.append(sum(batch.lengths))
        return run(batch, pool)

    monkeypatch.setattr(engine.model, "run", counting)
    return computed


@pytest.mark.parametrize("max_num_seqs", [1, 2, 5])
@pytest.mark.parametrize("values", [{}, {"temperature": 0.0}, {"top_p": 0.8, "logprobs": 1}])
def test_forks_are_separate_requests_with_the_next_seeds(
    make_engine, solo, assert_idle, monkeypatch, max_num_seqs, values
):
    ids, count = list(range(20, 57)), 4
    engine = make_engine(max_num_seqs=max_num_seqs, max_num_batched_tokens=10)
    output = engine.add(None, ids, SamplingParams(n=count, seed=100, max_tokens=9, **values))
    computed = count_tokens(engine, monkeypatch)
    drain(engine)
    monkeypatch.undo()
    for i, completion in enumerate(output.outputs):
        alone = solo(ids, SamplingParams(seed=100 + i, max_tokens=9, **values)).outputs[0]
        assert completion.index == i
        assert completion.token_ids == alone.token_ids
        if alone.logprobs is not None:
            assert completion.cumulative_logprob == pytest.approx(alone.cumulative_logprob, abs=1e-4)
    # The prompt once; of each completion all tokens but the last.
    assert sum(computed) == len(ids) + sum(len(c.token_ids) - 1 for c in output.outputs)
    assert_idle(engine)


def test_forks_of_one_token(make_engine, assert_idle):
    engine = make_engine(max_num_seqs=2)
    output = engine.add(None, [9, 8], SamplingParams(n=5, seed=1, max_tokens=1))
    drain(engine)
    assert [c.finish_reason for c in output.outputs] == ["length"] * 5
    assert_idle(engine)


@pytest.mark.parametrize("budget", [1, 4, 50])
def test_a_long_prompt_goes_in_chunks(make_engine, monkeypatch, budget):
    engine = make_engine(max_num_seqs=3, max_num_batched_tokens=budget)
    budget = max(3, budget)  # one token each for all sequences, at least
    short = engine.add(None, [7], SamplingParams(max_tokens=30, ignore_eos=True, seed=1))
    engine.step()
    engine.add(None, [5] * 100, SamplingParams(max_tokens=2, ignore_eos=True, seed=1))
    computed = count_tokens(engine, monkeypatch)
    before = len(short.outputs[0].token_ids)
    for done in range(1, 4):  # the short one is not held up
        engine.step()
        assert len(short.outputs[0].token_ids) == before + done
    drain(engine)
    assert max(computed) <= budget


def test_a_seed_for_those_who_bring_none(make_engine):
    def texts(seed):
        engine = make_engine(seed=seed)
        outputs = [engine.add(None, [9], SamplingParams(max_tokens=20)) for _ in range(3)]
        drain(engine)
        return [tokens(output) for output in outputs]

    first = texts(1)
    assert first == texts(1)
    assert first != texts(2)
    assert first[0] != first[1] != first[2]


def test_events_reach_the_one_who_asked(make_engine):
    engine, mine = make_engine(), []
    output = engine.add(None, [9], SamplingParams(max_tokens=5, ignore_eos=True), on_event=mine.append)
    engine.add(None, [9], SamplingParams(max_tokens=7, ignore_eos=True))
    events = drain(engine)
    assert [event for event in events if event.output is output] == mine
    assert len(mine) == 5


@pytest.mark.parametrize("steps", range(9))
def test_abort_gives_everything_back(make_engine, solo, assert_idle, steps):
    """At any moment: queued, in the middle of the prompt, while forks wait, while all generate."""
    engine = make_engine(max_num_seqs=2, max_num_batched_tokens=4)
    gone = engine.add(None, [5] * 12, SamplingParams(n=3, seed=3, max_tokens=6, ignore_eos=True))
    other = SamplingParams(seed=4, max_tokens=8)
    stays = engine.add(None, [6, 7, 8], other)
    for _ in range(steps):
        engine.step()
    engine.abort(gone.request_id)
    assert gone.finished
    assert {c.finish_reason for c in gone.outputs} <= {"abort", "length"}
    ended = [list(c.token_ids) for c in gone.outputs]
    engine.abort(gone.request_id)  # a second time, and an unknown one
    engine.abort("no such request")
    drain(engine)
    assert [c.token_ids for c in gone.outputs] == ended
    assert tokens(stays) == tokens(solo([6, 7, 8], other))
    assert_idle(engine)


def test_abort_from_within_a_step(make_engine, solo, assert_idle):
    engine = make_engine(max_num_seqs=4)
    params = SamplingParams(seed=1, max_tokens=12, ignore_eos=True)
    outputs = []

    def stop_all(event):
        if len(event.output.outputs[0].token_ids) == 3:
            for output in outputs[:2]:
                engine.abort(output.request_id)

    outputs += [engine.add(None, [9, i], params, on_event=stop_all) for i in range(3)]
    drain(engine)
    assert [output.outputs[0].finish_reason for output in outputs] == ["abort", "abort", "length"]
    assert tokens(outputs[2]) == tokens(solo([9, 2], params))
    assert_idle(engine)


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_fails_loses_nothing(make_engine, solo, assert_idle, monkeypatch, at, error):
    """A pass that was torn off has changed states: what runs is computed anew and ends as if nothing had been."""
    engine = make_engine(max_num_seqs=2, max_num_batched_tokens=8)
    requests = [
        ([5, 6] * 8, SamplingParams(seed=1, max_tokens=8, n=2)),
        ([9], SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)),
        ([8] * 3, SamplingParams(seed=2, max_tokens=1)),
    ]
    outputs = [engine.add(None, ids, params) for ids, params in requests]
    calls = 0
    run = engine.model.run

    def failing(batch, pool):
        nonlocal calls
        calls += 1
        out = run(batch, pool)
        if calls == at:
            raise error("torn off")
        return out

    monkeypatch.setattr(engine.model, "run", failing)
    with pytest.raises(error, match="torn off"):
        drain(engine)
    drain(engine)
    monkeypatch.undo()
    for (ids, params), output in zip(requests, outputs, strict=True):
        assert tokens(output) == tokens(solo(ids, params))
    assert_idle(engine)


@pytest.mark.parametrize("at", [1, 2, 6])
@pytest.mark.parametrize("first", [True, False])
def test_an_observer_that_fails_ends_only_its_request(make_engine, solo, assert_idle, at, first):
    engine = make_engine()
    params = SamplingParams(seed=1, max_tokens=6, ignore_eos=True)

    def observe(event):
        if len(event.output.outputs[0].token_ids) == at:
            raise RuntimeError("observer")

    output, other = [
        engine.add(None, [9 if mine else 7], params, on_event=observe if mine else None) for mine in (first, not first)
    ][:: 1 if first else -1]
    drain(engine)
    assert tokens(output) == [ids[:at] for ids in tokens(solo([9], params))]
    assert output.finished
    assert (type(output.error), str(output.error)) == (RuntimeError, "observer")
    assert output.outputs[0].finish_reason == ("error" if at < 6 else "length")
    assert tokens(other) == tokens(solo([7], params))
    assert other.error is None
    assert_idle(engine)


@pytest.mark.parametrize("max_num_seqs", [2, 3, 5])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_observer_that_fails_with_forks(make_engine, solo, assert_idle, max_num_seqs, position):
    """In the same step that admits or computes its siblings."""
    engine = make_engine(max_num_seqs=max_num_seqs)
    params = SamplingParams(seed=1, max_tokens=6, ignore_eos=True, n=3)

    def observe(event):
        if event.index == position:
            raise RuntimeError("observer")

    output = engine.add(None, [9], params, on_event=observe)
    other = engine.add(None, [7], params)
    drain(engine)
    assert output.finished
    assert all(one.finish_reason in ("error", "length") for one in output.outputs)
    assert tokens(other) == tokens(solo([7], params))
    assert_idle(engine)


def test_a_keyboard_interrupt_is_nobody_s_error(make_engine, solo, assert_idle):
    engine = make_engine()
    params = SamplingParams(seed=1, max_tokens=4, ignore_eos=True)

    def observe(event):
        if len(event.output.outputs[0].token_ids) == 2:
            raise KeyboardInterrupt

    outputs = [engine.add(None, [9], params, on_event=observe), engine.add(None, [7], params)]
    engine.step()
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    drain(engine)
    assert [tokens(output) for output in outputs] == [tokens(solo([i], params)) for i in (9, 7)]
    assert_idle(engine)


@pytest.mark.parametrize("n", [1, 3])
def test_numbers_that_overflow_end_only_their_request(model, tokenizer, solo, assert_idle, n):
    """A token whose embedding is not finite spoils the states of its sequence, and of no other one."""
    params = [SamplingParams(seed=i, max_tokens=9, ignore_eos=True, n=1 + i % 2) for i in range(4)]
    prompts = [[9, 8, 7], [20] * 30, [5], [30, 31]]
    expected = [tokens(solo(ids, one)) for ids, one in zip(prompts, params, strict=True)]
    used = {token for output in expected for ids in output for token in ids}.union(*prompts)
    bad = next(token for token in range(320) if token not in used)
    kept = model.embedding.weight[bad].clone()
    model.embedding.weight.data[bad] = torch.nan
    try:
        engine = Engine(
            model, tokenizer, end_ids=frozenset(), max_model_len=CONTEXT, max_num_seqs=4, max_num_batched_tokens=12
        )
        outputs = []
        for ids, one in zip(prompts, params, strict=True):
            outputs.append((engine.add(None, ids, one), engine.add(None, [9, bad, 7], SamplingParams(n=n))))
        drain(engine)
    finally:
        model.embedding.weight.data[bad] = kept
    assert [tokens(output) for output, _ in outputs] == expected
    for output, broken in outputs:
        assert output.error is None
        assert broken.finished
        assert "largest logit is nan" in str(broken.error)
        assert isinstance(broken.error, SambaYError)
        assert [one.finish_reason for one in broken.outputs] == ["error"] * n
    assert_idle(engine)


def test_a_step_within_a_step_is_refused(make_engine, solo, assert_idle):
    engine = make_engine()
    params = SamplingParams(seed=1, max_tokens=6, ignore_eos=True)
    output = engine.add(None, [9], params, on_event=lambda event: engine.step())
    other = engine.add(None, [7], params)
    drain(engine)
    assert isinstance(output.error, SambaYError)
    assert "in the middle of a step: generate when it has ended, not from on_event" in str(output.error)
    assert tokens(other) == tokens(solo([7], params))
    assert_idle(engine)


@pytest.mark.parametrize("max_num_seqs", [2, 8])
def test_the_state_for_forks_is_held_no_longer_than_needed(make_engine, assert_idle, max_num_seqs):
    engine = make_engine(max_num_seqs=max_num_seqs)
    output = engine.add(None, [9] * 5, SamplingParams(n=4, seed=1, max_tokens=20, ignore_eos=True))
    request = engine._requests[output.request_id]
    held = []
    while engine.busy:
        engine.step()
        held.append((request.forked is not None, any(one.index for one in engine.scheduler.waiting)))
    assert held[0] == (True, True)
    assert all(is_held is forks_wait for is_held, forks_wait in held)
    assert_idle(engine)


def test_pages_come_back(make_engine, assert_idle):
    engine = make_engine(max_num_seqs=3)
    for _ in range(3):
        for length in (200, 130, 64, 65):
            engine.add(None, [5] * length, SamplingParams(max_tokens=20, seed=0, n=2))
        drain(engine)
        assert_idle(engine)
    assert engine.pool.nbytes == engine.memory


# What ends a completion


def test_max_tokens_none_goes_to_the_end_of_the_context(make_engine):
    engine = make_engine(max_model_len=40)
    output = engine.add(None, [9] * 7, SamplingParams(max_tokens=None, ignore_eos=True, seed=0))
    longer = engine.add(None, [9] * 7, SamplingParams(max_tokens=1000, ignore_eos=True, seed=0))
    last = engine.add(None, [9] * 39, SamplingParams(max_tokens=None, ignore_eos=True, seed=0))
    drain(engine)
    for one, room in ((output, 33), (longer, 33), (last, 1)):
        assert len(one.outputs[0].token_ids) == room
        assert one.outputs[0].finish_reason == "length"
        assert one.outputs[0].stop_reason is None


def test_the_whole_context_of_the_model(make_engine):
    engine = make_engine(max_num_batched_tokens=512)
    output = engine.add(None, [9] * (CONTEXT - 2), SamplingParams(max_tokens=None, ignore_eos=True))
    drain(engine)
    assert len(output.outputs[0].token_ids) == 2


def greedy(solo, ids, **more):
    return solo(ids, SamplingParams(temperature=0.0, **{"max_tokens": 20, "ignore_eos": True} | more)).outputs[0]


def test_end_tokens(make_engine, solo):
    free = greedy(solo, [9, 12, 40])
    end = free.token_ids[4]
    first = free.token_ids.index(end)
    engine = make_engine(end_ids=frozenset({end}))
    stopped = engine.add(None, [9, 12, 40], SamplingParams(temperature=0.0, max_tokens=20))
    ignored = engine.add(None, [9, 12, 40], SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True))
    drain(engine)
    one = stopped.outputs[0]
    assert one.token_ids == free.token_ids[: first + 1]
    assert (one.finish_reason, one.stop_reason) == ("stop", None)
    assert free.text.startswith(one.text)
    assert ignored.outputs[0].token_ids == free.token_ids
    assert ignored.outputs[0].finish_reason == "length"


def test_stop_token_ids(solo):
    free = greedy(solo, [9, 12, 40])
    token = free.token_ids[5]
    first = free.token_ids.index(token)
    one = greedy(solo, [9, 12, 40], stop_token_ids=[token])
    assert one.token_ids == free.token_ids[: first + 1]
    assert (one.finish_reason, one.stop_reason) == ("stop", token)
    assert one.text == greedy(solo, [9, 12, 40], max_tokens=max(first, 1)).text * bool(first)
    included = greedy(solo, [9, 12, 40], stop_token_ids=[token], include_stop_str_in_output=True)
    assert (included.token_ids, included.stop_reason) == (one.token_ids, token)
    assert included.text == greedy(solo, [9, 12, 40], max_tokens=first + 1).text  # some tokens have no text


@pytest.mark.parametrize("count", [1, 5, 20])
def test_min_tokens_bans_the_ends(make_engine, solo, count):
    free = greedy(solo, [9, 12, 40])
    end, stop = free.token_ids[0], free.token_ids[1]
    engine = make_engine(end_ids=frozenset({end}))
    output = engine.add(
        None, [9, 12, 40], SamplingParams(temperature=0.0, max_tokens=20, min_tokens=count, stop_token_ids=[stop])
    )
    drain(engine)
    one = output.outputs[0]
    assert len(one.token_ids) >= count
    assert not {end, stop} & set(one.token_ids[:count])


def test_min_tokens_bans_no_end_that_is_ignored(make_engine, solo):
    free = greedy(solo, [9, 12, 40])
    engine = make_engine(end_ids=frozenset(free.token_ids[:1]))
    output = engine.add(
        None, [9, 12, 40], SamplingParams(temperature=0.0, max_tokens=20, min_tokens=9, ignore_eos=True)
    )
    drain(engine)
    assert output.outputs[0].token_ids == free.token_ids


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(("start", "length"), [(0, 1), (2, 3), (3, 7), (5, 12)])
def test_stop_strings_across_tokens(solo, start, length, include):
    free = greedy(solo, [9, 12, 40], max_tokens=40)
    stop = free.text[start : start + length]
    assert len(stop) == length
    at = free.text.index(stop)
    one = greedy(solo, [9, 12, 40], max_tokens=40, stop=["never seen", stop], include_stop_str_in_output=include)
    assert one.text == free.text[: at + length * include]
    assert (one.finish_reason, one.stop_reason) == ("stop", stop)
    assert one.token_ids == free.token_ids[: len(one.token_ids)]
    shorter = greedy(solo, [9, 12, 40], max_tokens=max(1, len(one.token_ids) - 1), stop=stop)
    assert shorter.finish_reason == "length" or len(one.token_ids) == 1  # it ended at the first token it could


def test_text_held_for_a_stop_string_comes_at_the_end(solo):
    free = greedy(solo, [9, 12, 40])
    one = greedy(solo, [9, 12, 40], stop=[free.text[-3:] + "never seen"])
    assert one.text == free.text
    assert one.finish_reason == "length"


def test_reasoning_and_answer(make_engine, tokenizer, monkeypatch):
    """The model's tokens are dictated: text is cut at the tags, wherever the prompt left off."""
    reply = tokenizer.encode("<think>\nso seven dogs</think>\nthe mat")
    end = tokenizer.eos_token_id
    inside = "the cat <think>\n"
    forms = [(None, [9], reply), *((text, tokenizer.encode(inside), reply[1:]) for text in (inside, None))]
    forms.append((None, [tokenizer.token_id("<think>")], reply[1:]))
    for prompt, ids, dictated in forms:
        engine = make_engine()
        script = iter([*dictated, end])
        dictate(monkeypatch, lambda *_, script=script: next(script))
        output = engine.add(prompt, ids, SamplingParams())
        events = drain(engine)
        one = output.outputs[0]
        assert (one.reasoning, one.answer, one.finish_reason) == ("so seven dogs", "the mat", "stop")
        assert one.text == tokenizer.decode(dictated)
        for kind, whole in (("reasoning", one.reasoning), ("answer", one.answer)):
            assert "".join(p.text for e in events for p in e.pieces if p.kind == kind) == whole


def test_characters_are_never_torn(make_engine, tokenizer, monkeypatch):
    script = iter([*tokenizer.encode("häuser 你好 🙂 ∮"), tokenizer.eos_token_id])
    dictate(monkeypatch, lambda *_: next(script))
    engine = make_engine()
    output = engine.add(None, [9], SamplingParams())
    events = drain(engine)
    assert "".join(event.text for event in events) == output.outputs[0].text == "häuser 你好 🙂 ∮"
    assert not any("\ufffd" in event.text for event in events)


def test_skip_special_tokens(make_engine, tokenizer, monkeypatch):
    special = tokenizer.token_id("<|user|>")
    for skip in (True, False):
        script = iter([special, tokenizer.eos_token_id])
        dictate(monkeypatch, lambda *_, script=script: next(script))
        engine = make_engine()
        output = engine.add(None, [9], SamplingParams(skip_special_tokens=skip))
        drain(engine)
        assert output.outputs[0].text == ("" if skip else "<|user|>")


def test_logprobs(make_engine, model, tokenizer):
    engine = make_engine(max_num_batched_tokens=3)
    ids = [9, 12, 40, 41, 7]
    output = engine.add(None, ids, SamplingParams(seed=1, temperature=2.0, max_tokens=8, logprobs=3))
    plain = engine.add(None, ids, SamplingParams(seed=1, temperature=2.0, max_tokens=8))
    drain(engine)
    one = output.outputs[0]
    assert plain.outputs[0].token_ids == one.token_ids
    assert plain.outputs[0].logprobs is plain.outputs[0].cumulative_logprob is None
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([ids + one.token_ids]))[0].double(), -1)[len(ids) - 1 :]
    assert len(one.logprobs) == len(one.token_ids)
    total = 0.0
    for token, entry, row in zip(one.token_ids, one.logprobs, expected, strict=False):
        assert next(iter(entry)) == token
        assert len(entry) in (3, 4)
        assert set(row.topk(3).indices.tolist()) <= entry.keys()
        for other, value in entry.items():
            assert value.logprob == pytest.approx(float(row[other]), abs=1e-4)
            assert value.rank == int((row > row[other]).sum()) + 1
            assert value.decoded_token == tokenizer.decode([other], skip_special_tokens=False)
        total += entry[token].logprob
    assert one.cumulative_logprob == pytest.approx(total)


def test_metrics(make_engine):
    engine = make_engine()
    output = engine.add(None, [9], SamplingParams(max_tokens=3, ignore_eos=True))
    drain(engine)
    metrics = output.metrics
    assert 0 < metrics.arrival < metrics.first_token < metrics.finished


# What is refused, before anything runs


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([], PromptError, "the prompt is empty"),
        ([-1], PromptError, "token id -1: ids are integers from 0 to 319"),
        ([5, 320], PromptError, "token id 320"),
        ([5, True], PromptError, "token id True"),
        ([1.0], PromptError, "token id 1.0"),
        (["a"], PromptError, "token id 'a'"),
        ([5] * 256, ContextError, "has 256 tokens, but the context holds 256"),
        ([5] * 300, ContextError, "has 300 tokens"),
    ],
)
def test_bad_prompts(make_engine, assert_idle, ids, error, message):
    engine = make_engine()
    with pytest.raises(error, match=message):
        engine.add(None, ids, SamplingParams())
    assert_idle(engine)


def test_unknown_stop_tokens(make_engine, assert_idle):
    engine = make_engine()
    with pytest.raises(SamplingError, match="stop_token_ids has 320: the vocabulary ends at 319"):
        engine.add(None, [5], SamplingParams(stop_token_ids=[3, 320]))
    assert_idle(engine)


def test_without_a_tokenizer(model, solo, assert_idle):
    engine = Engine(model, None, end_ids=frozenset({0}), max_model_len=CONTEXT)
    with pytest.raises(SamplingError, match="stop strings need a tokenizer"):
        engine.add(None, [5], SamplingParams(stop="x"))
    params = SamplingParams(seed=1, max_tokens=5, logprobs=1)
    output = engine.add(None, [5], params)
    drain(engine)
    assert tokens(output) == tokens(solo([5], params))
    assert output.outputs[0].text == output.outputs[0].answer == ""
    assert next(iter(output.outputs[0].logprobs[0].values())).decoded_token is None
    assert_idle(engine)
