"""What every family of problems is made of: the dice, the problem, the kind and the split.

The dice are our own (SplitMix64) because only `random.random()` is promised to stay the same between Python
versions, and a data set that changes under a new interpreter is no data set.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Numbers = tuple[int, ...]
Split = Literal["train", "test"]

# One key in this many is held out for the test split.
TEST_SHARE = 16
_MASK = (1 << 64) - 1


class Dice:
    """A small deterministic source of chance: SplitMix64, seeded with a hash of anything printable.

    Args:
        seeds: Name the sequence.
        tidy: Whether what is written with them is for a reader: without the habits of people who type.
    """

    __slots__ = ("_state", "tidy")

    def __init__(self, *seeds: int | str, tidy: bool = False) -> None:
        self.tidy = tidy
        digest = hashlib.blake2b(repr(seeds).encode(), digest_size=8).digest()
        self._state = int.from_bytes(digest, "big")

    def word(self) -> int:
        """Return the next 64 random bits."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """Return a whole number from 0 to `bound` - 1."""
        return (self.word() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + ((self.word() * (high - low + 1)) >> 64)

    def unit(self) -> float:
        """Return a float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.unit() < probability

    def habit(self, probability: float) -> bool:
        """Return True with the given probability, never if the text shall be tidy; the dice move alike."""
        return self.chance(probability) and not self.tidy

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items, each as likely as the others."""
        return items[(self.word() * len(items)) >> 64]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out

    def level(self) -> int:
        """Return a difficulty: 0 easy (30 %), 1 medium (45 %) or 2 hard (25 %)."""
        r = self.below(20)
        return 0 if r < 6 else 1 if r < 15 else 2

    def digits(self, count: int) -> int:
        """Return a number of exactly `count` digits (1 to 9 for one digit)."""
        return self.between(10 ** (count - 1), 10**count - 1)


class Weighted(Generic[T]):
    """A table of items with weights, ready to be drawn from."""

    __slots__ = ("_bounds", "items")

    def __init__(self, pairs: Sequence[tuple[T, float]]) -> None:
        self.items = tuple(item for item, _ in pairs)
        self._bounds = tuple(accumulate(weight for _, weight in pairs))

    def draw(self, dice: Dice) -> T:
        """Return one item, drawn in proportion to its weight."""
        at = bisect_right(self._bounds, dice.unit() * self._bounds[-1])
        # Rounding may put the draw on the last bound itself.
        return self.items[min(at, len(self.items) - 1)]


@dataclass(frozen=True, slots=True)
class Problem:
    r"""One problem with its worked solution.

    Attributes:
        family: One of `FAMILIES`, or "smalltalk".
        question: What the user types.
        thinking: The worked steps, one a line.
        reply: One short sentence that ends in `\boxed{...}` (smalltalk has no box).
        answer: The content of the box in canonical form: "-12", "\\frac{3}{4}"; "" for smalltalk.
        key: The mathematics without the wording: two problems are the same if and only if their keys are.
    """

    family: str
    question: str
    thinking: str
    reply: str
    answer: str
    key: str


@dataclass(frozen=True, slots=True)
class Written:
    """The text of a problem, once its numbers are known."""

    question: str
    thinking: str
    reply: str
    answer: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem whose mathematics is drawn and whose text is not yet written.

    The split is decided by the key alone, so a draft of the wrong split costs no writing.
    """

    key: str
    write: Callable[[], Written]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem within a family.

    Attributes:
        name: Its name in the key.
        weight: How often it comes up within its family.
        draw: Draws the numbers.
        write: Writes question, steps and reply for the numbers.
        symmetric: Whether the order of the numbers does not matter, so that the key sorts them.
    """

    name: str
    weight: float
    draw: Callable[[Dice], Numbers]
    write: Callable[[Dice, Numbers], Written]
    symmetric: bool = False

    def draft(self, dice: Dice, family: str) -> Draft:
        """Draw the numbers of one problem.

        Args:
            dice: The source of chance, also used when the draft is written.
            family: The first part of the key.

        Returns:
            The draft, with a key of the form `family/name:1,2,3`.
        """
        numbers = self.draw(dice)
        canonical = sorted(numbers) if self.symmetric else numbers
        key = f"{family}/{self.name}:{','.join(map(str, canonical))}"
        return Draft(key, lambda: self.write(dice, numbers))


def split_of(key: str) -> Split:
    """Say which split a key belongs to: one in sixteen is held out.

    Args:
        key: The key of a problem.

    Returns:
        "test" or "train", the same on every machine and Python version.
    """
    return "test" if hashlib.blake2b(key.encode(), digest_size=1).digest()[0] % TEST_SHARE == 0 else "train"


def box(content: str | int) -> str:
    r"""Return `\boxed{content}`."""
    return f"\\boxed{{{content}}}"
