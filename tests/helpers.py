"""What the tests of the model share: a way to measure errors, texts, and a run in pieces.

Bounds: errors are the largest difference over the largest logit. Float32 gives about 1e-6 and is held to
2e-5; bfloat16 keeps 8 bits and float16 11 through all layers, and they are held to 6e-2 and 2e-2 (two to three
times what is measured).
"""

import itertools

import numpy as np
import torch

BOUND = 2e-5


def error(found, expected):
    """Largest difference, relative to the largest expected value."""
    found = np.asarray(found.detach().double() if torch.is_tensor(found) else found)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return np.abs(found - expected).max() / np.abs(expected).max()


def text(length, seed=0, vocab=48):
    return torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(1000 * seed + length))


def in_chunks(model, ids, cuts, pool=None):
    """Logits at all positions, with the text given in pieces."""
    pool = pool or model.new_state()
    bounds = sorted({0, *cuts, len(ids)})
    pieces = [model(ids[a:b], state=pool) for a, b in itertools.pairwise(bounds)]
    assert pool.lengths[0] == len(ids)
    return torch.cat(pieces)


def write(cache, slot, start, keys, values):
    """Put keys and values (T, Hk, dh) into a slot of a shared cache, whose pages have been reserved."""
    cache.write_all((slot,), (start,), (keys.shape[0],), keys, values)


def opened(pool):
    """The pool, with all of its slots open."""
    while pool.free_slots:
        pool.open()
    return pool


def dictate(monkeypatch, choose):
    """Let completions of the engine choose their tokens one by one, by what takes the arguments of `sampler.sample`."""
    monkeypatch.setattr("sambay.engine.request.Completion.wanted", lambda *_: None)
    monkeypatch.setattr("sambay.engine.request.sample", choose)
