"""The scheduler by itself: it keeps to its limits, no one starves, and memory that is short parks the last in order."""

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from sambay.engine.scheduler import Scheduler


class _Sequence:
    def __init__(self, length, computed=0, *, priority=0, arrival=0, index=0, pause=sys.maxsize, ready=True, then=0):
        self.rank, self.length, self.computed = (priority, arrival, index), length, computed
        self.pause, self.ready, self.then, self.drafts = pause, ready, then, 0

    def __repr__(self):
        return f"{self.rank} {self.computed}/{self.length}"


class _Memory:
    """A token takes a page; what is parked away takes none."""

    def __init__(self, pages=sys.maxsize):
        self.pages, self.held, self.parked = pages, {}, []

    def room(self):
        return self.pages - sum(self.held.values())

    def lacks(self, sequence):
        return sequence.length - self.held.get(sequence, 0)

    def reserve(self, sequence, tokens):
        more = sequence.computed + tokens - self.held.get(sequence, 0)
        if more > self.room():
            return False
        self.held[sequence] = self.held.get(sequence, 0) + more
        return True

    def stretch(self, sequence, tokens, more):
        """What is given for drafts is taken back with the next reservation."""
        return min(more, self.room())

    def park(self, sequence, *, away):
        self.parked.append((sequence, away))
        if away:
            self.held.pop(sequence, None)

    def close(self, sequence):
        self.held.pop(sequence, None)


def make(limits, sequences, pages=sys.maxsize):
    memory = _Memory(pages)
    scheduler = Scheduler(*limits, memory)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler, memory


def run_all(scheduler, memory, limits):
    """Run to the end, with a token more for each sequence that has computed all, until it has had its `then`."""
    ended, rounds = [], 0
    while scheduler.busy:
        for _ in scheduler.admit():
            pass
        shares = scheduler.plan()
        assert len(scheduler.running) <= limits[0]
        assert 0 < sum(share.tokens for share in shares) <= max(limits)
        assert all(share.tokens > 0 and share.sequence in scheduler.running for share in shares)
        assert len({id(share.sequence) for share in shares}) == len(shares)
        assert memory.room() >= 0
        assert scheduler.waiting == sorted(scheduler.waiting, key=lambda one: one.rank)
        first = min(scheduler.running, key=lambda one: one.rank)
        assert first in [share.sequence for share in shares] or len(shares) == limits[1]
        for share in shares:
            one = share.sequence
            one.computed += share.tokens
            assert one.computed <= min(one.length, one.pause)
            if one.computed == one.pause:
                one.pause = sys.maxsize
            if one.computed == one.length:
                if one.then:
                    one.length, one.then = one.length + 1, one.then - 1
                else:
                    ended.append(one)
                    scheduler.drop(one)
                    memory.close(one)
        rounds += 1
        assert rounds < 10_000
    return ended


@given(
    limits=st.tuples(st.integers(1, 6), st.integers(1, 30)),
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20), st.integers(-1, 1)), min_size=1, max_size=12),
    pages=st.integers(60, 200),
    seed=st.integers(0, 9),
)
def test_limits_are_kept_and_no_one_starves(limits, sizes, pages, seed):
    dice = random.Random(seed)
    pauses = [dice.choice([sys.maxsize, max(1, length // 2)]) for length, _, _ in sizes]
    sequences = [
        _Sequence(length, arrival=i, then=then, priority=priority, pause=pauses[i])
        for i, (length, then, priority) in enumerate(sizes)
    ]
    scheduler, memory = make(limits, sequences, pages)
    ended = run_all(scheduler, memory, limits)
    assert sorted(ended, key=id) == sorted(sequences, key=id)
    assert scheduler.parkings == len(memory.parked)


def test_those_that_decode_come_first():
    prompt = _Sequence(100)
    decoding = [_Sequence(10, 9, arrival=1), _Sequence(10, 9, arrival=2)]
    scheduler, _ = make((3, 4), [prompt, *decoding])
    assert list(scheduler.admit()) == [prompt, *decoding]
    assert [(share.sequence, share.tokens) for share in scheduler.plan()] == [
        (decoding[0], 1),
        (decoding[1], 1),
        (prompt, 2),
    ]


def test_a_chunk_ends_where_the_state_is_to_be_kept():
    prompt = _Sequence(100, pause=7)
    scheduler, _ = make((3, 50), [prompt])
    [_] = scheduler.admit()
    [share] = scheduler.plan()
    assert share.tokens == 7


def test_forks_wait_for_their_prompt():
    first, fork, other = _Sequence(5), _Sequence(5, index=1, ready=False), _Sequence(3, arrival=1)
    scheduler, _ = make((4, 8), [first, fork, other])
    assert list(scheduler.admit()) == [first, other]
    assert list(scheduler.admit()) == []
    fork.ready = True
    assert list(scheduler.admit()) == [fork]


def test_no_one_overtakes_the_first_that_does_not_fit():
    first, large, small = _Sequence(50), _Sequence(60, arrival=1), _Sequence(2, arrival=2)
    scheduler, memory = make((4, 100), [first, large, small], pages=100)
    assert list(scheduler.admit()) == [first]
    scheduler.plan()
    assert list(scheduler.admit()) == []
    memory.close(first)
    scheduler.drop(first)
    assert list(scheduler.admit()) == [large, small]


def test_the_last_makes_way_when_memory_is_short():
    old, young = _Sequence(40, 39), _Sequence(40, 39, arrival=1)
    scheduler, memory = make((4, 8), [old, young], pages=83)
    assert list(scheduler.admit()) == [old, young]
    for _ in range(2):
        for share in scheduler.plan():
            share.sequence.computed += 1
            share.sequence.length += 1
    assert memory.room() == 1
    assert [share.sequence for share in scheduler.plan()] == [old]
    assert memory.parked == []  # it does not go on, and what it holds may still be enough for the other
    old.computed, old.length = 42, 43
    assert [share.sequence for share in scheduler.plan()] == [old]
    assert memory.parked == [(young, True)]
    assert scheduler.waiting == [young]
    assert list(scheduler.admit()) == []
    scheduler.drop(old)
    memory.close(old)
    assert list(scheduler.admit()) == [young]


def test_a_higher_priority_takes_a_place():
    low = [_Sequence(10, 9, priority=1, arrival=i) for i in range(2)]
    scheduler, memory = make((2, 8), low)
    assert list(scheduler.admit()) == low
    scheduler.plan()
    equal, high = _Sequence(5, priority=1, arrival=2), _Sequence(5, arrival=3)
    scheduler.add(equal)
    scheduler.add(high)
    assert list(scheduler.admit()) == [high]
    assert memory.parked == [(low[1], False)]
    assert scheduler.waiting == [low[1], equal]
    assert [share.sequence for share in scheduler.plan()] == [low[0], high]
