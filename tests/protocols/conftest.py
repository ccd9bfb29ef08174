"""A tiny random model behind the front door."""

import pytest

from sambay.config import preset
from sambay.engine import LLM
from sambay.model import SambaY
from sambay.train.vocabulary import write_tokenizer

TEXTS = [f"the cat sat on {i} mats, häuser 你好 🙂 {i * 37}." for i in range(200)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("protocols") / "tiny"
    write_tokenizer(TEXTS, 400, directory)
    SambaY.random(preset("tiny"), seed=0).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def llm(checkpoint):
    return LLM(checkpoint, device="cpu", max_num_seqs=4)
