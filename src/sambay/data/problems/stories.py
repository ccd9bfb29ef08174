r"""The family "word_problems": what a story is, who is in it, and how its plan becomes steps.

A story is data: templates of its question, a draw of its numbers a, b, c, d, e, and a plan of labelled steps.
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

import re
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
FOODS: Final = (
    "apple", "banana", "orange", "cookie", "sweet", "grape", "nut", "plum", "muffin", "pancake", "cherry",
    "strawberry", "candy", "sandwich", "peach", "pear", "egg", "biscuit", "chocolate", "cake", "bun", "date",
)  # fmt: skip
# Whoever is not named: who it is, he, his, him, and whether the verb has an s.
_OTHERS: Final = (
    ("I", "I", "my", "me", False), ("I", "I", "my", "me", False), ("I", "I", "my", "me", False),
    ("you", "you", "your", "you", False), ("we", "we", "our", "us", False), ("they", "they", "their", "them", False),
    ("she", "she", "her", "her", True), ("he", "he", "his", "him", True), ("a girl", "she", "her", "her", True),
    ("a boy", "he", "his", "him", True), ("a farmer", "he", "his", "him", True), ("a baker", "she", "her", "her", True),
    ("a teacher", "she", "her", "her", True), ("a man", "he", "his", "him", True),
    ("a woman", "she", "her", "her", True), ("my friend", "he", "his", "him", True),
    ("my sister", "she", "her", "her", True), ("my brother", "he", "his", "him", True),
    ("dad", "he", "his", "him", True), ("grandma", "she", "her", "her", True),
)  # fmt: skip
_RELATIVES: Final = ("sister", "brother", "friend", "cousin", "neighbor", "mother", "uncle")
_SMALL: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_PARTS: Final = {
    "1/2": ("half",),
    "1/3": ("a third", "one third"),
    "1/4": ("a quarter", "one quarter", "a fourth"),
    "1/5": ("a fifth", "one fifth"),
}
_BARE_VERBS: Final = {"has": "have", "is": "are", "was": "were", "does": "do", "goes": "go"}
_LETTERS: Final = "abcde"
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
        question = finish(dice, told(dice, dice.pick(self.texts), slots), plain=True)
        return written(dice, work, question, result, (self.reply,), **slots)


def cast(dice: Dice) -> dict[str, object]:
    """Draw the people and things of a story.

    Args:
        dice: The source of chance.

    Returns:
        {N} and {M}, two people, with {he}, {He}, {his}, {His} and {him} of the first;
        {thing}, {a_thing}, {A_thing}, {things}, {a_other} and {others} (other things), {boxes} and {bag},
        {people}, {money}, {cm} (a unit of length) and {car} (what drives).
    """
    first, second = dice.chance(0.5), dice.chance(0.5)
    name = other = dice.pick(_WOMEN if first else _MEN)
    while other == name:
        other = dice.pick(_WOMEN if second else _MEN)
    thing = different = dice.pick(THINGS)
    bag = dice.pick(CONTAINERS)
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
        "a_thing": _with_article(thing),
        "A_thing": f"{'An' if thing[0] in 'aeiou' else 'A'} {thing}",
        "things": f"{thing}s",
        "others": f"{different}s",
        "a_other": _with_article(different),
        "boxes": bag,
        "bag": bag.removesuffix("es") if bag == "boxes" else bag.removesuffix("s"),
        "cm": dice.pick(("cm", "cm", "cm", "m", "m", "meters", "centimeters", "feet", "inches", "mm")),
        "car": dice.pick(("car", "car", "train", "train", "bus", "truck", "van", "taxi", "driver", "motorbike")),
        "people": dice.pick(GROUPS),
        "money": "dollars" if dice.chance(0.75) else "euros",
    }


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun."""
    if noun.endswith(("ch", "sh", "x", "ss")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun[-1] == "y" and noun[-2] not in "aeiou" else f"{noun}s"


def asked(premises: Sequence[str], questions: Sequence[str], condition: bool = True) -> tuple[str, ...]:
    """Join every premise with every question, in the orders that people use.

    Args:
        premises: Statements without capital and full stop; they may contain several sentences.
        questions: Questions without capital and mark.
        condition: Whether "if" may precede the premise.

    Returns:
        Templates of whole questions.
    """
    texts = []
    for p in premises:
        # "If" reaches no further than its sentence.
        orders = ["{p}. {q}?", "{p}. {q}?", "{p}, {q}?", "{p}; {q}?"]
        if condition and ". " not in p:
            orders += ["if {p}, {q}?", "if {p}, {q}?", "{q} if {p}?"]
        texts += [order.replace("{p}", p).replace("{q}", q) for q in questions for order in orders]
    return tuple(texts)


def told(dice: Dice, text: str, slots: dict[str, object]) -> str:
    """Fill in a template the way people tell a story.

    Verbs in square brackets agree with {N}, who then may also be "I", "they" or "a farmer".

    Args:
        dice: The source of chance.
        text: The template.
        slots: The values of its fields; {thing} becomes food where {food} is asked for.

    Returns:
        The text, with numbers, prices and units as people write them.
    """
    if "{food" in text:
        food = dice.pick(FOODS)
        slots |= {"food": food, "foods": plural(food), "thing": food, "things": plural(food)}
    third = True
    if "[" in text:
        if dice.chance(0.4):
            who, he, his, him, third = dice.pick(_OTHERS)
            slots |= {"N": who, "he": he, "He": he, "his": his, "His": his, "him": him}
            again = who.replace("a ", "the ", 1) if who.startswith("a ") else who
            text = text.replace("{N}", who, 1).replace("{N}", again)
        elif "{M}" not in text and dice.chance(0.1):
            slots |= {"N": f"{slots['N']} and {slots['M']}", "he": "they", "He": "they", "his": "their", "him": "them"}
            third = False
        if dice.chance(0.2):
            slots["M"] = f"{slots['his']} {dice.pick(_RELATIVES)}"
        am = slots["he"] == "I"
        text = re.sub(r"\[(\w+)\]", lambda verb: verb[1] if third else _agreed(verb[1], am), text)
    text = _units(dice, currency(dice, text.format(**slots)))
    if dice.chance(0.5):
        text = re.sub(r"\b1/[2-5](?= of\b)", lambda part: dice.pick(_PARTS[part[0]]), text)
    if dice.chance(0.2):
        text = _in_words(dice, text)
    text = re.sub(r"(^|[.?!] )([a-z])", lambda start: start[1] + start[2].upper(), text)
    if dice.habit(0.08):
        text = re.sub(r"\bi\b", dice.pick(("i", "I")), text.lower())
    return text.rstrip("?.") if dice.habit(0.08) else text


def _agreed(verb: str, am: bool) -> str:
    """Return the form of a verb after "I" and plurals."""
    if am and verb in ("is", "was"):
        return "am" if verb == "is" else verb
    if verb in _BARE_VERBS:
        return _BARE_VERBS[verb]
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    return verb[:-2] if verb.endswith(("ches", "shes", "sses", "xes")) else verb[:-1]


def _in_words(dice: Dice, text: str) -> str:
    """Write the numbers to twelve in words where a noun follows."""
    if dice.chance(0.6):
        text = re.sub(r"\b2 times\b", "twice", text)
    if dice.chance(0.4):
        text = re.sub(
            r"(?<![\d$€£:/.,+-] )(?<![$€£:/.\d-])\b12(?= (?!times|hours|days|weeks|years)[a-z]{3,}s\b)", "a dozen", text
        )
    pattern = r"(?<![\d$€£:/.+-])\b(1[0-2]|[1-9])(?= (?!and|each|what|for)[a-z]{3,})"
    return re.sub(pattern, lambda number: _SMALL[int(number[1])], text)


def currency(dice: Dice, text: str) -> str:
    """Write the prices of a text with other signs and words, all in the same way.

    Args:
        dice: The source of chance.
        text: A text with prices such as "$5".

    Returns:
        The text, with "an" before 8, 11, 18 and their like.
    """
    text = re.sub(r"\b([Aa]) (?=[$]?(?:8|1[18]\b))", r"\1n ", text)
    way = dice.unit() if "$" in text else 0
    if way < 0.5:
        return text
    if way < 0.68:
        sign, name = dice.pick((("€", "euros"), ("£", "pounds")))
        return text.replace("$", sign).replace("dollars", name)
    name = dice.pick(("dollar", "dollar", "dollar", "euro", "pound"))
    text = text.replace("dollars", f"{name}s")
    if way < 0.78:
        sign = {"dollar": "$", "euro": "€", "pound": "£"}[name]
        return re.sub(r"\$(\d+)", dice.pick((rf"\1{sign}", rf"\1 {sign}")), text)
    text = re.sub(r"\b([Aa]n?) \$(\d+)", rf"\1 \2 {name}", text)
    return re.sub(r"\$(\d+)", rf"\1 {name}s" if way < 0.95 else r"\1", text)


def _units(dice: Dice, text: str) -> str:
    """Write speeds and distances in miles or in full."""
    if "km" not in text or dice.chance(0.4):
        return text
    if "km/h" in text:
        text = text.replace("km/h", dice.pick(("km per hour", "km an hour", "km/h", "kph", "km each hour")))
    if dice.chance(0.5):
        text = re.sub(r"\bkph\b|\bkm/h", "mph", text)
        return re.sub(r"\bkm\b", "miles", text)
    return re.sub(r"\bkm\b(?!/)", "kilometers", text) if dice.chance(0.3) else text


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
