"""Keeps the states of sequences: gives out slots and pages, takes them back, and knows what can be done without.

All that is kept lies in the pool, whose size is the memory budget: states of fixed size of running sequences in slots;
in pages their keys and values, the snapshots of the prefix cache, and parked sequences. When pages are short the oldest
snapshots go first, then parked sequences go to files. Nothing is computed again because memory was short, unless not
even the disk has room.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Sequence

from torch import Tensor

from sambay.engine.prefix import PrefixCache
from sambay.engine.request import Completion, Parked
from sambay.engine.sessions import Sessions
from sambay.engine.statefile import read_state, state_header, write_state
from sambay.errors import StateError
from sambay.state import PAGE_SIZE, StatePool

__all__ = ["Keeper"]

_LEAST = 64
"""A step of its own for the sake of a snapshot must save so many tokens, or else it costs more than it saves."""


class Keeper:
    """The scheduler's `Memory`, over a pool.

    Args:
        pool: that does not grow.
        ends: tokens that end a turn.
        caching: keep snapshots of prefixes.
        sessions: where snapshots are saved, and come back from; None for nowhere.

    Attributes:
        prefix: the prefix cache, None without one.
        least: tokens that a snapshot within a prompt must be apart from the one before.
        every: a snapshot is taken each time that a prompt has had so many tokens: as many as make a snapshot and the
            keys and values between two of them of equal size, though 512 at least.
    """

    def __init__(self, pool: StatePool, ends: frozenset[int], caching: bool, sessions: Sessions | None = None) -> None:
        self.pool, self._ends, self._sessions = pool, ends, sessions
        self.prefix = PrefixCache(lambda held: pool.release(held, spare=True)) if caching else None
        self.least, self.every = _LEAST, max(8, pool.fixed_pages) * PAGE_SIZE
        self._aside: list[Parked] = []
        if sessions is not None and self.prefix is not None:
            sessions.list_into(self.prefix)

    # What the scheduler asks

    def room(self) -> int:
        """Pages that are free, or that the prefix cache would give up."""
        return len(self.pool.shared.free) + self.pool.shared.idle

    def lacks(self, sequence: Completion) -> int:
        """Pages of the room that a sequence would take to compute all of its tokens."""
        shared = self.pool.shared
        if sequence.slot is not None:
            return shared.missing(sequence.slot, sequence.length, self.pool.lengths[sequence.slot])
        whole = -(-sequence.length // PAGE_SIZE)
        state = sequence.parked or sequence.request.forked
        if state is not None:
            return whole - (0 if state.held is None else state.length // PAGE_SIZE)
        snapshot = None
        if self.prefix is not None:
            snapshot, _ = self.prefix.find(sequence.all_ids(), sequence.length - 1)
        if snapshot is None or snapshot.held is None:
            return whole
        # Those that only the cache holds count as room, and so they are lacking, too.
        used = shared.in_use(snapshot.held.pages[: snapshot.length // PAGE_SIZE])
        return whole - used

    def reserve(self, sequence: Completion, tokens: int) -> bool:
        """Give a running sequence the pages for so many more tokens; False if they cannot be had."""
        assert sequence.slot is not None
        start, shared = self.pool.lengths[sequence.slot], self.pool.shared
        while (missing := shared.missing(sequence.slot, start + tokens, start)) > len(shared.free):
            if not self._give_way():
                return False
        if missing:
            shared.reserve(sequence.slot, start + tokens, start)
        return True

    def stretch(self, sequence: Completion, tokens: int, more: int) -> int:
        """How many more tokens a running sequence, to compute so many, may have pages for that no one else needs."""
        assert sequence.slot is not None
        shared, end = self.pool.shared, self.pool.lengths[sequence.slot] + tokens
        pages = len(shared.tables[sequence.slot]) + (len(shared.free) > self.pool.slots)
        return min(more, pages * PAGE_SIZE - end)

    def park(self, sequence: Completion, *, away: bool) -> None:
        """Take slot and pages of a running sequence; what cannot be written is computed again later."""
        assert sequence.slot is not None
        sequence.parked = self.set_aside(sequence.slot, away=away) if sequence.computed else None
        if sequence.parked is None:
            sequence.computed = 0
        self.close(sequence)

    # What the engine asks

    def start(self, sequence: Completion) -> None:
        """Give a sequence a slot, and the longest known state of its text."""
        sequence.slot = slot = self.pool.open()
        state = sequence.parked or sequence.request.forked
        if state is not None:
            sequence.computed = self._bring_back(slot, state)
            self.discard(sequence)
            return
        ids, known = sequence.all_ids(), 0
        if self.prefix is not None:
            snapshot, known = self.prefix.find(ids, len(ids) - 1)
            if snapshot is not None and snapshot.held is None:
                before = self.prefix.above(snapshot)
                if self._sessions is None or not self._sessions.load(snapshot, self.prefix):
                    snapshot = next((one for one in before if one.held is not None), None)
            if snapshot is not None and snapshot.held is not None:
                self.pool.resume(slot, snapshot.held)
                self.prefix.touch(snapshot)
                sequence.computed = snapshot.length
        sequence.cached = min(sequence.computed, len(sequence.prompt_ids))
        sequence.pauses = self._pauses(ids, sequence.computed, known)

    def _pauses(self, ids: Sequence[int], start: int, known: int) -> list[int]:
        """Where within a text to take snapshots, last first: where it parts from a known one, and at its last turn."""
        if self.prefix is None:
            return []
        last = len(ids) - 1
        turn = next((at for at in range(last, start, -1) if ids[at - 1] in self._ends), 0)
        out: list[int] = []
        intervals = range(start - start % self.every + self.every, last + 1, self.every)
        for at in sorted({*intervals, min(known, last), turn}):
            if start < at and at - (out[-1] if out else start) >= self.least:
                out.append(at)
        return out[::-1]

    def computed(self, sequence: Completion, tokens: int) -> None:
        """Take note that a sequence has computed so many more tokens."""
        sequence.computed += tokens
        if sequence.computed == sequence.pause:
            sequence.pauses.pop()
            self._remember(sequence)

    def finished(self, sequence: Completion) -> None:
        """Take note that a sequence has come to its own end: the next turn will go on from here."""
        self._remember(sequence, save=True)

    def _remember(self, sequence: Completion, *, save: bool = False) -> None:
        if self.prefix is None or sequence.slot is None or not sequence.computed:
            return
        if self.room() < self.pool.fixed_pages:
            return
        ids = sequence.all_ids()[: sequence.computed]
        snapshot = self.prefix.at(ids)
        if snapshot.held is None:
            while len(self.pool.shared.free) < self.pool.fixed_pages:
                self.prefix.evict()
            self.prefix.fill(snapshot, self.pool.hold(sequence.slot, spare=True))
        self.prefix.touch(snapshot)
        if save and self._sessions is not None:
            self._sessions.save(ids, snapshot, self.prefix)

    def close(self, sequence: Completion) -> None:
        """Take the slot of a sequence, if it has one."""
        if sequence.slot is not None:
            slot, sequence.slot = sequence.slot, None
            self.pool.close(slot)

    def set_aside(self, slot: int, *, away: bool = False) -> Parked | None:
        """Keep the state of a slot: in the pool if it has room, else in a file; None if that cannot be written.

        Args:
            slot: open; it stays so.
            away: not in the pool.
        """
        fixed = self.pool.fixed_pages
        if not away and self.room() >= fixed:
            while self.prefix is not None and len(self.pool.shared.free) < fixed:
                self.prefix.evict()
            parked = Parked(self.pool.lengths[slot], self.pool.hold(slot))
            self._aside.append(parked)
            return parked
        parked = Parked(self.pool.lengths[slot])
        self._put_away(parked, self.pool.fixed_bytes(slot), self.pool.shared.first(slot, parked.length))
        return parked if parked.file is not None else None

    def discard(self, sequence: Completion) -> None:
        """Give up the state that a sequence was parked with, if there is one."""
        if sequence.parked is not None:
            self.let_go(sequence.parked)
            sequence.parked = None

    def let_go(self, parked: Parked) -> None:
        """Give up a state that was set aside."""
        held, parked.held = parked.held, None
        if held is not None:
            self._aside.remove(parked)
            self.pool.release(held)
        if parked.file is not None:
            parked.file.close()
            parked.file = None

    # What can be done without

    def _give_way(self) -> bool:
        """Free some pages: the oldest snapshot's, or those of the sequence that was set aside last."""
        if self.prefix is not None and self.prefix.evict():
            return True
        if not self._aside:
            return False
        parked = self._aside.pop()
        held, parked.held = parked.held, None
        assert held is not None
        fixed = self.pool.shared.tiles.read_bytes(held.fixed)[: self.pool.fixed_nbytes]
        self._put_away(parked, fixed, held.pages)
        self.pool.release(held)
        return True

    def _put_away(self, parked: Parked, fixed: Tensor, pages: Sequence[int]) -> None:
        """Write a state into a file without a name, so that none is left however the process ends; or leave it be."""
        # What is in memory itself, as /tmp often is, would be no relief.
        place = os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            file = stack.enter_context(tempfile.TemporaryFile(prefix="sambay-", dir=place))
            write_state(file, state_header(self.pool, "", (parked.length,)), (), [fixed], self.pool, pages)
            stack.pop_all()
            weakref.finalize(parked, file.close)
            parked.file = file

    def _bring_back(self, slot: int, parked: Parked) -> int:
        """Put a state into a fresh slot, and return its length; 0 if it is lost with a file."""
        if parked.held is not None:
            self.pool.resume(slot, parked.held)
            return parked.length
        if parked.file is None:
            return 0
        try:
            self._make_free(-(-parked.length // PAGE_SIZE))
            fixed, pages = read_state(parked.file, state_header(self.pool, "", (parked.length,)), self.pool)
        except StateError:
            return 0
        self.pool.set_fixed_bytes(slot, fixed[0])
        self.pool.shared.adopt(slot, pages)
        self.pool.shared.drop(pages)
        self.pool.lengths[slot] = parked.length
        return parked.length

    def _make_free(self, pages: int) -> None:
        while len(self.pool.shared.free) < pages:
            assert self._give_way(), "what was admitted does not fit"
