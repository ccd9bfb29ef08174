"""What a learner can do, and how hard the next problem shall be.

A rating as in chess, one for each topic: a problem is an opponent whose rating follows from its level, solving it is a
win. The expected score is 1 / (1 + 10 ** ((problem - learner) / 400)), and after each problem the rating moves by the
surprise, the score less what was expected, times a step that shrinks as more is known (200, 100 from the seventh
problem on, 48 from the twenty-first). A hint or a wrong try makes a win smaller; a solution that was looked at is a
defeat. The next problem is of the level at which success is nearest to two in three, at most one level from the last:
hard enough to learn from, easy enough to go on.

Nothing is kept here: the learner's side holds the ratings and sends them along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sambay.errors import TutorError

__all__ = ["LEVELS", "Skill", "expected_score", "level_rating", "score_of"]

LEVELS: Final = 5
_START, _LOWEST, _HIGHEST, _AIM = 1100.0, 400.0, 2200.0, 2 / 3


def level_rating(level: int) -> float:
    """The rating of the problems of a level: 800 for the first, 200 more for each further one."""
    return 600.0 + 200.0 * level


def expected_score(rating: float, level: int) -> float:
    """How likely one of this rating is to solve a problem of a level."""
    return float(1 / (1 + 10 ** ((level_rating(level) - rating) / 400)))


def score_of(solved: bool, hints: int, wrong: int) -> float:
    """What a problem counts: 1 at the first try and alone, less for each hint and wrong try, 0 if it was given up."""
    return max(0.1, 1 - 0.2 * hints - 0.25 * wrong) if solved else 0.0


@dataclass(frozen=True)
class Skill:
    """What is known of a learner in one topic.

    Attributes:
        rating: 1100 for one of whom nothing is known, from 400 to 2200.
        answered: problems that are done with.
        right: of them, those that were solved.
        level: of the last problem, 0 before the first.
    """

    rating: float = _START
    answered: int = 0
    right: int = 0
    level: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, object] | None) -> Skill:
        """Read what a learner's side has kept.

        Raises:
            TutorError: a value that no `Skill` has.
        """
        values = values or {}
        rating = values.get("rating", _START)
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
            raise TutorError(f"rating is {rating!r:.40}: it must be a number from {_LOWEST:.0f} to {_HIGHEST:.0f}")
        counts = {}
        for name, most in (("answered", 10**6), ("right", 10**6), ("level", LEVELS)):
            value = values.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise TutorError(f"{name} is {value!r:.40}: it must be a whole number from 0 to {most}")
            counts[name] = value
        if counts["right"] > counts["answered"]:
            raise TutorError(f"right is {counts['right']}: it must be at most answered, which is {counts['answered']}")
        return cls(min(max(float(rating), _LOWEST), _HIGHEST), **counts)

    def to_dict(self) -> dict[str, float | int]:
        """As plain data."""
        rating = round(self.rating, 1)
        return {"rating": rating, "answered": self.answered, "right": self.right, "level": self.level}

    def after(self, level: int, score: float) -> Skill:
        """What is known after a problem.

        Args:
            level: of the problem.
            score: from `score_of`.
        """
        step = 200 if self.answered < 6 else 100 if self.answered < 20 else 48
        rating = self.rating + step * (score - expected_score(self.rating, level))
        return Skill(min(max(rating, _LOWEST), _HIGHEST), self.answered + 1, self.right + (score > 0), level)

    def next_level(self) -> int:
        """The level of the next problem, from 1 to 5."""
        best = min(range(1, LEVELS + 1), key=lambda level: abs(expected_score(self.rating, level) - _AIM))
        if self.level == 0:
            return best
        return min(max(best, self.level - 1), self.level + 1)
