r"""The family "equations": linear equations in one variable, one operation on both sides a step.

Example::

    Solve 3x + 5 = 20

    3x + 5 = 20
    Subtract 5 from both sides:
    20 - 5 = 15
    3x = 15
    Divide both sides by 3:
    15 ÷ 3 = 5
    x = 5

    x = \boxed{5}
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import ask, typed, written
from sambay.data.problems.work import Work, signed

# No letter that is read as a digit or a sign; x as often as all others together.
_LETTERS: Final = "xxxxxxxxyyzznnabmtkpw"

_ASK: Final = (
    "Solve {e}",
    "Solve {e}.",
    "Solve: {e}",
    "Solve {e} for {v}.",
    "Solve for {v}: {e}",
    "Solve for {v}: {e}.",
    "Solve the equation {e}.",
    "Solve the equation: {e}",
    "Solve the equation {e} for {v}.",
    "Find {v}: {e}",
    "Find {v} if {e}.",
    "Find {v} when {e}.",
    "Find the value of {v}: {e}",
    "Find the value of {v} in {e}.",
    "Find the solution of {e}.",
    "What is {v} if {e}?",
    "What is {v} when {e}?",
    "What's {v} if {e}?",
    "What is the value of {v} in {e}?",
    "What value of {v} makes {e} true?",
    "For which {v} is {e}?",
    "If {e}, what is {v}?",
    "If {e}, find {v}.",
    "If {e}, then what is {v}?",
    "Given {e}, find {v}.",
    "Work out {v}: {e}",
    "Work out {v} if {e}.",
    "Determine {v}: {e}",
    "Can you solve {e}?",
    "Could you solve {e} for {v}?",
    "Help me solve {e}.",
    "{e}",
    "{e}",
    "{e}, {v} = ?",
    "{e}; {v} = ?",
    "{e}. Find {v}.",
    "{e}. What is {v}?",
    "{e}, find {v}",
    "{e}, solve for {v}",
    "{e} solve for {v}",
)
_REPLIES: Final = ("{v} = {box}", "{v} = {box}", "So {v} = {box}.", "The solution is {v} = {box}.")


def _term(factor: int, letter: str) -> str:
    """Write 3x, x or -x."""
    return letter if factor == 1 else f"-{letter}" if factor == -1 else f"{factor}{letter}"


def _side(factor: int, letter: str, constant: int) -> str:
    """Write 3x + 5, 3x - 5 or 3x."""
    tail = f" + {constant}" if constant > 0 else f" - {-constant}" if constant < 0 else ""
    return _term(factor, letter) + tail


def _turned(dice: Dice, factor: int, letter: str, constant: int) -> str:
    """Write a side for the question, now and then with the constant first."""
    if constant and dice.chance(0.12 if factor > 0 else 0.7):
        return f"{constant} {'+' if factor > 0 else '-'} {_term(abs(factor), letter)}"
    return _side(factor, letter, constant)


def _finish(
    dice: Dice,
    work: Work,
    letter: str,
    left: str,
    right: str,
    solution: Fraction | int | str,
    replies: Sequence[str] = _REPLIES,
) -> Written:
    """Ask for the solution of the equation of two sides as they shall be typed."""
    if dice.chance(0.08):
        left, right = right, left
    question = ask(dice, _ASK, e=typed(dice, f"{left} = {right}", letters=True), v=letter)
    return written(dice, work, question, solution, replies, v=letter)


def _drop(work: Work, factor: int, letter: str, constant: int, right: int) -> int:
    """Write the step from ax + b = c to ax = c - b and return the new right side."""
    if constant == 0:
        return right
    if constant > 0:
        work.say(f"Subtract {constant} from both sides:")
        right = work.sub(right, constant)
    else:
        work.say(f"Add {-constant} to both sides:")
        right = work.add(right, -constant)
    work.say(f"{_term(factor, letter)} = {right}")
    return right


def _isolate(work: Work, factor: int, letter: str, right: int) -> Fraction:
    """Write the step from ax = b to x and return x."""
    if factor == 1:
        return Fraction(right)
    work.say(f"Divide both sides by {factor}:")
    quotient, rest = work.divide(right, factor)
    if not rest:
        work.say(f"{letter} = {quotient}")
        return Fraction(quotient)
    if factor < 0:
        right, factor = -right, -factor
    work.say(f"Not whole: {letter} = {right}/{factor}")
    right, factor = work.reduce(right, factor)
    work.say(f"{letter} = {right}/{factor}")
    return Fraction(right, factor)


def _solution(dice: Dice, level: int) -> int:
    """Draw a whole solution, negative in one case of five."""
    size = dice.between(*((1, 10), (2, 20), (2, 60))[level])
    return -size if dice.chance(0.2) else size


def _shift(dice: Dice, level: int) -> int:
    """Draw a constant that is not 0."""
    size = dice.between(1, (10, 30, 99)[level])
    return -size if dice.chance(0.4) else size


def _draw_plus(dice: Dice) -> Numbers:
    level = dice.level()
    a = _shift(dice, level) * (1 if level < 2 else dice.pick((1, 1, 5, 7)))
    return a, a + _solution(dice, level)


def _draw_minus(dice: Dice) -> Numbers:
    level = dice.level()
    a = dice.between(1, (10, 40, 200)[level])
    return a, a - _solution(dice, level)


def _draw_collect(dice: Dice) -> Numbers:
    level = dice.level()
    while True:
        a, c = dice.between(1, (5, 9, 12)[level]), dice.between(1, (4, 6, 9)[level])
        c = -c if dice.chance(0.35) else c
        if a + c > 0:
            break
    b = 0 if dice.chance(0.4) else _shift(dice, level)
    return a, c, b, (a + c) * _solution(dice, min(level, 1)) + b


def _draw_expand(dice: Dice) -> Numbers:
    """a(x + b) + e = cx + d, where either c or e is 0."""
    level = dice.level()
    a, b = dice.between(2, (4, 6, 9)[level]), _shift(dice, 0)
    c = dice.between(1, 9) if dice.chance(0.7) else 0
    # Without a second unknown a constant stays beside the brackets, or they would simply be divided away.
    c, e = (0, dice.between(1, 20) * (-1 if dice.chance(0.4) else 1)) if c in (0, a) else (c, 0)
    x = _solution(dice, min(level, 1))
    return a, b, e, c, a * (x + b) + e - c * x


def _draw_never(dice: Dice) -> Numbers:
    a = dice.between(1, 9)
    b, d = dice.between(-20, 20), dice.between(-20, 20)
    return a, b, b if dice.chance(0.4) else d


def _draw_zero(dice: Dice) -> Numbers:
    return (dice.between(-30, 30),)


def _draw_times(dice: Dice) -> Numbers:
    level = dice.level()
    a = dice.between(2, 9 if level < 2 else 12) * (-1 if dice.chance(0.12) else 1)
    if dice.chance(0.15):
        return a, a * _solution(dice, 0) + dice.between(1, abs(a) - 1)
    return a, a * _solution(dice, level)


def _draw_linear(dice: Dice) -> Numbers:
    level = dice.level()
    a = dice.between(2, (5, 9, 12)[level]) * (-1 if dice.chance(0.15) else 1)
    b = _shift(dice, level)
    if dice.chance(0.12):
        return a, b, a * dice.between(1, 5) + dice.between(1, abs(a) - 1) + b
    return a, b, a * _solution(dice, level) + b


def _draw_both(dice: Dice) -> Numbers:
    level = dice.level()
    while True:
        a, c = (dice.between(1, (6, 9, 12)[level]) for _ in range(2))
        if dice.chance(0.15):
            c = -c
        if a != c:
            break
    if a < c and dice.chance(0.7):
        a, c = c, a
    b = _shift(dice, level)
    if dice.chance(0.08):
        return a, b, c, dice.between(1, 9) + b
    return a, b, c, (a - c) * _solution(dice, min(level, 1)) + b


def _draw_brackets(dice: Dice) -> Numbers:
    level = dice.level()
    a, b = dice.between(2, (5, 9, 12)[level]), _shift(dice, min(level, 1))
    return a, b, a * (_solution(dice, level) + b)


def _draw_quotient(dice: Dice) -> Numbers:
    level = dice.level()
    a = dice.between(2, (6, 9, 12)[level])
    # No constant: the plain x/a = c.
    b = 0 if dice.chance(0.3) else _shift(dice, level)
    return a, b, _solution(dice, min(level, 1)) + b


def _plus(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{_side(1, v, a)} = {b}")
    solution = _drop(work, 1, v, a, b)
    return _finish(dice, work, v, _turned(dice, 1, v, a), str(b), solution)


def _times(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{_term(a, v)} = {b}")
    solution = _isolate(work, a, v, b)
    left = f"{a} × {v}" if a > 0 and dice.chance(0.08) else _term(a, v)
    return _finish(dice, work, v, left, str(b), solution)


def _linear(dice: Dice, numbers: Numbers) -> Written:
    a, b, c = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{_side(a, v, b)} = {c}")
    solution = _isolate(work, a, v, _drop(work, a, v, b, c))
    return _finish(dice, work, v, _turned(dice, a, v, b), str(c), solution)


def _both(dice: Dice, numbers: Numbers) -> Written:
    a, b, c, d = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{_side(a, v, b)} = {_side(c, v, d)}")
    if c > 0:
        work.say(f"Subtract {_term(c, v)} from both sides:")
        factor = work.sub(a, c)
    else:
        work.say(f"Add {_term(-c, v)} to both sides:")
        factor = work.add(a, -c)
    work.say(f"{_side(factor, v, b)} = {d}")
    solution = _isolate(work, factor, v, _drop(work, factor, v, b, d))
    return _finish(dice, work, v, _turned(dice, a, v, b), _turned(dice, c, v, d), solution)


def _brackets(dice: Dice, numbers: Numbers) -> Written:
    a, b, c = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{a}({_side(1, v, b)}) = {c}")
    work.say(f"Divide both sides by {a}:")
    right, _ = work.divide(c, a)
    work.say(f"{_side(1, v, b)} = {right}")
    solution = _drop(work, 1, v, b, right)
    return _finish(dice, work, v, f"{a}({_turned(dice, 1, v, b)})", str(c), solution)


def _minus(dice: Dice, numbers: Numbers) -> Written:
    a, b = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"{a} - {v} = {b}")
    work.say(f"{v} = {a} - {signed(b)}")
    solution = work.sub(a, b)
    work.say(f"{v} = {solution}")
    return _finish(dice, work, v, f"{a} - {v}" if dice.chance(0.7) else f"-{v} + {a}", str(b), solution)


def _collect(dice: Dice, numbers: Numbers) -> Written:
    a, c, b, d = numbers
    v, work = dice.pick(_LETTERS), Work()
    second = f"{'+' if c > 0 else '-'} {_term(abs(c), v)}"
    tail = f" + {b}" if b > 0 else f" - {-b}" if b < 0 else ""
    left = f"{_term(a, v)} {second}{tail}" if dice.chance(0.6) else f"{_term(a, v)}{tail} {second}"
    work.say(f"{left} = {d}")
    factor = work.add(a, c) if c > 0 else work.sub(a, -c)
    work.say(f"{_side(factor, v, b)} = {d}")
    solution = _isolate(work, factor, v, _drop(work, factor, v, b, d))
    return _finish(dice, work, v, left, str(d), solution)


def _expand(dice: Dice, numbers: Numbers) -> Written:
    a, b, e, c, d = numbers
    v, work = dice.pick(_LETTERS), Work()
    tail = f" + {e}" if e > 0 else f" - {-e}" if e < 0 else ""
    right = _side(c, v, d) if c else str(d)
    work.say(f"{a}({_side(1, v, b)}){tail} = {right}")
    work.say("Expand:")
    constant = work.mul(a, b)
    if e:
        work.say(f"{a}{v}{f' + {constant}' if constant > 0 else f' - {-constant}'}{tail} = {right}")
        constant = work.add(constant, e)
    work.say(f"{_side(a, v, constant)} = {right}")
    factor = a
    if c:
        work.say(f"Subtract {_term(c, v)} from both sides:")
        factor = work.sub(a, c)
        work.say(f"{_side(factor, v, constant)} = {d}")
    solution = _isolate(work, factor, v, _drop(work, factor, v, constant, d))
    asked = _turned(dice, c, v, d) if c else right
    return _finish(dice, work, v, f"{a}({_turned(dice, 1, v, b)}){tail}", asked, solution)


def _never(dice: Dice, numbers: Numbers) -> Written:
    a, b, d = numbers
    v, work = dice.pick(_LETTERS), Work()
    left, right = _side(a, v, b), _side(a, v, d)
    work.say(f"{left} = {right}")
    work.say(f"Subtract {_term(a, v)} from both sides:")
    return _without_unknown(dice, work, v, left, right, b, d)


def _zero(dice: Dice, numbers: Numbers) -> Written:
    (b,) = numbers
    v, work = dice.pick(_LETTERS), Work()
    work.say(f"0{v} = {b}")
    return _without_unknown(dice, work, v, f"0{v}", str(b), 0, b)


def _without_unknown(dice: Dice, work: Work, v: str, left: str, right: str, b: int, d: int) -> Written:
    """Finish an equation whose unknown is gone, so that b = d is left."""
    if b == d:
        work.say(f"{b} is {d}, whatever {v} is.")
        return _finish(dice, work, v, left, right, "all numbers", ("The solution: {box}.",))
    work.say(f"{b} is not {d}, whatever {v} is.")
    return _finish(dice, work, v, left, right, "no solution", ("There is {box}.",))


def _quotient(dice: Dice, numbers: Numbers) -> Written:
    a, b, c = numbers
    v, work = dice.pick(_LETTERS), Work()
    left = _side(1, f"{v}/{a}", b)
    work.say(f"{left} = {c}")
    right = _drop(work, 1, f"{v}/{a}", b, c)
    work.say(f"Multiply both sides by {a}:")
    solution = work.mul(right, a)
    work.say(f"{v} = {solution}")
    return _finish(dice, work, v, left, str(c), solution)


KINDS = (
    Kind("plus", 18, _draw_plus, _plus),
    Kind("times", 16, _draw_times, _times),
    Kind("linear", 28, _draw_linear, _linear),
    Kind("both", 18, _draw_both, _both),
    Kind("minus", 8, _draw_minus, _minus),
    Kind("collect", 8, _draw_collect, _collect),
    Kind("brackets", 11, _draw_brackets, _brackets),
    Kind("expand", 9, _draw_expand, _expand),
    Kind("never", 1.5, _draw_never, _never),
    Kind("zero", 0.4, _draw_zero, _zero),
    Kind("quotient", 12, _draw_quotient, _quotient),
)
