r"""The family "percentages": numbers are chosen so that every result is whole.

Example::

    What is 15% of 80?

    15% of 80: multiply by 15, divide by 100:
    80 × 15: 15 = 10 + 5
    80 × 10 = 800
    80 × 5:
    0 × 5 = 0: 0
    8 × 5 = 40: 400
    80 × 5 = 400
    800 + 400:
    0 + 0 = 0: 0
    0 + 0 = 0: 00
    8 + 4 = 12: 1200
    800 + 400 = 1200
    80 × 15 = 1200
    1200 ÷ 100 = 12

    The answer is \boxed{12}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Final

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.stories import currency
from sambay.data.problems.wording import ask, written
from sambay.data.problems.work import Work

_PERCENTS: Final = (
    (10, 20, 50, 25, 5, 1, 30, 40, 100),
    (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 75, 80, 90, 2, 4, 8, 12),
    tuple(range(1, 100)),
)
_GOODS: Final = (
    "shirt", "book", "pair of shoes", "game", "laptop",
    "coat", "bag", "phone", "chair", "table", "lamp", "bike", "watch", "radio", "camera", "jacket", "sofa",
    "clock", "guitar", "tent", "dress", "printer", "desk", "carpet", "helmet", "suit", "mirror",
)  # fmt: skip

_OF = (
    "What is {p}% of {n}?",
    "What's {p}% of {n}?",
    "{p}% of {n}",
    "{p}% of {n}",
    "{p}% of {n}?",
    "{p}% of {n} = ?",
    "{p} % of {n}",
    "{p} percent of {n}",
    "{p} percent of {n}?",
    "What is {p} percent of {n}?",
    "Find {p}% of {n}.",
    "Find {p} percent of {n}.",
    "Calculate {p}% of {n}.",
    "Compute {p}% of {n}.",
    "Work out {p}% of {n}.",
    "How much is {p}% of {n}?",
    "How much is {p} percent of {n}?",
    "Tell me {p}% of {n}.",
    "Can you work out {p}% of {n}?",
    "I need {p}% of {n}.",
    "A club has {n} members. {p}% of them come to a meeting. How many members come?",
    "A test has {n} points. How many points are {p}%?",
    "{p}% of the {n} seats in a hall are taken. How many seats are taken?",
    "There are {n} trees in a park and {p}% of them are oaks. How many oaks are there?",
    "A shop sold {p}% of its {n} books. How many books did it sell?",
    "A meal costs ${n}. You leave a {p}% tip. How much is the tip?",
    "What is a {p}% tip on ${n}?",
    "How much is a {p}% tip on a bill of ${n}?",
    "{p}% tip on ${n}",
    "A {thing} costs ${n}. The tax is {p}%. How much is the tax?",
    "How much tax is {p}% on ${n}?",
    "A {thing} costs ${n} and is {p}% off. How much do you save?",
    "How much do you save with {p}% off ${n}?",
    "A {thing} is ${n} with a discount of {p}%. How much is the discount?",
    "A class has {n} pupils. {p}% of them are girls. How many girls are there?",
    "{p}% of {n} pupils come by bus. How many is that?",
    "I earn ${n} and save {p}% of it. How much do I save?",
)
_INCREASE = (
    "Increase {n} by {p}%.",
    "Increase {n} by {p} percent.",
    "What is {n} increased by {p}%?",
    "{n} increased by {p}%",
    "{n} plus {p}%",
    "What is {n} plus {p}%?",
    "What do you get if you increase {n} by {p}%?",
    "Raise {n} by {p}%.",
    "Add {p}% to {n}.",
    "A {thing} costs {n} dollars. The price rises by {p}%. What is the new price?",
    "The price of a {thing} is {n} dollars and goes up by {p}%. What is the new price in dollars?",
    "A {thing} costs {n} dollars before a tax of {p}%. What does it cost with the tax?",
    "A {thing} costs ${n} plus {p}% tax. How much is that in all?",
    "A wage of {n} dollars grows by {p}%. What is the new wage?",
    "A town had {n} people. The number grew by {p}%. How many people live there now?",
    "A school had {n} pupils and now has {p}% more. How many pupils are there now?",
    "A meal costs ${n}. You leave a {p}% tip. How much do you pay in total?",
    "A meal costs ${n} and the tip is {p}%. What is the total?",
    "The bill is ${n}. How much do you pay with a {p}% tip?",
    "${n} plus {p}% tip, what is the total?",
    "${n} plus {p}% tax",
    "A {thing} costs ${n} and the tax is {p}%. What is the total price?",
    "A {thing} costs ${n}, with {p}% tax added. How much do you pay?",
    "If a {thing} costs ${n} and the tax is {p}%, what is the total?",
    "A ${n} {thing} gets {p}% more expensive. What is the new price?",
    "The price of a {thing} was ${n} and increased by {p}%. What is it now?",
    "I earn ${n} and get {p}% more. How much do I earn now?",
    "Rent of ${n} goes up {p}%. What is the new rent?",
    "${n} increased by {p}%",
)
_DECREASE = (
    "Decrease {n} by {p}%.",
    "Decrease {n} by {p} percent.",
    "What is {n} decreased by {p}%?",
    "{n} decreased by {p}%",
    "{n} minus {p}%",
    "What is {n} minus {p}%?",
    "What do you get if you decrease {n} by {p}%?",
    "Lower {n} by {p}%.",
    "Take {p}% off {n}.",
    "A {thing} costs {n} dollars. It is sold with {p}% off. What is the sale price?",
    "A {thing} for {n} dollars is reduced by {p}%. What is the new price?",
    "The price of a {thing} is ${n}. There is a discount of {p}%. How much do you pay?",
    "How much is a {thing} of {n} dollars after a discount of {p}%?",
    "In a sale everything is {p}% off. What does a {thing} cost that was {n} dollars?",
    "A tank holds {n} liters. {p}% of the water is used. How many liters are left?",
    "A shop had {n} books and sold {p}% of them. How many books are left?",
    "A {thing} costs ${n} and is {p}% off. What is the sale price?",
    "A {thing} costs ${n} and is {p}% off. How much do I pay?",
    "If a {thing} costs ${n} and is {p}% off, what is the sale price?",
    "A ${n} {thing} is {p}% off. What is the price now?",
    "A ${n} {thing} is on sale for {p}% off. How much is it?",
    "A {thing} costs ${n}. It is {p}% off today. What is the new price?",
    "A {thing} was ${n}, now {p}% off. What does it cost?",
    "The {thing} is ${n} with a {p}% discount. What do you pay?",
    "How much is a ${n} {thing} with {p}% off?",
    "What is the price of a ${n} {thing} after a {p}% discount?",
    "${n} with {p}% off",
    "{p}% off ${n}",
    "What is {p}% off ${n}?",
    "Price ${n}, discount {p}%. What is the sale price?",
    "I have a {p}% coupon for a ${n} {thing}. How much do I pay?",
    "A {thing} loses {p}% of its value of ${n}. What is it worth now?",
    "I had ${n} and spent {p}% of it. How much is left?",
    "${n} reduced by {p}%",
)
_WHAT = (
    "What percent of {b} is {a}?",
    "What percent is {a} of {b}?",
    "What percentage of {b} is {a}?",
    "What percentage is {a} of {b}?",
    "{a} is what percent of {b}?",
    "{a} is what % of {b}?",
    "{a} out of {b} in percent",
    "How many percent of {b} is {a}?",
    "Write {a} out of {b} as a percentage.",
    "Express {a} out of {b} as a percentage.",
    "Find what percent {a} is of {b}.",
    "What is {a}/{b} as a percentage?",
    "Convert {a}/{b} to a percentage.",
    "You got {a} of {b} points. What percent is that?",
    "{a} of {b} eggs broke. What percent is that?",
    "A class answered {a} of {b} questions. What percentage did it answer?",
    "{a} of {b} players were ill. What percent of the players is that?",
)
_BEFORE_DOWN = (
    "After {p}% off a {thing} costs {f} dollars. What did it cost before?",
    "A {thing} costs {f} dollars after a discount of {p}%. What was the original price?",
    "With a discount of {p}% a {thing} costs ${f}. Find the original price.",
    "The price of a {thing} fell by {p}% to {f} dollars. What was the price before?",
    "A {thing} is {p}% off and now costs {f} dollars. How much was it before the sale?",
    "A {thing} costs ${f} after {p}% off. What was the original price?",
    "After a {p}% discount I paid ${f}. What was the price before?",
    "You pay {f} dollars for a {thing} that is reduced by {p}%. What is the full price?",
    "A number decreased by {p}% is {f}. What is the number?",
    "A number is reduced by {p}% and becomes {f}. Find the number.",
    "If a number minus {p}% of it is {f}, what is the number?",
    "Find the number that gives {f} when decreased by {p}%.",
    "What number decreased by {p}% gives {f}?",
    "A tank lost {p}% of its water and has {f} liters left. How many liters did it have?",
)
_BEFORE_UP = (
    "After a rise of {p}% a {thing} costs {f} dollars. What did it cost before?",
    "A {thing} costs {f} dollars after its price went up by {p}%. What was the old price?",
    "With {p}% tax a {thing} costs ${f}. Find the price without tax.",
    "The price of a {thing} rose by {p}% to {f} dollars. What was the price before?",
    "A {thing} costs {f} dollars, {p}% tax included. What is the price before tax?",
    "A number increased by {p}% is {f}. What is the number?",
    "A number grows by {p}% and becomes {f}. Find the number.",
    "Find the number that gives {f} when increased by {p}%.",
    "What number increased by {p}% gives {f}?",
    "A town grew by {p}% and now has {f} people. How many people did it have?",
    "A club has {f} members, {p}% more than last year. How many did it have last year?",
    "If a number plus {p}% of it is {f}, what is the number?",
)
_RISE = (
    "A {thing} went from ${a} to ${b}. What is the percent increase?",
    "The price goes up from ${a} to ${b}. How many percent is that?",
    "A price rises from {a} to {b} dollars. By what percent does it rise?",
    "What is the percent increase from {a} to {b}?",
    "Find the percentage increase from {a} to {b}.",
    "By what percent is {b} more than {a}?",
    "A number grows from {a} to {b}. What is the increase in percent?",
    "The price of a {thing} goes up from {a} to {b} dollars. What is the increase in percent?",
    "From {a} to {b}: how many percent more?",
    "A {thing} cost {a} dollars and now costs {b} dollars. By what percent did the price go up?",
    "A club grew from {a} to {b} members. By what percent did it grow?",
    "Calculate the percent increase from {a} to {b}.",
    "Percent increase from {a} to {b}",
    "By what percentage must {a} be increased to get {b}?",
)
_FALL = (
    "A {thing} went from ${a} down to ${b}. What is the percent decrease?",
    "A ${a} {thing} is sold for ${b}. What is the discount in percent?",
    "A price falls from {a} to {b} dollars. By what percent does it fall?",
    "What is the percent decrease from {a} to {b}?",
    "Find the percentage decrease from {a} to {b}.",
    "By what percent is {b} less than {a}?",
    "A number shrinks from {a} to {b}. What is the decrease in percent?",
    "The price of a {thing} goes down from {a} to {b} dollars. What is the discount in percent?",
    "From {a} to {b}: how many percent less?",
    "A {thing} cost {a} dollars and now costs {b} dollars. By what percent did the price go down?",
    "A club shrank from {a} to {b} members. By what percent did it shrink?",
    "Calculate the percent decrease from {a} to {b}.",
    "Percent decrease from {a} to {b}",
    "By what percentage must {a} be decreased to get {b}?",
)
_INTEREST = (
    "Find the simple interest on {n} dollars at {p}% for {t} years.",
    "What is the simple interest on ${n} at {p}% a year for {t} years?",
    "{n} dollars earn {p}% simple interest a year. How much interest is that in {t} years?",
    "Calculate the simple interest: {n} dollars, {p}%, {t} years.",
    "How much simple interest do {n} dollars earn at {p}% in {t} years?",
    "A bank pays {p}% simple interest a year. How much interest do {n} dollars bring in {t} years?",
    "Simple interest on {n} dollars at {p}% for {t} years",
    "You put {n} dollars in a bank at {p}% simple interest. How much interest do you get after {t} years?",
    "Work out the simple interest on {n} dollars over {t} years at {p}% a year.",
    "A loan of {n} dollars costs {p}% simple interest a year. How much interest is due after {t} years?",
    "Compute the simple interest for a principal of {n}, a rate of {p}% and {t} years.",
    "If {n} dollars are lent at {p}% simple interest, what is the interest after {t} years?",
)
_BALANCE = (
    "{n} dollars earn {p}% simple interest a year. How much money is there after {t} years?",
    "You save {n} dollars at {p}% simple interest a year. What is the balance after {t} years?",
    "What do {n} dollars grow to in {t} years at {p}% simple interest?",
    "A bank pays {p}% simple interest a year. What are {n} dollars worth after {t} years?",
    "Find the total amount after {t} years: {n} dollars at {p}% simple interest.",
    "Someone borrows {n} dollars at {p}% simple interest. How much is owed after {t} years?",
    "How much are {n} dollars with {p}% simple interest after {t} years?",
    "Calculate the amount that {n} dollars become after {t} years at {p}% simple interest.",
)
_ANSWER = ("The answer is {box}.",)
_PERCENT = ("The percentage is {box}.",)


def _percentage(work: Work, number: int, percent: int) -> int:
    """Write p% of a number, always the same way."""
    work.say(f"{percent}% of {number}: multiply by {percent}, divide by 100:")
    return work.divide(work.mul(number, percent), 100)[0]


def _scaled(work: Work, number: int, whole: int) -> int:
    """Write number × 100 ÷ whole."""
    work.say(f"Multiply by 100, divide by {whole}:")
    return work.divide(work.mul(number, 100), whole)[0]


def _draw(dice: Dice, percents: Sequence[int], low: int, high: int) -> Numbers:
    """Draw p and a number from `low` to `high` of which p% is whole."""
    while True:
        percent = dice.pick(percents)
        step = 100 // gcd(percent, 100)
        least = -(-low // step)
        if least * step <= high:
            return percent, step * dice.between(least, high // step)


def _draw_of(dice: Dice) -> Numbers:
    level = dice.level()
    percent, number = _draw(dice, _PERCENTS[level], 10, (100, 500, 1500)[level])
    return percent, number


def _draw_change(dice: Dice) -> Numbers:
    level = dice.level()
    return _draw(dice, [p for p in _PERCENTS[min(level, 1)] if p < 100], 10, (200, 400, 1000)[level])


def _draw_parts(dice: Dice) -> Numbers:
    """Two numbers of which the first is a whole percentage of the second, which divides without much work."""
    level = dice.level()
    while True:
        whole = dice.between(2, 9) * dice.pick(((1, 10), (1, 10, 10), (1, 10, 100))[level])
        if level and dice.chance(0.3):
            whole = dice.pick((12, 15, 16, 25, 75, 120, 150, 250))
        step = whole // gcd(whole, 100)
        most = whole // step
        part = step * dice.between(1, most if dice.chance(0.9) else 2 * most)
        if part != whole or dice.chance(0.1):
            return part, whole


def _draw_rise(dice: Dice) -> Numbers:
    part, whole = _draw_parts(dice)
    return whole, whole + part


def _draw_fall(dice: Dice) -> Numbers:
    while True:
        part, whole = _draw_parts(dice)
        if part < whole:
            return whole, whole - part


def _draw_before(dice: Dice, percents: Sequence[int], sign: int) -> Numbers:
    level = dice.level()
    percent, number = _draw(dice, percents, 20, (100, 400, 1000)[level])
    return percent, number * (100 + sign * percent) // 100


def _draw_interest(dice: Dice) -> Numbers:
    level = dice.level()
    number = 100 * dice.between(1, (10, 20, 60)[level])
    return number, dice.between(1, (5, 10, 12)[level]), dice.between(2, (5, 8, 10)[level])


def _write(
    templates: Sequence[str],
    names: str,
    replies: Sequence[str],
    solve: Callable[[Work, Numbers], int],
) -> Callable[[Dice, Numbers], Written]:
    """Return the writer of a kind: one letter for each number, and its solution."""

    def write(dice: Dice, numbers: Numbers) -> Written:
        work = Work()
        result = solve(work, numbers)
        slots = dict(zip(names, numbers, strict=True))
        question = currency(dice, ask(dice, templates, thing=dice.pick(_GOODS), **slots))
        return written(dice, work, question, result, replies)

    return write


def _of(work: Work, numbers: Numbers) -> int:
    percent, number = numbers
    return _percentage(work, number, percent)


def _increase(work: Work, numbers: Numbers) -> int:
    percent, number = numbers
    more = _percentage(work, number, percent)
    work.say("Add it:")
    return work.add(number, more)


def _decrease(work: Work, numbers: Numbers) -> int:
    percent, number = numbers
    less = _percentage(work, number, percent)
    work.say("Subtract it:")
    return work.sub(number, less)


def _what(work: Work, numbers: Numbers) -> int:
    part, whole = numbers
    return _scaled(work, part, whole)


def _before(sign: int) -> Callable[[Work, Numbers], int]:
    def solve(work: Work, numbers: Numbers) -> int:
        percent, final = numbers
        left = work.add(100, percent) if sign > 0 else work.sub(100, percent)
        work.say(f"So {left}% is {final}.")
        return _scaled(work, final, left)

    return solve


def _rise(work: Work, numbers: Numbers) -> int:
    old, new = numbers
    work.say("Increase:")
    return _scaled(work, work.sub(new, old), old)


def _fall(work: Work, numbers: Numbers) -> int:
    old, new = numbers
    work.say("Decrease:")
    return _scaled(work, work.sub(old, new), old)


def _interest(work: Work, numbers: Numbers) -> int:
    number, percent, years = numbers
    work.say("Interest for one year:")
    yearly = _percentage(work, number, percent)
    work.say(f"For {years} years:")
    return work.mul(yearly, years)


def _balance(work: Work, numbers: Numbers) -> int:
    interest = _interest(work, numbers)
    work.say("Add it:")
    return work.add(numbers[0], interest)


_DOWN: Final = (10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)
_UP: Final = (10, 20, 25, 30, 40, 50, 60, 80, 100)
KINDS = (
    Kind("of", 34, _draw_of, _write(_OF, "pn", _ANSWER, _of)),
    Kind("increase", 13, _draw_change, _write(_INCREASE, "pn", _ANSWER, _increase)),
    Kind("decrease", 15, _draw_change, _write(_DECREASE, "pn", _ANSWER, _decrease)),
    Kind("what", 15, _draw_parts, _write(_WHAT, "ab", _PERCENT, _what)),
    Kind(
        "before_down",
        6,
        lambda d: _draw_before(d, _DOWN, -1),
        _write(_BEFORE_DOWN, "pf", _ANSWER, _before(-1)),
    ),
    Kind("before_up", 5, lambda d: _draw_before(d, _UP, 1), _write(_BEFORE_UP, "pf", _ANSWER, _before(1))),
    Kind("rise", 4, _draw_rise, _write(_RISE, "ab", _PERCENT, _rise)),
    Kind("fall", 4, _draw_fall, _write(_FALL, "ab", _PERCENT, _fall)),
    Kind("interest", 5, _draw_interest, _write(_INTEREST, "npt", _ANSWER, _interest)),
    Kind("balance", 3, _draw_interest, _write(_BALANCE, "npt", _ANSWER, _balance)),
)
