"""Small random checkpoints, and a way to run the command line in this process and see what it prints."""

import dataclasses
import io
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sambay.cli.app import run
from sambay.config import preset
from sambay.data.documents import completion_text
from sambay.data.problems import problem_at
from sambay.model import SambaY
from sambay.train.vocabulary import write_tokenizer

RECIPE = """
[model]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 4
num_attention_heads = 2
num_key_value_heads = 2
sliding_window = 32
mamba_d_state = 4
mamba_dt_rank = 2
max_position_embeddings = 1024
[data]
vocab_size = 280
vocab_documents = 20
longest = 128
[schedule]
steps = 6
warmup = 1
decay = 2
[run]
tokens_per_step = 256
log_every = 2
save_every = 100
eval_every = 4
eval_documents = 2
threads = 1
"""


class Result(NamedTuple):
    status: int
    out: str
    err: str


def _texts():
    for index in range(100):
        problem = problem_at(0, index, "train")
        yield problem.question
        yield completion_text(problem)


def _make(directory, says=None, **changes):
    directory.mkdir()
    tokenizer = write_tokenizer(_texts(), 400, directory)
    model = SambaY.random(dataclasses.replace(preset("tiny"), **changes), seed=0)
    if says is not None:
        [token] = tokenizer.encode(says)
        with torch.no_grad():  # the head sees the same whatever was before
            row = model.embedding.weight[token]
            model.final_norm.weight.zero_()
            model.final_norm.bias.copy_(row * (100 / row.square().sum()))
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A random model with a tokenizer; do not change it."""
    return _make(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """One that says a letter again and again, and never ends a reply by itself."""
    return _make(tmp_path_factory.mktemp("cli") / "endless", says="a", eos_token_id=None)


@pytest.fixture
def copy(checkpoint, tmp_path) -> Path:
    """A checkpoint to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def wordless(copy):
    """One without a tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (copy / name).unlink()
    return copy


@pytest.fixture
def recipe(tmp_path):
    """A training recipe of six short steps."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def sambay(capsys, monkeypatch):
    """`sambay("generate", path, "-p", "hi", stdin="")` -> status, standard output, standard error."""
    for name in ("SAMBAY_DEBUG", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")  # a dumb one has 80 columns
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments, stdin=b""):
        raw = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        threads = torch.get_num_threads()
        try:
            status = run([str(argument) for argument in arguments])
        finally:
            torch.set_num_threads(threads)
        return Result(status, *capsys.readouterr())

    return call


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()
