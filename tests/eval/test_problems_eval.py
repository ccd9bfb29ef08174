"""Counting right answers: grading, intervals, and the order of problems whatever order they end in."""

import pytest

from sambay.data.problems import problem_at
from sambay.engine import CompletionOutput, RequestOutput, SamplingParams
from sambay.errors import ConfigError, SambaYError
from sambay.eval.problems import Report, Score, evaluate_problems


class FakeTokenizer:
    def render_chat(self, messages):
        [message] = messages
        return message["content"]

    def encode_chat(self, messages):
        return [1]


class FakeEngine:
    """Ends requests last in, first out; says what `reply` makes of a question."""

    def __init__(self, reply):
        self.reply, self.waiting, self.aborted, self.params = reply, [], [], []

    def add(self, text, ids, params):
        self.params.append(params)
        answer, finish = self.reply(text)
        output = CompletionOutput(0, text=answer, token_ids=[1] * 10, finish_reason=finish, answer=answer)
        self.waiting.append(RequestOutput(str(len(self.params)), text, ids, [output]))
        return self.waiting[-1]

    def step(self):
        output = self.waiting.pop()
        output.finished = True
        if output.outputs[0].finish_reason == "error":
            output.error = SambaYError("overflow")

    def abort(self, request_id):
        self.aborted.append(request_id)


class FakeLLM:
    directory = "fake"

    def __init__(self, reply):
        self.tokenizer, self.engine = FakeTokenizer(), FakeEngine(reply)


def knowing(wrong=(), cut=()):
    """A model that knows all answers but those to the problems of these indices."""
    problems = [problem_at(1, index, "test") for index in range(12)]
    answers = {problem.question: (index, problem) for index, problem in enumerate(problems)}

    def reply(question):
        index, problem = answers[question]
        if index in cut:
            return f"I think \\boxed{{{problem.answer}", "length"
        said = "-99999" if index in wrong else problem.answer
        return f"First \\boxed{{1}}, no: \\boxed{{{said}}}.", "stop"

    return FakeLLM(reply)


def test_right_wrong_and_cut_answers():
    llm, seen = knowing(wrong={2, 5}, cut={7}), []
    report = evaluate_problems(llm, 12, 1, on_done=seen.append, max_tokens=50)
    assert [attempt.correct for attempt in report.attempts] == [index not in (2, 5, 7) for index in range(12)]
    assert [attempt.question for attempt in report.attempts] == [problem_at(1, i, "test").question for i in range(12)]
    assert report.attempts[2].got == "-99999"
    assert report.attempts[7].got is None
    assert seen == list(reversed(report.attempts))
    assert (report.total.correct, report.total.count) == (9, 12)
    assert sum(score.count for score in report.families.values()) == 12
    assert report.mean_tokens == 10
    assert report.ended == pytest.approx(11 / 12)
    assert all(params == SamplingParams(temperature=0, max_tokens=50) for params in llm.engine.params)
    assert llm.engine.aborted == []


def test_as_plain_data():
    found = evaluate_problems(knowing(wrong={0}), 4, 1).to_dict()
    assert found["seed"] == 1
    assert found["total"]["accuracy"] == 0.75
    assert found["total"]["interval_95"] == pytest.approx([0.30064, 0.95441], abs=1e-5)
    assert sum(family["count"] for family in found["families"].values()) == 4


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (81, 263, 0.25527, 0.36622)],
)
def test_intervals_of_wilson(correct, count, low, high):
    assert Score(correct, count).interval == pytest.approx((low, high), abs=2e-5)


def test_what_is_left_is_aborted_when_it_fails():
    llm = knowing()

    def stop(attempt):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_problems(llm, 5, 1, on_done=stop)
    assert sorted(llm.engine.aborted) == ["1", "2", "3", "4"]


def test_a_problem_that_fails_is_raised_and_not_waited_for():
    llm = knowing()
    reply = llm.engine.reply
    llm.engine.reply = lambda text: ("", "error") if len(llm.engine.params) == 3 else reply(text)
    with pytest.raises(SambaYError, match="overflow"):
        evaluate_problems(llm, 5, 1)
    assert sorted(llm.engine.aborted) == ["1", "2"]


def test_impossible_arguments():
    with pytest.raises(ConfigError, match="count is 0"):
        evaluate_problems(knowing(), 0)
    with pytest.raises(ConfigError, match="no family 'x': choose from arithmetic"):
        evaluate_problems(knowing(), 1, families=["x"])


def test_a_report_keeps_the_order_of_attempts():
    report = evaluate_problems(knowing(), 3, 1)
    assert isinstance(report, Report)
    assert [attempt.expected for attempt in report.attempts] == [problem_at(1, i, "test").answer for i in range(3)]
