"""Worked solutions as steps, and the hints that lead to them without giving the answer away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sambay.tutor.topics import Exercise

__all__ = ["Step", "folded", "hints_of", "idea_of"]


@dataclass(frozen=True)
class Step:
    """One step of a worked solution.

    Attributes:
        text: what it says.
        detail: the lines of written arithmetic that it stands for, such as the columns of a sum.
    """

    text: str
    detail: tuple[str, ...] = ()


# What to think of first, by topic and kind; the kinds are those of the generator.
_IDEAS: Final = {
    "arithmetic": "Write the numbers below each other, ones under ones, and go from right to left.",
    "arithmetic/add": "Add column by column from the right: ones to ones, tens to tens; what is over 9 is carried.",
    "arithmetic/add_3": "Add two of the numbers first, then the third to their sum.",
    "arithmetic/sub": "Subtract column by column from the right; where the upper digit is too small, borrow from the "
    "next column. If the second number is the larger one, the result is negative.",
    "arithmetic/mul": "Multiply digit by digit from the right and carry. A longer factor can be split: × 15 is × 10 "
    "and × 5.",
    "arithmetic/div": "Go from left to right: how often does the divisor fit, and what is left for the next digit?",
    "arithmetic/power": "A power is a product: a number, as many times as its exponent says.",
    "arithmetic/root": "Which number, multiplied by itself, gives this one?",
    "arithmetic/by_zero": "Ask the other way round: which number times 0 could give the first one?",
    "arithmetic/remainder": "How often does the divisor fit in whole? The question is what is left over.",
    "arithmetic/quotient": "How often does the divisor fit in whole? What is left over does not matter here.",
    "order_of_operations": "Brackets first, then powers, then × and ÷ from left to right, then + and -.",
    "fractions": "Bring the fractions to a form in which they can be put together, and reduce at the end.",
    "fractions/add": "Fractions can be added when their denominators are equal: find a common multiple first.",
    "fractions/sub": "Fractions can be subtracted when their denominators are equal: find a common multiple first.",
    "fractions/mul": "Multiply the numerators with each other and the denominators with each other; then reduce.",
    "fractions/div": "Dividing by a fraction is multiplying by its reciprocal: turn the second one over.",
    "fractions/simplify": "Look for a number that divides both the numerator and the denominator.",
    "fractions/compare": "Multiply crosswise: numerator of the one by the denominator of the other, and compare.",
    "fractions/of": "“Of” means times: divide by the denominator and multiply by the numerator.",
    "fractions/mixed": "Make improper fractions first: the whole number times the denominator, plus the numerator.",
    "fractions/to_mixed": "Divide the numerator by the denominator: the quotient is the whole part, the rest the new "
    "numerator.",
    "fractions/whole": "Write the whole number as a fraction with the same denominator, or over 1 for × and ÷.",
    "decimals": "Calculate as if there were no decimal points, and put the point back at the end.",
    "decimals/add": "Give both numbers as many places after the point, then add as if there were no point.",
    "decimals/sub": "Give both numbers as many places after the point, then subtract as if there were no point.",
    "decimals/mul": "Multiply without the points; the result has as many places as both numbers together.",
    "decimals/compare": "Give both numbers as many places after the point; then compare digit by digit.",
    "decimals/round": "The digit after the last one that is kept decides: from 5 on it is rounded up.",
    "decimals/to_decimal": "A fraction is a division: numerator by denominator, with zeros after the point.",
    "decimals/from_percent": "Percent means hundredths: divide by 100.",
    "decimals/to_percent": "Percent means hundredths: multiply by 100.",
    "percentages": "Percent means hundredths: p% of a number is the number times p, divided by 100.",
    "percentages/what": "Which share is it? Divide the part by the whole and multiply by 100.",
    "percentages/before": "The price before is 100%. How many percent of it is the number that you know?",
    "percentages/rise": "The change is compared with the old value: divide by that, and multiply by 100.",
    "percentages/fall": "The change is compared with the old value: divide by that, and multiply by 100.",
    "percentages/increase": "Find the percentage of the number first, then add it.",
    "percentages/decrease": "Find the percentage of the number first, then subtract it.",
    "percentages/interest": "Find the interest of one year first, then of all years.",
    "percentages/balance": "Find the interest of one year first, then of all years, and add it.",
    "equations": "Do the same on both sides until the unknown stands alone.",
    "equations/both": "Bring the unknown to one side first, then the numbers to the other.",
    "equations/brackets": "Divide both sides by the factor before the brackets, or expand them.",
    "equations/expand": "Expand the brackets first, then collect the unknown on one side.",
    "equations/collect": "Put the terms with the unknown together first.",
    "equations/never": "Bring the unknown to one side. What if it is gone?",
    "equations/zero": "What is 0 times a number?",
    "equations/quotient": "Get the fraction alone first, then multiply both sides by its denominator.",
    "word_problems": "Say in your own words what is asked, and which of the numbers lead there.",
}


def idea_of(exercise: Exercise) -> str:
    """The first thing to think of, by the kind of problem."""
    name = f"{exercise.topic}/{exercise.kind}"
    fitting = [key for key in _IDEAS if name == key or name.startswith(f"{key}_") or key == exercise.topic]
    return _IDEAS[max(fitting, key=len)]


def folded(lines: Sequence[str]) -> list[Step]:
    """Put the lines of written arithmetic together into the steps that they make up.

    Args:
        lines: of a worked solution, as the generator writes them, and the models that learnt from it.

    Returns:
        The steps: the columns of "347 + 586" are the detail of "347 + 586 = 933".
    """
    steps: list[Step] = []
    at = 0
    while at < len(lines):
        end, text = _closing(lines, at)
        steps.append(Step(text, tuple(lines[at:end])) if end > at else Step(text))
        at = end + 1
    return steps


def _closing(lines: Sequence[str], at: int) -> tuple[int, str]:
    """The last line of the step that begins at a line, and what the step says."""
    line = lines[at]
    head, colon, _ = line.partition(":")
    if colon and re.search(r"\d [-+×÷] \(?-?\d", head):
        for end in range(at + 1, len(lines)):
            if lines[end].startswith(f"{head} = ") and ":" not in lines[end]:
                return end, lines[end]
    if multiple := re.fullmatch(r"Multiples of (\d+) ÷ (\d+): .*?(\d+) rest 0", line):
        return at, f"The first multiple of {multiple[1]} that {multiple[2]} divides is {multiple[3]}."
    if turned := re.fullmatch(r"(.+ [-+] .+) = -\(.+\)", line):
        for end in range(at + 1, len(lines)):
            if re.fullmatch(rf"{re.escape(turned[1])} = -\d+", lines[end]):
                return end, lines[end]
    if colon and re.fullmatch(r"-?\d+/\d+", head):
        for end in range(at + 1, len(lines)):
            if match := re.fullmatch(r"Lowest terms: (.+)|-?\d+/1 = (-?\d+)", lines[end]):
                lowest = match[1] or match[2]
                return end, f"{head} = {lowest}" if lowest != head else f"{head} is in lowest terms"
    return at, line[:-1] if re.fullmatch(r"[-\d/ ()+×÷.^]+:", line) else line  # what is to be worked out


def hints_of(idea: str, steps: Sequence[Step], question: str, answer: str) -> list[str]:
    r"""The hints of a problem, from the idea on, without those that say the answer.

    Args:
        idea: the first of them.
        steps: of the worked solution.
        question: what is asked, which is no hint.
        answer: the content of its box.

    Returns:
        One hint or more; never the last step.
    """
    plain = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r" \1/\2", answer).replace("- ", "-").strip()
    says = re.compile(rf"(?:= |: |\A){re.escape(plain)}\.?\Z|\b{re.escape(plain)}[ .,]*\Z")
    kept, last = list(steps), None
    while kept and (last is None or says.search(kept[-1].text)):
        last = kept.pop()
    asked = re.sub(r"\s", "", question)
    texts = [
        step.text
        for step in kept
        if re.sub(r"\A=|\s", "", step.text) not in asked and not re.fullmatch(r"[-\d/ ()+×÷.^]+", step.text)
    ]
    # Where the last step is written arithmetic, its first columns help and do not tell.
    columns = last.detail[1:-1] if last is not None else ()
    if columns and last is not None and (primes := re.search(r"try ([\d, ]+)\Z", last.detail[0])):
        columns = (f"Does {primes[1].replace(', ', ' or ')} divide both the numerator and the denominator?",)
    hints = [text for text in (*texts, *columns[:4]) if not re.search(rf"= {re.escape(plain)}\.?\Z", text)]
    return [idea, *(f"{text[:-1]}." if text.endswith(":") else text for text in hints)]
