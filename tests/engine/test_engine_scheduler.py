"""The scheduler by itself: it keeps to its limits, and nobody starves."""

from hypothesis import given
from hypothesis import strategies as st

from sambay.engine.scheduler import Scheduler


class _Sequence:
    def __init__(self, length, computed=0, index=0):
        self.length, self.computed, self.index = length, computed, index
        self.request = type("Request", (), {"forked": None})()


@given(
    limits=st.tuples(st.integers(1, 6), st.integers(1, 30)),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
)
def test_the_budget_is_kept_and_nobody_starves(limits, lengths):
    scheduler = Scheduler(*limits)
    sequences = [_Sequence(length) for length in lengths]
    scheduler.waiting.extend(sequences)
    rounds = 0
    while scheduler.busy:
        scheduler.admit()
        shares = scheduler.plan()
        assert len(scheduler.running) <= limits[0]
        assert 0 < sum(share.tokens for share in shares) <= max(limits)
        assert all(share.tokens > 0 for share in shares)
        assert len({id(share.completion) for share in shares}) == len(shares)
        for share in shares:
            one = share.completion
            one.computed += share.tokens
            if one.computed == one.length:
                scheduler.drop(one)
        rounds += 1
    assert rounds <= sum(lengths)


def test_those_that_decode_come_first():
    scheduler = Scheduler(3, 4)
    prompt, decoding = _Sequence(100), [_Sequence(10, 9), _Sequence(10, 9)]
    scheduler.running += [prompt, *decoding]
    assert [(share.completion, share.tokens) for share in scheduler.plan()] == [
        (decoding[0], 1),
        (decoding[1], 1),
        (prompt, 2),
    ]


def test_forks_wait_for_their_prompt():
    scheduler = Scheduler(4, 8)
    first, fork = _Sequence(5), _Sequence(5, index=1)
    fork.request = first.request
    other = _Sequence(3)
    scheduler.waiting.extend([first, fork, other])
    assert scheduler.admit() == [first, other]
    assert scheduler.admit() == []
    first.request.forked = object()
    assert scheduler.admit() == [fork]
