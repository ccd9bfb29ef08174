r"""The family "arithmetic": the four operations on whole numbers.

Example::

    What is 347 plus 586?

    347 + 586:
    7 + 6 = 13: 3, carry 1
    4 + 8 + 1 = 13: 33, carry 1
    3 + 5 + 1 = 9: 933
    347 + 586 = 933

    347 + 586 = \boxed{933}
"""

from __future__ import annotations

from math import isqrt

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import ask, ask_expression, typed, written
from sambay.data.problems.work import Work, signed

_ADD = (
    "What is {a} plus {b}?",
    "What's {a} plus {b}?",
    "{a} plus {b}",
    "{a} plus {b}?",
    "How much is {a} plus {b}?",
    "Find the sum of {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "Calculate the sum of {a} and {b}.",
    "Sum of {a} and {b}",
    "Add {a} and {b}.",
    "Add {b} to {a}.",
    "Add {a} to {b}.",
    "What do {a} and {b} add up to?",
    "What is the total of {a} and {b}?",
    "Find the total of {a} and {b}.",
    "What do you get when you add {a} and {b}?",
    "Which number is {b} more than {a}?",
    "Increase {a} by {b}.",
    "If I add {a} and {b}, what do I get?",
)
_ADD_3 = (
    "What is {a} plus {b} plus {c}?",
    "{a} plus {b} plus {c}",
    "Find the sum of {a}, {b} and {c}.",
    "What is the sum of {a}, {b} and {c}?",
    "Calculate the sum of {a}, {b} and {c}.",
    "Add {a}, {b} and {c}.",
    "Add up {a}, {b} and {c}.",
    "What do {a}, {b} and {c} add up to?",
    "What is the total of {a}, {b} and {c}?",
    "Find the total of {a}, {b} and {c}.",
    "How much are {a}, {b} and {c} together?",
    "Sum of {a}, {b} and {c}",
)
_SUB = (
    "What is {a} minus {b}?",
    "What's {a} minus {b}?",
    "{a} minus {b}",
    "{a} minus {b}?",
    "How much is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "What do you get when you subtract {b} from {a}?",
    "Take {b} away from {a}.",
    "Take {b} from {a}.",
    "What is {b} less than {a}?",
    "Which number is {b} less than {a}?",
    "Decrease {a} by {b}.",
    "What is {a} take away {b}?",
    "If I subtract {b} from {a}, what do I get?",
)
# Only where the result is not negative.
_SUB_DOWN = (
    *_SUB,
    "Find the difference between {a} and {b}.",
    "What is the difference between {a} and {b}?",
    "Difference of {a} and {b}",
    "How much more is {a} than {b}?",
    "How much is left if you take {b} from {a}?",
    "How much must be added to {b} to get {a}?",
)
_MUL = (
    "What is {a} times {b}?",
    "What's {a} times {b}?",
    "{a} times {b}",
    "{a} times {b}?",
    "How much is {a} times {b}?",
    "What is {a} multiplied by {b}?",
    "{a} multiplied by {b}",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "Find the product of {a} and {b}.",
    "What is the product of {a} and {b}?",
    "Calculate the product of {a} and {b}.",
    "Product of {a} and {b}",
    "What do you get when you multiply {a} by {b}?",
    "Work out {a} times {b}.",
    "If I multiply {a} by {b}, what do I get?",
)
_DIV = (
    "What is {a} divided by {b}?",
    "What's {a} divided by {b}?",
    "{a} divided by {b}",
    "{a} divided by {b}?",
    "How much is {a} divided by {b}?",
    "Divide {a} by {b}.",
    "Find the quotient of {a} and {b}.",
    "What is the quotient of {a} and {b}?",
    "How many times does {b} go into {a}?",
    "What do you get when you divide {a} by {b}?",
    "Work out {a} divided by {b}.",
    "Calculate {a} divided by {b}.",
    "If I divide {a} by {b}, what do I get?",
    "What number times {b} gives {a}?",
)
_REMAINDER = (
    "What is the remainder when {a} is divided by {b}?",
    "Find the remainder when {a} is divided by {b}.",
    "What remainder does {a} leave when divided by {b}?",
    "Divide {a} by {b} and give the remainder.",
    "{a} divided by {b}: what is the remainder?",
    "What is the remainder of {e}?",
    "Find the remainder of {e}.",
    "Remainder of {e}",
    "{a} mod {b}",
    "What is {a} mod {b}?",
    "How much is left over when {a} is divided by {b}?",
    "What is left over if you divide {a} by {b}?",
    "Give only the remainder: {e}",
    "Calculate the remainder when you divide {a} by {b}.",
)
_QUOTIENT = (
    "What is the whole number quotient when {a} is divided by {b}?",
    "Divide {a} by {b} and give only the whole part.",
    "How many whole times does {b} go into {a}?",
    "How many full times does {b} fit into {a}?",
    "What is {a} divided by {b} without the remainder?",
    "Find the quotient of {a} and {b}, ignoring the remainder.",
    "{e}, ignore the remainder",
    "What is {e} without the remainder?",
    "Give the whole part of {e}.",
    "{e} rounded down to a whole number",
    "How often does {b} go fully into {a}?",
    "Calculate {e} and leave out the remainder.",
)
_SQUARE = (
    "{a}^2",
    "What is {a}^2?",
    "What is {a} squared?",
    "{a} squared",
    "Square {a}.",
    "Find the square of {a}.",
    "What is the square of {a}?",
    "Calculate {a}^2.",
    "Compute {a} squared.",
    "What is {a} to the power of 2?",
    "How much is {a} squared?",
    "Square of {a}",
    "{a} to the power 2",
)
_CUBE = (
    "{a}^3",
    "What is {a}^3?",
    "What is {a} cubed?",
    "{a} cubed",
    "Cube {a}.",
    "Find the cube of {a}.",
    "What is the cube of {a}?",
    "Calculate {a}^3.",
    "What is {a} to the power of 3?",
)
_POWER = (
    "{a}^{n}",
    "{a} ^ {n}",
    "{a}**{n}",
    "{a}^{n} = ?",
    "What is {a}^{n}?",
    "Calculate {a}^{n}.",
    "Compute {a}^{n}.",
    "Evaluate {a}^{n}.",
    "How much is {a}^{n}?",
    "What is {a} to the power of {n}?",
    "What is {a} to the power {n}?",
    "{a} to the power of {n}",
    "Raise {a} to the power of {n}.",
    "What is {a} raised to the power of {n}?",
)
_ROOT = (
    "What is the square root of {a}?",
    "square root of {a}",
    "Square root of {a}",
    "sqrt({a})",
    "sqrt {a}",
    "What is sqrt({a})?",
    "Find the square root of {a}.",
    "Calculate the square root of {a}.",
    "Which number squared is {a}?",
    "What number times itself is {a}?",
)
_REPLIES = ("{e} = {box}",)
_SUM = (*_REPLIES, *_REPLIES, "The sum is {box}.")
_DIFFERENCE = (*_REPLIES, *_REPLIES, "The result is {box}.")
_PRODUCT = (*_REPLIES, *_REPLIES, "The product is {box}.")


def _small(dice: Dice) -> Numbers:
    """Two numbers whose sum, or difference, is known by heart."""
    if dice.chance(0.6):
        return dice.below(10), dice.below(10)
    a = dice.between(0, 20)
    return a, dice.between(0, 20 - a)


def _columns(dice: Dice) -> Numbers:
    """Two numbers of some two to five digits, often of unequal length."""
    lengths = (1, 2, 2, 2, 3, 3) if dice.chance(0.65) else (2, 3, 3, 4, 4, 5)
    return dice.digits(max(2, dice.pick(lengths))), dice.digits(dice.pick(lengths))


def _draw_add(dice: Dice) -> Numbers:
    level = dice.level()
    if level == 0:
        return _small(dice)
    a, b = _columns(dice)
    if dice.chance(0.5):
        a, b = b, a
    if dice.chance(0.12):
        # Signs are learnt on numbers of at most two digits.
        a, b = a % 100, b % 100
        return (-a, b) if dice.chance(0.5) else (a, -b) if dice.chance(0.5) else (-a, -b)
    return a, b


def _draw_sub(dice: Dice) -> Numbers:
    if dice.level() == 0:
        a, b = _small(dice)
        return (a + b, b) if dice.chance(0.75) else (min(a, b), max(a, b))
    a, b = _columns(dice)
    a, b = max(a, b), min(a, b)
    way = dice.unit()
    if way < 0.2:
        return b, a
    if way < 0.3:
        a, b = a % 100, b % 100
        return (-a, b) if dice.chance(0.4) else (a, -b) if dice.chance(0.6) else (-a, -b)
    return a, b


def _draw_mul(dice: Dice) -> Numbers:
    level = dice.level()
    if dice.chance(0.12):
        a = b = dice.between(2, 12) if level == 0 else dice.between(11, 99)
    elif level == 0:
        a, b = dice.between(0, 10), dice.between(0, 10)
        if dice.chance(0.12):
            a, b = dice.between(2, 99), dice.pick((10, 100))
        elif dice.chance(0.12):
            a = -a
            b = -b if dice.chance(0.3) else b
    elif level == 1:
        a, b = dice.digits(2 if dice.chance(0.7) else 3), dice.between(2, 9)
    else:
        a, b = dice.pick(((2, 2), (2, 2), (2, 2), (2, 2), (3, 2), (3, 2), (3, 1), (4, 1), (4, 2), (3, 3)))
        a, b = dice.digits(a), dice.digits(b)
    return (a, b) if dice.chance(0.7) else (b, a)


def _draw_div(dice: Dice) -> Numbers:
    level = dice.level()
    divisor = dice.between(2, 9)
    if level == 0:
        return divisor * dice.between(0, 10), divisor
    if level == 1:
        return divisor * dice.digits(2), divisor
    if dice.chance(0.7):
        return divisor * dice.digits(3 if dice.chance(0.8) else 4), divisor
    if dice.chance(0.4):
        divisor *= dice.pick((10, 100))
        return divisor * dice.digits(2), divisor
    divisor = dice.pick((11, 12, 13, 14, 15, 16, 18, 24, 25))
    return divisor * dice.between(3, 60), divisor


def _draw_power(dice: Dice) -> Numbers:
    # The square is a product, whose key it shares.
    base = dice.between(2, 10)
    if dice.chance(0.45):
        return base if dice.chance(0.8) else dice.between(11, 20), 3
    if base == 10:
        return base, dice.between(3, 6)
    # Results of at most four digits.
    return base, dice.between(3, (0, 0, 12, 8, 6, 5, 5, 4, 4, 4)[base])


def _draw_root(dice: Dice) -> Numbers:
    return ((dice.between(1, 20) if dice.chance(0.9) else 10 * dice.between(2, 9)) ** 2,)


def _draw_by_zero(dice: Dice) -> Numbers:
    return (dice.digits(dice.pick((1, 1, 2, 2, 3))) if dice.chance(0.9) else 0,)


def _draw_rest(dice: Dice) -> Numbers:
    level = dice.level()
    divisor = dice.between(2, 9)
    if level == 0:
        return divisor * dice.between(1, 9) + dice.between(1, divisor - 1), divisor
    if level == 2 and dice.chance(0.25):
        divisor = dice.pick((10, 11, 12, 15, 20, 25))
        return dice.digits(dice.between(2, 3)) + divisor, divisor
    return dice.digits(1 + level) + divisor, divisor


def _draw_add_3(dice: Dice) -> Numbers:
    lengths = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (3, 2, 2), (3, 3, 3))
    a, b, c = dice.shuffled([dice.digits(n) for n in dice.pick(lengths[dice.level() * 2 :][:2])])
    return a, b, c


def _add(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    result = work.add(a, b)
    e = f"{a} + {signed(b)}"
    return written(dice, work, ask_expression(dice, e, _ADD, a=a, b=b), result, _SUM, e=e)


def _add_3(dice: Dice, numbers: Numbers) -> Written:
    a, b, c = numbers
    work = Work()
    work.say(f"{a} + {b} + {c}:")
    result = work.add(work.add(a, b), c)
    e = f"{a} + {b} + {c}"
    return written(dice, work, ask_expression(dice, e, _ADD_3, a=a, b=b, c=c), result, _SUM, e=e)


def _sub(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    result = work.sub(a, b)
    e = f"{a} - {signed(b)}"
    named = _SUB_DOWN if a >= b >= 0 else _SUB
    return written(dice, work, ask_expression(dice, e, named, a=a, b=b), result, _DIFFERENCE, e=e)


def _mul(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    if a == b > 1 and dice.chance(0.7):
        work.say(f"{a}^2 = {a} × {a}")
        question = ask(dice, _SQUARE, a=a)
        return written(dice, work, question, work.mul(a, a), (f"{a}^2 = {{box}}",))
    result = work.mul(a, b)
    e = f"{a} × {signed(b)}"
    return written(dice, work, ask_expression(dice, e, _MUL, a=a, b=b), result, _PRODUCT, e=e)


def _div(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    result, _ = work.divide(a, b)
    e = f"{a} ÷ {b}"
    return written(dice, work, ask_expression(dice, e, _DIV, a=a, b=b), result, _REPLIES, e=e)


def _power(dice: Dice, numbers: Numbers) -> Written:
    a, n = numbers
    work = Work()
    named = _CUBE if n == 3 and dice.chance(0.5) else _POWER
    return written(dice, work, ask(dice, named, a=a, n=n), work.power(a, n), (f"{a}^{n} = {{box}}",))


def _root(dice: Dice, numbers: Numbers) -> Written:
    (a,) = numbers
    work = Work()
    root = isqrt(a)
    work.say(f"{root} × {root} = {a}")
    return written(dice, work, ask(dice, _ROOT, a=a), root, ("The square root is {box}.",))


def _by_zero(dice: Dice, numbers: Numbers) -> Written:
    (a,) = numbers
    work = Work()
    work.say(f"No number × 0 is {a}." if a else "Every number × 0 is 0.")
    question = ask_expression(dice, f"{a} ÷ 0", _DIV[:-1], a=a, b=0)
    return written(dice, work, question, "undefined", ("Division by 0 is {box}.",))


def _remainder(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    _, rest = work.divide(a, b)
    question = ask(dice, _REMAINDER, a=a, b=b, e=typed(dice, f"{a} ÷ {b}"))
    return written(dice, work, question, rest, ("The remainder is {box}.",))


def _quotient(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    work = Work()
    whole, _ = work.divide(a, b)
    question = ask(dice, _QUOTIENT, a=a, b=b, e=typed(dice, f"{a} ÷ {b}"))
    return written(dice, work, question, whole, ("The whole part is {box}.",))


KINDS = (
    Kind("add", 24, _draw_add, _add, symmetric=True),
    Kind("add_3", 8, _draw_add_3, _add_3, symmetric=True),
    Kind("sub", 24, _draw_sub, _sub),
    Kind("mul", 24, _draw_mul, _mul, symmetric=True),
    Kind("div", 14, _draw_div, _div),
    Kind("power", 3, _draw_power, _power),
    Kind("root", 1.5, _draw_root, _root),
    Kind("by_zero", 0.7, _draw_by_zero, _by_zero),
    Kind("remainder", 5, _draw_rest, _remainder),
    Kind("quotient", 3, _draw_rest, _quotient),
)
