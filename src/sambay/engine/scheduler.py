"""Which sequences compute how many tokens in the next step. Pure Python: it knows nothing of tensors.

Running sequences come first, one token each; what is left of the step's budget goes to prompts, in chunks and in order,
so that a long prompt never stalls the others and never needs unbounded memory, and what they leave goes to drafts. The
order is that of priority, then of arrival. When memory is short, the last in this order makes way: it is parked, and
later goes on where it was.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Memory", "Scheduler", "Sequence", "Share"]


class Sequence(Protocol):
    """What is scheduled."""

    @property
    def rank(self) -> tuple[int, int, int]:
        """Its place in the order, lowest first: priority, arrival, and which of a request's completions it is."""

    @property
    def length(self) -> int:
        """Tokens so far."""

    @property
    def computed(self) -> int:
        """Of these, how many have been computed."""

    @property
    def pause(self) -> int:
        """The number of computed tokens that a step must not pass."""

    @property
    def drafts(self) -> int:
        """Tokens beyond these that it would compute at a guess, where there is room; only if one is to be computed."""

    @property
    def ready(self) -> bool:
        """False while it waits for the state after its prompt, which a sibling computes."""


S = TypeVar("S", bound=Sequence)
S_contra = TypeVar("S_contra", bound=Sequence, contravariant=True)


class Memory(Protocol[S_contra]):
    """What the scheduler asks of memory, which it counts in pages."""

    def room(self) -> int:
        """Pages that can be had without parking anyone."""

    def lacks(self, sequence: S_contra) -> int:
        """Pages of the room that a sequence, running or not, would take to compute all of its tokens."""

    def reserve(self, sequence: S_contra, tokens: int) -> bool:
        """Give a running sequence the pages for so many more tokens; False if they cannot be had."""

    def stretch(self, sequence: S_contra, tokens: int, more: int) -> int:
        """How many more tokens a running sequence, to compute so many, may have pages for that no one else needs."""

    def park(self, sequence: S_contra, *, away: bool) -> None:
        """Take slot and pages of a running sequence.

        Args:
            sequence: goes on later as if nothing had been.
            away: its pages are needed, not only its slot.
        """


@dataclass(frozen=True)
class Share(Generic[S]):
    """One sequence's part of a step.

    Attributes:
        sequence: the sequence.
        tokens: how many tokens it computes.
        drafts: and how many at a guess.
    """

    sequence: S
    tokens: int
    drafts: int = 0


def _rank(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.rank


class Scheduler(Generic[S]):
    """First come, first served, within each priority.

    Args:
        max_sequences: sequences that run at once.
        max_tokens: tokens computed in one step, at least `max_sequences`.
        memory: where the states of sequences live.

    Attributes:
        waiting: in order; new ones, and those that were parked.
        running: those that have a slot.
        parkings: how often a sequence was parked.
    """

    def __init__(self, max_sequences: int, max_tokens: int, memory: Memory[S]) -> None:
        self.max_sequences, self.max_tokens = max_sequences, max(max_tokens, max_sequences)
        self.waiting: list[S] = []
        self.running: list[S] = []
        self.parkings = 0
        self._memory = memory

    @property
    def busy(self) -> bool:
        """True while anything waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, sequence: S) -> None:
        """Let a sequence wait for its turn."""
        insort(self.waiting, sequence, key=_rank)

    def admit(self) -> Iterator[S]:
        """Let those who wait run, as long as they fit: each is to be started before the next is asked for.

        No one overtakes the first who does not fit, so that nobody starves. One of a higher priority does not wait for
        a place: the last in order of those of a lower one is parked.
        """
        for sequence in list(self.waiting):
            if not sequence.ready or sequence not in self.waiting:
                continue
            while self.running and not (self._place() and self._fits(sequence)):
                last = max(self.running, key=_rank)
                if last.rank[0] <= sequence.rank[0]:
                    return
                self._park(last, away=self._place())
            self.waiting.remove(sequence)
            self.running.append(sequence)
            yield sequence

    def _place(self) -> bool:
        return len(self.running) < self.max_sequences

    def _fits(self, sequence: S) -> bool:
        """Whether there are pages for all tokens that are known, and one more each: none is parked again at once."""
        running = sum(self._memory.lacks(one) + 1 for one in self.running)
        return self._memory.lacks(sequence) + 1 + running <= self._memory.room()

    def plan(self) -> list[Share[S]]:
        """The shares of the next step, with the pages that they need reserved; those who got none wait."""
        shares: dict[int, Share[S]] = {}
        counts = [(sequence, sequence.length - sequence.computed) for sequence in sorted(self.running, key=_rank)]
        left, parkings = self.max_tokens, self.parkings
        for sequence, count in sorted(counts, key=lambda one: one[1] != 1):  # a stable order: who computes one is first
            if not left or (self.parkings > parkings and sequence not in self.running):
                continue
            tokens = min(count, left, max(1, sequence.pause - sequence.computed))
            if self._reserve(sequence, tokens, shares):
                shares[id(sequence)] = Share(sequence, tokens)
                left -= tokens
            if self.parkings > parkings:  # with them went their shares
                left = self.max_tokens - sum(share.tokens for share in shares.values())
        for key, share in shares.items():
            if left and share.sequence.drafts:
                drafts = self._memory.stretch(share.sequence, share.tokens, min(left, share.sequence.drafts))
                shares[key] = Share(share.sequence, share.tokens, drafts)
                left -= drafts
        return list(shares.values())

    def _reserve(self, sequence: S, tokens: int, shares: dict[int, Share[S]]) -> bool:
        while not self._memory.reserve(sequence, tokens):
            last = max(self.running, key=_rank)
            if last is sequence:  # those before it go on, and give their pages back when they end
                assert len(self.running) > 1, "the memory does not hold one sequence"
                return False
            shares.pop(id(last), None)
            self._park(last, away=True)
        return True

    def _park(self, sequence: S, *, away: bool) -> None:
        self._memory.park(sequence, away=away)
        self.running.remove(sequence)
        self.add(sequence)
        self.parkings += 1

    def drop(self, sequence: S) -> None:
        """Forget a sequence that has ended."""
        for place in (self.running, self.waiting):
            if sequence in place:
                place.remove(sequence)
