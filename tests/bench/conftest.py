"""Small models, plain and quantised, with windows that are soon full."""

import pytest

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
    """Of 4 bits, the embedding of 8."""
    directory = tmp_path_factory.mktemp("bench") / "packed"
    quantize(tiny, directory)
    return SambaY.from_pretrained(directory)
