"""The index arithmetic of packed rows: what the operations rely on, for any lengths."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sambay.batch import Batch, Ragged, Sight
from sambay.errors import PromptError

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=9)


def rows_of(lengths):
    """The packed rows of each sequence, one by one."""
    rows, at = [], 0
    for length in lengths:
        rows.append(list(range(at, at + length)))
        at += length
    return rows


@given(lengths=LENGTHS)
def test_totals(lengths):
    layout = Ragged(lengths, CPU)
    assert len(layout) == len(lengths)
    assert layout.total == sum(lengths) == layout.offsets[-1]
    assert layout.longest == max(lengths)
    assert layout.equal == (len(set(lengths)) == 1)
    assert list(layout.offsets) == [sum(lengths[:i]) for i in range(len(lengths) + 1)]


def test_no_sequences():
    layout = Ragged([], CPU)
    assert (len(layout), layout.total, layout.longest, layout.offsets) == (0, 0, 0, (0,))
    assert layout.grouped([]) == ()


@given(lengths=LENGTHS)
def test_time_major(lengths):
    order, inverse, widths, sequences = Ragged(lengths, CPU).time_major
    rows = rows_of(lengths)
    assert sorted(sequences) == list(range(len(lengths)))
    assert [lengths[s] for s in sequences] == sorted(lengths, reverse=True)
    expected = [rows[s][t] for t in range(max(lengths)) for s in sequences if t < lengths[s]]
    assert list(widths) == [sum(length > t for length in lengths) for t in range(max(lengths))]
    if order is None:
        assert inverse is None
        assert expected == list(range(sum(lengths)))
        assert sequences == tuple(range(len(lengths)))
    else:
        assert order.tolist() == expected
        assert order[inverse].tolist() == list(range(sum(lengths)))


def check_groups(groups, lengths):
    rows = rows_of(lengths)
    assert sorted(s for group in groups for s in group.members) == list(range(len(lengths)))
    for group in groups:
        width = max(lengths[s] for s in group.members)
        assert group.rows.shape == (len(group.members), width)
        padded = any(lengths[s] != width for s in group.members)
        assert (group.valid is not None) == padded
        for place, s in enumerate(group.members):
            short = width - lengths[s]
            assert group.rows[place].tolist() == rows[s] + [rows[s][-1]] * short
            if padded:
                assert group.valid[place].tolist() == [True] * lengths[s] + [False] * short


@given(lengths=LENGTHS)
def test_groups(lengths):
    groups = Ragged(lengths, CPU).groups
    check_groups(groups, lengths)
    for group in groups:
        assert 4 * min(lengths[s] for s in group.members) >= 3 * max(lengths[s] for s in group.members)


@given(sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 100)), min_size=1, max_size=9))
def test_groups_by_several_sizes(sizes):
    lengths = [rows for rows, _ in sizes]
    groups = Ragged(lengths, CPU).grouped(sizes)
    check_groups(groups, lengths)
    for group in groups:
        for side in (0, 1):
            found = [sizes[s][side] for s in group.members]
            assert 4 * min(found) >= 3 * max(found)


def test_sequences_of_one_length_are_one_group():
    (group,) = Ragged([4, 4, 4], CPU).groups
    assert group.members == (0, 1, 2)
    assert group.valid is None
    assert group.rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@given(data=st.data(), lengths=LENGTHS)
def test_rows_that_ask(data, lengths):
    wanted = [data.draw(st.integers(0, n)) for n in lengths]
    batch = Batch.packed(torch.arange(sum(lengths)), lengths, wanted=wanted)
    expected = [r for rows, w in zip(rows_of(lengths), wanted, strict=True) for r in rows[len(rows) - w :]]
    if wanted == lengths:
        assert batch.rows is None
    else:
        assert batch.rows.dtype is torch.int64
        assert batch.rows.tolist() == expected
    assert list(batch.asking) == [s for s, w in enumerate(wanted) if w]
    assert list(batch.row_layout.lengths) == [w for w in wanted if w]
    assert batch.row_layout.total == len(expected)
    assert batch.layout.lengths == tuple(lengths) == batch.lengths
    assert len(batch) == len(lengths)


def test_defaults():
    batch = Batch.packed(torch.arange(5), [2, 3])
    assert (batch.starts, batch.slots, batch.wanted, batch.rows) == ((0, 0), None, (2, 3), None)


@pytest.mark.parametrize("slots", [(0, 1, 2), (3, 4, 5), (4,), (2, 1, 0), (0, 2, 1), (5, 0)])
def test_slot_index_selects_the_slots_in_order(slots):
    batch = Batch.packed(torch.arange(len(slots)), [1] * len(slots), slots=slots)
    places = torch.arange(6)
    assert places[batch.slot_index].tolist() == list(slots)
    assert isinstance(batch.slot_index, slice) == (slots == tuple(range(slots[0], slots[0] + len(slots))))


@pytest.mark.parametrize(
    ("shape", "lengths", "slots", "named"),
    [
        ((3,), [], None, "at least one token"),
        ((3,), [3, 0], None, "at least one token"),
        ((3,), [4, -1], None, "at least one token"),
        ((3,), [2], None, "(3,) but the lengths add up to 2"),
        ((3,), [2, 2], None, "(3,) but the lengths add up to 4"),
        ((1, 3), [3], None, "(1, 3) but the lengths add up to 3"),
        ((3,), [1, 2], [0, 0], "(0, 0)"),
        ((3,), [1, 2], [0], "(0,)"),
        ((3,), [3], [0, 1], "(0, 1)"),
        ((3,), [1, 2], [0, -1], "(0, -1)"),
    ],
)
def test_batches_that_cannot_be(shape, lengths, slots, named):
    with pytest.raises(PromptError) as caught:
        Batch.packed(torch.zeros(shape, dtype=torch.int64), lengths, slots=slots)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"wanted": [1, 3]}, "wanted has 3 for a sequence of 2 tokens: ask for the logits of 0 to 2"),
        ({"wanted": [-1, 1]}, "wanted has -1 for a sequence of 1 tokens"),
        ({"wanted": [1]}, "wanted has 1 numbers for 2 sequences"),
        ({"wanted": [1, 1, 1]}, "wanted has 3 numbers for 2 sequences"),
        ({"starts": [0]}, "starts has 1 numbers for 2 sequences"),
        ({"starts": [0, -4]}, "starts has -4"),
    ],
)
def test_counts_that_cannot_be(changes, named):
    with pytest.raises(PromptError) as caught:
        Batch.packed(torch.zeros(3, dtype=torch.int64), [1, 2], **changes)
    assert named in str(caught.value)


@given(data=st.data())
def test_what_queries_see(data):
    """Blocks cover every query once, bounded as asked, and hide just what the description says."""
    whole = st.integers
    members, queries = data.draw(whole(1, 3)), data.draw(whole(1, 9))
    window = data.draw(st.none() | whole(1, 6))
    begin = data.draw(st.lists(whole(0, 7), min_size=members, max_size=members))
    first = [data.draw(whole(0, b)) for b in begin]
    keys = queries + data.draw(whole(min(begin), max(begin)))  # of rows that are padding, keys may be missing
    most, room = data.draw(whole(1, 10)), data.draw(whole(1, 60))
    sight = Sight(queries, keys, begin, first=first, window=window, device=CPU)
    found = torch.zeros(members, queries, keys, dtype=torch.bool)
    at = 0
    for block in sight.blocks(most, room):
        assert block.queries.start == at
        at, rows = block.queries.stop, block.queries.stop - block.queries.start
        assert 1 <= rows <= most
        assert rows == 1 or rows * (block.keys.stop - block.keys.start) <= room
        seen = True if block.hidden is None else ~block.hidden
        found[:, block.queries, block.keys] = seen
    assert at == queries
    for s in range(members):
        for t in range(queries):
            i = begin[s] + t
            low = max(first[s], 0 if window is None else i - window + 1)
            assert found[s, t].tolist() == [low <= key <= i for key in range(keys)]


def test_tables_are_made_once():
    ids = torch.zeros(5, dtype=torch.int64)
    for slots in (None, (1, 0)):
        batch = Batch.packed(ids, [2, 3], slots=slots)
        assert batch.window_parts(4) is batch.window_parts(4)
        assert batch.shared_parts is batch.shared_parts
        assert batch.layout.padded(3) is batch.layout.padded(3)
        (block,) = batch.window_parts(4)[0].sight.blocks(256, 1 << 20)
        assert batch.window_parts(4)[0].sight.blocks(256, 1 << 20) == (block,)
