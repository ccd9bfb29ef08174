"""`sambay serve` as a process: what it says, how it ends, and what it knows when it is started again."""

import json
import os
import queue
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest

HELLO = [{"role": "user", "content": "What is 347 + 586? Then take 12 from it. " * 5}]


class Server:
    """A process of `sambay serve` on a free port.

    Args:
        arguments: those after `serve`.
    """

    def __init__(self, *arguments, env=None):
        command = [sys.executable, "-m", "sambay", "serve", "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})}
        )
        self.lines, self._more = [], queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = re.search(r"https?://[^\s\"]+", self.wait_for_line("http"))[0]

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self._more.put(line)
        self._more.put("")

    def wait_for_line(self, word):
        """The first line with a word in it."""
        while True:
            line = self._more.get(timeout=240)
            assert line, f"no line has {word!r}: {self.lines}"
            self.lines.append(line)
            if word in line:
                return line

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._reader.join(60)
        while not self._more.empty():
            self.lines.append(self._more.get())


def chat(client, **fields):
    return client.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 0, **fields})


@pytest.mark.slow
def test_an_answer_and_an_end(checkpoint):
    with Server(f"mine={checkpoint}", "--json", env={"SAMBAY_API_KEY": "sesame"}) as server:
        said = json.loads(server.lines[-1])
        assert (said["event"], said["models"]) == ("listening", ["mine"])
        with httpx.Client(base_url=server.url, timeout=120) as client:
            assert chat(client, max_tokens=3).status_code == 401
            client.headers["Authorization"] = "Bearer sesame"
            assert chat(client, max_tokens=3).json()["model"] == "mine"
            assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
    lines = [json.loads(line) for line in server.lines if line]
    assert [line["status"] for line in lines if line["event"] == "request"] == [401, 200, 403]
    assert "Then take" not in "".join(server.lines)  # what was asked; its digits would be found in a time or an id


@pytest.mark.slow
def test_sigterm_under_load_loses_no_accepted_request(checkpoint):
    """Forty clients ask again and again; each request is answered whole, refused with 503, or not connected at all."""
    whole, refused, lost = [], [], []
    ask = {"prompt": "3 + 4 =", "max_tokens": 30, "ignore_eos": True}

    def client(index, url, stop):
        with httpx.Client(base_url=url, timeout=240) as client:
            while not stop.is_set():
                try:
                    with client.stream("POST", "/v1/completions", json=ask | {"stream": bool(index % 2)}) as response:
                        text = response.read().decode()
                        status = response.status_code
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return
                if status == 503:
                    refused.append(text)
                    return
                complete = text.endswith("[DONE]\n\n") if index % 2 else json.loads(text)["usage"]
                (whole if status == 200 and complete and '"error"' not in text else lost).append(text)

    with Server(checkpoint, "--max-num-seqs", 4, "--memory", "128MB", "--drain-timeout", 200) as server:
        stop = threading.Event()
        threads = [threading.Thread(target=client, args=(index, server.url, stop)) for index in range(40)]
        for thread in threads:
            thread.start()
        while len(whole) < 20:
            assert not lost
            time.sleep(0.05)
        before = len(whole)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(240) == 0
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not lost
    assert len(whole) > before
    assert all("about to end" in text for text in refused)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(checkpoint):
    endless = {"prompt": "3", "max_tokens": 100_000, "ignore_eos": True, "stream": True}
    with (
        Server(checkpoint, "--memory", "128MB") as server,
        httpx.stream("POST", f"{server.url}v1/completions", json=endless, timeout=120) as response,
    ):
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line("draining")
        server.process.send_signal(signal.SIGTERM)
        *_, error, done = [line for line in lines if line]
        assert "the engine was closed" in error
        assert done == "data: [DONE]"
        assert server.process.wait(120) == 0


@pytest.mark.slow
def test_https(checkpoint, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl, to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    done = subprocess.run([*make.split(), "-keyout", key, "-out", cert], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with Server(checkpoint, "--memory", "128MB", "--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=server.url, verify=ssl.create_default_context(cafile=cert)) as client:
            assert client.get("/ready").json()["status"] == "ready"
        with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            client.get("/ready")


@pytest.mark.slow
def test_kill_and_restart_go_on_with_a_conversation(tmp_path):
    """The second turn after a kill -9 has the first one cached, and says what it says without a restart."""
    messages = list(HELLO)

    def turn(server):
        with httpx.Client(base_url=server.url, timeout=240) as client:
            answer = chat(client, messages=messages).json()
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        messages.append({"role": "user", "content": "And what is 3 + 4?"})
        return answer

    with Server("--state-dir", tmp_path, "--memory", "128MB") as server:
        first = turn(server)
        straight = turn(server)
        server.process.kill()
    del messages[-2:]
    with Server("--state-dir", tmp_path, "--memory", "128MB") as server:
        second = turn(server)
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    for answer in (straight, second):
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 64
    assert second["choices"][0]["message"] == straight["choices"][0]["message"]
