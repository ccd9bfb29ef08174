"""Texts that repeat their prompt and texts that do not, with speculation and without."""

import pytest

from sambay.bench.speculation import TEXTS, measure_speculation
from sambay.errors import ConfigError, ContextError


def test_every_text_in_every_mode(tiny):
    told = []
    found = measure_speculation(
        tiny, 40, texts=list(TEXTS), batches=[1, 2], generate=50, rounds=1, modes=["off", "on"],
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(i, 8) for i in range(1, 9)]
    assert [(row["text"], row["mode"], row["batch"]) for row in found] == [
        (text, mode, batch) for batch in (1, 2) for text in TEXTS for mode in ("off", "on")
    ]
    rows = {(row["text"], row["mode"], row["batch"]): row for row in found}
    for row in found:
        assert row["tokens_per_second"] > 0
        assert row["ratio"] == 1 if row["mode"] == "off" else row["ratio"] > 0
        assert row["drafted"] == 0 if row["mode"] == "off" else row["accepted"] <= row["drafted"]
    # Most of what repeats is found; of a dozen words in any order a twelfth comes again.
    assert rows["repeats", "on", 1]["accepted"] > 25
    assert rows["repeats", "on", 2]["accepted"] > 50
    assert rows["misleads", "on", 1]["accepted"] < rows["misleads", "on", 1]["drafted"] / 4


def test_what_cannot_be_measured(tiny):
    known = {"texts": ["new"], "batches": [1], "generate": 4, "rounds": 1}
    with pytest.raises(ContextError, match="and 4 more make"):
        measure_speculation(tiny, 10**6, **known)
    with pytest.raises(ConfigError, match="there is no text 'old': choose from repeats, quotes, new, misleads"):
        measure_speculation(tiny, 10, **known | {"texts": ["old"]})
    with pytest.raises(ConfigError, match="speculation is 'maybe': it must be one of off, on, auto"):
        measure_speculation(tiny, 10, **known, modes=["off", "maybe"])
    with pytest.raises(ConfigError, match="batch"):
        measure_speculation(tiny, 10, **known | {"batches": [0]})
