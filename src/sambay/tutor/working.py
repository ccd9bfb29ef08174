"""The learner's own steps, line by line: which hold, and which is the first that does not.

A line of numbers ("4 × 12 = 48 = 40 + 8") holds if its sides are equal. A line with an unknown holds if it is true for
all numbers ("4(n - 8) = 4n - 32"), or if it has the solutions of the equation before it. Lines in words are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from sambay.errors import TutorError
from sambay.tutor.feedback import letters_of, number_text
from sambay.tutor.judge import Judge, Solutions, Statement, TooHardError
from sambay.tutor.reading import UnreadableError, read_sides

__all__ = ["MOST_LINES", "Line", "Working", "check_working"]

MOST_LINES = 40


@dataclass(frozen=True)
class Line:
    """One line of a working.

    Attributes:
        text: as typed.
        state: "true", "false", "start" (an equation with nothing before it to compare), "note" (words, or nothing that
            could be true or false), "unread".
        message: what is to be said of it, "" for nothing.
    """

    text: str
    state: Literal["true", "false", "start", "note", "unread"]
    message: str = ""


@dataclass(frozen=True)
class Working:
    """All lines of a working.

    Attributes:
        lines: in their order, blank ones left out.
        first_wrong: index of the first line that does not hold, None if there is none.
        message: a sentence on the whole.
    """

    lines: tuple[Line, ...]
    first_wrong: int | None
    message: str


@dataclass
class _Known:
    """What the equations so far say, by unknown."""

    solutions: dict[str, Solutions] = field(default_factory=dict)
    letters: frozenset[str] = frozenset()
    before: str = "the equation of the question"


def check_working(judge: Judge, question: str, text: str) -> Working:
    """Check each line.

    Args:
        judge: computes.
        question: what was asked; where it holds an equation, the first line is compared with that.
        text: the working, a line each.

    Raises:
        TutorError: there are too many lines.
    """
    texts = [line.strip() for line in text.splitlines() if line.strip()]
    if len(texts) > MOST_LINES:
        raise TutorError(f"the working has {len(texts)} lines: {MOST_LINES} are the most that are checked")
    known = _Known(letters=letters_of(question) | letters_of(text))
    equation = _equation_in(question)
    if equation is not None:
        _check(judge, equation, known)
    lines = []
    for line in texts:
        lines.append(_check(judge, line, known))
        if lines[-1].state in ("true", "false", "start"):
            known.before = "the line before"
    wrong = next((at for at, line in enumerate(lines) if line.state == "false"), None)
    return Working(tuple(lines), wrong, _summary(lines, wrong))


def _equation_in(question: str) -> str | None:
    """The equation that a question asks to solve."""
    for match in re.finditer(r"[-\d(a-zA-Z][^=,;:?]*=[^=,;:?]*", question):
        # Words around it do not belong to it.
        text = re.sub(r"\A.*\b[A-Za-z]{2,}\b", "", match[0].partition("=")[0]) + "="
        text += re.sub(r"\s*(?:\b[A-Za-z]{2,}\b|\.(?!\d)).*\Z", "", match[0].partition("=")[2])
        if letters_of(text) and not text.strip().endswith("="):
            return text.strip()
    return None


def _check(judge: Judge, text: str, known: _Known) -> Line:
    try:
        sides = read_sides(text, known.letters)
        if sides is None:
            return Line(text, "note")
        statement = judge.statement(sides)
        if statement is None:
            return Line(text, "unread", "This line could not be read.")
        if statement.broken is not None and not statement.unknowns and None in statement.values:
            # 8m + 18 = 8m + 19: the unknown falls out, and no number solves it.
            known.solutions.setdefault("", Solutions(False, ()))
            return Line(text, "start" if known.before != "the line before" else "true")
        if not statement.unknowns:
            return _of_numbers(text, sides, statement, known)
        return _of_unknowns(judge, text, sides, statement, known)
    except UnreadableError as error:
        return Line(text, "unread", _sentence(error))
    except TooHardError as error:
        return Line(text, "unread", _sentence(error))


def _sentence(error: TutorError) -> str:
    words = str(error)
    return f"{words[0].upper()}{words[1:]}."


def _of_numbers(text: str, sides: tuple[str, ...], statement: Statement, known: _Known) -> Line:
    if statement.broken is None:
        return Line(text, "true")
    if any(one.found == () and not one.everything for one in known.solutions.values()):
        return Line(text, "true", "Never true: so the equation has no solution.")
    left, right = statement.values[statement.broken : statement.broken + 2]
    shown = [side.strip() for side in re.split("=", text)][statement.broken : statement.broken + 2]
    if left is None or right is None or len(shown) < 2:
        return Line(text, "false", "The two sides are not equal.")
    computed = re.search(r"\d\s*[-+*/×÷·:^]", shown[0]) is not None
    if computed and re.fullmatch(r"-?[\d.,/ ]+", shown[1].strip(" .")):
        return Line(
            text,
            "false",
            f"{_last_words(shown[0])} is {number_text(left)}, not {shown[1].strip(' .')}.{_why(left, right)}",
        )
    return Line(text, "false", f"The left side is {number_text(left)}, the right side {number_text(right)}.")


def _last_words(side: str) -> str:
    """The expression at the end of "Cost: 4 × 3"."""
    return side.rpartition(":")[2].strip() or side


def _why(right: Fraction, found: Fraction) -> str:
    if found == -right:
        return " Look at the sign."
    if right and found and any(found == right * Fraction(10) ** power for power in (-3, -2, -1, 1, 2, 3)):
        return " Look at zeros and the decimal point."
    return ""


def _of_unknowns(judge: Judge, text: str, sides: tuple[str, ...], statement: Statement, known: _Known) -> Line:
    if len(sides) > 2:  # x = 15 ÷ 3 = 5: what follows the first sign are numbers
        rest = judge.statement(sides[1:])
        if rest is not None and not rest.unknowns and rest.broken is not None:
            return _of_numbers(text.partition("=")[2].strip(), sides[1:], rest, known)
        if rest is None or rest.unknowns:
            return Line(text, "note", "This line has several equations: write each on a line of its own.")
    if len(statement.unknowns) > 1:
        return Line(text, "note", "Lines with several unknowns are not checked.")
    name = statement.unknowns[0]
    found = judge.solutions(sides[0], sides[-1])
    if found is None:
        return Line(text, "note", "This equation could not be solved, and so it is not checked.")
    before = known.solutions.get(name)
    if before is None:
        known.solutions[name] = found
        return Line(text, "start")
    if found == before:
        return Line(text, "true")
    known.solutions[name] = found  # what follows from a wrong line is not wrong again
    return Line(text, "false", _other_solutions(name, before, found, known.before))


def _other_solutions(name: str, before: Solutions, found: Solutions, where: str) -> str:
    if len(before.found) == len(found.found) == 1:
        try:
            a, b = Fraction(before.found[0]), Fraction(found.found[0])
        except ValueError:
            a, b = Fraction(0), Fraction(0)
        if a and a == -b:
            return f"From here on {name} has the wrong sign: what becomes of a sign when a term changes sides?"
    if found.found and set(found.found) < set(before.found):
        return "A solution is lost here: what was divided by, or left out?"
    if set(before.found) < set(found.found):
        return f"Here a solution comes in that {where} does not have."
    return f"This is true for another {name} than {where}: something was not done in the same way on both sides."


def _summary(lines: Sequence[Line], wrong: int | None) -> str:
    if wrong is not None:
        before = "" if wrong == 0 else " Up to there everything holds." if wrong > 1 else " The line before it holds."
        return f"Look at line {wrong + 1}.{before}"
    checked = sum(line.state == "true" for line in lines)
    if not checked:
        return "There is no line yet that could be checked: write equations, such as 3x = 15 or 4 × 3 = 12."
    return "Every line that could be checked holds." if checked < len(lines) else "Every line holds."
