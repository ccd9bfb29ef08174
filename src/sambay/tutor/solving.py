"""A problem of one's own, solved by the model: the likeliest solution, and a vote of others on how sure it is."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sambay.data.problems import boxed
from sambay.engine import LLM, CompletionOutput, RequestOutput, SamplingParams
from sambay.errors import PromptError
from sambay.tutor.feedback import same_value
from sambay.tutor.judge import Judge

__all__ = ["LONGEST_PROBLEM", "VOTES", "Solved", "prompts_for", "solve_all", "vote"]

LONGEST_PROBLEM: Final = 2000
"""Characters of a problem at most."""
VOTES: Final = 4
"""Attempts beside the likeliest one, unless it is said otherwise."""
_MOST_TOKENS, _MOST_STEPS = 2048, 200


@dataclass(frozen=True)
class Solved:
    """What a model makes of a problem.

    Attributes:
        answer: the content of the box that most attempts end in; None where no attempt came to one.
        steps: lines of the solution that is shown: the likeliest one, if it is of the majority.
        reply: its last words.
        votes: every answer with the number of attempts that came to it, the most frequent first.
        attempts: how many there were.
    """

    answer: str | None
    steps: tuple[str, ...]
    reply: str
    votes: tuple[tuple[str, int], ...]
    attempts: int

    @property
    def agreement(self) -> float:
        """The share of attempts that came to the answer."""
        return self.votes[0][1] / self.attempts if self.votes else 0.0

    @property
    def sure(self) -> bool:
        """Whether three attempts in four agree."""
        return self.agreement >= 0.75

    @property
    def note(self) -> str:
        """How far the solution can be trusted, in words."""
        if self.answer is None:
            return f"None of the model's {self.attempts} attempts came to an answer: it cannot help with this problem."
        if self.attempts == 1:
            return "The model solved this problem once: it may be wrong."
        count = self.votes[0][1]
        if self.sure:
            which = "All" if count == self.attempts else f"{count} of"
            return f"{which} {self.attempts} attempts of the model agree. It may still be wrong."
        return (
            f"The model is not sure: {count} of its {self.attempts} attempts agree. Do not rely on what it says here."
        )


def prompts_for(
    llm: LLM, question: str, votes: int = VOTES
) -> list[tuple[tuple[str | None, list[int]], SamplingParams]]:
    """What to ask the model: the likeliest solution, and then the others. The same question has the same seeds.

    Args:
        llm: the model.
        question: as typed.
        votes: attempts beside the likeliest one; 0 for none.

    Returns:
        One or two prompts as the engine takes them, with their parameters.

    Raises:
        PromptError: the question is empty or too long.
    """
    question = question.strip()
    if not question:
        raise PromptError("the problem is empty: type one, such as 3x + 5 = 20")
    if len(question) > LONGEST_PROBLEM:
        raise PromptError(f"the problem has {len(question)} characters: {LONGEST_PROBLEM} are the most that are read")
    prompt = llm.encode([{"role": "user", "content": question}])
    usual = llm.get_default_sampling_params(max_tokens=_MOST_TOKENS, seed=zlib.crc32(question.encode()))
    first = dataclasses.replace(usual, temperature=0.0)
    if not votes:
        return [(prompt, first)]
    others = usual if usual.temperature > 0 else dataclasses.replace(usual, temperature=0.7, top_p=0.95)
    return [(prompt, first), (prompt, dataclasses.replace(others, n=votes))]


def vote(judge: Judge, completions: Sequence[CompletionOutput]) -> Solved:
    """Count what attempts came to.

    Args:
        judge: says which answers are the same.
        completions: the likeliest one first.
    """
    ends: list[tuple[str, list[CompletionOutput]]] = []
    for completion in completions:
        answer = boxed(completion.answer)
        if not answer:
            continue
        same = next((found for known, found in ends if same_value(judge, known, answer)), None)
        if same is None:
            ends.append((answer, [completion]))
        else:
            same.append(completion)
    ends.sort(key=lambda end: -len(end[1]))  # stable: of as many votes, that of the likeliest attempt
    votes = tuple((answer, len(found)) for answer, found in ends)
    if not ends:
        return Solved(None, (), "", (), len(completions))
    answer, (shown, *_) = ends[0]
    steps, reply = _told(shown)
    return Solved(answer, steps, reply, votes, len(completions))


def _told(completion: CompletionOutput) -> tuple[tuple[str, ...], str]:
    """The steps of a solution and its last words: from the answer if it explains, else from the thinking."""
    answer = [line.strip() for line in completion.answer.splitlines() if line.strip()]
    thinking = [line.strip() for line in completion.reasoning.splitlines() if line.strip()]
    steps = answer[:-1] if len(answer) > 3 or not thinking else thinking
    return tuple(steps[:_MOST_STEPS]), answer[-1] if answer else ""


def solve_all(
    llm: LLM,
    questions: Sequence[str],
    judge: Judge,
    votes: int = VOTES,
    on_done: Callable[[str, Solved], None] | None = None,
) -> dict[str, Solved]:
    """Solve problems, as many at once as the model has places for.

    Args:
        llm: the model, used by nobody else meanwhile.
        questions: each once.
        judge: says which answers are the same.
        votes: attempts beside the likeliest one.
        on_done: called after each problem, in the order in which they end.

    Returns:
        What came of each.

    Raises:
        PromptError: a problem that cannot be asked.
        SambaYError: the model's numbers overflowed.
    """
    solved: dict[str, Solved] = {}
    running: dict[str, list[RequestOutput]] = {}
    try:
        for question in questions:
            running[question] = []
            for (text, ids), params in prompts_for(llm, question, votes):
                running[question].append(llm.engine.add(text, ids, params))
        while running:
            llm.engine.step()
            for question in [q for q, outputs in running.items() if all(output.finished for output in outputs)]:
                outputs = running.pop(question)
                for output in outputs:
                    if output.error is not None:
                        raise output.error
                solved[question] = vote(judge, [one for output in outputs for one in output.outputs])
                if on_done is not None:
                    on_done(question, solved[question])
    finally:
        for outputs in running.values():
            for output in outputs:
                llm.engine.abort(output.request_id)
    return solved
