r"""The family "fractions": a fraction a/b is drawn as two numbers and answered in lowest terms.

Every sum and product is reduced by the tests of `Work.reduce`, whether or not there is something to cancel.

Example::

    What is 3/4 + 1/6?

    Multiples of 6 ÷ 4: 6 rest 2, 12 rest 0
    12 ÷ 4 = 3
    3 × 3 = 9
    3/4 = 9/12
    12 ÷ 6 = 2
    1 × 2 = 2
    1/6 = 2/12
    9 + 2 = 11
    9/12 + 2/12 = 11/12
    11/12: try 2, 3
    ÷ 2: 1: no
    ÷ 3: 1 + 1 = 2: no
    Lowest terms: 11/12

    3/4 + 1/6 = \boxed{\frac{11}{12}}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import gcd, lcm

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import ask, ask_expression, written
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
_COMPARE_LESS = (
    "Which is smaller, {a} or {b}?",
    "Which is less, {a} or {b}?",
    "Which fraction is smaller: {a} or {b}?",
    "What is smaller, {a} or {b}?",
    "Compare {a} and {b}: which is smaller?",
    "Find the smaller of {a} and {b}.",
    "Is {a} or {b} smaller?",
    "{a} or {b}, which is smaller?",
    "Tell me which is smaller, {a} or {b}.",
    "Give the smaller fraction: {a} or {b}.",
)
_TO_MIXED = (
    "Write {a} as a mixed number.",
    "Convert {a} to a mixed number.",
    "Turn {a} into a mixed number.",
    "Change {a} to a mixed number.",
    "What is {a} as a mixed number?",
    "Express {a} as a mixed number.",
    "{a} as a mixed number",
    "Give {a} as a mixed number.",
    "Which mixed number equals {a}?",
    "Rewrite {a} as a mixed number.",
)
_DIV_BARE = (
    "What is {a} divided by {b}?",
    "What's {a} divided by {b}?",
    "{a} divided by {b}",
    "How much is {a} divided by {b}?",
    "Divide {a} by {b}.",
    "What do you get when you divide {a} by {b}?",
    "Work out {a} divided by {b}.",
    "Calculate {a} divided by {b}.",
    "If I divide {a} by {b}, what do I get?",
)
_EQUAL = ("{e} = {box}",)
_RESULT = (*_EQUAL, "The answer is {box}.")


def _tops(dice: Dice, bottom: int, level: int) -> int:
    """Draw a numerator in lowest terms, seldom above the denominator."""
    while True:
        top = dice.between(1, bottom - 1 if level < 2 or dice.chance(0.7) else 2 * bottom)
        if gcd(top, bottom) == 1:
            return top


def _typed_top(dice: Dice, bottom: int, level: int) -> int:
    """Draw a numerator as people type it: now and then not in lowest terms."""
    return dice.between(1, bottom - 1) if dice.chance(0.15) else _tops(dice, bottom, level)


def _bottoms(dice: Dice, level: int) -> tuple[int, int]:
    """Two denominators: the same (easy), one a multiple of the other (medium), or any."""
    while True:
        first = dice.between(2, 12 if level else 10)
        if level == 0:
            return first, first if first > 2 else 4
        if level == 1 and first <= 6 and dice.chance(0.6):
            return first, first * dice.between(2, 12 // first)
        second = dice.between(2, 10)
        # Longer rows of multiples are left to those who like them.
        if lcm(first, second) <= 7 * max(first, second):
            return first, second


def _pair(dice: Dice) -> Numbers:
    """Two fractions with related denominators."""
    level = dice.level()
    first, second = _bottoms(dice, level)
    a, b = (_typed_top(dice, first, level), first), (_typed_top(dice, second, level), second)
    return (*a, *b) if dice.chance(0.5) else (*b, *a)


def _factors(dice: Dice) -> Numbers:
    """Two fractions to be multiplied or divided, of any denominators."""
    bottom = (5, 8, 12)[dice.level()]
    b, d = dice.between(2, bottom), dice.between(2, bottom)
    level = 2 if dice.chance(0.6) else 0
    return _typed_top(dice, b, level), b, _typed_top(dice, d, level), d


def _sorted(draw: Callable[[Dice], Numbers]) -> Callable[[Dice], Numbers]:
    """Two fractions in a fixed order, for operations in which the order does not matter."""

    def drawn(dice: Dice) -> Numbers:
        a, b, c, d = draw(dice)
        return (a, b, c, d) if (b, a) <= (d, c) else (c, d, a, b)

    return drawn


_sorted_pair = _sorted(_pair)


def _draw_sub(dice: Dice) -> Numbers:
    a, b, c, d = _pair(dice)
    if (a, b) == (c, d):
        # 0 is an answer, but not one in seven.
        a, b, c, d = _pair(dice)
    below_zero = Fraction(a, b) < Fraction(c, d)
    return (c, d, a, b) if below_zero and dice.chance(0.8) else (a, b, c, d)


def _draw_compare(dice: Dice) -> Numbers:
    while True:
        b, d = (dice.between(2, 12), dice.between(2, 12)) if dice.chance(0.8) else (dice.between(3, 12),) * 2
        a, c = _tops(dice, b, 0), _tops(dice, d, 0)
        if a * d != b * c:
            return (a, b, c, d) if (b, a) <= (d, c) else (c, d, a, b)


def _draw_simplify(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 10, 12)[level])
    top = _tops(dice, bottom, level)
    factor = dice.between(2, (6, 10, 12)[level])
    if level == 2 and dice.chance(0.4):
        factor = dice.pick((10, 13, 14, 15, 16, 17, 18, 19, 20, 25, 30, 40, 50))
        if factor * bottom > 150 and factor % 10:
            bottom, top = (5, dice.between(1, 4)) if factor == 25 else (3, dice.between(1, 2))
    if dice.chance(0.05):
        bottom = 1
    elif dice.chance(0.05):
        factor = 1
    return (-top if dice.chance(0.06) else top) * factor, bottom * factor


def _draw_mixed(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 10, 12)[level])
    return dice.between(1, (5, 10, 30)[level]), _tops(dice, bottom, 0), bottom


def _draw_to_mixed(dice: Dice) -> Numbers:
    whole, top, bottom = _draw_mixed(dice)
    whole = min(whole, 12)
    return whole * bottom + top, bottom


def _draw_of(dice: Dice) -> Numbers:
    level = dice.level()
    bottom = dice.between(2, (6, 10, 12)[level])
    top = _tops(dice, bottom, 0)
    if dice.chance(0.65):
        return top, bottom, bottom * dice.between(2, (10, 25, 80)[level])
    return top, bottom, dice.between(2, (9, 12, 40)[level])


def _draw_whole(dice: Dice) -> Numbers:
    bottom = dice.between(2, 12)
    return dice.between(1, 9), _typed_top(dice, bottom, dice.level()), bottom


def _draw_mixed_pair(dice: Dice) -> Numbers:
    """Two mixed numbers; the second may be a fraction, which then has 0 wholes."""
    level = min(dice.level(), 1)
    b, d = _bottoms(dice, level)
    while lcm(b, d) > 20:
        b, d = _bottoms(dice, level)
    top = (3, 5)[level]
    first = (dice.between(1, top), _tops(dice, b, 0), b)
    second = (0 if dice.chance(0.2) else dice.between(1, top), _tops(dice, d, 0), d)
    return (*first, *second)


def _draw_mixed_sub(dice: Dice) -> Numbers:
    u, a, b, v, c, d = _draw_mixed_pair(dice)
    return (
        (v, c, d, u, a, b) if v and u * b * d + a * d < v * b * d + c * b and dice.chance(0.85) else (u, a, b, v, c, d)
    )


def _draw_mixed_factors(dice: Dice) -> Numbers:
    b, d = dice.between(2, 5), dice.between(2, 5)
    v = 0 if dice.chance(0.25) else dice.between(1, 3)
    return dice.between(1, 3), _tops(dice, b, 0), b, v, _tops(dice, d, 0), d


def _draw_quotient(dice: Dice) -> Numbers:
    """Two whole numbers of which the first is no multiple of the second."""
    level = dice.level()
    while True:
        b = dice.between(2, (9, 9, 12)[level])
        a = dice.between(1, (20, 60, 120)[level])
        if a % b:
            return a, b


def _spell(dice: Dice, *numbers: int) -> list[str]:
    r"""Write fractions for the question, now and then in TeX or with spaces: consistently within one question."""
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    way = dice.unit()
    if way < 0.08:
        return [f"{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}" for top, bottom in pairs]
    slash = " / " if way < 0.14 else "/"
    return [f"{top}{slash}{bottom}" for top, bottom in pairs]


def _dressed(dice: Dice, parts: Sequence[str]) -> list[str]:
    """Put brackets around the fractions now and then, as careful people do."""
    return [f"({part})" for part in parts] if dice.chance(0.05) else list(parts)


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
    bottom, larger, smaller = lcm(b, d), max(b, d), min(b, d)
    # Each multiple with its rest: the row ends where the rest is 0.
    row = ", ".join(f"{k} rest {k % smaller}" for k in range(larger, bottom + 1, larger))
    work.say(f"Multiples of {larger} ÷ {smaller}: {row}")
    tops = []
    for top, old in ((a, b), (c, d)):
        if old != bottom:
            factor = bottom // old
            work.say(f"{bottom} ÷ {old} = {factor}")
            new = work.mul(top, factor)
            work.say(f"{top}/{old} = {new}/{bottom}")
            top = new
        tops.append(top)
    return tops[0], tops[1], bottom


def _fraction(work: Work, top: int, bottom: int) -> Fraction:
    """Reduce and return as one number."""
    return Fraction(*work.reduce(top, bottom))


def _result(work: Work, sign: str, a: int, b: int, c: int, d: int) -> Fraction:
    """Write a/b (sign) c/d and return it in lowest terms."""
    if sign in "+-":
        x, y, bottom = common(work, a, b, c, d)
        top = work.add(x, y) if sign == "+" else work.sub(x, y)
        work.say(f"{x}/{bottom} {sign} {y}/{bottom} = {top}/{bottom}")
        return _fraction(work, top, bottom)
    if sign == "÷":
        work.say(f"Flip: {a}/{b} ÷ {c}/{d} = {a}/{b} × {d}/{c}")
        c, d = d, c
    top, bottom = work.mul(a, c), work.mul(b, d)
    work.say(f"{a}/{b} × {c}/{d} = {top}/{bottom}")
    return _fraction(work, top, bottom)


_NAMED = {"+": _ADD, "-": _SUB, "×": _MUL, "÷": _DIV}
_SPOKEN = {
    "+": _ADD[:8],
    "-": (*_SUB[:5], *_SUB[6:]),
    "×": (*_MUL[:6], _MUL[7]),
    "÷": _DIV[:7],
}


def _operate(sign: str) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of an operation on two fractions."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        a, b, c, d = numbers
        if sign in "+×" and dice.chance(0.5):
            a, b, c, d = c, d, a, b
        work = Work()
        work.say(f"{a}/{b} {sign} {c}/{d}:")
        result = _result(work, sign, a, b, c, d)
        p, q = _spell(dice, a, b, c, d)
        e = f" {sign} ".join(_dressed(dice, (p, q)))
        question = ask_expression(dice, e, _NAMED[sign], a=p, b=q)
        return written(dice, work, question, result, _RESULT, e=f"{a}/{b} {sign} {c}/{d}")

    return write


def _spell_mixed(whole: int, top: int, bottom: int) -> str:
    return f"{whole} {top}/{bottom}" if whole else f"{top}/{bottom}"


def _improper(work: Work, whole: int, top: int, bottom: int) -> int:
    """Write the numerator of a mixed number as one fraction."""
    if not whole:
        return top
    result = work.add(work.mul(whole, bottom), top)
    work.say(f"{whole} {top}/{bottom} = {result}/{bottom}")
    return result


def _operate_mixed(sign: str) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of an operation on two mixed numbers."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        u, a, b, v, c, d = numbers
        if sign in "+×" and dice.chance(0.4):
            u, a, b, v, c, d = v, c, d, u, a, b
        work = Work()
        p, q = _spell_mixed(u, a, b), _spell_mixed(v, c, d)
        work.say(f"{p} {sign} {q}:")
        x, y = _improper(work, u, a, b), _improper(work, v, c, d)
        result = _result(work, sign, x, b, y, d)
        question = ask_expression(dice, f"{p} {sign} {q}", _SPOKEN[sign], a=p, b=q)
        return written(dice, work, question, result, _RESULT, e=f"{p} {sign} {q}")

    return write


def _sorted_mixed(draw: Callable[[Dice], Numbers]) -> Callable[[Dice], Numbers]:
    """Two mixed numbers in a fixed order."""

    def drawn(dice: Dice) -> Numbers:
        numbers = draw(dice)
        return (*min(numbers[:3], numbers[3:]), *max(numbers[:3], numbers[3:]))

    return drawn


def _simplify(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    result = _fraction(work, a, b)
    (p,) = _spell(dice, a, b)
    return written(dice, work, ask(dice, _SIMPLIFY, a=p), result, _EQUAL, e=f"{a}/{b}")


def _mixed(dice: Dice, numbers: Numbers) -> Written:
    whole, a, b = numbers
    work = Work()
    top = _improper(work, whole, a, b)
    question = ask(dice, _MIXED, a=f"{whole} {a}/{b}")
    return written(dice, work, question, Fraction(top, b), ("The fraction is {box}.",))


def _to_mixed(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    whole, rest = work.divide(a, b)
    work.say(f"{a}/{b} = {whole} {rest}/{b}")
    (p,) = _spell(dice, a, b)
    content = f"{whole}\\frac{{{rest}}}{{{b}}}"
    return written(dice, work, ask(dice, _TO_MIXED, a=p), content, ("The mixed number is {box}.",))


def _of(dice: Dice, numbers: Numbers) -> Written:
    a, b, n = numbers
    work = Work()
    work.say(f"{a}/{b} × {n}:")
    part, rest = work.divide(n, b)
    if rest:
        top = work.mul(n, a)
        work.say(f"Not whole: {n} × {a}/{b} = {top}/{b}")
        result = _fraction(work, top, b)
    else:
        result = Fraction(work.mul(part, a))
    (p,) = _spell(dice, a, b)
    way = dice.unit()
    if way < 0.5:
        question = ask(dice, _OF, a=p, n=n)
    elif way < 0.75:
        question = ask_expression(dice, f"{p} × {n}", _SPOKEN["×"], a=p, b=n)
    else:
        question = ask_expression(dice, f"{n} × {p}", _SPOKEN["×"], a=n, b=p)
    return written(dice, work, question, result, ("The answer is {box}.",))


def _compare(less: bool) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of a comparison, by products crosswise."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        a, b, c, d = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
        work = Work()
        work.say(f"{a}/{b} and {c}/{d}:")
        x, y = a, c
        if b != d:
            work.say("Crosswise:")
            x, y = work.mul(a, d), work.mul(c, b)
        work.say(f"{x} and {y}: {compare(x, y)}")
        work.say(f"{a}/{b} {'>' if x > y else '<'} {c}/{d}")
        result = Fraction(a, b) if (x > y) != less else Fraction(c, d)
        p, q = _spell(dice, a, b, c, d)
        question = ask(dice, _COMPARE_LESS if less else _COMPARE, a=p, b=q)
        return written(dice, work, question, result, (f"The {'smaller' if less else 'larger'} one is {{box}}.",))

    return write


def _whole(sign: str, first: bool = True) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of an operation on a whole number and a fraction, in this order or the other."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        n, a, b = numbers
        work = Work()
        ahead = not dice.chance(0.5) if sign == "+" else first
        e = f"{n} {sign} {a}/{b}" if ahead else f"{a}/{b} {sign} {n}"
        work.say(f"{e}:")
        if sign in "+-":
            whole = work.mul(n, b)
            work.say(f"{n} = {whole}/{b}")
            pair = (whole, b)
        else:
            work.say(f"{n} = {n}/1")
            pair = (n, 1)
        result = _result(work, sign, *((*pair, a, b) if ahead else (a, b, *pair)))
        (p,) = _spell(dice, a, b)
        x, y = (n, p) if ahead else (p, n)
        question = ask_expression(dice, f"{x} {sign} {y}", _SPOKEN[sign], a=x, b=y)
        return written(dice, work, question, result, _RESULT, e=e)

    return write


def _quotient(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    work.divide(a, b)
    work.say(f"Not whole: {a} ÷ {b} = {a}/{b}")
    result = _fraction(work, a, b)
    e = f"{a} ÷ {b}"
    return written(dice, work, ask_expression(dice, e, _DIV_BARE, a=a, b=b), result, _RESULT, e=e)


KINDS = (
    Kind("add", 24, _sorted_pair, _operate("+")),
    Kind("sub", 17, _draw_sub, _operate("-")),
    Kind("mul", 15, _sorted(_factors), _operate("×")),
    Kind("div", 12, _factors, _operate("÷")),
    Kind("simplify", 16, _draw_simplify, _simplify),
    Kind("mixed", 5, _draw_mixed, _mixed),
    Kind("to_mixed", 4, _draw_to_mixed, _to_mixed),
    Kind("of", 14, _draw_of, _of),
    Kind("compare", 8, _draw_compare, _compare(less=False)),
    Kind("compare_less", 3, _draw_compare, _compare(less=True)),
    Kind("whole_add", 5, _draw_whole, _whole("+")),
    Kind("whole_sub", 4, _draw_whole, _whole("-")),
    Kind("whole_div", 2.5, _draw_whole, _whole("÷")),
    Kind("div_whole", 2.5, _draw_whole, _whole("÷", first=False)),
    Kind("mixed_add", 7, _sorted_mixed(_draw_mixed_pair), _operate_mixed("+")),
    Kind("mixed_sub", 5, _draw_mixed_sub, _operate_mixed("-")),
    Kind("mixed_mul", 4, _sorted_mixed(_draw_mixed_factors), _operate_mixed("×")),
    Kind("mixed_div", 1.5, _draw_mixed_factors, _operate_mixed("÷")),
    Kind("simplify", 8, _draw_quotient, _quotient),
)
