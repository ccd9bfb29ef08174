"""Speculative decoding by prompt lookup: what came after the same words before may well come again.

The end of a text is looked up in the text itself, and what followed there is computed with the next token, in one pass
that costs little more than a token by itself. Every row of it is then sampled as it would have been alone, and as long
as the draft says the same, the next row counts: the tokens are those that come without it.

Whether it pays is measured. How often a lookup is right is seen for nothing, whether the draft was computed or not;
what a step of so many rows takes is seen from those that were run. What that loses all the same is kept account of.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sambay.errors import ConfigError

__all__ = ["MODES", "Chances", "Lookup", "Speculation", "Speculator"]

MODES = ("off", "on", "auto")

_MOST = 32
"""Drafts in a step at most, of one sequence or of all together: a page holds them, and records of steps stay few."""

_PLACES = 8
"""Earlier places of the same words that are compared."""

_REACH = 1 << 15
"""Tokens at the end of a prompt that are looked up: their index takes some 200 bytes each."""

_LENGTHS = (3, 4, 5, 7, 10, 16)
"""Matches are told apart by their lengths: those of fewer tokens than the first of these, then the second, ..."""

_EXPECTED = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.9)
"""How often matches of these lengths are taken to be right before anything is known."""

_WEIGHT = 2.0
"""What that is worth beside what was seen, in observations; and what is known of all texts, beside one text."""

_MEMORY = 0.97
"""What an observation is worth when the next has come."""

_GAIN = 1.03
"""Tokens a second must grow so much for a draft to be computed."""

_ROW = 0.06
"""What a row is taken to add to a step before one was measured, of a step without drafts."""

_SAMPLES = 5
"""A step is taken to cost the median of so many."""

_STALE, _LONGEST = 128, 4096
"""What was not run for so many steps is measured again; with drafts after twice as many each time, up to the second."""


_CREDIT, _ALLOWED = 3.0, 0.01
"""Steps that may be lost to drafts in the beginning, and for each step without any; twice the first is the most."""


@dataclass(frozen=True)
class Speculation:
    """How an engine speculates.

    Attributes:
        mode: "off"; "on": wherever a lookup finds something; "auto": where it makes generation faster, by measurement.
        tokens: drafts of a sequence at most.
        least: tokens at the end of a text that must have been there before.
        longest: tokens that are compared; of several places the one where most of them agree counts.

    Raises:
        ConfigError: another mode, or numbers out of their range.
    """

    mode: str = "auto"
    tokens: int = 7
    least: int = 2
    longest: int = 32

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"speculation is {self.mode!r}: it must be one of {', '.join(MODES)}")
        for name, value, low, high in (
            ("num_speculative_tokens", self.tokens, 1, _MOST),
            ("prompt_lookup_max", self.longest, 1, 64),
            ("prompt_lookup_min", self.least, 1, self.longest),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(
                    f"speculative_config: {name} is {value!r}: it must be an integer from {low} to {high}"
                )

    @classmethod
    def of(cls, mode: str | None, config: Mapping[str, Any] | None) -> Speculation:
        """From a mode, or from what vLLM calls `speculative_config`, which turns it on.

        Raises:
            ConfigError: both were given, or the second asks for another method.
        """
        if config is None:
            return cls() if mode is None else cls(mode)
        if mode is not None:
            raise ConfigError("speculation and speculative_config say the same thing: give one of them")
        names = {"num_speculative_tokens": "tokens", "prompt_lookup_min": "least", "prompt_lookup_max": "longest"}
        given = dict(config)
        if (method := given.pop("method", None)) != "ngram":
            raise ConfigError(
                f"speculative_config: method is {method!r}: drafts come from the text itself, with 'ngram'"
            )
        if unknown := sorted(map(str, given.keys() - names.keys())):
            raise ConfigError(f"speculative_config has no {unknown[0]}: it takes method, {', '.join(names)}")
        wanted = {names[name]: value for name, value in given.items()}
        if wanted.get("longest") == 1:  # less than what it is compared with by default
            wanted.setdefault("least", 1)
        return cls("on", **wanted)


class Chances:
    """How often matches were right, by their lengths.

    Args:
        known: of other texts; None for what is expected of any.
    """

    def __init__(self, known: Chances | None = None) -> None:
        self._known = known
        self._right, self._seen = [0.0] * len(_EXPECTED), [0.0] * len(_EXPECTED)

    def note(self, group: int, right: bool) -> None:
        """Take note of a match of a group of lengths."""
        self._right[group] = self._right[group] * _MEMORY + right
        self._seen[group] = self._seen[group] * _MEMORY + 1
        if self._known is not None:
            self._known.note(group, right)

    def of(self, group: int) -> float:
        """How likely the next is right."""
        known = _EXPECTED[group] if self._known is None else self._known.of(group)
        return (self._right[group] + _WEIGHT * known) / (self._seen[group] + _WEIGHT)


class Lookup:
    """Where the end of a text was before, and how often what came there came again.

    A token takes constant time.

    Args:
        ids: the text so far.
        settings: how much must agree.
        known: of other texts.
    """

    def __init__(self, ids: Sequence[int], settings: Speculation, known: Chances | None = None) -> None:
        self._least, self._longest = settings.least, settings.longest
        self._ids: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}
        self._before: list[int] = []  # of the words that end at a token, where they ended before; -1: nowhere
        self._next = -1  # the place of what should come next; -1: nowhere
        self._length = 0  # of the match
        self._chances = Chances(known)
        for token in ids[-_REACH:]:
            self._put(token)
        self._find()

    def push(self, token: int) -> None:
        """Take the next token."""
        if self._next >= 0:
            right = self._ids[self._next] == token
            self._chances.note(_group(self._length), right)
            self._next = self._next + 1 if right else -1
            self._length += right
        self._put(token)
        if self._next < 0:
            self._find()

    def _put(self, token: int) -> None:
        self._ids.append(token)
        words = tuple(self._ids[-self._least :])
        self._before.append(self._last.get(words, -1))
        self._last[words] = len(self._ids) - 1

    def _find(self) -> None:
        """The place where most of the last tokens stand, of several the latest."""
        ids, end = self._ids, len(self._ids) - 1
        place, self._length = self._before[end] if ids else -1, 0
        for _ in range(_PLACES):
            if place < self._least - 1:
                break
            length = self._least
            while length < self._longest and length <= place and ids[place - length] == ids[end - length]:
                length += 1
            if length > self._length:
                self._next, self._length = place + 1, length
            place = self._before[place]

    def draft(self, most: int) -> list[int]:
        """What may come next, up to so many tokens; a text that repeats itself may go on in its own draft."""
        if self._next < 0:
            return []
        out: list[int] = []
        for place in range(self._next - len(self._ids), self._next - len(self._ids) + most):
            out.append(self._ids[place] if place < 0 else out[place])
        return out

    def chances(self, most: int) -> list[float]:
        """How likely a draft's tokens are right, each with all before it."""
        out, chance = [], 1.0
        for length in range(self._length, self._length + most if self._next >= 0 else 0):
            chance *= self._chances.of(_group(length))
            out.append(chance)
        return out


def _group(length: int) -> int:
    for group, bound in enumerate(_LENGTHS):
        if length < bound:
            return group
    return len(_LENGTHS)


class Speculative(Protocol):
    """A sequence whose next token is to be computed."""

    @property
    def lookup(self) -> Lookup | None:
        """Into its text."""

    draft: list[int]
    """What is computed behind the next token, if there is room."""

    @property
    def most_drafts(self) -> int:
        """Drafts that it has use for."""


class Speculator:
    """Decides how much is drafted.

    Args:
        settings: what is wanted.
    """

    def __init__(self, settings: Speculation) -> None:
        self.settings, self.chances = settings, Chances()
        self._times: dict[tuple[int, int], deque[float]] = {}
        self._until: dict[tuple[int, int], tuple[int, int]] = {}  # when it is forgotten, and how long it is kept
        self._clock, self._credit = 0, _CREDIT

    def propose(self, sequences: Sequence[Speculative]) -> None:
        """Set the drafts of the sequences that compute one token in the next step."""
        found = [(one, min(one.most_drafts, self.settings.tokens)) for one in sequences if one.lookup is not None]
        chances = [one.lookup.chances(most) if one.lookup is not None else [] for one, most in found]
        if self.settings.mode == "auto":
            counts = self._worth(len(sequences), chances)
        else:
            counts = [len(each) for each in chances]
        left = _MOST
        for (one, _), count in zip(found, counts, strict=True):
            one.draft = one.lookup.draft(min(count, left)) if count and one.lookup is not None else []
            left -= len(one.draft)

    def _worth(self, sequences: int, chances: Sequence[Sequence[float]]) -> list[int]:
        """How many drafts of each make the most tokens a second."""
        counts = [0] * len(chances)
        plain = self._measured(sequences, sequences)
        ways = sorted(((chance, place) for place, each in enumerate(chances) for chance in each), reverse=True)[:_MOST]
        if plain is None or not ways or self._credit <= 0:
            return counts
        known = [(0, plain)]
        for more in range(1, _MOST + 1):
            if (seconds := self._measured(sequences, sequences + more)) is not None:
                known.append((more, seconds))
        best, best_count, tokens = _GAIN * sequences / plain, 0, float(sequences)
        for count, (chance, _) in enumerate(ways, start=1):
            tokens += chance
            few = count <= 8 or count % 4 == 0  # steps of few widths are recorded, and measured, sooner
            if few and tokens / _between(known, count) > best:
                best, best_count = tokens / _between(known, count), count
        for _, place in ways[:best_count]:
            counts[place] += 1
        return counts

    def _measured(self, sequences: int, rows: int) -> float | None:
        """Seconds of a step, None where that is not known, or no longer."""
        key = sequences, rows
        times = self._times.get(key)
        return statistics.median(times) if times and self._clock < self._until[key][0] else None

    def took(self, sequences: int, rows: int, tokens: int, seconds: float) -> None:
        """Take note of a step of these sequences and so many rows, drafts included, that gave so many tokens."""
        self._clock += 1
        if rows == sequences:
            self._credit = min(self._credit + _ALLOWED, 2 * _CREDIT)
        elif (plain := self._measured(sequences, sequences)) is not None:
            # A pause of the machine is not the price of a draft.
            self._credit = min(self._credit + tokens / sequences - min(seconds / plain, 4.0), 2 * _CREDIT)
        key = sequences, rows
        until, kept = self._until.get(key, (self._clock + _STALE, _STALE))
        if self._clock >= until:
            self._times[key].clear()
            kept = min(2 * kept, _LONGEST) if rows > sequences else kept
        self._until[key] = self._clock + kept, kept
        if key not in self._times:  # the first is recorded, and slower
            self._times[key] = deque(maxlen=_SAMPLES)
        else:
            self._times[key].append(seconds)


def _between(known: Sequence[tuple[int, float]], more: int) -> float:
    """Seconds of a step with so many more rows, from those of which it is known: the first has none more.

    The first rows are taken to cost less than those after them: as long as memory is what bounds a step, they are free.
    """
    (_, plain), (last, most) = known[0], known[-1]
    slope = 0.0  # of the last two
    for (low, before), (high, after) in itertools.pairwise(known):
        if low <= more <= high:
            part, rise = (more - low) / (high - low), after - before
            return before + min(rise * part, max(rise * part * part, slope * (more - low)))
        slope = (after - before) / (high - low)
    return most + max(_ROW * plain, (most - plain) / last if last else 0.0) * (more - last)
