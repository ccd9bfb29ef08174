"""Perplexity and divergence against their definitions, token by token."""

import math

import pytest
import torch

from sambay.data.documents import Document, collate
from sambay.errors import ConfigError
from sambay.quant.measure import compare


def batches():
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(0, 71, (length,), generator=generator).tolist() for length in (9, 14, 5)]
    documents = [Document(tuple(ids), prompt, "x") for ids, prompt in zip(texts, (3, 0, 2), strict=True)]
    return documents, [collate(documents[:2], "cpu"), collate(documents[2:], "cpu")]


def test_by_the_definitions(random_model):
    first, second = random_model(seed=1), random_model(seed=2)
    documents, packed = batches()
    told = []
    found = compare(first, second, packed, lambda *numbers: told.append(numbers))
    losses, divergences, same = ([], []), [], []
    for document in documents:
        ids = torch.tensor(document.ids)
        with torch.no_grad():
            logs = [torch.log_softmax(model(ids).double(), -1) for model in (first, second)]
        for place in range(max(1, document.prompt_length), len(ids)):
            p, q = (each[place - 1] for each in logs)
            for losses_of, each in zip(losses, (p, q), strict=True):
                losses_of.append(-float(each[ids[place]]))
            divergences.append(float((p.exp() * (p - q)).sum()))
            same.append(bool(p.argmax() == q.argmax()))
    assert found.tokens == len(same)
    assert found.reference_perplexity == pytest.approx(math.exp(sum(losses[0]) / len(same)), rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(sum(losses[1]) / len(same)), rel=1e-4)
    assert found.kl_mean == pytest.approx(sum(divergences) / len(same), rel=1e-3)
    assert found.kl_max == pytest.approx(max(divergences), rel=1e-3)
    assert found.kl_p99 == found.kl_max  # of so few tokens
    assert found.same_top == sum(same) / len(same)
    assert told == [(1, 2), (2, 2)]


def test_a_model_against_itself(random_model):
    model = random_model()
    found = compare(model, model, batches()[1])
    assert found.kl_max == 0
    assert found.same_top == 1
    assert found.perplexity == found.reference_perplexity


def test_what_cannot_be_compared(random_model):
    with pytest.raises(ConfigError, match="71 and 72 tokens"):
        compare(random_model(), random_model(vocab_size=72), batches()[1])
    with pytest.raises(ConfigError, match="no text"):
        compare(random_model(), random_model(), [])
