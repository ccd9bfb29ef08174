"""Word problems of one and two small steps that are asked most: prices, packs, comparisons, ages, legs and days."""

from __future__ import annotations

from sambay.data.problems.base import Dice, Numbers
from sambay.data.problems.stories import Story, asked, upto


def _two(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 60, 400), upto(dice, level, 10, 60, 400)


def _down(dice: Dice, level: int) -> Numbers:
    """The larger of two numbers first."""
    part = upto(dice, level, 10, 60, 400)
    return part + upto(dice, level, 10, 60, 400), part


def _down_twice(dice: Dice, level: int) -> Numbers:
    b, c = upto(dice, level, 9, 40, 200), upto(dice, level, 9, 40, 200)
    return b + c + upto(dice, level, 9, 40, 200), b, c


def _times(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 9, 12, 40), upto(dice, level, 9, 15, 60)


def _multiple(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 30, 120), 2 if dice.chance(0.3) else dice.between(2, 9)


def _note(dice: Dice, level: int) -> Numbers:
    note = dice.pick(((5, 10, 20), (10, 20, 50), (20, 50, 100, 200))[level])
    return dice.between(1 + note // 10, note - 1), note


def _even(dice: Dice, level: int) -> Numbers:
    return (2 * upto(dice, level, 10, 50, 300),)


def _one(dice: Dice, level: int) -> Numbers:
    return (upto(dice, level, 10, 30, 120),)


def _share_eat(dice: Dice, level: int) -> Numbers:
    each, children = dice.between(3, (9, 15, 40)[level]), dice.between(2, 9)
    return each * children, children, dice.between(2, each - 1)


def _pool(dice: Dice, level: int) -> Numbers:
    """Two amounts whose sum divides by a number."""
    divisor = dice.between(2, 9)
    total = divisor * dice.between(3, (9, 20, 60)[level])
    part = dice.between(2, total - 2)
    return part, total - part, divisor


def _age(dice: Dice, level: int) -> Numbers:
    return dice.between(4, (15, 40, 70)[level]), dice.between(2, (9, 15, 30)[level])


def _age_down(dice: Dice, level: int) -> Numbers:
    age = dice.between(6, (20, 50, 80)[level])
    return age, dice.between(2, age - 2)


def _age_times(dice: Dice, level: int) -> Numbers:
    return dice.between(3, 15), dice.between(2, (4, 5, 6)[level])


def _day(dice: Dice, level: int) -> Numbers:
    return dice.between(6, 11), dice.between(1, 11)


def _daily(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 12, 30, 120), upto(dice, level, 9, 12, 30)


def _weeks(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 6, 12, 30), dice.between(1, 6)


def _large_small(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 6, 15, 50), 10 * dice.between(1, 99) if level < 2 else dice.between(11, 999)


def _average(dice: Dice, level: int) -> Numbers:
    numbers = [upto(dice, min(level, 1), 10, 30) for _ in range(5)]
    return (*numbers[1:], numbers[0] + -sum(numbers) % 5)


_DAILY = (
    "{N} [reads] {a} pages a day", "{N} [reads] {a} pages every day", "{N} [walks] {a} km a day",
    "{N} [runs] {a} km each day", "{N} [eats] {a} {foods} a day",
    "{N} [makes] {a} {things} a day", "{N} [sells] {a} {things} per day", "a machine makes {a} {things} a day",
    "a shop sells {a} {things} each day", "{N} [drinks] {a} cups of tea a day", "a cow gives {a} liters of milk a day",
)  # fmt: skip
_DAILY_PAY = (
    "{N} [saves] ${a} a day", "{N} [earns] ${a} a day", "{N} [spends] ${a} a day", "a room costs ${a} a day",
)  # fmt: skip
_MORE = (
    "{M} has {b} {more} {things} than {N}, who has {a}",
    "{N} has {a} {things} and {M} has {b} {more}",
    "{N} [has] {a} {things}. {M} has {b} {more} than {N}",
)
_AS_MANY = (
    "{M} has {b} times as many {things} as {N}, who has {a}",
    "{N} has {a} {things} and {M} has {b} times as many",
    "{N} [has] {a} {things}. {M} has {b} times as many",
    "{N} [has] {a} {foods}, {M} has {b} times as many as {N}",
)
_HALF = (
    "{N} has {a} {things} and {M} has half as many",
    "{N} [has] {a} {things}. {M} has half as many",
    "{M} has half as many {things} as {N}, who has {a}",
    "{N} [picks] {a} {foods} and {M} half as many",
)
_HOW_MANY_M = ("how many does {M} have", "how many {things} does {M} have")
_TOGETHER = ("how many do they have together", "how many {things} is that together", "how many in all")


def _comparisons(more: str) -> tuple[str, ...]:
    return tuple(text.replace("{more}", more) for text in _MORE)


def _legs(name: str, count: int, weight: float, part: str, *animals: str) -> Story:
    return Story(
        name,
        weight,
        _one,
        tuple(
            text.replace("{animals}", animal).replace("{legs}", part)
            for animal in animals
            for text in (
                "How many {legs} do {a} {animals} have?",
                "How many {legs} are there on {a} {animals}?",
                "how many {legs} have {a} {animals}",
                "There are {a} {animals}. How many {legs} is that?",
                "{N} [sees] {a} {animals}. How many {legs} do they have in total?",
                "{a} {animals}, how many {legs}?",
            )
        ),
        (f"Each has {count}: a × {count}",),
        f"The number of {part} is {{box}}.",
    )


def _mixed(name: str, factor: int, large: tuple[str, ...], small: tuple[str, ...]) -> Story:
    return Story(
        name,
        1,
        _weeks if factor < 30 else _large_small,
        tuple(
            text.replace("{of}", of).replace("{to}", to)
            for of, to in zip(large, small, strict=True)
            for text in (
                "How many {to} are {a} {of} and {b} {to}?",
                "How many {to} in {a} {of} and {b} {to}?",
                "Convert {a} {of} {b} {to} to {to}.",
                "{a} {of} and {b} {to} in {to}",
                "What is {a} {of} and {b} {to} in {to}?",
                "{N} [needs] {a} {of} and {b} {to}. How many {to} is that in total?",
            )
        ),
        (f"{large[0].capitalize()} in {small[0]}: a × {factor}", "Total: P + b"),
        f"In {small[0]} that is {{box}}.",
    )


STORIES = (
    Story(
        "each_total",
        11,
        _times,
        (
            *asked(
                (
                    "{N} [has] {a} {boxes} with {b} {things} each",
                    "{N} [has] {a} {boxes} of {b} {things}",
                    "{N} [buys] {a} {boxes} with {b} {foods} in each",
                    "there are {a} {boxes} with {b} {things} in each {bag}",
                    "there are {b} {things} in each of {a} {boxes}",
                    "each {bag} holds {b} {things} and there are {a} {boxes}",
                    "{a} {boxes} with {b} {things} each",
                    "{a} {boxes} of {b} {foods} each",
                    "{a} {people} have {b} {things} each",
                    "each of {a} {people} gets {b} {foods}",
                    "{a} rows of {b} {things}",
                ),
                (
                    "how many {things}",
                    "how many {things} is that in total",
                    "how many {things} are there",
                    "how many in all",
                ),
                condition=False,
            ),
            *asked(
                ("a {bag} holds {b} {things}", "one {bag} has {b} {things}", "there are {b} {things} in a {bag}"),
                (
                    "how many {things} are in {a} {boxes}",
                    "how many {things} do {a} {boxes} hold",
                    "how many in {a} {boxes}",
                ),
            ),
        ),
        ("In all: a × b",),
        "The number of {things} is {box}.",
    ),
    Story(
        "both",
        6,
        _two,
        asked(
            (
                "{a_thing} costs ${a} and {a_other} costs ${b}",
                "{a_thing} costs {a} and {a_other} {b}",
                "{a_thing} is ${a}, {a_other} is ${b}",
                "{N} [buys] {a_thing} for ${a} and {a_other} for ${b}",
                "{N} [pays] ${a} for {a_thing} and ${b} for {a_other}",
                "{N} [spends] ${a} on {things} and ${b} on {others}",
            ),
            ("how much for both", "how much is that together", "what is the total", "how much do both cost together"),
        ),
        ("Together: a + b",),
        "Together that is {box}.",
        symmetric=True,
    ),
    Story(
        "money_left",
        8,
        _down,
        asked(
            (
                "{N} had ${a} and spent ${b}",
                "{N} [has] ${a} and [spends] ${b}",
                "{N} [has] ${a}. {he} [buys] {a_thing} for ${b}",
                "{N} had ${a} and bought {a_thing} for ${b}",
                "{N} had ${a}, gave {M} ${b}",
                "{N} [has] ${a} and [loses] ${b}",
            ),
            ("how much is left", "how much [does] {he} have left", "how much money is left", "how much money remains"),
            condition=False,
        ),
        ("Left: a - b",),
        "What is left is {box}.",
    ),
    Story(
        "change_one",
        6,
        _note,
        asked(
            (
                "{a_thing} costs ${a} and {N} [pays] with a ${b} bill",
                "{N} [buys] {a_thing} for ${a} and [pays] with a ${b} bill",
                "{N} [pays] for a ${a} {thing} with a ${b} note",
                "{N} [gives] ${b} for {a_thing} that costs ${a}",
                "the bill is ${a} and {N} [pays] with ${b}",
            ),
            ("how much change [does] {he} get", "what is the change", "how much change is that", "how much comes back"),
            condition=False,
        ),
        ("Change: b - a",),
        "The change is {box}.",
    ),
    Story(
        "spent_twice",
        6,
        _down_twice,
        asked(
            (
                "{N} had ${a}. {he} spent ${b} on {things} and ${c} on {others}",
                "{N} [has] ${a}, [buys] {a_thing} for ${b} and {a_other} for ${c}",
                "{N} had {a} {foods}, ate {b} and gave {c} to {M}",
                "{N} [has] {a} {things}, [loses] {b} and [sells] {c}",
                "{N} [has] {a} {foods}. {he} [eats] {b} and {M} eats {c}",
            ),
            ("how much is left", "what is left", "what remains"),
            condition=False,
        ),
        ("Left: a - b", "Left: P - c"),
        "What is left is {box}.",
    ),
    Story(
        "share_eat",
        5,
        _share_eat,
        asked(
            (
                "{a} {foods} are shared by {b} {people}, each eats {c}",
                "{b} {people} share {a} {foods} equally and each eats {c}",
                "{a} {foods} are split equally among {b} {people}. each of them eats {c}",
                "{b} {people} share {a} {things}. everyone loses {c}",
                "{N} [gives] {a} {foods} to {b} {people} equally. each eats {c}",
            ),
            ("how many has each left", "how many does each one have left", "how many {things} are left for each"),
            condition=False,
        ),
        ("Each: a ÷ b", "Left: P - c"),
        "For each one that is {box}.",
    ),
    Story(
        "pool",
        3,
        _pool,
        (
            *asked(
                (
                    "{N} [has] {a} {things} and {M} has {b}. they share them among {c} {people}",
                    "{N} [picks] {a} {foods} in the morning and {b} in the evening. {c} {people} share them equally",
                    "there are {a} red and {b} green {things}. {c} {people} share them equally",
                ),
                ("how many does each get", "how many for each", "how many {things} does each one get"),
                condition=False,
            ),
            *asked(
                ("{a} boys and {b} girls form {c} equal teams", "{a} boys and {b} girls are put into {c} equal groups"),
                ("how many are in each", "how many children are in one"),
            ),
        ),
        ("Together: a + b", "Each: P ÷ c"),
        "For each that is {box}.",
    ),
    Story(
        "more",
        3,
        _two,
        asked(_comparisons("more"), _HOW_MANY_M),
        ("More: a + b",),
        "The number is {box}.",
    ),
    Story(
        "fewer",
        2,
        _down,
        asked((*_comparisons("fewer"), *_comparisons("less")), _HOW_MANY_M),
        ("Fewer: a - b",),
        "The number is {box}.",
    ),
    Story(
        "fewer_together",
        2,
        _down,
        asked(_comparisons("fewer"), _TOGETHER),
        ("The other: a - b", "Together: a + P"),
        "Together that is {box}.",
    ),
    Story(
        "as_many",
        6,
        _multiple,
        asked(_AS_MANY, _HOW_MANY_M),
        ("Times: a × b",),
        "The number is {box}.",
    ),
    Story(
        "half_as_many",
        2.5,
        _even,
        asked(_HALF, _HOW_MANY_M),
        ("Half: a ÷ 2",),
        "The number is {box}.",
    ),
    Story(
        "half_together",
        2,
        _even,
        asked(_HALF, _TOGETHER),
        ("The other: a ÷ 2", "Together: a + P"),
        "Together that is {box}.",
    ),
    Story(
        "older",
        2,
        _age,
        (
            *asked(
                ("{N} [is] {a} years old and {M} is {b} years older", "{M} is {b} years older than {N}, who is {a}"),
                ("how old is {M}", "what is the age of {M}"),
            ),
            *asked(
                ("{N} [is] {a} years old", "{N} [is] {a} now", "{N} [is] {a}"),
                (
                    "how old will {he} be in {b} years",
                    "how old [is] {he} in {b} years",
                    "what is {his} age in {b} years",
                ),
            ),
        ),
        ("Age: a + b",),
        "The age is {box}.",
    ),
    Story(
        "younger",
        2,
        _age_down,
        (
            *asked(
                (
                    "{N} [is] {a} years old and {M} is {b} years younger",
                    "{M} is {b} years younger than {N}, who is {a}",
                ),
                ("how old is {M}", "what is the age of {M}"),
            ),
            *asked(
                ("{N} [is] {a} years old", "{N} [is] {a} now", "{N} [is] {a}"),
                ("how old [was] {he} {b} years ago", "what was {his} age {b} years ago"),
            ),
        ),
        ("Age: a - b",),
        "The age is {box}.",
    ),
    Story(
        "age_times",
        2,
        _age_times,
        asked(
            (
                "{N} [is] {a} years old and {M} is {b} times as old",
                "{M} is {b} times as old as {N}, who is {a}",
                "{N} [is] {a}. {M} is {b} times as old",
            ),
            ("how old is {M}", "what is the age of {M}"),
        ),
        ("Age: a × b",),
        "The age is {box}.",
    ),
    Story(
        "a_week",
        4,
        _one,
        (
            *asked(_DAILY, ("how many in a week", "how many is that in one week", "how many in 7 days")),
            *asked(_DAILY_PAY, ("how much in a week", "how much is that a week", "how much is that in 7 days")),
        ),
        ("A week has 7 days: a × 7",),
        "In a week that is {box}.",
    ),
    Story(
        "daily",
        4,
        _daily,
        (
            *asked(_DAILY, ("how many in {b} days", "how many is that in {b} days", "how many after {b} days")),
            *asked(_DAILY_PAY, ("how much in {b} days", "how much is that in {b} days", "how much after {b} days")),
        ),
        ("In all: a × b",),
        "In all that is {box}.",
    ),
    Story(
        "opening",
        2,
        _day,
        asked(
            (
                "a shop opens at {a} am and closes at {b} pm",
                "{N} [works] from {a} am to {b} pm",
                "a {car} leaves at {a} am and arrives at {b} pm",
                "school starts at {a} am and ends at {b} pm",
            ),
            ("how many hours is that", "how many hours are between", "how long is that in hours"),
        ),
        ("To noon: 12 - a", "After noon: P + b"),
        "The number of hours is {box}.",
    ),
    Story(
        "average_5",
        1.5,
        _average,
        (
            "What is the average of {a}, {b}, {c}, {d} and {e}?",
            "Find the mean of {a}, {b}, {c}, {d} and {e}.",
            "average of {a}, {b}, {c}, {d}, {e}",
            "{N} [has] the scores {a}, {b}, {c}, {d} and {e}. What is the average?",
            "What is the average of these numbers: {a}, {b}, {c}, {d}, {e}?",
        ),
        ("Sum: a + b", "Sum: P + c", "Sum: Q + d", "Sum: R + e", "Average: S ÷ 5"),
        "The average is {box}.",
        symmetric=True,
    ),
    _legs("legs_2", 2, 1, "legs", "birds", "chickens", "ducks", "people", "hens"),
    _legs("legs_4", 4, 2, "legs", "dogs", "cats", "cows", "horses", "sheep", "chairs", "tables"),
    _legs("legs_6", 6, 0.8, "legs", "ants", "bees", "insects", "beetles"),
    _legs("legs_8", 8, 0.8, "legs", "spiders"),
    _legs("wheels_4", 4, 0.8, "wheels", "cars", "wagons"),
    _mixed("weeks_days", 7, ("weeks",), ("days",)),
    _mixed("feet_inches", 12, ("feet",), ("inches",)),
    _mixed("years_months", 12, ("years",), ("months",)),
    _mixed("days_hours", 24, ("days",), ("hours",)),
    _mixed("kg_and_g", 1000, ("kg", "kilograms"), ("g", "grams")),
    _mixed("km_and_m", 1000, ("km", "kilometers"), ("m", "meters")),
)
