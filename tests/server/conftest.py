"""Servers on real ports of the loopback: one of a tiny random model, one of the bundled model."""

import contextlib
import dataclasses
import threading
import time

import httpx
import pytest
import uvicorn

from sambay.config import preset
from sambay.data.documents import completion_text
from sambay.data.problems import problem_at
from sambay.engine import LLM
from sambay.model import SambaY
from sambay.server import Models, ServedModel, Settings, create_app
from sambay.server.listen import bind, make_config
from sambay.train.vocabulary import write_tokenizer


def _texts():
    for index in range(100):
        problem = problem_at(0, index, "train")
        yield problem.question
        yield completion_text(problem)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory with a tiny random model; what it says depends on the machine."""
    directory = tmp_path_factory.mktemp("server") / "tiny"
    directory.mkdir()
    write_tokenizer(_texts(), 400, directory)
    config = dataclasses.replace(preset("tiny"), max_position_embeddings=1 << 17)
    SambaY.random(config, seed=0).save_pretrained(directory)
    return directory


@contextlib.contextmanager
def serving(*llms, settings=None, **changes):
    """Serve models, given as (name, LLM), on a port of their own for the time of a `with` block.

    Yields:
        The base URL; `client.app` of the fixtures below has the application.
    """
    app = create_app(Models([ServedModel.of(name, llm) for name, llm in llms]), settings or Settings(**changes))
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(make_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    _wait_for(lambda: server.started or not thread.is_alive())
    try:
        with httpx.Client(base_url=base, timeout=120) as client:
            client.app = app
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def wait_for():
    """`wait_for(condition)` returns when it holds, and fails if it never does."""
    return _wait_for


@pytest.fixture(scope="session")
def serve():
    """`with serve(("name", llm), settings=Settings(...)) as client`: an httpx client of a server of its own."""
    return serving


@pytest.fixture(scope="session")
def tiny_llm(checkpoint):
    """For servers of a test's own, one at a time."""
    return LLM(checkpoint, device="cpu", max_num_seqs=4, memory="256MB")


@pytest.fixture(scope="session")
def tiny(checkpoint):
    """An httpx client of a server of the tiny model, called `tiny`; `client.app` is the application."""
    with serving(("tiny", LLM(checkpoint, device="cpu", max_num_seqs=4, memory="256MB"))) as client:
        yield client


@pytest.fixture(scope="session")
def bundled():
    """The same of the bundled model, called `tutor`."""
    with serving(("tutor", LLM(device="cpu", memory="256MB"))) as client:
        yield client
