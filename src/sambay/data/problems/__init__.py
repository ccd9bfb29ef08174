r"""School mathematics with worked solutions, drawn from a seed: it trains, and tests, a tiny language model.

`problem_at(seed, index, split)` is random access: any process can make any part of the data, the same
everywhere. The split is decided by the mathematics, not by its wording: no test problem is seen in training.

    base          the dice, the problem, the kind, the split
    work          the steps of written arithmetic, shared by all families
    wording       how people type
    arithmetic, expressions, fraction, decimals, equations, percentages, stories*   the families
    smalltalk     what is not mathematics
    answers       reading and comparing final answers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, get_args

from sambay.data.problems import (
    arithmetic,
    decimals,
    equations,
    expressions,
    fraction,
    percentages,
    stories_measures,
    stories_money,
    stories_puzzles,
    stories_steps,
    stories_things,
)
from sambay.data.problems.answers import boxed, same_answer
from sambay.data.problems.base import Dice, Draft, Kind, Problem, Split, Weighted, split_of
from sambay.data.problems.smalltalk import smalltalk_at
from sambay.data.problems.wording import ALPHABET, INSTRUCTION, as_typed

__all__ = [
    "ALPHABET",
    "FAMILIES",
    "INSTRUCTION",
    "Problem",
    "boxed",
    "problem_at",
    "same_answer",
    "smalltalk_at",
    "split_of",
]


def _of_kinds(family: str, kinds: Sequence[Kind]) -> Callable[[Dice], Draft]:
    """Return the draw of a family that is a table of kinds."""
    table = Weighted([(kind, kind.weight) for kind in kinds])
    return lambda dice: table.draw(dice).draft(dice, family)


_STORIES: Final = tuple(
    story.kind()
    for part in (stories_things, stories_money, stories_measures, stories_puzzles, stories_steps)
    for story in part.STORIES
)
_DRAFTS: Final[Mapping[str, Callable[[Dice], Draft]]] = {
    "arithmetic": _of_kinds("arithmetic", arithmetic.KINDS),
    "order_of_operations": expressions.draft,
    "fractions": _of_kinds("fractions", fraction.KINDS),
    "equations": _of_kinds("equations", equations.KINDS),
    "percentages": _of_kinds("percentages", percentages.KINDS),
    "word_problems": _of_kinds("word_problems", _STORIES),
    "decimals": _of_kinds("decimals", decimals.KINDS),
}
FAMILIES: Final[tuple[str, ...]] = tuple(_DRAFTS)
_SHARES: Final[Mapping[str, float]] = {
    "arithmetic": 0.26,
    "order_of_operations": 0.12,
    "fractions": 0.17,
    "equations": 0.13,
    "percentages": 0.09,
    "word_problems": 0.18,
    "decimals": 0.05,
}


@lru_cache(maxsize=64)
def _table(shares: tuple[tuple[str, float], ...]) -> Weighted[str]:
    """Check the shares of the families and make them a table."""
    for family, share in shares:
        if family not in _DRAFTS:
            raise ValueError(f"unknown family {family!r}: choose from {', '.join(FAMILIES)}")
        if not 0 <= share < float("inf"):
            raise ValueError(f"the share of {family} is {share}: give a finite number of at least 0")
    positive = [pair for pair in shares if pair[1] > 0]
    if not positive:
        raise ValueError("no family has a share above 0: give at least one")
    return Weighted(positive)


def problem_at(
    seed: int, index: int, split: str, families: Mapping[str, float] | None = None, *, tidy: bool = False
) -> Problem:
    """Make one problem of a sequence.

    Args:
        seed: Names the sequence.
        index: The place in it; any place costs the same.
        split: "train" or "test".
        families: How often each family comes up, in any unit; by default a mix of all.
        tidy: Word the question for a reader: the same mathematics, without the habits of people who type.

    Returns:
        The problem, the same for the same arguments on every platform and Python version.

    Raises:
        ValueError: The split or a family is unknown, or the shares are negative, not finite, or all 0.
    """
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}: choose train or test")
    table = _table(tuple((_SHARES if families is None else families).items()))
    dice = Dice(split, seed, index, tidy=tidy)
    family = table.draw(dice)
    draft = _DRAFTS[family]
    while split_of((drawn := draft(dice)).key) != split:
        pass
    text = drawn.write()
    return Problem(family, as_typed(dice, text.question), text.thinking, text.reply, text.answer, drawn.key)
