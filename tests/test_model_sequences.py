"""Chunks, packed documents and batches through the pool: any way of running gives what one pass gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import BOUND, error, in_chunks, opened, text
from sambay.batch import Batch
from sambay.ops import reference as ops


@settings(max_examples=40)
@given(length=st.integers(1, 40), cuts=st.sets(st.integers(1, 39), max_size=12))
def test_any_chunking(pair, length, cuts):
    model, oracle = pair
    ids = text(length, seed=3)
    assert error(in_chunks(model, ids, [c for c in cuts if c < length]), oracle.logits(ids)) < BOUND


def test_token_by_token_over_pages(build):
    model, oracle = build(seed=7, num_hidden_layers=4)
    ids = text(150)
    assert error(in_chunks(model, ids, range(1, 150)), oracle.logits(ids)) < BOUND


def test_default_slots_continue_a_dense_batch(pair):
    model, oracle = pair
    ids = text(24, seed=4).view(3, 8)
    pool = model.new_state(3)
    with torch.no_grad():
        first, second = model(ids[:, :5], state=pool), model(ids[:, 5:], state=pool, logits="last")
    assert first.shape == (3, 5, 48)
    assert second.shape == (3, 1, 48)
    for row, whole in enumerate(oracle.logits(document) for document in ids):
        assert error(first[row], whole[:5]) < BOUND
        assert error(second[row], whole[-1:]) < BOUND


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=7))
def test_packed_documents(pair, lengths):
    model, oracle = pair
    documents = [text(n, seed=i) for i, n in enumerate(lengths)]
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=offsets)
        last = model(torch.cat(documents), offsets=offsets, logits="last")
    assert last.shape == (len(lengths), 48)
    for document, found, final in zip(documents, packed.split(lengths), last, strict=True):
        expected = oracle.logits(document)
        assert error(found, expected) < BOUND
        assert error(final, expected[-1]) < BOUND


@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 9, 8, 1, 7), (1, 1, 1), (2, 30, 2)])
@pytest.mark.parametrize("logits", ["all", "last"])
def test_neighbours_change_no_bit(build, lengths, logits):
    """Not even a neighbour that is NaN all over, in any place of the pack."""
    model, _ = build(seed=2, tie_word_embeddings=False)
    with torch.no_grad():
        model.embedding.weight[0] = float("nan")
    documents = [text(n, seed=i).clamp(min=1) for i, n in enumerate(lengths)]
    offsets = [0, *np.cumsum(lengths)]
    rows = lengths if logits == "all" else (1,) * len(lengths)
    for keep in range(len(lengths)):
        poisoned = [d if i == keep else torch.zeros_like(d) for i, d in enumerate(documents)]
        others = [d if i == keep else (d + 7) % 47 + 1 for i, d in enumerate(documents)]
        with torch.no_grad():
            runs = [
                model(torch.cat(pack), offsets=offsets, logits=logits).split(rows)
                for pack in (documents, poisoned, others)
            ]
        assert runs[0][keep].isfinite().all()
        assert torch.equal(runs[0][keep], runs[1][keep])
        assert torch.equal(runs[0][keep], runs[2][keep])
        other = (keep + 1) % len(lengths)
        assert runs[1][other].isnan().all()
        assert not torch.equal(runs[0][other], runs[2][other])


@pytest.mark.parametrize("lengths", [(3, 4), (9, 10, 11, 12), (12, 11, 10, 9), (10, 12, 3, 11, 4), (7, 7, 7)])
def test_last_logits_and_steps_of_sequences_of_similar_length(pair, lengths):
    """Sequences of similar length are computed together, longest first; each gets its own result back."""
    model, oracle = pair
    documents = [text(n + 2, seed=i) for i, n in enumerate(lengths)]
    expected = [oracle.logits(d) for d in documents]
    prompts = torch.cat([d[:-2] for d in documents])
    offsets = [0, *np.cumsum(lengths)]
    slots = list(range(len(lengths)))[::-1]
    pool = opened(model.new_state(len(lengths)))
    with torch.no_grad():
        pure = model(prompts, offsets=offsets, logits="last")
        first = model(prompts, offsets=offsets, logits="last", state=pool, slots=slots)
        steps = [
            model(torch.stack([d[place] for d in documents])[:, None], state=pool, slots=slots)[:, 0]
            for place in (-2, -1)
        ]
    for found, place in ((pure, -3), (first, -3), (steps[0], -2), (steps[1], -1)):
        for row, whole in zip(found, expected, strict=True):
            assert error(row, whole[place]) < BOUND


@settings(max_examples=30)
@given(data=st.data())
def test_batches_of_mixed_sequences_through_the_pool(pair, data):
    """Any of the sequences, in any slots and order, chunks of any size, logits for none, one, some or all."""
    model, oracle = pair
    slots, count = 6, data.draw(st.integers(1, 4))
    documents = [text(data.draw(st.integers(4, 26)), seed=i) for i in range(count)]
    expected = [oracle.logits(d) for d in documents]
    home = data.draw(st.permutations(range(slots)))[:count]
    pool = opened(model.new_state(slots))
    done = [0] * count
    for _ in range(6):
        order = [i for i in data.draw(st.permutations(range(count))) if done[i] < len(documents[i])]
        order = order[: data.draw(st.integers(1, count))]
        if not order:
            break
        lengths = [data.draw(st.integers(1, min(11, len(documents[i]) - done[i]))) for i in order]
        wanted = [data.draw(st.sampled_from(sorted({0, 1, n // 2, n}))) for n in lengths]
        ids = torch.cat([documents[i][done[i] : done[i] + n] for i, n in zip(order, lengths, strict=True)])
        batch = pool.batch(ids, tuple(lengths), tuple(home[i] for i in order), tuple(wanted))
        with torch.no_grad():
            out = model.run(batch, pool)
        pool.advance(batch)
        assert len(out) == sum(wanted)
        for i, n, w, rows in zip(order, lengths, wanted, out.split(wanted), strict=True):
            done[i] += n
            if w:
                assert error(rows, expected[i][done[i] - w : done[i]]) < BOUND
    for i in range(count):
        assert pool.lengths[home[i]] == done[i]


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_chunk_in_the_middle_of_prompts(pair, sequences):
    """No sequence of the pass asks for logits: its states advance all the same."""
    model, oracle = pair
    documents = [text(9, seed=s) for s in range(sequences)]
    pool = opened(model.new_state(sequences))
    every = tuple(range(sequences))
    ids = torch.cat([d[: 4 + s] for s, d in enumerate(documents)])
    batch = pool.batch(ids, tuple(4 + s for s in every), every, (0,) * sequences)
    with torch.no_grad():
        out = model.run(batch, pool)
    pool.advance(batch)
    assert out.shape == (0, 48)
    for s, document in enumerate(documents):
        with torch.no_grad():
            rest = model(document[4 + s :], state=pool, slots=[s])
        assert error(rest, oracle.logits(document)[4 + s :]) < BOUND


def test_state_is_the_only_thing_changed(pair):
    model, _ = pair
    pool = model.new_state(3)
    with torch.no_grad():
        model(text(30).view(3, 10), state=pool)
        before = pool.snapshot(0), pool.snapshot(2)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        ids = text(5)
        given_ids = ids.clone()
        model(ids, state=pool, slots=[1])
        model(ids)
    assert torch.equal(ids, given_ids)
    for saved, slot in zip(before, (0, 2), strict=True):
        now = pool.snapshot(slot)
        flat = [t for state in (*now.fixed, now.shared) for t in state]
        assert now.length == saved.length == 10
        assert all(
            torch.equal(a, b) for a, b in zip(flat, [t for s in (*saved.fixed, saved.shared) for t in s], strict=True)
        )
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("block", "scores"), [(1, 1 << 24), (3, 1 << 24), (8, 1 << 24), (256, 1), (256, 600), (8, 300)]
)
def test_long_inputs_are_cut_into_query_blocks(pair, monkeypatch, block, scores):
    model, oracle = pair
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    monkeypatch.setattr(ops, "_SCORE_ELEMENTS", scores)
    documents = [text(23), text(20), text(4)]
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=[0, 23, 43, 47]).split([23, 20, 4])
    for document, found in zip(documents, packed, strict=True):
        assert error(found, oracle.logits(document)) < BOUND
    assert error(in_chunks(model, documents[0], [5, 19]), oracle.logits(documents[0])) < BOUND


@pytest.mark.parametrize("elements", [1, 500, 1500])  # a step is 144 elements per sequence
def test_long_inputs_are_cut_into_scan_chunks(pair, monkeypatch, elements):
    model, oracle = pair
    monkeypatch.setattr(ops, "_SCAN_ELEMENTS", elements)
    documents = [text(23), text(20), text(4)]
    with torch.no_grad():
        packed = model(torch.cat(documents), offsets=[0, 23, 43, 47]).split([23, 20, 4])
    for document, found in zip(documents, packed, strict=True):
        assert error(found, oracle.logits(document)) < BOUND
    assert error(in_chunks(model, documents[0], [5, 19]), oracle.logits(documents[0])) < BOUND


def test_blocks_of_the_real_size(build):
    """More queries than `_QUERY_BLOCK`, unpatched."""
    model, oracle = build(num_hidden_layers=4, sliding_window=16)
    ids = text(ops._QUERY_BLOCK + 9)
    expected = oracle.logits(ids)
    with torch.no_grad():
        assert error(model(ids), expected) < BOUND
    assert error(in_chunks(model, ids, [len(ids) - 3]), expected) < BOUND


def test_a_batch_without_state_may_want_any_rows(pair):
    """`run` on a hand-made batch: rows of one sequence only."""
    model, oracle = pair
    documents = [text(6, seed=1), text(9, seed=2), text(6, seed=3)]
    batch = Batch.packed(torch.cat(documents), [6, 9, 6], wanted=[0, 4, 1])
    with torch.no_grad():
        out = model.run(batch, None)
    assert error(out[:4], oracle.logits(documents[1])[-4:]) < BOUND
    assert error(out[4:], oracle.logits(documents[2])[-1:]) < BOUND
