"""Conversations with the prefix cache and without it."""

import pytest

from sambay.bench.prefix import measure_prefix
from sambay.errors import ConfigError, ContextError


def test_turns_with_and_without_the_cache(tiny):
    told = []
    found = measure_prefix(
        tiny, 100, turns=3, new=5, generate=4, rounds=2, progress=lambda done, total: told.append((done, total))
    )
    assert [(row["turn"], row["cache"], row["prompt"], row["cached_tokens"]) for row in found] == [
        (1, False, 100, 0),
        (1, True, 100, 0),
        (2, False, 109, 0),
        (2, True, 109, 103),
        (3, False, 118, 0),
        (3, True, 118, 112),
    ]
    assert all(row["share"] == 1 for row in found if not row["cache"])
    assert all(row["seconds"]["median"] > 0 and row["share"] > 0 for row in found)
    assert told == [(i, 6) for i in range(1, 7)]


def test_what_cannot_be_measured(tiny):
    with pytest.raises(ContextError, match="3 turns make"):
        measure_prefix(tiny, 10**6, turns=3, new=5, generate=4, rounds=1)
    with pytest.raises(ConfigError, match="turns"):
        measure_prefix(tiny, 10, turns=0, new=5, generate=4, rounds=1)
