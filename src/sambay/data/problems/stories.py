r"""The family "word_problems": what a story is, who is in it, and how its plan becomes steps.

A story is data: templates of its question, a draw of its numbers a, b, c, d, and a plan of labelled steps.
The first step, such as "Cost: a × b", names its result P, the next ones Q, R, S and T; plain numbers stand
for themselves; "mod" is a division whose rest is the result.

Example::

    Emma buys 4 pens at 3 dollars each. She pays with 20 dollars. What is her change?

    Cost:
    4 × 3 = 12
    Change:
    20 - 12 = 8

    The change is \boxed{8}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from sambay.data.problems.base import Dice, Kind, Numbers, Written
from sambay.data.problems.wording import finish, written
from sambay.data.problems.work import Work

_WOMEN: Final = (
    "Emma", "Mia", "Lena", "Anna", "Sara", "Lily", "Nora", "Ella", "Zoe", "Ruth", "Maya", "Ines", "Clara",
    "Julia", "Alice", "Grace", "Rosa", "Amina", "Priya", "Yuki", "Fatima", "Olga", "Nadia", "Carmen",
    "Helen",
)  # fmt: skip
_MEN: Final = (
    "Tom", "Ben", "Max", "Leo", "Sam", "Paul", "Jack", "Noah", "Omar", "Ivan", "Hugo", "Luis", "Adam",
    "Felix", "Oscar", "David", "Peter", "Ali", "Ravi", "Kenji", "Mateo", "Karl", "Victor", "Simon",
    "Daniel",
)  # fmt: skip
THINGS: Final = (
    "apple", "banana", "orange", "lemon", "pear", "plum", "egg", "cookie", "muffin", "bagel", "carrot",
    "onion", "nut", "candle", "flower", "rose", "tulip", "book", "notebook", "pen", "pencil", "marker",
    "crayon", "eraser", "ruler", "stamp", "sticker", "card", "postcard", "poster", "map", "coin", "marble",
    "bead", "button", "shell", "stone", "ball", "balloon", "kite", "doll", "puzzle", "toy", "block",
    "brick", "tile", "nail", "screw", "cup", "mug", "plate", "bowl", "spoon", "fork", "bottle", "jar",
    "basket", "hat", "cap", "glove", "sock", "shirt", "towel", "pillow", "blanket", "badge", "key", "lamp",
    "ribbon", "photo",
)  # fmt: skip
CONTAINERS: Final = (
    "bags", "boxes", "baskets", "crates", "packs", "trays", "cartons", "bins",
)  # fmt: skip
GROUPS: Final = (
    "friends", "children", "pupils", "guests", "players", "cousins", "classmates", "neighbors",
)  # fmt: skip
_LETTERS: Final = "abcd"
_RESULTS: Final = "PQRST"


@dataclass(frozen=True, slots=True)
class Story:
    """One kind of word problem.

    Attributes:
        name: Its name in the key.
        weight: How often it comes up within the family.
        draw: Draws its numbers at a level of difficulty.
        texts: Templates of the question, with the slots of `cast` and {a}, {b}, {c}, {d}.
        plan: The steps, each "Label: x op y".
        reply: Template of the reply.
        symmetric: Whether the order of all numbers does not matter.
    """

    name: str
    weight: float
    draw: Callable[[Dice, int], Numbers]
    texts: Sequence[str]
    plan: Sequence[str]
    reply: str
    symmetric: bool = False

    def kind(self) -> Kind:
        """Return the story as a kind of the family."""
        return Kind(self.name, self.weight, lambda dice: self.draw(dice, dice.level()), self._write, self.symmetric)

    def _write(self, dice: Dice, numbers: Numbers) -> Written:
        if self.symmetric:
            numbers = tuple(dice.shuffled(numbers))
        work = Work()
        result = follow(work, self.plan, numbers)
        slots = cast(dice) | dict(zip(_LETTERS, numbers, strict=False))
        question = finish(dice, dice.pick(self.texts).format(**slots), plain=True)
        return written(dice, work, question, result, (self.reply,), **slots)


def cast(dice: Dice) -> dict[str, object]:
    """Draw the people and things of a story.

    Args:
        dice: The source of chance.

    Returns:
        {N} and {M}, two people, with {he}, {He}, {his}, {His} and {him} of the first;
        {thing}, {a_thing}, {A_thing}, {things}, {others} (other things), {boxes}, {people} and {money}.
    """
    first, second = dice.chance(0.5), dice.chance(0.5)
    name = other = dice.pick(_WOMEN if first else _MEN)
    while other == name:
        other = dice.pick(_WOMEN if second else _MEN)
    thing = different = dice.pick(THINGS)
    while different == thing:
        different = dice.pick(THINGS)
    return {
        "N": name,
        "M": other,
        "he": "she" if first else "he",
        "He": "She" if first else "He",
        "his": "her" if first else "his",
        "him": "her" if first else "him",
        "His": "Her" if first else "His",
        "thing": thing,
        "a_thing": f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}",
        "A_thing": f"{'An' if thing[0] in 'aeiou' else 'A'} {thing}",
        "things": f"{thing}s",
        "others": f"{different}s",
        "boxes": dice.pick(CONTAINERS),
        "people": dice.pick(GROUPS),
        "money": "dollars" if dice.chance(0.75) else "euros",
    }


@cache
def _parsed(step: str) -> tuple[str, str, str, str]:
    label, _, operation = step.partition(": ")
    left, sign, right = operation.split()
    return label, left, sign, right


def follow(work: Work, plan: Sequence[str], numbers: Numbers) -> int:
    """Write the steps of a plan.

    Args:
        work: Where the steps go.
        plan: The steps, each "Label: x op y".
        numbers: The story's a, b, c, d.

    Returns:
        The result of the last step.
    """
    values = dict(zip(_LETTERS, numbers, strict=False))
    said, result = "", 0
    for name, step in zip(_RESULTS, plan, strict=False):
        label, left, sign, right = _parsed(step)
        if label != said:
            work.say(f"{label}:")
            said = label
        x, y = (values[term] if term in values else int(term) for term in (left, right))
        if sign == "+":
            result = work.add(x, y)
        elif sign == "-":
            result = work.sub(x, y)
        elif sign == "×":
            result = work.mul(x, y)
        else:
            result = work.divide(x, y)[sign == "mod"]
        values[name] = result
    return result


def upto(dice: Dice, level: int, *bounds: int) -> int:
    """Draw a number from 2 to the bound of the level."""
    return dice.between(2, bounds[level])
