"""Requests at once through the engine, against one after another."""

import pytest

from sambay.bench import concurrency
from sambay.bench.concurrency import measure_concurrency, some_prompts
from sambay.bench.record import quantiles
from sambay.data.problems import problem_at
from sambay.errors import ConfigError, ContextError
from sambay.train.vocabulary import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [problem_at(0, index, "train").question for index in range(50)]
    return write_tokenizer(texts, 300, tmp_path_factory.mktemp("bench") / "tokenizer")


def test_a_ladder(tiny):
    told = []
    rows = measure_concurrency(
        tiny, None, [4, 2], requests=4, prompt=9, generate=5, rounds=2, progress=lambda *done: told.append(done)
    )
    assert told == [(done, 6) for done in range(1, 7)]
    assert [row["concurrency"] for row in rows] == [1, 2, 4]  # one after another is measured in any case
    for row in rows:
        assert (row["requests"], row["prompt_tokens"], row["tokens"]) == (4, 36, 20)
        assert row["seconds"]["rounds"] == 2
        assert row["tokens_per_second"] == pytest.approx(20 / row["seconds"]["median"])
        assert 0 < row["first_token"]["p50"] <= row["first_token"]["p95"] <= row["first_token"]["p99"]
        assert 0 < row["own"] < 1
        assert row["step"] > 0
    assert rows[0]["ratio_to_one"] == 1


def test_replies_end_where_they_do(tiny, tokenizer):
    shapes = {"requests": 2, "prompt": None, "generate": 30, "rounds": 1}
    [whole] = measure_concurrency(tiny, tokenizer, [1], **shapes)
    [cut] = measure_concurrency(tiny, tokenizer, [1], ends=frozenset(range(512)), **shapes)
    assert (whole["tokens"], cut["tokens"]) == (60, 2)


def test_never_more_at_once_than_asked_for(tiny, monkeypatch):
    lengths = []
    run = type(tiny).run

    def counted(model, batch, pool):
        lengths.append(len(batch.lengths))
        return run(model, batch, pool)

    monkeypatch.setattr(type(tiny), "run", counted)
    engine = concurrency.Engine(tiny, None, end_ids=frozenset(), max_model_len=64, max_num_seqs=4)
    params = concurrency.SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    for level, most in ((1, 1), (3, 3), (4, 4)):
        lengths.clear()
        done = concurrency._run(engine, some_prompts(tiny, None, 5, 4), params, level)
        assert max(lengths) == most
        assert (len(done.outputs), done.tokens) == (5, 15)
        assert done.steps == len(lengths)
        assert 0 < done.model < done.stepping <= done.seconds
        assert all(output.cached_tokens == 0 for output in done.outputs)  # nothing is left of the pass before


def test_prompts(tiny, tokenizer):
    questions = some_prompts(tiny, tokenizer, 3, None)
    assert problem_at(0, 1, "test").question in tokenizer.decode(questions[1], skip_special_tokens=False)
    assert [len(ids) for ids in some_prompts(tiny, tokenizer, 3, 20)] == [20] * 3
    assert [len(ids) for ids in some_prompts(tiny, None, 2, None)] == [128] * 2


def test_quantiles():
    assert quantiles([]) is None
    values = [value / 100 for value in range(100, 0, -1)]
    assert quantiles(values) == {"mean": pytest.approx(0.505), "p50": 0.5, "p95": 0.95, "p99": 0.99}
    assert quantiles([3.0]) == {"mean": 3.0, "p50": 3.0, "p95": 3.0, "p99": 3.0}


def test_what_cannot_be_measured(tiny):
    with pytest.raises(ConfigError, match="4 requests cannot be 8 at once: ask for more requests, or less concurrency"):
        measure_concurrency(tiny, None, [8], requests=4, prompt=4, generate=4, rounds=1)
    with pytest.raises(ConfigError, match="numbers are 1 or more"):
        measure_concurrency(tiny, None, [], requests=4, prompt=4, generate=4, rounds=1)
    with pytest.raises(ContextError, match=r"more than the model's context of 4096"):
        measure_concurrency(tiny, None, [1], requests=4, prompt=4000, generate=400, rounds=1)
