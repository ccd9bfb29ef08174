r"""The family "fractions": a fraction a/b is drawn as two numbers and answered in lowest terms.

Example::

    What is 3/4 + 1/6?

    Multiples of 6: 6, 12
    12 ÷ 4 = 3
    3 × 3 = 9
    3/4 = 9/12
    12 ÷ 6 = 2
    1 × 2 = 2
    1/6 = 2/12
    9 + 2 = 11
    9/12 + 2/12 = 11/12

    3/4 + 1/6 = \boxed{\frac{11}{12}}
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import BARE, ask, ask_expression, typed, written
from sambay.data.problems.work import Work, compare

_ADD = (
    "What is {a} plus {b}?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "Find the sum of {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "What do {a} and {b} add up to?",
    "How much is {a} plus {b}?",
    "Add the fractions {a} and {b}.",
    "Calculate {a} plus {b} in lowest terms.",
    "What do you get when you add {a} and {b}?",
)
_SUB = (
    "What is {a} minus {b}?",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "How much is {a} minus {b}?",
    "Calculate {a} minus {b} in lowest terms.",
    "What do you get when you subtract {b} from {a}?",
    "What is {b} less than {a}?",
)
_MUL = (
    "What is {a} times {b}?",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "Find the product of {a} and {b}.",
    "What is the product of {a} and {b}?",
    "How much is {a} of {b}?",
    "What is {a} of {b}?",
    "Calculate {a} times {b} in lowest terms.",
)
_DIV = (
    "What is {a} divided by {b}?",
    "{a} divided by {b}",
    "Divide {a} by {b}.",
    "How much is {a} divided by {b}?",
    "What do you get when you divide {a} by {b}?",
    "Find the quotient of {a} and {b}.",
    "Work out {a} divided by {b}.",
    "Calculate {a} divided by {b} in lowest terms.",
)
_SIMPLIFY = (
    "Simplify {a}.",
    "Simplify {a}",
    "Simplify: {a}",
    "Simplify the fraction {a}.",
    "Reduce {a}.",
    "Reduce {a} to lowest terms.",
    "Reduce the fraction {a} to its simplest form.",
    "Write {a} in lowest terms.",
    "Write {a} in simplest form.",
    "What is {a} in lowest terms?",
    "What is {a} in simplest form?",
    "What is the simplest form of {a}?",
    "Give {a} in its simplest form.",
    "Put {a} in lowest terms.",
    "Can you simplify {a}?",
    "Cancel {a} as far as possible.",
)
_MIXED = (
    "Write {a} as an improper fraction.",
    "Convert {a} to an improper fraction.",
    "Turn {a} into an improper fraction.",
    "Change {a} to an improper fraction.",
    "What is {a} as an improper fraction?",
    "Express {a} as an improper fraction.",
    "Improper fraction for {a}",
    "{a} as an improper fraction",
    "What's {a} as an improper fraction?",
    "Give {a} as an improper fraction.",
    "Which improper fraction equals {a}?",
    "Rewrite {a} as one fraction.",
)
_OF = (
    "What is {a} of {n}?",
    "What's {a} of {n}?",
    "{a} of {n}",
    "{a} of {n}?",
    "{a} of {n} = ?",
    "Find {a} of {n}.",
    "Calculate {a} of {n}.",
    "Compute {a} of {n}.",
    "Work out {a} of {n}.",
    "How much is {a} of {n}?",
    "Tell me {a} of {n}.",
    "Can you work out {a} of {n}?",
    "Take {a} of {n}.",
)
_COMPARE = (
    "Which is larger, {a} or {b}?",
    "Which is bigger, {a} or {b}?",
    "Which is greater: {a} or {b}?",
    "Which fraction is larger: {a} or {b}?",
    "What is larger, {a} or {b}?",
    "Compare {a} and {b}: which is larger?",
    "Find the larger of {a} and {b}.",
    "Is {a} or {b} larger?",
    "Which of {a} and {b} is greater?",
    "{a} or {b}, which is bigger?",
    "Tell me which is larger, {a} or {b}.",
    "Give the larger fraction: {a} or {b}.",
)
_EQUAL = ("{e} = {box}",)
_RESULT = (*_EQUAL, "The answer is {box}.")


def _tops(dice: Dice, bottom: int, level: int) -> int:
    """Draw a numerator in lowest terms, seldom above the denominator."""
    while True:
        top = dice.between(1, bottom - 1 if level < 2 or dice.chance(0.7) else 2 * bottom)
        if gcd(top, bottom) == 1:
            return top


def _pair(dice: Dice) -> Numbers:
    """Two fractions in lowest terms: the same denominator (easy), one a multiple (medium), or any."""
    level = dice.level()
    first = dice.between(2, 12 if level else 10)
    if level == 0:
        second = first
        if first == 2:
            second = 4
    elif level == 1 and first <= 6 and dice.chance(0.6):
        second = first * dice.between(2, 12 // first)
    else:
        second = dice.between(2, 10)
    a, b = (_tops(dice, first, level), first), (_tops(dice, second, level), second)
    return (*a, *b) if dice.chance(0.5) else (*b, *a)


def _sorted_pair(dice: Dice) -> Numbers:
    """Two fractions in a fixed order, for operations in which the order does not matter."""
    a, b, c, d = _pair(dice)
    return (a, b, c, d) if (b, a) <= (d, c) else (c, d, a, b)


def _draw_sub(dice: Dice) -> Numbers:
    a, b, c, d = _pair(dice)
    if (a, b) == (c, d):
        # 0 is an answer, but not one in seven.
        a, b, c, d = _pair(dice)
    below_zero = Fraction(a, b) < Fraction(c, d)
    return (c, d, a, b) if below_zero and dice.chance(0.8) else (a, b, c, d)


def _draw_compare(dice: Dice) -> Numbers:
    while True:
        a, b, c, d = _sorted_pair(dice)
        if a * d != b * c:
            return a, b, c, d


def _draw_simplify(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 12, 15)[level])
    top = _tops(dice, bottom, level)
    factor = dice.between(2, (6, 12, 18)[level])
    if dice.chance(0.05):
        bottom = 1
    return (-top if dice.chance(0.06) else top) * factor, bottom * factor


def _draw_mixed(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 10, 12)[level])
    return dice.between(1, (5, 10, 30)[level]), _tops(dice, bottom, 0), bottom


def _draw_of(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 10, 12)[level])
    return _tops(dice, bottom, 0), bottom, bottom * dice.between(2, (10, 25, 80)[level])


def _draw_whole(dice: Dice) -> Numbers:
    bottom = dice.between(2, 12)
    return dice.between(1, 9), _tops(dice, bottom, dice.level()), bottom


def _draw_times_whole(dice: Dice) -> Numbers:
    while True:
        n, top, bottom = _draw_whole(dice)
        # What divides evenly is the kind "of".
        if n % bottom:
            return n, top, bottom


def _spell(dice: Dice, *numbers: int) -> list[str]:
    r"""Write fractions for the question, now and then in TeX: consistently within one question."""
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if dice.chance(0.12):
        return [f"{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}" for top, bottom in pairs]
    return [f"{top}/{bottom}" for top, bottom in pairs]


def common(work: Work, a: int, b: int, c: int, d: int) -> tuple[int, int, int]:
    """Bring a/b and c/d to their least common denominator.

    Args:
        work: Where the steps go.
        a: First numerator.
        b: First denominator.
        c: Second numerator.
        d: Second denominator.

    Returns:
        The two new numerators and the common denominator.
    """
    if b == d:
        return a, c, b
    bottom, larger = lcm(b, d), max(b, d)
    work.say(f"Multiples of {larger}: {', '.join(str(k) for k in range(larger, bottom + 1, larger))}")
    tops = []
    for top, old in ((a, b), (c, d)):
        if old != bottom:
            factor, _ = work.divide(bottom, old)
            new = work.mul(top, factor)
            work.say(f"{top}/{old} = {new}/{bottom}")
            top = new
        tops.append(top)
    return tops[0], tops[1], bottom


def _fraction(work: Work, top: int, bottom: int) -> Fraction:
    """Reduce and return as one number."""
    return Fraction(*work.reduce(top, bottom))


def _add(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
    work = Work()
    x, y, bottom = common(work, a, b, c, d)
    top = work.add(x, y)
    work.say(f"{x}/{bottom} + {y}/{bottom} = {top}/{bottom}")
    p, q = _spell(dice, a, b, c, d)
    question = ask_expression(dice, f"{p} + {q}", _ADD, a=p, b=q)
    return written(dice, work, question, _fraction(work, top, bottom), _RESULT, e=f"{a}/{b} + {c}/{d}")


def _sub(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers
    work = Work()
    x, y, bottom = common(work, a, b, c, d)
    top = work.sub(x, y)
    work.say(f"{x}/{bottom} - {y}/{bottom} = {top}/{bottom}")
    p, q = _spell(dice, a, b, c, d)
    question = ask_expression(dice, f"{p} - {q}", _SUB, a=p, b=q)
    return written(dice, work, question, _fraction(work, top, bottom), _RESULT, e=f"{a}/{b} - {c}/{d}")


def _product(work: Work, a: int, b: int, c: int, d: int) -> Fraction:
    """Multiply a/b by c/d and reduce."""
    top, bottom = work.mul(a, c), work.mul(b, d)
    work.say(f"{a}/{b} × {c}/{d} = {top}/{bottom}")
    return _fraction(work, top, bottom)


def _mul(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
    work = Work()
    result = _product(work, a, b, c, d)
    p, q = _spell(dice, a, b, c, d)
    question = ask_expression(dice, f"{p} × {q}", _MUL, a=p, b=q)
    return written(dice, work, question, result, _RESULT, e=f"{a}/{b} × {c}/{d}")


def _div(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers
    work = Work()
    work.say("Flip the second fraction:")
    work.say(f"{a}/{b} ÷ {c}/{d} = {a}/{b} × {d}/{c}")
    result = _product(work, a, b, d, c)
    p, q = _spell(dice, a, b, c, d)
    question = ask_expression(dice, f"{p} ÷ {q}", _DIV, a=p, b=q)
    return written(dice, work, question, result, _RESULT, e=f"{a}/{b} ÷ {c}/{d}")


def _simplify(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    result = _fraction(work, a, b)
    (p,) = _spell(dice, a, b)
    return written(dice, work, ask(dice, _SIMPLIFY, a=p), result, _EQUAL, e=f"{a}/{b}")


def _mixed(dice: Dice, numbers: Numbers) -> Written:
    whole, a, b = numbers
    work = Work()
    top = work.add(work.mul(whole, b), a)
    work.say(f"{whole} {a}/{b} = {top}/{b}")
    question = ask(dice, _MIXED, a=f"{whole} {a}/{b}")
    return written(dice, work, question, Fraction(top, b), ("The fraction is {box}.",))


def _of(dice: Dice, numbers: Numbers) -> Written:
    a, b, n = numbers
    work = Work()
    part, _ = work.divide(n, b)
    result = work.mul(part, a)
    (p,) = _spell(dice, a, b)
    return written(dice, work, ask(dice, _OF, a=p, n=n), result, ("The answer is {box}.",))


def _compare(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
    work = Work()
    x, y, _ = common(work, a, b, c, d)
    larger = Fraction(a, b) if x > y else Fraction(c, d)
    work.say(f"{x} and {y}: {compare(x, y)}")
    sign = ">" if x > y else "<"
    work.say(f"{a}/{b} {sign} {c}/{d}")
    p, q = _spell(dice, a, b, c, d)
    question = ask(dice, _COMPARE, a=p, b=q)
    return written(dice, work, question, larger, ("The larger one is {box}.",))


def _whole(dice: Dice, numbers: Numbers, sign: str) -> Written:
    n, a, b = numbers
    work = Work()
    whole = work.mul(n, b)
    work.say(f"{n} = {whole}/{b}")
    top = work.add(whole, a) if sign == "+" else work.sub(whole, a)
    work.say(f"{whole}/{b} {sign} {a}/{b} = {top}/{b}")
    (p,) = _spell(dice, a, b)
    named = _ADD if sign == "+" else _SUB
    question = ask_expression(dice, f"{n} {sign} {p}", named, a=n, b=p)
    return written(dice, work, question, _fraction(work, top, b), _RESULT, e=f"{n} {sign} {a}/{b}")


def _times_whole(dice: Dice, numbers: Numbers) -> Written:
    n, a, b = numbers
    work = Work()
    top = work.mul(a, n)
    work.say(f"{n} × {a}/{b} = {top}/{b}")
    (p,) = _spell(dice, a, b)
    question = ask(dice, BARE, e=typed(dice, f"{n} × {p}"))
    if dice.chance(0.5):
        question = ask_expression(dice, f"{p} × {n}", _MUL, a=p, b=n)
    return written(dice, work, question, _fraction(work, top, b), _RESULT, e=f"{n} × {a}/{b}")


KINDS = (
    Kind("add", 24, _sorted_pair, _add),
    Kind("sub", 18, _draw_sub, _sub),
    Kind("mul", 14, _sorted_pair, _mul),
    Kind("div", 11, _pair, _div),
    Kind("simplify", 14, _draw_simplify, _simplify),
    Kind("mixed", 7, _draw_mixed, _mixed),
    Kind("of", 11, _draw_of, _of),
    Kind("compare", 8, _draw_compare, _compare),
    Kind("whole_add", 3, _draw_whole, lambda dice, numbers: _whole(dice, numbers, "+")),
    Kind("whole_sub", 4, _draw_whole, lambda dice, numbers: _whole(dice, numbers, "-")),
    Kind("whole_mul", 4, _draw_times_whole, _times_whole),
)
