"""A class's answers, graded: row by row, and what they say of students and problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sambay.tutor.classroom import Row, Table, write_table
from sambay.tutor.feedback import Verdict, check_answer
from sambay.tutor.judge import Judge, TooHardError
from sambay.tutor.reading import UnreadableError, read_answer
from sambay.tutor.solving import Solved

__all__ = ["COLUMNS", "Grade", "Grader", "Reference", "graded_csv", "summary"]

COLUMNS: Final = ("correct", "mistake", "comment", "reference", "reference_from", "agreement", "error")
"""What grading adds to a table."""


@dataclass(frozen=True)
class Reference:
    """The answer that others are compared with.

    Attributes:
        answer: None where the model came to none.
        source: "file" or "model".
        agreement: the share of the model's attempts that came to it, 1 for one from the file.
    """

    answer: str | None
    source: str = "file"
    agreement: float = 1.0

    @classmethod
    def of(cls, solved: Solved) -> Reference:
        """What a model made of the problem."""
        return cls(solved.answer, "model", solved.agreement)


@dataclass(frozen=True)
class Grade:
    """What came of one row.

    Attributes:
        correct: None where it could not be graded.
        mistake: the kind of mistake, "right", or "missing" for an empty answer.
        comment: for the student.
        reference: the answer that it was compared with, "" if there is none.
        source: of that: "file", "model" or "".
        agreement: of the model's attempts, None for an answer from the file.
        error: why it could not be graded, "" if it could.
    """

    correct: bool | None
    mistake: str
    comment: str
    reference: str
    source: str
    agreement: float | None
    error: str = ""


class Grader:
    """Grades the rows of a table.

    Args:
        judge: compares.
        table: a solution in any row of a problem serves all of its rows.
    """

    def __init__(self, judge: Judge, table: Table) -> None:
        self._judge = judge
        self._references: dict[str, Reference] = {}
        self._known: dict[tuple[str, str, str], Verdict | str] = {}
        for row in table.rows:
            if row.solution and not row.error:
                self._references.setdefault(row.problem, Reference(row.solution))
        self.open = [
            problem
            for problem in dict.fromkeys(row.problem for row in table.rows if not row.error)
            if problem not in self._references
        ]
        """The problems to which the table has no solution, each once, in their order."""

    def learn(self, problem: str, reference: Reference) -> None:
        """Take a reference for a problem that is open."""
        self._references[problem] = reference

    def grade(self, row: Row) -> Grade:
        """Grade one row. Whatever is wrong with it is said in its grade."""
        if row.error:
            return Grade(None, "", "", "", "", None, row.error)
        reference = Reference(row.solution) if row.solution else self._references.get(row.problem)
        if reference is None or reference.answer is None:
            why = "there is no solution, and the model came to none: add one to the file"
            return Grade(None, "", "", "", "", None, why)
        known = (reference.answer, reference.source, reference.agreement if reference.source == "model" else None)
        if not row.answer:
            return Grade(False, "missing", "There is no answer.", *known)
        found = self._verdict(row.problem, reference.answer, row.answer)
        if isinstance(found, str):
            return Grade(None, "", "", *known, found)
        return Grade(found.correct, found.kind, found.message, *known)

    def _verdict(self, problem: str, expected: str, given: str) -> Verdict | str:
        """What is to be said of an answer, or why nothing can be; a class gives many answers twice."""
        key = (problem, expected, given)
        if key not in self._known:
            self._known[key] = self._check(*key)
        return self._known[key]

    def _check(self, problem: str, expected: str, given: str) -> Verdict | str:
        try:
            read_answer(expected)
        except UnreadableError as error:
            return f"the solution cannot be read: {error}"
        try:
            return check_answer(self._judge, problem, expected, given)
        except UnreadableError as error:
            return Verdict(False, "unreadable", f"This could not be read: {error}.")
        except TooHardError as error:
            return str(error)


def graded_csv(table: Table, grades: Sequence[Grade]) -> bytes:
    """The table with what grading adds, as a CSV that spreadsheets open without harm."""
    rows = []
    for row, one in zip(table.rows, grades, strict=True):
        correct = "" if one.correct is None else "yes" if one.correct else "no"
        agreement = "" if one.agreement is None else f"{one.agreement:.2f}"
        added = (correct, one.mistake, one.comment, one.reference, one.source, agreement, one.error)
        rows.append([*row.cells, *added])
    return write_table([*table.header, *COLUMNS], rows)


def summary(table: Table, grades: Sequence[Grade]) -> dict[str, Any]:
    """What the grades say, as plain data.

    Returns:
        `rows`, `graded`, `correct`, `errors`, `accuracy` (None where nothing was graded); `students` and `problems`,
        each a list with `name`, `correct`, `count` and `share`, in the order of the table; of problems also
        `reference`, `source`, `agreement` and the most frequent wrong answers; `mistakes`, counted by kind.
    """
    pairs = list(zip(table.rows, grades, strict=True))
    graded = [(row, one) for row, one in pairs if one.correct is not None]
    correct = sum(bool(one.correct) for _, one in graded)
    problems = []
    for name in dict.fromkeys(row.problem for row, _ in graded):
        of = [(row, one) for row, one in graded if row.problem == name]
        wrong = Counter(row.answer for row, one in of if not one.correct and row.answer)
        problems.append(
            _share(name, (one for _, one in of))
            | {
                "reference": of[0][1].reference,
                "source": of[0][1].source,
                "agreement": of[0][1].agreement,
                "wrong_answers": [{"answer": answer, "count": count} for answer, count in wrong.most_common(3)],
            }
        )
    students = dict.fromkeys(row.student for row, _ in graded if row.student)
    return {
        "rows": len(pairs),
        "graded": len(graded),
        "correct": correct,
        "errors": len(pairs) - len(graded),
        "accuracy": correct / len(graded) if graded else None,
        "students": [_share(name, (one for row, one in graded if row.student == name)) for name in students],
        "problems": problems,
        "mistakes": dict(Counter(one.mistake for _, one in graded if not one.correct).most_common()),
    }


def _share(name: str, grades: Iterable[Grade]) -> dict[str, Any]:
    found = [bool(one.correct) for one in grades]
    return {"name": name, "correct": sum(found), "count": len(found), "share": sum(found) / len(found)}
