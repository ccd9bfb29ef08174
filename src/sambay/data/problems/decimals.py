r"""The family "decimals": a decimal is drawn as its digits and its places, (175, 2) for 1.75, and has no 0 at its end.

The work is done on whole numbers, without the point, and the point is put back by counting places::

    What is 2.5 + 1.75?

    2.50 + 1.75, without points:
    250 + 175:
    0 + 5 = 5: 5
    5 + 7 = 12: 25, carry 1
    2 + 1 + 1 = 4: 425
    250 + 175 = 425
    2 places: 4.25

    2.5 + 1.75 = \boxed{4.25}
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import ask, ask_expression, written
from sambay.data.problems.work import Work, compare

_ADD: Final = (
    "What is {a} plus {b}?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "Find the sum of {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "How much is {a} plus {b}?",
    "What do {a} and {b} add up to?",
)
_SUB: Final = (
    "What is {a} minus {b}?",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "How much is {a} minus {b}?",
    "What do you get when you subtract {b} from {a}?",
)
_MUL: Final = (
    "What is {a} times {b}?",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "Find the product of {a} and {b}.",
    "How much is {a} times {b}?",
    "What is {a} multiplied by {b}?",
)
_DIV: Final = (
    "What is {a} divided by {b}?",
    "{a} divided by {b}",
    "Divide {a} by {b}.",
    "How much is {a} divided by {b}?",
    "Work out {a} divided by {b}.",
    "What do you get when you divide {a} by {b}?",
)
_SHOP_ADD: Final = (
    "A pen costs ${a} and a book costs ${b}. What do they cost together?",
    "A sandwich is ${a} and a drink is ${b}. How much is that in all?",
    "You buy milk for ${a} and bread for ${b}. How much do you pay?",
    "I spent ${a} on lunch and ${b} on a snack. How much did I spend?",
    "One toy costs ${a}, another ${b}. What is the total price?",
    "${a} + ${b}",
    "What is ${a} plus ${b}?",
)
_SHOP_SUB: Final = (
    "You pay a bill of ${b} with ${a}. How much change do you get?",
    "I have ${a} and spend ${b}. How much money is left?",
    "A book costs ${b}. What is the change from ${a}?",
    "A toy for ${a} is now ${b} cheaper. What does it cost now?",
    "${a} - ${b}",
    "What is ${a} minus ${b}?",
)
_SHOP_MUL: Final = (
    "A pen costs ${a}. What do {b} pens cost?",
    "How much are {b} apples at ${a} each?",
    "One ticket is ${a}. How much are {b} tickets?",
    "You buy {b} cups for ${a} each. How much do you pay?",
    "${a} × {b}",
    "What is {b} times ${a}?",
)
_SHOP_DIV: Final = (
    "{b} friends share ${a} equally. How much does each get?",
    "{b} pens cost ${a}. What does one pen cost?",
    "A bill of ${a} is split between {b} people. How much does each pay?",
    "${a} ÷ {b}",
)
_TO_DECIMAL: Final = (
    "Write {a} as a decimal.",
    "What is {a} as a decimal?",
    "Convert {a} to a decimal.",
    "Turn {a} into a decimal.",
    "Change {a} to a decimal.",
    "Express {a} as a decimal.",
    "{a} as a decimal",
    "{a} in decimal form",
    "What's {a} as a decimal number?",
)
_TO_FRACTION: Final = (
    "Write {a} as a fraction.",
    "What is {a} as a fraction?",
    "Convert {a} to a fraction.",
    "Turn {a} into a fraction.",
    "Change {a} to a fraction in lowest terms.",
    "Express {a} as a fraction in simplest form.",
    "{a} as a fraction",
    "Which fraction equals {a}?",
)
_TO_PERCENT: Final = (
    "Write {a} as a percentage.",
    "What is {a} as a percentage?",
    "Convert {a} to a percentage.",
    "Turn {a} into a percent.",
    "What is {a} in percent?",
    "{a} as a percentage",
    "{a} in percent",
    "How many percent is {a}?",
)
_FROM_PERCENT: Final = (
    "Write {a}% as a decimal.",
    "What is {a}% as a decimal?",
    "Convert {a}% to a decimal.",
    "Turn {a} percent into a decimal.",
    "{a}% as a decimal",
    "Express {a}% as a decimal.",
    "What is {a} percent as a decimal?",
)
_ROUND: Final = (
    (
        "Round {a} to the nearest whole number.",
        "Round {a} to a whole number.",
        "What is {a} rounded to the nearest whole number?",
        "{a} rounded to the nearest whole number",
        "Round {a} to the nearest integer.",
        "Round {a} to the nearest one.",
    ),
    (
        "Round {a} to one decimal place.",
        "Round {a} to 1 decimal place.",
        "What is {a} rounded to one decimal place?",
        "{a} rounded to the nearest tenth",
        "Round {a} to the nearest tenth.",
        "What is {a} to one decimal place?",
    ),
)
_LARGER: Final = (
    "Which is larger, {a} or {b}?",
    "Which is bigger, {a} or {b}?",
    "Which is greater: {a} or {b}?",
    "Which number is larger: {a} or {b}?",
    "Find the larger of {a} and {b}.",
    "Is {a} or {b} larger?",
    "{a} or {b}, which is bigger?",
)
_SMALLER: Final = (
    "Which is smaller, {a} or {b}?",
    "Which is less, {a} or {b}?",
    "Which number is smaller: {a} or {b}?",
    "Find the smaller of {a} and {b}.",
    "Is {a} or {b} smaller?",
    "{a} or {b}, which is smaller?",
)
_EQUAL: Final = ("{e} = {box}", "{e} = {box}", "The answer is {box}.")
_ANSWER: Final = ("The answer is {box}.",)
_DOLLARS: Final = ("It is {box}.", "The answer is {box}.")


def spelled(digits: int, places: int) -> str:
    """Write a decimal with exactly its places: (250, 2) is "2.50"."""
    if places == 0:
        return str(digits)
    text = str(abs(digits)).rjust(places + 1, "0")
    return f"{'-' if digits < 0 else ''}{text[:-places]}.{text[-places:]}"


def plain(digits: int, places: int) -> tuple[int, int]:
    """Take the zeros from the end of a decimal."""
    while places and digits % 10 == 0:
        digits, places = digits // 10, places - 1
    return digits, places


def _place(work: Work, digits: int, places: int) -> str:
    """Write how the point is put back, and return the decimal."""
    long, short = spelled(digits, places), spelled(*plain(digits, places))
    work.say(f"{places} place{'' if places == 1 else 's'}: {long}{'' if long == short else f' = {short}'}")
    return short


def _decimal(dice: Dice, level: int) -> Numbers:
    """Draw a decimal of one or two places, seldom a whole number."""
    places = dice.pick(((1, 1, 1, 2), (1, 1, 2, 2), (1, 2, 2, 2))[level])
    if dice.chance(0.08):
        places = 0
    whole = dice.between(0, (5, 20, 99)[level]) if places else dice.between(1, (9, 20, 60)[level])
    # Quarters come up more often than other hundredths.
    tail = dice.pick((25, 50, 75)) if places == 2 and dice.chance(0.3) else dice.between(1, 10**places - 1)
    return plain(whole * 10**places + (tail if places else 0), places)


def _pair(dice: Dice) -> Numbers:
    """Two decimals, not both whole."""
    level = dice.level()
    while True:
        a, b = _decimal(dice, level), _decimal(dice, level)
        if a[1] or b[1]:
            return (*a, *b)


def _value(digits: int, places: int) -> Fraction:
    return Fraction(digits, 10**places)


def _ordered(numbers: Numbers) -> Numbers:
    """Put the smaller decimal first."""
    a, b = numbers[:2], numbers[2:]
    return numbers if _value(*a) <= _value(*b) else (*b, *a)


def _draw_sub(dice: Dice) -> Numbers:
    numbers = _ordered(_pair(dice))
    return numbers if dice.chance(0.15) else (*numbers[2:], *numbers[:2])


def _draw_compare(dice: Dice) -> Numbers:
    while True:
        a, b = _pair(dice)[:2], _pair(dice)[:2]
        if dice.chance(0.5):
            # The same wholes, as in 0.5 and 0.45.
            a = plain(a[0] // 10 ** a[1] * 10 + dice.between(1, 9), 1)
            b = plain(a[0] // 10 * 100 + dice.between(1, 99), 2)
        if _value(*a) != _value(*b):
            return _ordered((*a, *b))


def _draw_mul(dice: Dice) -> Numbers:
    """A decimal and a whole number, or two decimals in order of size: one key for one product."""
    level = dice.level()
    while True:
        first = plain(dice.between(1, 9), 1) if level == 0 else _decimal(dice, 0)
        if dice.chance(0.5):
            second = (dice.between(2, (9, 12, 25)[level]), 0)
        else:
            second = plain(dice.between(1, 9 if level < 2 else 25), 1)
        if first[1]:
            return _ordered((*first, *second)) if second[1] else (*first, *second)


def _draw_money(dice: Dice) -> Numbers:
    """A price and a number of things."""
    while True:
        price = (
            dice.pick((25, 50, 75, 125, 150, 175, 225, 250, 350, 450)) if dice.chance(0.5) else dice.between(11, 999)
        )
        digits, places = plain(price, 2)
        if places:
            return digits, places, dice.between(2, 9), 0


def _draw_power(dice: Dice) -> Numbers:
    while True:
        digits, places = _decimal(dice, dice.level())
        if places:
            return digits, places, dice.pick((10, 100, 1000)), 0


def _draw_divide(dice: Dice) -> Numbers:
    """A decimal that a one-digit number divides without or with one more place."""
    level = dice.level()
    while True:
        b = dice.between(2, (5, 9, 9)[level])
        digits, places = plain(b * dice.between(2, (40, 120, 400)[level]), dice.pick((1, 1, 2)))
        if dice.chance(0.2) and b in (2, 4, 5, 6, 8):
            digits += b // 2 if b % 2 == 0 else 1
            digits, places = plain(digits, places)
        if places and digits * 10 % b == 0:
            return digits, places, b, 0


def _draw_by_decimal(dice: Dice) -> Numbers:
    """A number and a decimal that goes into it."""
    level = dice.level()
    places = dice.pick((1, 1, 1, 2))
    divisor = dice.between(2, 9) if dice.chance(0.8) or places == 1 else 25
    return (*plain(divisor * dice.between(2, (10, 12, 60)[level]), places), divisor, places)


def _draw_fraction(dice: Dice) -> Numbers:
    bottom = dice.pick((2, 4, 4, 5, 5, 8, 8, 10, 20, 25, 40, 50, 100))
    return dice.between(1, bottom - 1 if dice.chance(0.85) else 2 * bottom), bottom


def _draw_short(dice: Dice) -> Numbers:
    """A decimal of at most three places, mostly below 1."""
    way = dice.unit()
    digits, places = (dice.between(1, 99), 2) if way < 0.6 else (dice.between(1, 9), 1)
    if way > 0.93:
        digits, places = 125 * dice.between(1, 7), 3
    if dice.chance(0.2) and places < 3:
        digits += dice.between(1, 4) * 10**places
    digits, places = plain(digits, places)
    return (digits, places) if places else (5, 1)


def _draw_percent(dice: Dice) -> Numbers:
    way = dice.unit()
    return (dice.between(1, 99), 0) if way < 0.7 else plain(dice.between(11, 250) * 5, 1 if way < 0.9 else 0)


def _draw_round(dice: Dice) -> Numbers:
    target = int(dice.chance(0.5))
    while True:
        digits, places = dice.between(11, (999, 2999, 9999)[dice.level()]), dice.between(target + 1, 3)
        if digits % 10 and digits < 100 * 10**places:
            return digits, places, target


def _wholes(work: Work, numbers: Numbers, sign: str) -> tuple[int, int, int]:
    """Give both decimals the same places and write them without points."""
    x, p, y, q = numbers
    places = max(p, q)
    x, y = x * 10 ** (places - p), y * 10 ** (places - q)
    work.say(f"{spelled(x, places)} {sign} {spelled(y, places)}, without points:")
    return x, y, places


def _question(
    dice: Dice, numbers: Numbers, sign: str, named: tuple[str, ...], shop: tuple[str, ...], money: float
) -> str:
    """Ask for an operation, now and then in money."""
    x, p, y, q = numbers
    a, b = spelled(x, p), spelled(y, q)
    if p <= 2 and q <= 2 and dice.chance(money):
        # Prices have two places or none.
        a = spelled(x * 10 ** (2 - p), 2) if p else a
        b = spelled(y * 10 ** (2 - q), 2) if q else b
        return ask(dice, shop, a=a, b=b)
    if dice.chance(0.06):
        # ".5" for "0.5".
        a, b = (n.removeprefix("0") if n != "0" else n for n in (a, b))
    return ask_expression(dice, f"{a} {sign} {b}", named, a=a, b=b)


def _finish(dice: Dice, work: Work, numbers: Numbers, sign: str, question: str, answer: str) -> Written:
    x, p, y, q = numbers
    return written(dice, work, question, answer, _EQUAL, e=f"{spelled(x, p)} {sign} {spelled(y, q)}")


def _add(dice: Dice, numbers: Numbers) -> Written:
    numbers = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
    work = Work()
    x, y, places = _wholes(work, numbers, "+")
    answer = _place(work, work.add(x, y), places)
    return _finish(dice, work, numbers, "+", _question(dice, numbers, "+", _ADD, _SHOP_ADD, 0.3), answer)


def _sub(dice: Dice, numbers: Numbers) -> Written:
    work = Work()
    x, y, places = _wholes(work, numbers, "-")
    answer = _place(work, work.sub(x, y), places)
    question = _question(dice, numbers, "-", _SUB, _SHOP_SUB, 0.3 if x > y else 0)
    return _finish(dice, work, numbers, "-", question, answer)


def _mul(money: float) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of products, in money as often as told."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        x, p, y, q = numbers
        ahead = money > 0 or dice.chance(0.6)
        work = Work()
        work.say(
            f"{spelled(x, p)} × {spelled(y, q)}, without points:"
            if ahead
            else f"{spelled(y, q)} × {spelled(x, p)}, without points:"
        )
        digits = work.mul(x, y) if ahead else work.mul(y, x)
        first, second = (p, q) if ahead else (q, p)
        work.say(f"Places: {first} + {second} = {p + q}")
        answer = _place(work, digits, p + q)
        numbers = numbers if ahead else (y, q, x, p)
        return _finish(dice, work, numbers, "×", _question(dice, numbers, "×", _MUL, _SHOP_MUL, money), answer)

    return write


def _by_power(dice: Dice, numbers: Numbers) -> Written:
    x, p, power, _ = numbers
    work = Work()
    zeros = len(str(power)) - 1
    work.say(f"Places: {p} + {zeros} = {p + zeros}")
    answer = _place(work, x, p + zeros)
    return _finish(dice, work, numbers, "÷", _question(dice, numbers, "÷", _DIV, _DIV, 0), answer)


def _divide(dice: Dice, numbers: Numbers) -> Written:
    x, p, n, _ = numbers
    work = Work()
    work.say(f"{spelled(x, p)} ÷ {n}, without points:")
    quotient, rest = work.divide(x, n)
    if rest:
        x, p = 10 * x, p + 1
        work.say(f"Not whole: one more place, {spelled(x, p)} ÷ {n}:")
        quotient, _ = work.divide(x, n)
    answer = _place(work, quotient, p)
    return _finish(dice, work, numbers, "÷", _question(dice, numbers, "÷", _DIV, _SHOP_DIV, 0.25), answer)


def _by_decimal(dice: Dice, numbers: Numbers) -> Written:
    work = Work()
    top, bottom, _ = _wholes(work, numbers, "÷")
    quotient, _ = work.divide(top, bottom)
    question = _question(dice, numbers, "÷", _DIV, _DIV, 0)
    return _finish(dice, work, numbers, "÷", question, str(quotient))


def _to_decimal(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    work.say(f"{a}.000 ÷ {b}, without points:")
    quotient, _ = work.divide(1000 * a, b)
    answer = _place(work, quotient, 3)
    return written(dice, work, ask(dice, _TO_DECIMAL, a=f"{a}/{b}"), answer, _EQUAL, e=f"{a}/{b}")


def _to_fraction(dice: Dice, numbers: Numbers) -> Written:
    x, p = numbers
    work = Work()
    work.say(f"{p} place{'' if p == 1 else 's'}: {spelled(x, p)} = {x}/{10**p}")
    result = Fraction(*work.reduce(x, 10**p))
    return written(dice, work, ask(dice, _TO_FRACTION, a=spelled(x, p)), result, _EQUAL, e=spelled(x, p))


def _to_percent(dice: Dice, numbers: Numbers) -> Written:
    x, p = numbers
    work = Work()
    work.say(f"{spelled(x, p)} × 100, without points:")
    digits = work.mul(x, 100)
    answer = _place(work, digits, p)
    return written(dice, work, ask(dice, _TO_PERCENT, a=spelled(x, p)), answer, ("The percentage is {box}.",))


def _from_percent(dice: Dice, numbers: Numbers) -> Written:
    x, p = numbers
    work = Work()
    work.say(f"{spelled(x, p)} ÷ 100:")
    work.say(f"Places: {p} + 2 = {p + 2}")
    answer = _place(work, x, p + 2)
    return written(dice, work, ask(dice, _FROM_PERCENT, a=spelled(x, p)), answer, _ANSWER)


def _round(dice: Dice, numbers: Numbers) -> Written:
    x, p, target = numbers
    work = Work()
    kept = x // 10 ** (p - target)
    following = int(spelled(x, p)[-(p - target)])
    up = following >= 5
    work.say(f"Keep {spelled(kept, target)}, next {following}: {following} {'> 4: up' if up else '< 5: stay'}")
    if up:
        kept = work.add(kept, 1)
    answer = _place(work, kept, target)
    return written(dice, work, ask(dice, _ROUND[target], a=spelled(x, p)), answer, _ANSWER)


def _compare(less: bool) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of a comparison."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        x, p, y, q = numbers if dice.chance(0.5) else (*numbers[2:], *numbers[:2])
        work = Work()
        left, right, _ = _wholes(work, (x, p, y, q), "and")
        work.say(f"{left} and {right}: {compare(left, right)}")
        a, b = spelled(x, p), spelled(y, q)
        work.say(f"{a} {'>' if left > right else '<'} {b}")
        answer = a if (left > right) != less else b
        question = ask(dice, _SMALLER if less else _LARGER, a=a, b=b)
        return written(dice, work, question, answer, (f"The {'smaller' if less else 'larger'} one is {{box}}.",))

    return write


KINDS = (
    Kind("add", 26, lambda dice: _ordered(_pair(dice)), _add),
    Kind("sub", 20, _draw_sub, _sub),
    Kind("mul", 12, _draw_mul, _mul(0)),
    Kind("mul", 6, _draw_money, _mul(0.8)),
    Kind("mul", 5, _draw_power, _mul(0)),
    Kind("by_power", 4, _draw_power, _by_power),
    Kind("div", 9, _draw_divide, _divide),
    Kind("by_decimal", 4, _draw_by_decimal, _by_decimal),
    Kind("to_decimal", 11, _draw_fraction, _to_decimal),
    Kind("to_fraction", 8, _draw_short, _to_fraction),
    Kind("to_percent", 4, _draw_short, _to_percent),
    Kind("from_percent", 4, _draw_percent, _from_percent),
    Kind("round", 7, _draw_round, _round),
    Kind("compare", 7, _draw_compare, _compare(less=False)),
    Kind("compare_less", 3, _draw_compare, _compare(less=True)),
)
