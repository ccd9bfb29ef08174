"""What the tests of the engine share: a tiny random checkpoint with a tokenizer, and engines over it."""

import json
import shutil

import pytest
import torch

from sambay.config import SambaYConfig
from sambay.engine import LLM, Engine
from sambay.engine.invariant import is_deterministic
from sambay.model import SambaY
from sambay.ops import native
from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import write_tokenizer

TEXT = "the cat sat on a mat and so did seven dogs who thought about häuser 你好 🙂"
WORDS = TEXT.split()
TEXTS = [f"{WORDS[i % 16]} {WORDS[i * 7 % 16]} {i * 37} = {i}." for i in range(300)]
CONTEXT = 256


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory with a model that generates varied tokens, and its tokenizer."""
    directory = tmp_path_factory.mktemp("engine") / "tiny"
    tokenizer = write_tokenizer(TEXTS, 320, directory)
    config = SambaYConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=8, mamba_d_state=4, mamba_dt_rank=2,
        max_position_embeddings=CONTEXT, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0, torch_dtype="float32",
    )  # fmt: skip
    model = SambaY.random(config, seed=5)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # larger than the initialisation gives, so that what comes next depends on all before
        model.embedding.weight.normal_(generator=generator)
        model.lm_head.weight.normal_(std=0.4, generator=generator)
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def variant(checkpoint, tmp_path):
    """`variant(generation_config)` -> a copy of the checkpoint with that file (text as it is, else JSON)."""

    def make(content=None, *, tokenizer=True):
        directory = tmp_path / "variant"
        shutil.copytree(checkpoint, directory)
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (directory / "generation_config.json").write_text(text, encoding="utf-8")
        if not tokenizer:
            (directory / "tokenizer.json").unlink()
        return directory

    return make


@pytest.fixture(scope="session")
def model(checkpoint):
    return SambaY.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return Tokenizer.from_pretrained(checkpoint)


@pytest.fixture
def make_engine(model, tokenizer):
    """`make_engine(**limits)` -> an engine over the tiny model."""

    def make(**options):
        values = {"end_ids": frozenset(model.config.eos_token_ids), "max_model_len": CONTEXT}
        return Engine(model, tokenizer, **values | {"deterministic": is_deterministic(model)} | options)

    return make


@pytest.fixture(scope="session")
def shared_llm(checkpoint):
    return LLM(checkpoint, device="cpu", max_num_seqs=4, max_num_batched_tokens=32, deterministic=native.available())


@pytest.fixture
def llm(shared_llm):
    """The tiny model; checks that the test gives everything back."""
    yield shared_llm
    check_idle(shared_llm.engine)


def check_idle(engine):
    """All slots and pages are free but for what the prefix cache can do without, and nothing is queued."""
    pool = engine.pool
    assert not engine.busy
    assert not engine._requests
    assert pool.free_slots == pool.slots
    assert not engine.keeper._aside
    assert len(pool.shared.free) + pool.shared.idle == pool.shared.tiles.pages
    if engine.keeper.prefix is not None:
        engine.keeper.prefix.clear()
    assert sorted(pool.shared.free) == list(range(pool.shared.tiles.pages))
    assert not any(pool.shared._holders + pool.shared._spares)


@pytest.fixture(scope="session")
def assert_idle():
    return check_idle


@pytest.fixture(scope="session")
def solo(model, tokenizer):
    """`solo(prompt, ids, params)` -> the output of the request when it runs alone, whole prompt at once."""

    def run(ids, params, prompt=None):
        engine = Engine(
            model,
            tokenizer,
            end_ids=frozenset(model.config.eos_token_ids),
            max_model_len=CONTEXT,
            max_num_seqs=1,
            max_num_batched_tokens=CONTEXT,
            deterministic=is_deterministic(model),
            enable_prefix_caching=False,
        )
        output = engine.add(prompt, list(ids), params)
        while engine.busy:
            engine.step()
        return output

    return run
