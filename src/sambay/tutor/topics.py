"""What can be practised: topics, levels, and the problem that a name stands for.

The level of a problem is the work that it takes: the lines of its worked solution, each one fact of the tables (more
with a carry, less where there is nothing to work out), and the size of its numbers. Within a topic the fifth of
problems with the least work is level 1.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sambay.data.problems import FAMILIES, Problem, problem_at
from sambay.errors import TutorError
from sambay.tutor.skill import LEVELS

__all__ = ["TITLES", "TOPICS", "Exercise", "draw", "exercise", "level_of", "work_of"]

TITLES: Final = {
    "arithmetic": "Arithmetic",
    "order_of_operations": "Order of operations",
    "fractions": "Fractions",
    "decimals": "Decimals",
    "percentages": "Percentages",
    "equations": "Equations",
    "word_problems": "Word problems",
}
TOPICS: Final = tuple(TITLES)
assert set(TOPICS) == set(FAMILIES)

# Of the problems that a tutor shows; another number is another set.
_SEED, _SAMPLE, _INDICES = 1729, 600, 1 << 40


@dataclass(frozen=True)
class Exercise:
    """A generated problem that a learner works on.

    Attributes:
        name: from which `exercise` makes it again: the topic and its place.
        level: from 1 to 5.
        problem: with its worked solution.
    """

    name: str
    level: int
    problem: Problem

    @property
    def topic(self) -> str:
        """The topic."""
        return self.problem.family

    @property
    def question(self) -> str:
        """What is asked, as a sentence."""
        text = re.sub(r"\s*=\s*(?:\?|\.\.\.)?\Z", "", self.problem.question).rstrip()
        if re.search(r"[A-Za-z]{2}", text.replace("frac", "")):
            # An unknown keeps its size.
            first = text[0] if re.match(r"[a-z](?![a-z])", text) else text[0].upper()
            return first + text[1:] + ("" if text[-1] in ".?:!" or text[-1].isdigit() else ".")
        return f"{'Solve' if '=' in text else 'Work out'} {text.rstrip('?. ')}."

    @property
    def kind(self) -> str:
        """The kind of problem within the topic, such as "add"."""
        return self.problem.key.partition(":")[0].partition("/")[2]


def work_of(problem: Problem) -> float:
    """How much work a problem is: the lines of its solution, and the digits of its largest number."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", problem.question.replace(",", ""))]
    return sum(map(_work_of_line, problem.thinking.splitlines())) + math.log10(1 + max(numbers, default=0.0))


def _work_of_line(line: str) -> float:
    """1 for a fact of the tables, more where something is carried, little where there is nothing to work out."""
    if "carry" in line or "borrow" in line:
        return 1.5
    if re.match(r"\d [-+] 0 = ", line):
        return 0.1
    return 0.5 if line.endswith(":") or "=" not in line else 1.0


@lru_cache(maxsize=len(TOPICS))
def _bounds(topic: str) -> tuple[float, ...]:
    """The work at which the next level begins: the fifths of a sample."""
    sample = sorted(work_of(_at(topic, index)) for index in range(_SAMPLE))
    return tuple(sample[_SAMPLE * part // LEVELS] for part in range(1, LEVELS))


def level_of(problem: Problem) -> int:
    """The level of a generated problem within its topic, from 1 to 5."""
    return 1 + bisect_left(_bounds(problem.family), work_of(problem))


def exercise(name: str) -> Exercise:
    """The problem that a name stands for.

    Raises:
        TutorError: there is none of that name.
    """
    match = re.fullmatch(r"([a-z_]+)-(\d{1,13})", name)
    if match is None or match[1] not in TITLES or int(match[2]) >= _INDICES:
        raise TutorError(f"there is no problem {name!r:.60}: ask for a new one")
    problem = _at(match[1], int(match[2]))
    return Exercise(name, level_of(problem), problem)


def draw(topic: str, level: int, begin: int) -> Exercise:
    """The first problem of a topic and level from some place on.

    Args:
        topic: one of `TOPICS`.
        level: from 1 to 5.
        begin: the place, any number; the same gives the same problem.

    Raises:
        TutorError: there is no such topic or level.
    """
    if topic not in TITLES:
        raise TutorError(f"there is no topic {topic!r:.60}: choose from {', '.join(TOPICS)}")
    if not 1 <= level <= LEVELS:
        raise TutorError(f"level is {level}: it must be from 1 to {LEVELS}")
    index = begin % (_INDICES // 2)
    while level_of(problem := _at(topic, index)) != level:
        index += 1
    return Exercise(f"{topic}-{index}", level, problem)


def _at(topic: str, index: int) -> Problem:
    return problem_at(_SEED, index, "train", {topic: 1.0}, tidy=True)
