r"""How many unseen school problems a model solves: greedy, one attempt each, the last `\boxed{}` counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sambay.data.problems import FAMILIES, Problem, boxed, problem_at, same_answer
from sambay.engine import LLM, CompletionOutput, RequestOutput, SamplingParams
from sambay.errors import ConfigError, PromptError

__all__ = ["Attempt", "Report", "Score", "check_families", "evaluate_problems"]

_Z = 1.959963984540054
"""Of a two-sided interval of 95 % under the normal distribution."""


@dataclass(frozen=True)
class Attempt:
    """One problem and what the model made of it.

    Attributes:
        family: of the problem.
        question: what was asked.
        expected: the right answer.
        got: the content of the last box of the answer, None where there is none.
        correct: whether the two are the same number, or the same text.
        text: all that the model wrote.
        tokens: that it took.
        finish_reason: "stop" if it ended by itself.
    """

    family: str
    question: str
    expected: str
    got: str | None
    correct: bool
    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Score:
    """How many of how many were right."""

    correct: int
    count: int

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson: sensible for few problems, and at 0 and 1."""
        n, p, z2 = self.count, self.accuracy, _Z * _Z
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "correct": self.correct,
            "count": self.count,
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
        }


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
        seed: of the problems.
        attempts: in the order of the problems.
    """

    seed: int
    attempts: tuple[Attempt, ...]

    @property
    def total(self) -> Score:
        """Over all families."""
        return _score(self.attempts)

    @property
    def families(self) -> dict[str, Score]:
        """By family, those that came up."""
        names = sorted({attempt.family for attempt in self.attempts})
        return {name: _score([one for one in self.attempts if one.family == name]) for name in names}

    @property
    def mean_tokens(self) -> float:
        """Tokens of a completion."""
        return sum(attempt.tokens for attempt in self.attempts) / len(self.attempts)

    @property
    def ended(self) -> float:
        """Share of completions that ended by themselves and were not cut."""
        return sum(attempt.finish_reason == "stop" for attempt in self.attempts) / len(self.attempts)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, without the attempts."""
        return {
            "seed": self.seed,
            "total": self.total.to_dict(),
            "families": {name: score.to_dict() for name, score in self.families.items()},
            "mean_tokens": self.mean_tokens,
            "ended": self.ended,
        }


def check_families(families: Sequence[str]) -> None:
    """Raise unless all of these exist.

    Raises:
        ConfigError: one does not; the message lists those that do.
    """
    for family in families:
        if family not in FAMILIES:
            raise ConfigError(f"there is no family {family!r}: choose from {', '.join(FAMILIES)}")


def evaluate_problems(
    llm: LLM,
    count: int = 500,
    seed: int = 1,
    families: Sequence[str] | None = None,
    on_done: Callable[[Attempt], None] | None = None,
    *,
    max_tokens: int = 768,
) -> Report:
    """Let a model solve problems of the test split, of which none occurs in training.

    Args:
        llm: the model; as many problems run at once as it has places for.
        count: problems.
        seed: of the problems: the same seed gives the same ones.
        families: in equal shares; None takes the generator's own mix.
        on_done: called after each problem, in the order in which they end.
        max_tokens: of a completion.

    Raises:
        ConfigError: `count` is below 1, or a family is unknown.
        PromptError: the model has no tokenizer or no chat template.
        SambaYError: the model's numbers overflowed.
    """
    if count < 1:
        raise ConfigError(f"count is {count}: it must be 1 or more problems")
    check_families(families or ())
    tokenizer = llm.tokenizer
    if tokenizer is None:
        raise PromptError(f"{llm.directory} has no tokenizer, so it cannot be asked anything")
    shares = dict.fromkeys(families, 1.0) if families else None
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    attempts: dict[int, Attempt] = {}
    running: dict[int, tuple[Problem, RequestOutput]] = {}
    try:
        for index in range(count):
            problem = problem_at(seed, index, "test", shares)
            messages = [{"role": "user", "content": problem.question}]
            text, ids = tokenizer.render_chat(messages), tokenizer.encode_chat(messages)
            running[index] = problem, llm.engine.add(text, ids, params)
        while running:
            llm.engine.step()
            for index in [index for index, (_, output) in running.items() if output.finished]:
                problem, output = running.pop(index)
                if output.error is not None:
                    raise output.error
                attempts[index] = _grade(problem, output.outputs[0])
                if on_done is not None:
                    on_done(attempts[index])
    finally:
        for _, output in running.values():
            llm.engine.abort(output.request_id)
    return Report(seed, tuple(attempts[index] for index in range(count)))


def _grade(problem: Problem, completion: CompletionOutput) -> Attempt:
    got = boxed(completion.answer)
    return Attempt(
        family=problem.family,
        question=problem.question,
        expected=problem.answer,
        got=got,
        correct=got is not None and same_answer(got, problem.answer),
        text=completion.text,
        tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason or "",
    )


def _score(attempts: Sequence[Attempt]) -> Score:
    return Score(sum(attempt.correct for attempt in attempts), len(attempts))
