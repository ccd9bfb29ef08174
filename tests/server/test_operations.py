"""Health, metrics, the log, headers, and errors in the form of the protocol."""

import io
import json
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sambay.server.logs import setup

ASK = {"prompt": "3 + 4 =", "max_tokens": 5, "ignore_eos": True, "temperature": 0}


def figures(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def answered(found, *labels):
    return found[("sambay_http_requests_total", *sorted(labels))]


def test_metrics(serve, tiny_llm, wait_for, monkeypatch):
    monkeypatch.setattr(tiny_llm.engine, "drafted", 7)
    monkeypatch.setattr(tiny_llm.engine, "accepted", 3)
    with serve(("tiny", tiny_llm)) as client:
        [served] = client.app.state.models
        before = figures(client)
        assert before["sambay_memory_budget_bytes", "tiny"] == tiny_llm.engine.memory
        assert before["sambay_sequences_limit", "tiny"] == 4
        prompt = client.post("/v1/completions", json=ASK | {"n": 2}).json()["usage"]["prompt_tokens"]
        again = client.post("/v1/completions", json=ASK | {"stream": True})
        assert again.status_code == 200
        assert client.post("/v1/completions", json={}).status_code == 400
        assert client.get("/v1/nothing/at/all").status_code == 404
        after = figures(client)
        tiny = {name: value for (name, *labels), value in after.items() if labels == ["tiny"]}
        assert tiny["sambay_generated_tokens_total"] == 15
        assert tiny["sambay_prompt_tokens_total"] == 2 * prompt
        assert tiny["sambay_time_to_first_token_seconds_count"] == 2
        assert tiny["sambay_inter_token_seconds_count"] == 12
        assert tiny["sambay_sequences_running"] == tiny["sambay_sequences_waiting"] == 0
        assert tiny["sambay_memory_used_bytes"] == 0
        assert tiny["sambay_draft_tokens_total"] == tiny_llm.engine.drafted >= 7
        assert tiny["sambay_accepted_draft_tokens_total"] == tiny_llm.engine.accepted >= 3
        assert answered(after, "/v1/completions", "POST", "200") == 2
        assert answered(after, "/v1/completions", "POST", "400") == 1
        assert answered(after, "other", "GET", "404") == 1
        assert after["sambay_http_request_seconds_count", "/v1/completions"] == 3
        assert not any("nothing" in str(key) for key in after)
        with client.stream("POST", "/v1/completions", json=ASK | {"max_tokens": 100_000, "stream": True, "n": 5}):
            wait_for(lambda: figures(client)["sambay_sequences_running", "tiny"] == 4)
            busy = figures(client)
            assert busy["sambay_sequences_waiting", "tiny"] == 1
            assert busy["sambay_memory_used_bytes", "tiny"] > 0
            wait_for(lambda: figures(client)["sambay_tokens_per_second", "tiny"] > 0)
        wait_for(lambda: not served.load)


def test_a_second_turn_is_cached(bundled):
    messages = [{"role": "user", "content": "What is 347 + 586? Then subtract 12 from it. " * 5}]
    before = figures(bundled)["sambay_prefix_cache_hits_total", "tutor"]
    first = bundled.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).json()
    messages += [first["choices"][0]["message"], {"role": "user", "content": "And 3 + 4?"}]
    messages[1] = {"role": "assistant", "content": messages[1]["content"]}
    second = bundled.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).json()
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert figures(bundled)["sambay_prefix_cache_hits_total", "tutor"] == before + 1


@pytest.fixture
def lines():
    """What the log says, as JSON."""
    setup(as_json=True)
    logger = logging.getLogger("sambay.server")
    [handler] = logger.handlers
    stream = io.StringIO()
    handler.setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for name in ("sambay.server", "uvicorn.error", "asyncio"):
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True


def test_the_log_has_a_line_for_each_request_and_no_prompts(serve, tiny_llm, lines, wait_for):
    with serve(("tiny", tiny_llm)) as client:
        answer = client.post("/v1/completions", json=ASK, headers={"X-Request-Id": "my-own.1"})
        assert answer.headers["x-request-id"] == "my-own.1"
        assert client.get("/health").status_code == 200
        odd = client.get("/a%0ab%1b[31m", headers={"X-Request-Id": "not one\x7f"})
        wait_for(lambda: len(lines()) == 2)
    first, second = lines()
    assert {name: first[name] for name in ("event", "level", "method", "path", "status", "model", "finish")} == {
        "event": "request", "level": "info", "method": "POST", "path": "/v1/completions", "status": 200,
        "model": "tiny", "finish": "length",
    }  # fmt: skip
    assert (first["request_id"], first["completion_tokens"], first["client"]) == ("my-own.1", 5, "127.0.0.1")
    assert first["prompt_tokens"] > 0 < first["first_token"] <= first["seconds"]
    assert "prompts" not in first
    assert "3 + 4" not in json.dumps(first)
    assert (second["status"], second["path"]) == (404, "/a%0ab%1b[31m")
    assert second["request_id"] == odd.headers["x-request-id"] != "not one\x7f"


def test_prompts_are_logged_if_that_is_asked_for(serve, tiny_llm, lines, wait_for):
    with serve(("tiny", tiny_llm), log_prompts=True) as client:
        text = client.post("/v1/completions", json=ASK).json()["choices"][0]["text"]
        wait_for(lines)
    assert (lines()[0]["prompts"], lines()[0]["completions"]) == (["3 + 4 ="], [text])


def test_lines_for_people(capsys):
    setup(as_json=False)
    logging.getLogger("sambay.server").info("request", extra={"facts": {"path": "/a", "why": "two words\n\x1b"}})
    for name in ("sambay.server", "uvicorn.error", "asyncio"):
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    assert capsys.readouterr().err.endswith('Z info request path=/a why="two words\\n\\u001b"\n')


def test_headers_and_wrong_paths(tiny):
    answer = tiny.get("/v1/models")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    missing = tiny.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "there is nothing at /v1/nothing")
    wrong = tiny.get("/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    for path in ("/docs", "/redoc", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/../../x", "/\x00"):
        assert tiny.get(path.replace("\x00", "%00")).status_code == 404, path


def test_a_mistake_of_ours_says_nothing_of_the_inside(tiny, monkeypatch, caplog):
    [served] = tiny.app.state.models

    def broken(*arguments, **more):
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(served.llm.engine, "check", broken)
    answer = tiny.post("/v1/completions", json=ASK)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert "x-request-id" in answer.headers
    assert answered(figures(tiny), "/v1/completions", "POST", "500") == 1
    assert "a secret of the inside" in caplog.text
    assert served.load == 0


def test_what_fails_in_mid_stream_is_told_in_the_stream(tiny, monkeypatch, caplog):
    [served] = tiny.app.state.models
    engine, calls = served.llm.engine, []
    step = engine.step

    def failing():
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("the step failed")
        return step()

    monkeypatch.setattr(engine, "step", failing)
    answer = tiny.post("/v1/completions", json=ASK | {"stream": True, "max_tokens": 50})
    assert answer.status_code == 200
    *_, error, done = [line for line in answer.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"
    assert served.load == 0


def test_the_description_names_what_is_served(tiny):
    described = tiny.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    body = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["messages"]
    assert {"/health", "/ready", "/metrics", "/v1/completions", "/v1/models"} <= set(described["paths"])


def test_several_models_by_name(serve, tiny_llm, checkpoint):
    from sambay.engine import LLM

    other = LLM(checkpoint, device="cpu", max_num_seqs=2, memory="64MB")
    with serve(("one", tiny_llm), ("two", other)) as client:
        for name, expected in ((None, "one"), ("one", "one"), ("two", "two")):
            assert client.post("/v1/completions", json=ASK | {"model": name}).json()["model"] == expected
        missing = client.post("/v1/completions", json=ASK | {"model": "three"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
