"""How people type: templates, spaces, signs, capitals, politeness, and how numbers are set.

A question is picked from templates, its expression dressed as if typed by hand, and then finished: case of
the first letter, final mark, "Please", and sometimes the standing instruction of reasoning models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from sambay.data.problems.base import Dice, Written, box
from sambay.data.problems.work import Work

INSTRUCTION: Final = "Please reason step by step, and put your final answer within \\boxed{}. "
_INSTRUCTION_SHARE = 0.06

# Every character that a problem may contain, in any field.
ALPHABET: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n+-*/×÷^=<>()[]{}\\.,:;?!'%$€£−·²³"
)

_IMPERATIVES = frozenset((
    "Add", "Calculate", "Change", "Compare", "Compute", "Convert", "Decrease", "Determine", "Divide",
    "Evaluate", "Find", "Give", "Help", "Increase", "Lower", "Multiply", "Put", "Raise", "Reduce", "Show",
    "Simplify", "Solve", "Square", "Subtract", "Take", "Tell", "Turn", "Work", "Write",
))  # fmt: skip

# {e} is an expression.
EXPRESSION: Final = (
    "What is {e}?",
    "What's {e}?",
    "Calculate {e}.",
    "Calculate: {e}",
    "Compute {e}.",
    "Compute: {e}",
    "Work out {e}.",
    "Evaluate {e}.",
    "Evaluate: {e}",
    "Find {e}.",
    "Find the value of {e}.",
    "What is the value of {e}?",
    "How much is {e}?",
    "How much is {e}",
    "Tell me {e}.",
    "Can you work out {e}?",
    "Can you calculate {e}?",
    "Could you compute {e}?",
    "What does {e} equal?",
    "What do you get for {e}?",
    "What is the result of {e}?",
    "Give the result of {e}.",
    "Solve {e}.",
    "Solve: {e}",
    "I need the answer to {e}.",
    "Help me with {e}.",
    "{e} is what?",
    "{e} equals what?",
    "Do you know {e}?",
    "Find the answer: {e}",
)
BARE: Final = ("{e}", "{e}", "{e}", "{e} = ?", "{e} =", "{e}=?", "{e}=", "{e}?", "{e} = ...")


def finish(dice: Dice, question: str, plain: bool = False) -> str:
    """Give a question the small differences of hand and mood.

    Args:
        dice: The source of chance.
        question: A well-written question.
        plain: Whether it is a text with names, which is seldom touched.

    Returns:
        The question as typed, in about 6 % of cases after the standing instruction.
    """
    if not plain:
        first = question.split(" ", 1)[0].rstrip(":")
        if first in _IMPERATIVES and dice.habit(0.12):
            question = f"Please {question[0].lower()}{question[1:]}"
        elif dice.habit(0.25):
            question = question[0].lower() + question[1:]
        if question[-1] in ".?" and dice.habit(0.3):
            question = question[:-1].rstrip(" .")
    else:
        if dice.habit(0.06):
            question = question.lower()
        if question[-1] in ".?" and dice.habit(0.08):
            question = question[:-1]
    if dice.habit(_INSTRUCTION_SHARE):
        return INSTRUCTION + question
    return question


def typed(dice: Dice, expression: str, letters: bool = False) -> str:
    """Dress an expression written with " + ", " - ", " × " and " ÷ " as a person may type it.

    Args:
        dice: The source of chance.
        expression: The expression in our own spelling.
        letters: Whether it contains variables, so that "x" cannot stand for ×.

    Returns:
        The expression with other signs and perhaps without spaces.
    """
    if "×" in expression:
        sign = dice.pick("**×××" if letters else "**×××x")
        expression = expression if dice.tidy else expression.replace("×", sign)
    # Beside fractions a "/" for the division could not be read.
    if "÷" in expression and "/" not in expression:
        sign = dice.pick("÷÷/")
        expression = expression if dice.tidy else expression.replace("÷", sign)
    if dice.habit(0.35):
        expression = re.sub(r" ?([-+*×÷/=x]) ?", r"\1", expression)
    return expression


def ask(dice: Dice, templates: Sequence[str], **slots: object) -> str:
    """Pick a template, fill it in and finish it.

    Args:
        dice: The source of chance.
        templates: The templates, in the syntax of `str.format`.
        **slots: The values of the template's fields.

    Returns:
        The question as typed.
    """
    return finish(dice, dice.pick(templates).format(**slots))


def ask_expression(dice: Dice, expression: str, named: Sequence[str] = (), **slots: object) -> str:
    """Ask for the value of an expression, in signs, in general words or in the words of its operation.

    Args:
        dice: The source of chance.
        expression: The expression in our own spelling.
        named: Templates in the words of its operation; they get `slots`.
        **slots: The values of the fields of `named`.

    Returns:
        The question as typed.
    """
    way = dice.unit()
    if way < 0.3:
        return ask(dice, BARE, e=typed(dice, expression))
    if way < 0.65 or not named:
        return ask(dice, EXPRESSION, e=typed(dice, expression))
    return ask(dice, named, **slots)


_SMALL: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# Not a part of a fraction, a decimal, a power, a price, a term such as 3x, or a negative number.
_COUNT: Final = re.compile(
    r"(?<![\w.,/^$€£%+*×÷=(){-])(?<![/+*×÷=-] )\d{1,2}(?![\w.,]?\d)(?! ?[/^%+*×÷=°-])(?![\w({}])"
)


def in_words(n: int) -> str:
    """Write a number from 0 to 99 in words."""
    if n < 20:
        return _SMALL[n]
    return _TENS[n // 10] + (f"-{_SMALL[n % 10]}" if n % 10 else "")


def as_typed(dice: Dice, question: str) -> str:
    """Give a finished question, now and then, the habits of other keyboards, pages and people.

    Thousands commas, numbers in words, the typographic minus, the dot for ×, raised exponents, implied
    multiplication before brackets, capitals, and words around the question. They apply to all families alike,
    and the solution is written as ever.

    Args:
        dice: The source of chance.
        question: The question as its family wrote it.

    Returns:
        The question with the same meaning.
    """
    if dice.tidy:
        return question.replace("**", "^")
    head = INSTRUCTION if question.startswith(INSTRUCTION) else ""
    text = question[len(head) :]
    if re.search(r"\d{4}", text) and dice.chance(0.25):
        text = re.sub(r"(?<![\d.])\d{4,}(?![\d.])", lambda match: f"{int(match[0]):,}", text)
    if "-" in text and dice.chance(0.06):
        text = re.sub(r"(?<![A-Za-z])-|-(?![A-Za-z])", "−", text)
    if "×" in text and dice.chance(0.08):
        text = text.replace("×", dice.pick(("·", "\\times", "\\cdot")) if "× " in text else "·")
    if "(" in text and dice.chance(0.15):
        text = re.sub(r"(?<=[\d)]) ?[×*] ?(?=\()", "", text)
    if "^" in text and dice.chance(0.2):
        text = re.sub(r" ?\^ ?2(?!\d)", "²", text)
        text = re.sub(r" ?\^ ?3(?!\d)", "³", text)
    if dice.chance(0.06) and not re.search(r"[-+*×÷/=^·−√]", text):
        text = _COUNT.sub(lambda match: in_words(int(match[0])), text)
        text = text[0].upper() + text[1:] if question[len(head)].isdigit() and dice.chance(0.5) else text
    way = dice.unit()
    if way < 0.012 and "\\" not in text:
        text = text.upper()
    elif way < 0.035:
        text = text.lower()
    elif way < 0.05:
        text = dice.pick(_BEFORE) + text
    elif way < 0.065 and text[-1] not in "=:,":
        text = text.rstrip(". ") + dice.pick(_AFTER)
    return head + text


_BEFORE: Final = ("Hi, ", "Hello, ", "hey, ", "Q: ", "Question: ", "Problem: ", "please: ", "ok, ", "Now: ")
_AFTER: Final = (" please", " thanks", ", please", " Thanks!", "!", " ??", " Show your work.", " step by step")


def tex(value: Fraction | int | str) -> str:
    r"""Write an answer as the content of a box: "-12", "\frac{3}{4}", "-\frac{1}{2}"; words stay words."""
    if isinstance(value, str):
        return value
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def written(
    dice: Dice, work: Work, question: str, answer: Fraction | int | str, replies: Sequence[str], **slots: object
) -> Written:
    """Put question, steps and reply together.

    Args:
        dice: The source of chance.
        work: The steps.
        question: The finished question.
        answer: The exact answer, or the content of the box where it is no whole number or simple fraction.
        replies: Templates of the reply, with {box} at the end.
        **slots: The values of the other fields of `replies`.

    Returns:
        The text of the problem.
    """
    content = answer if isinstance(answer, str) else tex(answer)
    return Written(question, work.text(), dice.pick(replies).format(box=box(content), **slots), content)
