"""Word problems about numbers and rates: ages, averages, ratios, puzzles, work and recipes."""

from __future__ import annotations

from math import gcd

from sambay.data.problems.base import Dice, Numbers
from sambay.data.problems.stories import Story, asked, upto


def _ages(dice: Dice, level: int) -> Numbers:
    return dice.between(4, 40), dice.between(2, 30), dice.between(2, (9, 20, 30)[level])


def _parent(dice: Dice, level: int) -> Numbers:
    child = dice.between(6, 15)
    return child, dice.between(3, max(3, 48 // child)), dice.between(2, (9, 20, 40)[level])


def _consecutive(dice: Dice, level: int) -> Numbers:
    return (3 * dice.between(2, (20, 90, 400)[level]),)


def _average(dice: Dice, level: int, count: int) -> Numbers:
    """Numbers whose sum divides by their count."""
    numbers = [upto(dice, level, 10, 40, 200) for _ in range(count)]
    return (*numbers[1:], numbers[0] + -sum(numbers) % count)


def _missing(dice: Dice, level: int) -> Numbers:
    b, c, x = _average(dice, level, 3)
    return (b + c + x) // 3, b, c


def _ratio(dice: Dice, level: int) -> Numbers:
    while True:
        a, b = dice.between(1, 7), dice.between(1, 7)
        if a + b <= 9 and gcd(a, b) == 1 and a != b:
            return a, b, (a + b) * upto(dice, level, 9, 15, 60)


def _think(dice: Dice, level: int) -> Numbers:
    number, factor, shift = upto(dice, level, 10, 20, 60), dice.between(2, 9), upto(dice, level, 10, 30, 99)
    return factor, shift, number * factor + shift


def _think_minus(dice: Dice, level: int) -> Numbers:
    number, factor = upto(dice, level, 10, 20, 60), dice.between(2, 9)
    shift = dice.between(1, number * factor - 1)
    return factor, shift, number * factor - shift


def _sum_difference(dice: Dice, level: int) -> Numbers:
    small = upto(dice, level, 10, 50, 200)
    difference = upto(dice, level, 9, 30, 90)
    return 2 * small + difference, difference


def _heads(dice: Dice, level: int) -> Numbers:
    hens, rabbits = upto(dice, level, 9, 20, 40), upto(dice, level, 9, 20, 40)
    return hens + rabbits, 2 * hens + 4 * rabbits


def _workers(dice: Dice, level: int) -> Numbers:
    while True:
        a, b, c = upto(dice, level, 6, 9, 12), upto(dice, level, 9, 15, 30), dice.between(2, 9)
        if a * b % c == 0 and a != c:
            return a, b, c


def _rate(dice: Dice, level: int) -> Numbers:
    time, other = dice.between(2, 9), dice.between(2, 12)
    return time * upto(dice, level, 8, 20, 60), time, other if other != time else other + 1


def _recipe(dice: Dice, level: int) -> Numbers:
    people, other = dice.between(2, 9), dice.between(2, 12)
    return people * 5 * upto(dice, level, 10, 20, 40), people, other if other != people else other + 1


def _wages(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 9, 15, 30), dice.between(2, 9), upto(dice, level, 5, 9, 20)


def _fuel(dice: Dice, level: int) -> Numbers:
    return dice.between(3, 12), 100 * upto(dice, level, 6, 9, 20)


def _share(dice: Dice, level: int) -> Numbers:
    times = dice.between(2, 8)
    return times, (times + 1) * upto(dice, level, 9, 20, 90)


_FUTURE = "Then: P + c"

STORIES = (
    Story(
        "ages",
        3,
        _ages,
        (
            "{N} is {a} years old. {M} is {b} years older. How old will {M} be in {c} years?",
            "{M} is {b} years older than {N}, who is {a}. How old is {M} in {c} years?",
            "{N} is {a} and {M} is {b} years older. What is the age of {M} after {c} years?",
            *asked(
                ("{N} [is] {a}. {M} is {b} years older", "{N} [is] {a} and {M} is {b} years older"),
                ("how old is {M} in {c} years", "how old will {M} be in {c} years"),
                condition=False,
            ),
        ),
        ("Age now: a + b", _FUTURE),
        "The age is {box}.",
    ),
    Story(
        "parent",
        2,
        _parent,
        (
            "{N} is {a} years old. {His} mother is {b} times as old. How old will she be in {c} years?",
            "The father of {N} is {b} times as old as {N}, who is {a}. How old is he in {c} years?",
            "{N} is {a}. {His} aunt is {b} times as old. What will be the age of the aunt in {c} years?",
        ),
        ("Age now: a × b", _FUTURE),
        "The age is {box}.",
    ),
    Story(
        "consecutive_low",
        0.8,
        _consecutive,
        (
            "The sum of three consecutive numbers is {a}. What is the smallest?",
            "Three consecutive whole numbers add up to {a}. Find the smallest of them.",
            "Find the smallest of three consecutive integers with the sum {a}.",
        ),
        ("Middle: a ÷ 3", "Smallest: P - 1"),
        "The smallest is {box}.",
    ),
    Story(
        "consecutive_high",
        0.8,
        _consecutive,
        (
            "The sum of three consecutive numbers is {a}. What is the largest?",
            "Three consecutive whole numbers add up to {a}. Find the largest of them.",
            "Find the largest of three consecutive integers with the sum {a}.",
        ),
        ("Middle: a ÷ 3", "Largest: P + 1"),
        "The largest is {box}.",
    ),
    Story(
        "average_2",
        2,
        lambda dice, level: _average(dice, level, 2),
        (
            "What is the average of {a} and {b}?",
            "Find the mean of {a} and {b}.",
            "Which number is halfway between {a} and {b}?",
            "{N} scores {a} points and {b} points in two games. What is the average?",
            "average of {a} and {b}",
            "What is the mean of {a} and {b}?",
        ),
        ("Sum: a + b", "Average: P ÷ 2"),
        "The average is {box}.",
        symmetric=True,
    ),
    Story(
        "average_3",
        3,
        lambda dice, level: _average(dice, level, 3),
        (
            "What is the average of {a}, {b} and {c}?",
            "Find the mean of {a}, {b} and {c}.",
            "{N} scores {a}, {b} and {c} points in three games. What is the average?",
            "{N} walks {a}, {b} and {c} km on three days. How many km is that a day on average?",
            "Average of {a}, {b}, {c}",
            "What is the average of these numbers: {a}, {b}, {c}?",
            "Find the average of {a}, {b} and {c}.",
            "What is the mean of {a}, {b}, {c}?",
            "average of {a}, {b} and {c}",
        ),
        ("Sum: a + b", "Sum: P + c", "Average: Q ÷ 3"),
        "The average is {box}.",
        symmetric=True,
    ),
    Story(
        "average_4",
        2,
        lambda dice, level: _average(dice, min(level, 1), 4),
        (
            "What is the average of {a}, {b}, {c} and {d}?",
            "Find the mean of {a}, {b}, {c} and {d}.",
            "{N} has the scores {a}, {b}, {c} and {d}. What is the average score?",
            "Mean of {a}, {b}, {c}, {d}",
            "What is the average of these numbers: {a}, {b}, {c}, {d}?",
            "Find the average of {a}, {b}, {c} and {d}.",
            "average of {a}, {b}, {c} and {d}",
        ),
        ("Sum: a + b", "Sum: P + c", "Sum: Q + d", "Average: R ÷ 4"),
        "The average is {box}.",
        symmetric=True,
    ),
    Story(
        "average_missing",
        1,
        _missing,
        (
            "The average of three numbers is {a}. Two of them are {b} and {c}. What is the third?",
            "Three numbers have the mean {a}. Two are {b} and {c}. Find the other one.",
            "{N} has {b} and {c} points in two tests. What does {he} need in the third for an average of {a}?",
        ),
        ("Total: a × 3", "The third: P - b", "The third: Q - c"),
        "The third is {box}.",
    ),
    Story(
        "ratio",
        2,
        _ratio,
        (
            "{N} and {M} share {c} {money} in the ratio {a}:{b}. How much does {N} get?",
            "{M} and {N} share {c} {things} in the ratio {b}:{a}. How many does {N} get?",
            "Divide {c} in the ratio {a}:{b}. What is the first part?",
            "A drink of {c} ml is made of juice and water in the ratio {a}:{b}. How many ml of juice are in it?",
            "In a class of {c} pupils the ratio of girls to boys is {a}:{b}. How many girls are there?",
        ),
        ("Parts: a + b", "One part: c ÷ P", "Share: Q × a"),
        "The share is {box}.",
    ),
    Story(
        "think_plus",
        2,
        _think,
        (
            "I think of a number, multiply it by {a} and add {b}. I get {c}. What is the number?",
            "{N} thinks of a number. {a} times the number plus {b} is {c}. Find the number.",
            "A number times {a}, plus {b}, is {c}. What is the number?",
            "If you multiply a number by {a} and then add {b}, you get {c}. Which number is it?",
            "{b} more than {a} times a number is {c}. What is the number?",
        ),
        ("Undo the addition: c - b", "Undo the multiplication: P ÷ a"),
        "The number is {box}.",
    ),
    Story(
        "think_minus",
        1.5,
        _think_minus,
        (
            "I think of a number, multiply it by {a} and subtract {b}. I get {c}. What is the number?",
            "{N} thinks of a number. {a} times the number minus {b} is {c}. Find the number.",
            "A number times {a}, minus {b}, is {c}. What is the number?",
            "{b} less than {a} times a number is {c}. What is the number?",
        ),
        ("Undo the subtraction: c + b", "Undo the multiplication: P ÷ a"),
        "The number is {box}.",
    ),
    Story(
        "larger",
        1.5,
        _sum_difference,
        (
            "Two numbers have the sum {a} and the difference {b}. What is the larger number?",
            "{N} and {M} have {a} {things} together. {N} has {b} more than {M}. How many does {N} have?",
            "The sum of two numbers is {a}, their difference is {b}. Find the larger one.",
        ),
        ("Twice the larger: a + b", "Half of it: P ÷ 2"),
        "The larger number is {box}.",
    ),
    Story(
        "smaller",
        1.5,
        _sum_difference,
        (
            "Two numbers have the sum {a} and the difference {b}. What is the smaller number?",
            "{N} and {M} have {a} {things} together. {N} has {b} more than {M}. How many does {M} have?",
            "The sum of two numbers is {a}, their difference is {b}. Find the smaller one.",
        ),
        ("Twice the smaller: a - b", "Half of it: P ÷ 2"),
        "The smaller number is {box}.",
    ),
    Story(
        "rabbits",
        1,
        _heads,
        (
            "A farm has hens and rabbits with {a} heads and {b} legs in all. How many rabbits are there?",
            "There are {a} hens and rabbits with {b} legs together. Find the number of rabbits.",
            "{N} counts {a} heads and {b} legs of hens and rabbits. How many rabbits are there?",
        ),
        ("If all were hens: a × 2", "Legs more: b - P", "Rabbits: Q ÷ 2"),
        "The number of rabbits is {box}.",
    ),
    Story(
        "workers",
        2,
        _workers,
        (
            "{a} workers need {b} days for a job. How many days do {c} workers need?",
            "{a} machines do a job in {b} hours. How many hours do {c} machines take?",
            "Food lasts {a} horses for {b} days. How many days does it last for {c} horses?",
            "If {a} painters finish in {b} days, in how many days do {c} painters finish?",
            *asked(
                (
                    "{a} workers need {b} days",
                    "{a} people build a wall in {b} days",
                    "it takes {a} workers {b} days to build a house",
                ),
                ("how many days do {c} need", "how long does it take {c}", "how many days for {c}"),
            ),
        ),
        ("For one: a × b", "Shared: P ÷ c"),
        "The number is {box}.",
    ),
    Story(
        "rate",
        3,
        _rate,
        (
            "A machine sorts {a} {things} in {b} minutes. How many {things} does it sort in {c} minutes?",
            "{N} types {a} words in {b} minutes. How many words does {he} type in {c} minutes?",
            "A pump moves {a} liters in {b} hours. How many liters does it move in {c} hours?",
            "{N} packs {a} {things} in {b} hours. How many {things} does {he} pack in {c} hours?",
            *asked(
                (
                    "{N} [packs] {a} {boxes} in {b} hours",
                    "a machine makes {a} {things} in {b} hours",
                    "a printer prints {a} pages in {b} minutes",
                    "{N} [reads] {a} pages in {b} days",
                    "{N} [makes] {a} {things} in {b} days",
                ),
                ("how many is that in {c}", "how many in {c} at this rate"),
            ),
        ),
        ("In one: a ÷ b", "In all: P × c"),
        "The number is {box}.",
    ),
    Story(
        "recipe",
        3,
        _recipe,
        (
            "A recipe for {b} people needs {a} g of flour. How many grams are needed for {c} people?",
            "For {b} people {N} cooks {a} g of rice. How many grams does {he} need for {c} people?",
            "{a} g of pasta are enough for {b} people. How many grams do {c} people need?",
            "A cake for {b} people takes {a} g of sugar. How many grams of sugar are needed for {c}?",
        ),
        ("For one: a ÷ b", "For all: P × c"),
        "The number of grams is {box}.",
    ),
    Story(
        "wages",
        2,
        _wages,
        (
            "{N} earns {a} {money} an hour and works {b} hours a day. How much does {he} earn in {c} days?",
            "{N} gets {a} {money} per hour. {He} works {b} hours on each of {c} days. How much is that?",
            "A worker earns ${a} per hour. How many dollars are that for {c} days of {b} hours?",
            "{N} reads {a} pages an hour, {b} hours a day. How many pages are that in {c} days?",
            *asked(
                ("{N} [earns] ${a} an hour and [works] {b} hours a day", "{N} [gets] ${a} per hour, {b} hours a day"),
                ("how much is that in {c} days", "how much [does] {he} earn in {c} days"),
            ),
        ),
        ("In a day: a × b", "In all: P × c"),
        "The total is {box}.",
    ),
    Story(
        "fuel",
        1,
        _fuel,
        (
            "A car uses {a} liters of fuel per 100 km. How many liters does it use for {b} km?",
            "{N} drives {b} km. The car needs {a} liters per 100 km. How many liters is that?",
            "How much fuel does a car with {a} liters per 100 km need for {b} km?",
        ),
        ("Hundreds: b ÷ 100", "Fuel: P × a"),
        "The number of liters is {box}.",
    ),
    Story(
        "number_and_multiple",
        2,
        _share,
        (
            "A number and {a} times the number add up to {b}. What is the number?",
            "{M} has {a} times as many {things} as {N}. Together they have {b}. How many does {N} have?",
            "A string of {b} cm is cut in two. One part is {a} times as long as the other. "
            "How long is the shorter part in cm?",
        ),
        ("Parts: a + 1", "One part: b ÷ P"),
        "One part is {box}.",
    ),
)
