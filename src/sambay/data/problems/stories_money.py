"""Word problems about money and time: buying, paying, saving, using up and reading."""

from __future__ import annotations

from sambay.data.problems.base import Dice, Numbers
from sambay.data.problems.stories import Story, asked, upto


def _times(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 30, 120), upto(dice, level, 6, 9, 15)


def _change(dice: Dice, level: int) -> Numbers:
    count, price = upto(dice, level, 5, 9, 12), upto(dice, level, 5, 12, 30)
    note = dice.pick([n for n in (5, 10, 20, 50, 100, 200, 500) if n > count * price][:2])
    return count, price, note


def _four(dice: Dice, level: int) -> Numbers:
    return (
        upto(dice, level, 5, 9, 15),
        upto(dice, level, 6, 12, 30),
        upto(dice, level, 5, 9, 15),
        upto(dice, level, 6, 12, 30),
    )


def _exact(dice: Dice, level: int) -> Numbers:
    divisor = upto(dice, level, 6, 9, 9)
    return divisor * upto(dice, level, 9, 30, 150), divisor


def _unit_price(dice: Dice, level: int) -> Numbers:
    count, price = dice.between(2, 9), upto(dice, level, 8, 15, 40)
    other = dice.between(2, 12)
    return count, count * price, other if other != count else other + 1


def _goal(dice: Dice, level: int) -> Numbers:
    weekly, start = upto(dice, level, 8, 9, 9), upto(dice, level, 10, 50, 200)
    return start + weekly * upto(dice, level, 8, 20, 60), start, weekly


def _saved(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 9, 20, 60), upto(dice, level, 8, 12, 20), upto(dice, level, 20, 90, 400)


def _reading(dice: Dice, level: int) -> Numbers:
    daily, days = upto(dice, level, 9, 20, 40), upto(dice, level, 6, 9, 12)
    return daily * days + upto(dice, level, 20, 90, 300), daily, days


def _coins(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 9, 20, 60), upto(dice, level, 9, 20, 60)


def _fraction_gone(dice: Dice, level: int) -> Numbers:
    part = upto(dice, level, 5, 8, 9)
    return part * upto(dice, level, 9, 20, 60), part


STORIES = (
    Story(
        "cost",
        13,
        _times,
        (
            "{N} buys {b} {things} at {a} {money} each. How much does {he} pay?",
            "One {thing} costs {a} {money}. How much do {b} {things} cost?",
            "What do {b} {things} cost if one costs {a} {money}?",
            "{A_thing} costs ${a}. How much is it for {b} of them?",
            "{N} wants {b} {things}. Each costs {a} {money}. How much money does {he} need?",
            "Find the price of {b} {things} at ${a} each.",
            *asked(
                (
                    "{a_thing} costs ${a}",
                    "one {thing} is ${a}",
                    "one {thing} costs ${a}",
                    "{things} cost ${a} each",
                    "{things} are ${a} each",
                    "the price of {a_thing} is ${a}",
                    "each {thing} costs ${a}",
                ),
                (
                    "how much do {b} {things} cost",
                    "how much for {b}",
                    "how much for {b} {things}",
                    "how much are {b} of them",
                    "what do {b} {things} cost",
                    "what is the price of {b} {things}",
                    "how much [does] {N} pay for {b}",
                ),
            ),
            *asked(
                (
                    "{N} [buys] {b} {things} for ${a} each",
                    "{N} [buys] {b} {things} at ${a} each",
                    "{N} bought {b} {foods} that cost ${a} each",
                    "{b} {things} at ${a} each",
                ),
                ("how much is that", "what is the total", "what is the total cost", "how much in total"),
                condition=False,
            ),
        ),
        ("Cost: b × a",),
        "The cost is {box}.",
    ),
    Story(
        "change",
        9,
        _change,
        (
            "{N} buys {a} {things} at {b} {money} each. {He} pays with {c} {money}. What is {his} change?",
            "{N} buys {a} {things} for {b} {money} each and pays with a {c} note. How much change does {he} get?",
            "{A_thing} costs {b} {money}. {N} buys {a} and gives {c} {money}. How much does {he} get back?",
            "{N} has {c} {money} and buys {a} {things} at {b} {money} each. How much money is left?",
            "{N} had ${c}. {He} bought {a} {things} that cost ${b} each. How many dollars does {he} have left?",
            *asked(
                (
                    "{N} [buys] {a} {things} at ${b} each and [pays] with a ${c} bill",
                    "{N} [buys] {a} {foods} for ${b} each. {he} [has] ${c}",
                    "{things} cost ${b} each. {N} [buys] {a} and [pays] with ${c}",
                    "{N} [has] ${c} and [buys] {a} {things} at ${b} each",
                ),
                (
                    "how much change [does] {he} get",
                    "what is the change",
                    "how much money [does] {he} have left",
                    "how much is left",
                ),
                condition=False,
            ),
        ),
        ("Cost: a × b", "Change: c - P"),
        "The change is {box}.",
    ),
    Story(
        "two_kinds",
        3,
        _four,
        (
            "{N} buys {a} {things} at {b} {money} each and {c} {others} at {d} {money} each. What is the total?",
            "{A_thing} costs {b} {money} and the {others} cost {d} {money} each. "
            "How much do {a} {things} and {c} {others} cost?",
            "How much are {a} {things} for ${b} each and {c} {others} for ${d} each?",
            "{N} pays {b} {money} for each of {a} {things} and {d} {money} for each of {c} {others}. "
            "How much does {he} pay?",
            *asked(
                (
                    "{N} [buys] {a} {things} at ${b} each and {c} {others} at ${d} each",
                    "{N} [buys] {a} {things} for ${b} each and {c} {others} for ${d} each",
                    "{N} [gets] {a} {things} at ${b} and {c} {others} at ${d} each",
                ),
                (
                    "how much [does] {he} pay in total",
                    "what is the total",
                    "how much is that",
                    "what is the total cost",
                ),
                condition=False,
            ),
        ),
        ("First: a × b", "Second: c × d", "Total: P + Q"),
        "The total is {box}.",
    ),
    Story(
        "tickets",
        1.5,
        _four,
        (
            "{a} adults pay {b} {money} each and {c} children pay {d} {money} each. How much do they pay in all?",
            "A zoo ticket is {b} {money} for adults and {d} {money} for children. "
            "What do {a} adults and {c} children pay?",
            "A cinema sells {a} tickets to adults at {b} {money} and {c} to children at {d} {money}. "
            "How much money does it take in?",
            "Tickets cost ${b} for adults and ${d} for children. Find the cost for {a} adults and {c} children.",
        ),
        ("Adults: a × b", "Children: c × d", "Total: P + Q"),
        "The total is {box}.",
    ),
    Story(
        "unit_price",
        6,
        _unit_price,
        (
            "{a} {things} cost {b} {money}. How much do {c} {things} cost?",
            "If {a} {things} cost ${b}, what do {c} {things} cost?",
            "{N} pays {b} {money} for {a} {things}. What would {he} pay for {c}?",
            "For {a} {things} {N} pays {b} {money}. {M} buys {c} of them. How much does {M} pay?",
            *asked(
                ("{a} {things} cost ${b}", "{a} {foods} cost ${b}", "{N} [pays] ${b} for {a} {things}"),
                ("how much do {c} {things} cost", "how much for {c}", "what do {c} cost", "how much are {c} {things}"),
            ),
        ),
        ("One: b ÷ a", "Cost: P × c"),
        "The cost is {box}.",
    ),
    Story(
        "goal",
        3,
        _goal,
        (
            "{N} wants a bike for {a} {money}. {He} has {b} {money} and saves {c} {money} a week. "
            "How many weeks does it take?",
            "{N} needs {a} {money} and has {b}. {He} earns {c} {money} a day. "
            "After how many days does {he} have enough?",
            "A tank holds {a} liters and has {b} liters in it. {c} liters flow in each minute. "
            "How many minutes until it is full?",
            "{N} has {b} {things} and gets {c} more each day. After how many days does {he} have {a}?",
            *asked(
                (
                    "{N} [has] ${b} and [saves] ${c} a week. {he} [wants] a bike for ${a}",
                    "{N} [needs] ${a}, already [has] ${b} and [saves] ${c} each week",
                ),
                ("how many weeks [does] {he} need", "how many weeks does it take", "after how many weeks is it enough"),
                condition=False,
            ),
        ),
        ("Missing: a - b", "Time: P ÷ c"),
        "The time is {box}.",
    ),
    Story(
        "saved",
        3,
        _saved,
        (
            "{N} has {c} {money} and saves {a} {money} a week. How much does {he} have after {b} weeks?",
            "{N} saves {a} {money} each month for {b} months. {He} had {c} {money} before. How much is it now?",
            "{N} has {c} {things} and collects {a} each day. How many does {he} have after {b} days?",
            "A tree is {c} cm tall and grows {a} cm a year. How tall is it in cm after {b} years?",
            "A taxi costs {c} {money} plus {a} {money} per km. How much is a ride of {b} km?",
            *asked(
                ("{N} [has] ${c} and [saves] ${a} a week", "{N} [starts] with ${c} and [earns] ${a} each week"),
                ("how much [does] {he} have after {b} weeks", "how much is it after {b} weeks"),
            ),
        ),
        ("Added: a × b", "Total: c + P"),
        "The total is {box}.",
    ),
    Story(
        "pages_left",
        3,
        _reading,
        (
            "A book has {a} pages. {N} reads {b} pages a day for {c} days. How many pages are left?",
            "{N} reads {b} pages each day. How many pages of a book with {a} pages are left after {c} days?",
            "{N} has {a} {money} and spends {b} a day. How much is left after {c} days?",
            "A tank has {a} liters of water. {b} liters flow out each hour. How many liters are left after {c} hours?",
            *asked(
                (
                    "a book has {a} pages and {N} [reads] {b} pages a day",
                    "{N} [reads] {b} pages a day of a book with {a} pages",
                ),
                ("how many pages are left after {c} days", "how many pages [does] {he} have left after {c} days"),
            ),
        ),
        ("Gone: b × c", "Left: a - P"),
        "What is left is {box}.",
    ),
    Story(
        "pages_days",
        2,
        _exact,
        (
            "A book has {a} pages. {N} reads {b} pages a day. How many days does {he} need?",
            "{N} reads {b} pages each evening. After how many evenings is a book of {a} pages finished?",
            "{N} saves {b} {money} a week. After how many weeks does {he} have {a} {money}?",
            "A machine fills {b} bottles a minute. How many minutes does it need for {a} bottles?",
            *asked(
                ("a book has {a} pages and {N} [reads] {b} a day", "{N} [reads] {b} pages a day"),
                ("how many days [does] {he} need for {a} pages", "how long does it take to read {a} pages"),
            ),
            *asked(
                ("{N} [saves] ${b} a week", "{N} [earns] ${b} a week"),
                ("how many weeks until {he} [has] ${a}", "how many weeks [does] {he} need for ${a}"),
            ),
        ),
        ("Time: a ÷ b",),
        "The time is {box}.",
    ),
    Story(
        "pages_rest",
        2,
        _goal,
        (
            "{N} has read {b} of the {a} pages of a book and reads the rest in {c} days. How many pages is that a day?",
            "{N} has {a} {things}, keeps {b} and shares the rest equally among {c} {people}. How many does each get?",
            "A rope of {a} cm loses a piece of {b} cm. The rest is cut into {c} equal parts. How long is one in cm?",
            "{N} owes {a} {money}. {He} pays {b} now and the rest in {c} equal parts. How much is one part?",
        ),
        ("The rest: a - b", "Each: P ÷ c"),
        "For each that is {box}.",
    ),
    Story(
        "coins",
        1,
        _coins,
        (
            "{N} has {a} coins of 5 cents and {b} coins of 10 cents. How many cents is that?",
            "A box holds {a} nickels and {b} dimes. How many cents are in the box?",
            "How many cents are {a} five-cent coins and {b} ten-cent coins?",
            "{N} pays with {a} coins of 5 cents and {b} coins of 10 cents. How many cents does {he} pay?",
        ),
        ("Fives: a × 5", "Tens: b × 10", "Total: P + Q"),
        "The number of cents is {box}.",
    ),
    Story(
        "fraction_gone",
        3,
        _fraction_gone,
        (
            "{N} has {a} {things} and gives 1/{b} of them to {M}. How many {things} does {N} keep?",
            "A shop has {a} {things} and sells 1/{b} of them. How many are left?",
            "1/{b} of {a} {things} are red. How many are not red?",
            "{N} has {a} {money} and spends 1/{b} of it. How much is left?",
            *asked(
                (
                    "{N} [has] {a} {things} and [gives] 1/{b} of them away",
                    "{N} had {a} {foods} and ate 1/{b} of them",
                    "{N} [sells] 1/{b} of {his} {a} {things}",
                ),
                ("how many are left", "what is left", "how many {things} are left"),
                condition=False,
            ),
            *asked(
                ("{N} [has] ${a} and [spends] 1/{b} of it", "{N} had ${a} and lost 1/{b} of it"),
                ("how much is left", "what is left", "how much money [does] {he} have left"),
            ),
        ),
        ("Gone: a ÷ b", "Left: a - P"),
        "What is left is {box}.",
    ),
)
