"""Ten thousand hostile requests leave the server answering, with the memory that it had."""

import asyncio
import collections
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import watched
from hostile import Hostile, get, post, requests, send

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")

GOOD = {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 8, "temperature": 0, "seed": 1}


LEAK = 2000
"""Bytes: what is kept of a request by mistake is its body, its connection or its sequence, and takes more."""

HEAVY = {"a huge body", "many", "a structure", "deep nesting"}
"""Kinds that take memory for a while, and fill what is kept of them within bounds."""


class Process:
    """`sambay serve` as a process of its own, since this one's memory is not the server's.

    Args:
        log: a file for its standard error, and not a pipe, which would be full soon.
        arguments: those after `serve`.
    """

    def __init__(self, log, *arguments):
        self.log, self._figures, self._asked = log, log.with_suffix(".figures"), 0
        self._figures.touch()
        command = [sys.executable, watched.__file__, self._figures, "serve", *map(str, arguments), "--port", "0"]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        line = self.process.stdout.readline()
        assert " at http://" in line, log.read_text(encoding="utf-8")
        self.url = line.split(" at ")[1].strip().rstrip("/")
        self.port = int(self.url.rpartition(":")[2])

    def figures(self, wait_for):
        """What it holds now, as `watched` says it."""
        self._asked += 1
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self._figures.read_text(encoding="utf-8").count("\n") == self._asked)
        return json.loads(self._figures.read_text(encoding="utf-8").splitlines()[-1])

    @property
    def files(self):
        """Open files and connections."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def end(self):
        """Its exit status, and what it wrote to the standard error."""
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode, self.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    patience = (
        "--head-timeout",
        1,
        "--body-timeout",
        1,
        "--write-timeout",
        2,
        "--max-body",
        "1MiB",
        "--memory",
        "8MB",  # of states, which are kept until they are in the way: it is full soon, and then they are
    )
    log = tmp_path_factory.mktemp("hostile") / "log"
    found = Process(log, f"tiny={checkpoint}", *patience, "--max-model-len", 2048, "--threads", 1)
    yield found
    with contextlib.suppress(ProcessLookupError):
        found.process.kill()
        found.process.communicate()


def posts(url):
    """The paths that take a POST, as the server itself says."""
    found = httpx.get(f"{url}/openapi.json").json()["paths"]
    return sorted(path for path, ways in found.items() if "post" in ways and "{" not in path)


def answer(url):
    """What a good request gives."""
    return httpx.post(f"{url}/v1/chat/completions", json=GOOD, timeout=60).json()["choices"][0]["message"]


def attack(server, wave, at_once=24):
    """Send them, some at once, and count the statuses; none may be a failure of the server."""
    seen = collections.Counter()

    async def worker():
        for one in wave:
            try:
                found = await asyncio.wait_for(send("127.0.0.1", server.port, one), 200)  # a machine may be busy
            except asyncio.TimeoutError:
                raise AssertionError(f"{one.kind}: no end of the answer to {one.data[:300]!r}") from None
            wrong = [status for status in found.statuses if status >= 500]
            assert not wrong, f"{one.kind}: {found.data[:500]!r} to {one.data[:2000]!r}"
            assert b"Traceback" not in found.data, one
            seen.update(found.statuses or ["nothing"])

    async def work():
        await asyncio.gather(*(worker() for _ in range(at_once)))

    wave = iter(wave)
    asyncio.run(work())
    return seen


def settled(server, wait_for):
    """Wait until nothing runs any more; what is held then."""
    quiet = ('sambay_sequences_running{model="tiny"} 0.0', 'sambay_sequences_waiting{model="tiny"} 0.0')

    def idle():
        shown = httpx.get(f"{server.url}/metrics").text
        return all(line in shown for line in quiet)

    wait_for(idle)
    # Threads that have been without work for ten seconds end when the next comes; each holds buffers of its own, which
    # were ten times the growth that is looked for.
    time.sleep(11)
    answer(server.url)
    return server.figures(wait_for)


def test_hostile_requests_are_what_they_should_be():
    wave = list(itertools.islice(requests(["/v1/chat/completions", "/v1/completions", "/api/chat"], seed=0), 600))
    assert len({one.kind for one in wave}) > 50
    assert {one.manner for one in wave} == {"whole", "gone", "slow"}
    again = itertools.islice(requests(["/v1/chat/completions", "/v1/completions", "/api/chat"], seed=0), 600)
    assert [one.data for one in again] == [one.data for one in wave]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_hostile_requests(server, wait_for):
    good, paths = answer(server.url), posts(server.url)
    wave, heavy = requests(paths, seed=1), (one for one in requests(paths, seed=2) if one.kind in HEAVY)
    # What is bounded fills: states, compiled structures, words whose tokens are known, threads.
    seen = attack(server, itertools.islice(heavy, 1000)) + attack(server, itertools.islice(wave, 1500))
    before, files = settled(server, wait_for), server.files
    count = 7500
    seen += attack(server, itertools.islice(wave, count))
    after = settled(server, wait_for)
    assert answer(server.url) == good
    assert seen[200] > 500, seen
    assert seen[400] > 1000, seen
    assert seen[404] > 100, seen
    assert seen[413] > 10, seen
    found = f"before {before}, after {after}"
    assert after["objects"] - before["objects"] < count, found
    if before["heap"] is not None:
        assert after["heap"] - before["heap"] < count * LEAK / 2, found
    assert after["rss"] - before["rss"] < 32e6, found
    wait_for(lambda: server.files <= files + 4)
    status, err = server.end()
    assert status == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("one", "statuses"),
    [
        (Hostile("fine", post("/v1/chat/completions", GOOD)), [200]),
        (Hostile("pipeline", get("/health", close=False) * 20 + get("/nothing")), [200] * 20 + [404]),
        (Hostile("deep", post("/v1/chat/completions", b'{"messages": ' + b"[" * 10_000)), [400]),
        (Hostile("NaN", post("/v1/chat/completions", b'{"temperature": NaN}')), [400]),
        (Hostile("bytes", post("/v1/completions", b'{"prompt": "\xff"}')), [400]),
        (Hostile("large", post("/v1/completions", b" " * (2 << 20))), [413]),
        (Hostile("size", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"), [400]),
        (Hostile("up", get("/../../etc/passwd")), [404]),
        (Hostile("slow", get("/health")[:-4], "slow"), []),
        (Hostile("slow body", post("/v1/completions", {"prompt": "a" * 99})[:-50]), [408]),
    ],
    ids=lambda one: one.kind if isinstance(one, Hostile) else "",
)
def test_some_of_them(tiny, one, statuses, serve, tiny_llm):
    with serve(("tiny", tiny_llm), head_timeout=0.5, body_timeout=0.5, max_body=1 << 20) as client:
        found = asyncio.run(send("127.0.0.1", client.base_url.port, one))
    assert found.statuses == statuses
    if statuses and statuses[-1] >= 400 and b"application/json" in found.data:
        body = found.data.rpartition(b"\r\n\r\n")[2]
        assert json.loads(body)["error"]["message"]
