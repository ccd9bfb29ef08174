"""Small models, plain and quantised, with windows that are soon full."""

import pytest

from sambay.bench import decode, prefill
from sambay.bench.probes import MatrixProbe
from sambay.config import preset
from sambay.model import SambaY
from sambay.quant.convert import quantize


@pytest.fixture(scope="session")
def tiny():
    return SambaY.random(preset("tiny")).eval()


@pytest.fixture(scope="session")
def untied():
    return SambaY.random(preset("tiny-plain")).eval()


@pytest.fixture(scope="session")
def packed(tiny, tmp_path_factory):
    """Of 4 bits, the embedding of 6."""
    directory = tmp_path_factory.mktemp("bench") / "packed"
    quantize(tiny, directory)
    return SambaY.from_pretrained(directory)


@pytest.fixture
def quick(monkeypatch):
    """The probes answer at once: 1e9 bytes, 1e9 operations a second."""
    monkeypatch.setattr(decode, "bandwidth", lambda: 1e9)
    monkeypatch.setattr(MatrixProbe, "rate", lambda self: 1e9)
    monkeypatch.setattr(MatrixProbe, "peak", lambda self: 4e9)


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on by half a second whenever it is asked for."""
    now = [0.0]

    def tick():
        now[0] += 0.5
        return now[0]

    for module in (decode, prefill):
        monkeypatch.setattr(module.time, "perf_counter", tick)
    return now
