"""Who may come in: keys, names, origins, limits; each refusal says what to do."""

import socket
import threading

import pytest

from sambay.server.gate import Rates

ASK = {"prompt": "3 + 4 =", "max_tokens": 2}


def refused(response, status, word):
    assert response.status_code == status
    assert word in response.json()["error"]["message"]
    return response


@pytest.fixture
def keyed(serve, tiny_llm):
    with serve(("tiny", tiny_llm), keys=("first", "se cond ü")) as client:
        yield client


def test_keys(keyed):
    missing = refused(keyed.post("/v1/completions", json=ASK), 401, "wants an API key")
    assert missing.headers["www-authenticate"] == "Bearer"
    assert missing.json()["error"]["code"] == "invalid_api_key"
    for headers in ({"Authorization": "Bearer wrong"}, {"x-api-key": "firs"}, {"Authorization": "Basic first"}):
        response = keyed.post("/v1/completions", json=ASK, headers=headers)
        assert response.status_code == 401, headers
    for headers in ({"Authorization": "Bearer first"}, {"x-api-key": "first"}):
        assert keyed.post("/v1/completions", json=ASK, headers=headers).status_code == 200
    assert keyed.get("/v1/models").status_code == keyed.get("/metrics").status_code == 401
    assert keyed.get("/health").status_code == keyed.get("/ready").status_code == 200
    assert keyed.get("/nothing/here").status_code == 401


def test_each_protocol_hears_it_in_its_own_words(keyed):
    refusal = keyed.post("/v1/messages", json={}).json()
    assert (refusal["type"], refusal["error"]["type"]) == ("error", "authentication_error")
    assert "wants an API key" in keyed.post("/api/chat", json={}).json()["error"]


def test_pages_come_without_a_key_and_what_they_send_does_not(keyed):
    for path in ("/", "/tutor", "/favicon.ico"):
        assert keyed.get(path).status_code in (200, 204), path
    for path in ("/page/render", "/tutor/api/problem", "/"):
        assert keyed.post(path, json={}).status_code == 401, path


def test_pages_of_others_may_not_call(serve, tiny_llm):
    with serve(("tiny", tiny_llm), hosts=("127.0.0.1", "localhost")) as client:
        own = str(client.base_url).rstrip("/")
        for origin, status in ((own, 200), ("vscode-webview://x", 200), ("https://evil.example", 403), ("null", 403)):
            response = client.post("/v1/completions", json=ASK, headers={"Origin": origin})
            assert response.status_code == status, origin
            assert "access-control-allow-origin" not in response.headers
        refused(client.get("/v1/models", headers={"Host": "evil.example"}), 403, "--allowed-host")
        for host in ("[::1", "a b", "127.0.0.1:80:80", ""):
            assert client.get("/v1/models", headers={"Host": host}).status_code in (200, 400, 403), host


def test_cors_where_it_is_allowed(serve, tiny_llm):
    with serve(("tiny", tiny_llm), origins=("https://chat.example",), keys=("k",)) as client:
        asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization"
        allowed = client.options("/v1/chat/completions", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
        assert client.options("/v1/completions", headers=asked | {"Origin": "https://b.example"}).status_code == 400
        answer = client.post("/v1/completions", json=ASK, headers={"Origin": "https://chat.example", "x-api-key": "k"})
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"


def test_rate_limit(serve, tiny_llm):
    with serve(("tiny", tiny_llm), rate_limit=2) as client:
        assert [client.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        limited = refused(client.get("/v1/models"), 429, "more than 2 requests")
        assert 1 <= int(limited.headers["retry-after"]) <= 31
        assert client.get("/health").status_code == 200


def test_rates_fill_evenly():
    rates = Rates(60)
    assert [rates.take("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert rates.take("a", 0.0) == pytest.approx(1)
    assert rates.take("b", 0.0) == 0
    assert rates.take("a", 1.5) == 0
    assert rates.take("a", 1.5) == pytest.approx(0.5)
    for caller in range(20_000):
        rates.take(str(caller), 100.0 + caller)
    assert len(rates._buckets) < 10_100


def test_queue_limit(serve, tiny_llm, wait_for):
    with serve(("tiny", tiny_llm), max_queue=1) as client:
        [served] = client.app.state.models
        long = {"prompt": "3", "n": 5, "max_tokens": 100_000, "ignore_eos": True, "stream": True}
        refused(client.post("/v1/completions", json=long | {"n": 6}), 400, "5 are the most")
        with client.stream("POST", "/v1/completions", json=long):
            wait_for(lambda: served.load == 5)
            full = refused(client.post("/v1/completions", json=ASK), 429, "5 sequences run or wait")
            assert full.headers["retry-after"] == "5"
        wait_for(lambda: not served.load)
        assert client.post("/v1/completions", json=ASK).status_code == 200


def raw(client, data, *, end=True):
    """What the server answers to some bytes."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_bodies_that_are_too_large(serve, tiny_llm):
    with serve(("tiny", tiny_llm), max_body=1000) as client:
        assert client.post("/v1/completions", json=ASK | {"user": "x" * 800}).status_code == 200
        refused(client.post("/v1/completions", json=ASK | {"user": "x" * 5000}), 413, "larger than 1000 bytes")
        pieces = (b"[1, " * 200 for _ in range(5))
        refused(client.post("/v1/completions", content=pieces), 413, "larger than 1000 bytes")
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"
        assert b" 413 " in raw(client, head).partition(b"\r\n")[0]


def test_clients_that_are_too_slow(serve, tiny_llm, wait_for):
    with serve(("tiny", tiny_llm), head_timeout=0.3, body_timeout=0.3, write_timeout=0.3) as client:
        assert raw(client, b"POST /v1/completions HTT", end=False) == b""
        assert raw(client, b"", end=False) == b""
        late = raw(client, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", end=False)
        assert b" 408 " in late.partition(b"\r\n")[0]
        assert b"0.3 s" in late
        # One who takes nothing of many answers, the first of which the buffers on the way hold.
        before = open_files(client)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
            assert connection.recv(1)  # it has been let in
            wait_for(lambda: open_files(client) <= before + 1)  # this end of it is left


def open_files(client):
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("process_open_fds")).split()[1])


def test_draining(serve, tiny_llm, wait_for):
    with serve(("tiny", tiny_llm)) as client:
        doors = client.app.state.doors
        results = []
        ask = {"prompt": "3", "max_tokens": 300, "ignore_eos": True}
        working = threading.Thread(target=lambda: results.append(client.post("/v1/completions", json=ask)))
        working.start()
        wait_for(lambda: doors.inside)
        doors.closed = True
        late = refused(client.post("/v1/completions", json=ASK), 503, "about to end")
        assert late.headers["retry-after"] == "10"
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        working.join(60)
        assert results[0].json()["usage"]["completion_tokens"] == 300
        wait_for(lambda: not doors.inside)
