"""Gradients from worker processes. The slow tests start processes, each of which imports torch."""

import functools
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sambay.config import preset
from sambay.data.documents import Document
from sambay.errors import SambaYError
from sambay.model import SambaY
from sambay.train.parallel import GradientWorkers, split_documents
from sambay.train.trainer import summed_loss

LOSS = functools.partial(summed_loss, precision="float32")
DOCUMENTS = [Document(tuple(range(10 + i, 30 + 3 * i)), i, "x") for i in range(6)]


def failing_loss(model, documents):
    """Fails in the worker, on a document that asks for it."""
    if documents[0].label == "raise":
        raise RuntimeError("the share is cursed")
    if documents[0].label == "die":
        os._exit(1)
    return summed_loss(model, documents, "float32")


@given(st.lists(st.integers(2, 300), min_size=1, max_size=30), st.integers(1, 6))
def test_documents_are_split_evenly(sizes, parts):
    documents = [Document(tuple(range(size)), 1, str(i)) for i, size in enumerate(sizes)]
    shares = split_documents(documents, parts)
    assert len(shares) == parts
    assert sorted(int(document.label) for share in shares for document in share) == list(range(len(sizes)))
    assert shares[0]  # the trainer's own share is never empty
    totals = [sum(len(document.ids) for document in share) for share in shares]
    # Without its last and shortest document no share is larger than another.
    assert all(total - len(share[-1].ids) <= min(totals) for total, share in zip(totals, shares, strict=True) if share)


def test_a_long_document_at_a_border_does_not_burden_its_share():
    documents = [Document((0,) * size, 1, "") for size in (190, 50, 50, 50, 50, 10)]
    assert [sum(len(document.ids) for document in share) for share in split_documents(documents, 2)] == [200, 200]


def test_no_workers():
    model = SambaY.random(preset("tiny"))
    workers = GradientWorkers(model, LOSS, 0, 1)
    assert len(workers) == 0
    workers.start([], 1.0)
    assert workers.collect() == 0.0
    assert all(p.grad is None for p in model.parameters())
    workers.close()


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.slow
def test_the_gradient_is_that_of_one_process():
    model = SambaY.random(preset("tiny"), seed=2)
    loss = LOSS(model, DOCUMENTS) / 100
    loss.backward()
    expected = gradients(model)
    workers = GradientWorkers(model, LOSS, 2, 1)
    try:
        for shares in (split_documents(DOCUMENTS, 3), [DOCUMENTS[:1], [], DOCUMENTS[1:]]):
            model.zero_grad()
            own, *others = shares
            workers.start(others, 1 / 100)
            mine = LOSS(model, own) / 100
            mine.backward()
            total = mine.item() + workers.collect()
            assert total == pytest.approx(loss.item(), rel=1e-5)
            for name, value in gradients(model).items():
                torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4, msg=name)
        # Workers see weights that the trainer changes.
        with torch.no_grad():
            model.embedding.weight.mul_(1.5)
        model.zero_grad()
        changed = LOSS(model, DOCUMENTS[3:])
        workers.start([DOCUMENTS[3:], []], 1.0)
        assert workers.collect() == pytest.approx(changed.item(), rel=1e-5)
    finally:
        workers.close()
    assert not any(process.is_alive() for process in workers._processes)


@pytest.mark.slow
def test_a_worker_that_fails():
    model = SambaY.random(preset("tiny"), seed=2)
    workers = GradientWorkers(model, failing_loss, 2, 1)
    try:
        cursed = [Document((1, 2, 3), 1, "raise")]
        workers.start([cursed, DOCUMENTS], 1.0)
        with pytest.raises(SambaYError, match=r"a training worker failed:\n(.|\n)*the share is cursed"):
            workers.collect()
    finally:
        workers.close()
    assert not any(process.is_alive() for process in workers._processes)


@pytest.mark.slow
def test_a_worker_that_dies():
    model = SambaY.random(preset("tiny"), seed=2)
    workers = GradientWorkers(model, failing_loss, 1, 1)
    message = "a training worker died, perhaps for lack of memory: resume the run"
    try:
        workers.start([[Document((1, 2, 3), 1, "die")]], 1.0)
        with pytest.raises(SambaYError, match=message):
            workers.collect()
        with pytest.raises(SambaYError, match=message):
            workers.start([DOCUMENTS], 1.0)
    finally:
        workers.close()
