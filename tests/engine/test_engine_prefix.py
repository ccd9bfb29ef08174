"""Exact prefix reuse: what was said before is not computed again, and nothing comes out differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sambay.engine import SamplingParams
from sambay.engine.prefix import PrefixCache
from sambay.state import Held

END = 4
texts = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)


@given(
    acts=st.lists(st.tuples(st.sampled_from(["put", "put", "put", "touch", "evict", "drop"]), texts), max_size=40),
    asked=st.lists(texts, min_size=1, max_size=9),
)
def test_the_tree_is_a_table_of_texts(acts, asked):
    """Against a dictionary, least recently used first."""
    given_up = []
    cache, table = PrefixCache(given_up.append), {}
    for act, text in acts:
        if act == "put" and text not in table:
            held = Held(len(text), text, ())
            cache.fill(cache.at(text), held)
            table[text] = held
        elif act in ("touch", "drop") and text in table:
            snapshot, _ = cache.find(text, len(text))
            if act == "touch":
                cache.touch(snapshot)
                table[text] = table.pop(text)
            else:
                cache.give_up(snapshot)
                assert given_up.pop() == table.pop(text)
        elif act == "evict":
            assert cache.evict() is bool(table)
            if table:
                assert given_up.pop() == table.pop(next(iter(table)))
        assert [snapshot.held for snapshot in cache] == list(table.values())
        assert len(cache) == len(table)
    for text in asked:
        for most in range(len(text) + 1):
            best = max((one for one in table if text[: len(one)] == one and len(one) <= most), key=len, default=None)
            known = max((common(text, one) for one in table), default=0)
            snapshot, at = cache.find(text, most)
            assert (None if snapshot is None else snapshot.held) == (None if best is None else table[best])
            assert at == known
            if snapshot is not None:
                above = [one.held for one in cache.above(snapshot)]
                assert above == [table[best[:n]] for n in range(len(best) - 1, 0, -1) if best[:n] in table]
    cache.clear()
    assert given_up == list(table.values())
    assert not cache._root.children


def common(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def tokens(output):
    return [completion.token_ids for completion in output.outputs]


@pytest.fixture
def computing(model, monkeypatch):
    """The numbers of tokens that passes computed, so far."""
    computed, run = [], model.run

    def counting(batch, pool):
        computed.append(sum(batch.lengths))
        return run(batch, pool)

    monkeypatch.setattr(model, "run", counting)
    return computed


def ask(engine, ids, **values):
    output = engine.add(None, ids, SamplingParams(**{"seed": 1, "max_tokens": 20, "ignore_eos": True} | values))
    while engine.busy:
        engine.step()
    return output


@pytest.mark.parametrize("chunk", [5, 512])
def test_a_second_turn_computes_its_new_tokens_only(make_engine, solo, assert_idle, computing, chunk):
    engine = make_engine(max_num_batched_tokens=chunk)
    ids = [20 + i % 50 for i in range(70)]
    for turn in range(4):
        computing.clear()
        output = ask(engine, ids, max_tokens=9)
        new = [30 + turn] * 11
        # The last token of an answer was never computed.
        expected = 70 if turn == 0 else 12
        assert sum(computing) == expected + 8
        assert output.cached_tokens == len(ids) - expected
        ids = [*ids, *output.outputs[0].token_ids, *new]
    assert tokens(output) == tokens(solo(ids[: -len(new) - 9], SamplingParams(seed=1, max_tokens=9, ignore_eos=True)))
    assert_idle(engine)


def test_a_turn_whose_answer_is_told_otherwise(make_engine, solo, assert_idle, computing):
    """A template that leaves the thinking out: what was said before the answer is still at hand."""
    engine = make_engine(end_ids=frozenset({END}))
    before = [*range(20, 90), *range(20, 60), END, 9]
    ask(engine, before)
    computing.clear()
    later = [*before[:-1], 10, 30, 31, END, 9]
    output = ask(engine, later)
    assert output.cached_tokens == 111
    assert sum(computing) == len(later) - 111 + 19
    assert tokens(output) == tokens(solo(later, SamplingParams(seed=1, max_tokens=20, ignore_eos=True)))
    assert_idle(engine)


def test_where_texts_part(make_engine, solo, assert_idle):
    """Where a beginning was seen twice, the third time is spared it."""
    engine = make_engine()
    head = [20 + i % 7 for i in range(100)]
    cached = [ask(engine, [*head, 50 + i, 60]).cached_tokens for i in range(4)]
    assert cached == [0, 0, 100, 100]
    again = ask(engine, [*head, 51, 60])
    assert again.cached_tokens == 100
    assert tokens(again) == tokens(solo([*head, 51, 60], SamplingParams(seed=1, max_tokens=20, ignore_eos=True)))
    assert_idle(engine)


def test_intervals(make_engine, assert_idle):
    engine = make_engine(max_num_batched_tokens=100)
    engine.keeper.every = 64
    ids = [20 + i % 7 for i in range(200)]
    ask(engine, ids)
    assert sorted(snapshot.length for snapshot in engine.keeper.prefix) == [64, 128, 192, 219]
    assert ask(engine, [*ids[:150], 9, 9]).cached_tokens == 128
    assert_idle(engine)


def test_the_default_interval_balances_snapshots_and_pages(make_engine):
    keeper = make_engine().keeper
    assert keeper.every == max(512, 64 * keeper.pool.fixed_pages)


def test_a_short_prompt_is_not_cut_for_a_snapshot(make_engine, computing, assert_idle):
    engine = make_engine(end_ids=frozenset({END}))
    ask(engine, [*range(20, 50), END, 9], max_tokens=1)
    assert computing == [32]
    assert_idle(engine)


def test_forks_and_the_cache(make_engine, solo, assert_idle, computing):
    engine = make_engine(max_num_seqs=2)
    ids, params = [*range(20, 90)], SamplingParams(seed=5, n=4, max_tokens=8, ignore_eos=True)
    for _ in range(2):
        output = engine.add(None, ids, params)
        while engine.busy:
            engine.step()
        assert tokens(output) == tokens(solo(ids, params))
    assert output.cached_tokens == 0  # the prompt's last token must be computed, and no turn ended before
    longer = engine.add(None, [*ids, *output.outputs[2].token_ids, 7], params)
    while engine.busy:
        engine.step()
    assert longer.cached_tokens == 77
    assert_idle(engine)


def test_what_is_aborted_leaves_nothing(make_engine, assert_idle):
    engine = make_engine()
    output = engine.add(None, [*range(20, 90)], SamplingParams(seed=1, ignore_eos=True))
    for _ in range(9):
        engine.step()
    engine.abort(output.request_id)
    assert len(engine.keeper.prefix) == 0
    assert len(engine.pool.shared.free) == engine.pool.shared.tiles.pages
    assert_idle(engine)


def test_without_prefix_caching(make_engine, assert_idle, computing):
    engine = make_engine(enable_prefix_caching=False)
    for _ in range(2):
        assert ask(engine, [*range(20, 90)]).cached_tokens == 0
    assert sum(computing) == 2 * (70 + 19)
    assert len(engine.pool.shared.free) == engine.pool.shared.tiles.pages
    assert_idle(engine)
