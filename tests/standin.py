"""A stand-in for a server of OpenAI's chats, which does as a test tells it."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn(ThreadingHTTPServer):
    """Answers chats by `behave(handler, body)`, and keeps what was asked and how many were asked at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.headers, self.begun = [], [], []
        self.behave, self.models = say("eins ", "zwei ", "drei"), [{"id": "first"}, {"id": "second"}]
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        assert self.path == "/v1/models"
        self.answer(200, {"data": self.server.models})

    def do_POST(self):
        assert self.path == "/v1/chat/completions"
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.begun.append(time.perf_counter())
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            server.behave(self, body)
        finally:
            with server.lock:
                server.now -= 1

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            self.wfile.write(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
            self.wfile.flush()


def chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def say(*words, usage=True, wait=0.0):
    """A thought, the words, and a count of tokens that is not that of the pieces."""

    def behave(handler, body):
        time.sleep(wait)
        told = {"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
        handler.stream(
            chunk(role="assistant", content=""),
            chunk(reasoning_content="hm"),
            *(chunk(content=word) for word in words),
            chunk("stop"),
            *([{"choices": [], "usage": told}] if usage else []),
            "[DONE]",
        )

    return behave


@contextlib.contextmanager
def standing_in():
    """A stand-in for the time of a `with` block."""
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
