"""Whether an answer is right, and if not, which mistake it is, in words for a learner.

The words never say the answer, and never that something is right which is not: a value in a form that was not asked
for is said to be just that.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from sambay.data.problems import same_answer
from sambay.tutor.judge import Comparison, Judge, TooHardError
from sambay.tutor.reading import UNITS, Part, Reading, UnreadableError, read_answer

__all__ = ["Kind", "Verdict", "check_answer", "letters_of", "number_text", "required_form", "same_value"]

Kind = Literal[
    "right", "rounded", "unreduced", "form", "unfinished", "unreadable", "sign", "point", "percent", "inverted",
    "operation", "intermediate", "swapped", "digit", "numerator", "denominator", "close", "unit", "incomplete",
    "surplus", "words", "wrong",
]  # fmt: skip
"""What an answer is; "right" is right, "rounded" and "unreduced" too where `Verdict.correct` says so."""

_PRAISE: Final = ("That is right.", "Correct, well done.", "Yes, exactly.", "Right, nicely done.", "Yes, that is it.")
_RIGHT_FORM: Final = {
    "reduced": "in lowest terms",
    "mixed": "as a mixed number, such as 2 1/3",
    "fraction": "as a fraction, such as 7/3",
    "decimal": "as a decimal, such as 2.5",
}
_WORDS: Final[dict[str, str]] = {
    "sign": "The size is right, but look at the sign: should it be positive or negative?",
    "percent": "That is off by a factor of 100: is it a share, or a percentage?",
    "inverted": "You have it upside down: which number belongs on top?",
    "swapped": "The digits are right, but not their order: look whether two of them are swapped.",
    "numerator": "The denominator fits. Go over the numerator again.",
    "denominator": "The numerator fits. Go over the denominator again.",
    "close": "That is close, but not it: there is a slip in the calculation.",
    "wrong": "That is not it yet. Go through it step by step, or take a hint.",
    "unit": "Look at the unit: it measures something else than what was asked for.",
    "unfinished": "That has the right value, but it is not worked out yet: carry the calculation to its end.",
}
_OPERATIONS: Final = {"+": "added", "-": "subtracted", "×": "multiplied", "÷": "divided"}
_COLUMNS: Final = ("ones", "tens", "hundreds", "thousands")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an answer.

    Attributes:
        correct: whether it counts.
        kind: of mistake, "right" for none.
        message: a sentence or two for the learner.
    """

    correct: bool
    kind: Kind
    message: str


def required_form(question: str) -> str | None:
    """The form that a question asks for: "reduced", "mixed", "fraction", "decimal", or None for any."""
    text = question.lower()
    if "mixed number" in text and re.search(r"\b(?:as|into|to|in) a mixed number|mixed number (?:is|of|for)", text):
        return "mixed"
    if re.search(r"\b(?:as|into|to) an? (?:improper |single |common )?fraction|improper fraction", text):
        return "fraction"
    if re.search(r"\b(?:as|into|to|in) (?:a )?decimal|decimal (?:form|for|of|is)", text):
        return "decimal"
    simplify = re.search(r"\b(?:simplify|reduce|cancel)\b", text) and re.search(r"\d\s*/\s*\d|\\frac", text)
    if simplify or re.search(r"(?:simplest|lowest|reduced) (?:form|terms)", text):
        return "reduced"
    return None


def letters_of(text: str) -> frozenset[str]:
    """The unknowns of a question: single letters beside numbers and signs."""
    text = re.sub(r"\\[A-Za-z]+", " ", text)
    found = re.findall(r"(?<=\d)[a-zA-Z](?![A-Za-z])|(?<![A-Za-z'’])[b-hj-zB-HJ-Z](?![A-Za-z'’])", text)
    if "=" in text:
        found += re.findall(r"(?<![A-Za-z])a(?=\s*[-+*/=)^])|(?<=[-+*/=(])\s?a(?![A-Za-z])", text)
    return frozenset(letter.strip() for letter in found)


def number_text(value: Fraction) -> str:
    """A number as a learner would write it: a whole number, a short decimal, or a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    while rest % 10 == 0:
        rest //= 10
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator in (10, 100, 1000):
        return f"{float(value):g}"
    return f"{value.numerator}/{value.denominator}"


def check_answer(judge: Judge, question: str, expected: str, given: str, steps: Sequence[str] = ()) -> Verdict:
    """Check an answer.

    Args:
        judge: compares.
        question: what was asked, for the form that it wants and the numbers that it holds.
        expected: the right answer, as a learner or a model would write it.
        given: the learner's.
        steps: lines of a worked solution, to know what is only an intermediate result.

    Raises:
        UnreadableError: either cannot be read; the message says why.
        TooHardError: the comparison would take too long.
    """
    letters = letters_of(question) | letters_of(expected)
    right = read_answer(expected, letters)[0]
    readings = read_answer(given, letters)
    verdict = None
    for reading in readings:
        found = _check(judge, question, right, reading, steps)
        if found.correct or verdict is None:
            verdict = found
        if found.correct:
            break
    assert verdict is not None
    return verdict


def _check(judge: Judge, question: str, right: Reading, given: Reading, steps: Sequence[str]) -> Verdict:
    if right.words or given.words:
        if right.words == given.words:
            return _right(question)
        if right.words:
            return Verdict(False, "words", "That is not it: think about what the question leads to. Is there a number?")
        return Verdict(False, "words", "The answer is a number: type it, such as 12, 3/4 or 2.5.")
    if len(given.parts) < len(right.parts):
        missing = f"{len(right.parts)} values are asked for, and you gave {len(given.parts)}"
        found = _matched(judge, right, given)
        said = "What you have is right" if all(found) else "Not all that you have is right"
        return Verdict(False, "incomplete", f"{missing}. {said}.")
    if len(given.parts) > len(right.parts):
        wanted = "One value is" if len(right.parts) == 1 else f"{len(right.parts)} values are"
        return Verdict(False, "surplus", f"{wanted} asked for, and you gave {len(given.parts)}.")
    if any(_other_dimension(a, b) for a, b in zip(right.parts, given.parts, strict=True)):
        return Verdict(False, "unit", _WORDS["unit"])
    if len(right.parts) > 1:
        found = _matched(judge, right, given)
        if all(found):
            return _right(question)
        which = "" if not any(found) else " Some of the values are right."
        return Verdict(False, "wrong", f"That is not it yet.{which}")
    a, b = right.parts[0], given.parts[0]
    unknowns = {a.name} if a.name else letters_of(question) if "=" in question else frozenset()
    if b.name and unknowns and b.name not in unknowns:
        return Verdict(False, "wrong", f"The question is for {' and '.join(sorted(unknowns))}, and you gave {b.name}.")
    comparisons = judge.compare(_pairs(a, b))
    if any(one.equal for one in comparisons):
        return _right_value(question, a, b, comparisons[0].given)
    if not comparisons[0].read:
        return Verdict(
            False, "unreadable", "That could not be read as mathematics: write it such as 12, 3/4 or 3x + 5."
        )
    return _mistake(question, a, b, comparisons[0], steps)


def _pairs(right: Part, given: Part) -> list[tuple[str, str]]:
    """What to compare: the values, in the same unit; 80% as 80 and as 0.8 where it is open which is meant."""
    latex = given.latex
    one, two = _unit(right.unit), _unit(given.unit)
    if one and two and one != two and one[0] == two[0]:
        factor = two[1] / one[1]
        latex = rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot \left({latex}\right)"
    pairs = [(right.latex, latex)]
    if right.percent != given.percent:
        hundredth = rf"\frac{{{latex}}}{{100}}"
        pairs.append((right.latex, hundredth) if given.percent else (rf"\frac{{{right.latex}}}{{100}}", latex))
    return pairs


def _unit(name: str) -> tuple[str, Fraction] | None:
    return UNITS.get(name) or UNITS.get(name.removesuffix("s")) if name else None


def _other_dimension(right: Part, given: Part) -> bool:
    one, two = _unit(right.unit), _unit(given.unit)
    return one is not None and two is not None and one[0] != two[0]


def _matched(judge: Judge, right: Reading, given: Reading) -> list[bool]:
    """For each value that was given whether it is one of the right ones, each used once."""
    if right.ordered and given.ordered and len(right.parts) == len(given.parts):
        pairs = [_pairs(a, b)[0] for a, b in zip(right.parts, given.parts, strict=True)]
        return [one.equal for one in judge.compare(pairs)]
    free = list(range(len(right.parts)))
    all_pairs = [_pairs(a, b)[0] for b in given.parts for a in right.parts]
    equal = [one.equal for one in judge.compare(all_pairs)]
    out = []
    for j, part in enumerate(given.parts):
        fits = [
            i for i in free
            if equal[j * len(right.parts) + i] and part.name in ("", right.parts[i].name or part.name)
        ]  # fmt: skip
        out.append(bool(fits))
        if fits:
            free.remove(fits[0])
    return out


def _right(question: str, more: str = "") -> Verdict:
    praise = _PRAISE[zlib.crc32(question.encode()) % len(_PRAISE)]
    return Verdict(True, "right", f"{praise} {more}".strip())


def _right_value(question: str, right: Part, given: Part, value: Fraction | None) -> Verdict:
    """The value is right: is the form?"""
    wanted = required_form(question)
    done = ("integer", "decimal", "fraction", "mixed")
    if given.form not in done and right.form in done:
        return Verdict(False, "unfinished", _WORDS["unfinished"])
    reduced = _is_reduced(given)
    whole = value is not None and value.denominator == 1
    if whole and given.form in ("fraction", "mixed") and not (given.latex.endswith("}{1}") or wanted == "fraction"):
        return Verdict(False, "unfinished", "That has the right value, but it is a whole number: divide it out.")
    if wanted == "reduced" and not reduced:
        return Verdict(
            False, "unreduced", "The value is right, but it can still be reduced: is there a common divisor?"
        )
    misses = {
        "mixed": given.form != "mixed" and not whole,
        "fraction": given.form not in ("fraction", "integer"),
        "decimal": given.form in ("fraction", "mixed"),
        "reduced": given.form == "decimal" and not whole and right.form != "decimal",
    }
    if wanted is not None and misses[wanted]:
        return Verdict(False, "form", f"The value is right; the question asks for it {_RIGHT_FORM[wanted]}.")
    if not reduced:
        verdict = _right(question, "It can still be reduced.")
        return Verdict(True, "unreduced", verdict.message)
    return _right(question)


def _is_reduced(part: Part) -> bool:
    match = re.search(r"\\frac\{(\d+)\}\{(\d+)\}", part.latex)
    if part.form not in ("fraction", "mixed") or match is None or int(match[2]) == 0:
        return True
    return Fraction(int(match[1]), int(match[2])).denominator == int(match[2])


def _mistake(question: str, right: Part, given: Part, found: Comparison, steps: Sequence[str]) -> Verdict:
    e, g = found.expected, found.given
    if e is None or g is None:
        return Verdict(False, "wrong", _WORDS["wrong"])
    if given.places and _terminates_late(e) and abs(g - e) * 2 * 10**given.places <= 1:
        if given.places >= 2 and float(abs(g)) >= 0.01:
            return Verdict(True, "rounded", f"{_right(question).message} It is rounded: exact is a fraction.")
        return Verdict(False, "rounded", "That is rounded too much: give more places, or a fraction.")
    kind, words = _kind_of(question, e, g, given, steps)
    return Verdict(False, kind, words or _WORDS[kind])


def _terminates_late(value: Fraction) -> bool:
    """Whether a decimal number of four places cannot be this one."""
    return (value * 10**4).denominator != 1


def _kind_of(question: str, e: Fraction, g: Fraction, given: Part, steps: Sequence[str]) -> tuple[Kind, str]:
    if e != 0 and g == -e:
        return "sign", ""
    if e != 0 and g != 0:
        if g / e in (100, Fraction(1, 100)) and re.search(r"%|per ?cent", question.lower()):
            return "percent", ""
        for power in range(1, 7):
            if g == e * 10**power or g == e / 10**power:
                size = "large" if abs(g) > abs(e) else "small"
                times = f"{10**power} times too {size}"
                return "point", f"The digits are right, but it is {times}: look at zeros and the decimal point."
        if g == 1 / e:
            return "inverted", ""
    if operation := _other_operation(question, e, g):
        return "operation", f"It looks as if you {operation} the numbers: is that what the question asks for?"
    if any(g == value for value in _results(steps, e)):
        return "intermediate", "That is a step on the way: go on from there."
    if e.denominator == g.denominator == 1:
        return _kind_of_whole(int(e), int(g))
    match = re.search(r"\\frac\{(\d+)\}\{(\d+)\}", given.latex)
    if given.form == "fraction" and match and e.denominator > 1:
        if e.denominator == int(match[2]):
            return "numerator", ""
        if abs(e.numerator) == int(match[1]):
            return "denominator", ""
    return _near(e, g), ""


def _kind_of_whole(e: int, g: int) -> tuple[Kind, str]:
    a, b = str(abs(e)), str(abs(g))
    if len(a) == len(b) and e * g > 0:
        differing = [at for at in range(len(a)) if a[at] != b[at]]
        if len(a) > 1 and len(differing) == 2 and sorted(a) == sorted(b):
            return "swapped", ""
        column = len(a) - 1 - differing[0] if differing else 0
        if len(a) > 1 and len(differing) == 1 and column < len(_COLUMNS):
            return "digit", f"Nearly: only the digit of the {_COLUMNS[column]} is off. Did you carry or borrow there?"
    return _near(Fraction(e), Fraction(g)), ""


def _near(e: Fraction, g: Fraction) -> Kind:
    return "close" if e != 0 and abs(g - e) <= abs(e) / 10 else "wrong"


def _other_operation(question: str, e: Fraction, g: Fraction) -> str | None:
    """What seems to have been done with the two numbers of a question."""
    numbers = [
        Fraction(n) for n in re.findall(r"(?<![\w/.])\d+(?:/\d+|\.\d+)?(?![\w/])", question) if not n.endswith("/0")
    ]
    if len(numbers) != 2:
        return None
    a, b = numbers
    results = {"+": {a + b}, "-": {a - b, b - a}, "×": {a * b}, "÷": {x / y for x, y in ((a, b), (b, a)) if y}}
    if not any(e in values for values in results.values()):
        return None
    return next((_OPERATIONS[sign] for sign, values in results.items() if g in values), None)


def _results(steps: Sequence[str], e: Fraction) -> set[Fraction]:
    """What stands after the last sign of equality of the steps, numbers of one digit aside."""
    found = set()
    for step in steps:
        if match := re.search(r"= (-?\d+(?:/[1-9]\d*|\.\d+)?)\Z", step):
            found.add(Fraction(match[1]))
    return {value for value in found if value != e and abs(value) >= 10}


def same_value(judge: Judge, a: str, b: str) -> bool:
    """Whether two answers say the same, in whatever form; what cannot be read or compared is not the same.

    Args:
        judge: compares.
        a: one answer.
        b: the other.
    """
    if same_answer(a, b):
        return True
    try:
        letters = letters_of(a) | letters_of(b)
        one, two = read_answer(a, letters)[0], read_answer(b, letters)[0]
        if one.words or two.words or len(one.parts) != len(two.parts):
            return bool(one.words) and one.words == two.words
        return all(_matched(judge, one, two))
    except (UnreadableError, TooHardError):
        return False
