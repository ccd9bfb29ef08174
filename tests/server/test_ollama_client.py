"""The official client `ollama` against the real server."""

import json

import pytest

ollama = pytest.importorskip("ollama")

HELLO = [{"role": "user", "content": "What is 3 + 4?"}]
SYSTEM = {"role": "system", "content": "Answer with the number, and say how you found it. " * 20}
GREEDY = {"temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"even": {"type": "boolean"}},
    "required": ["even"],
    "additionalProperties": False,
}
COIN = {
    "type": "function",
    "function": {
        "name": "coin",
        "description": "Throws a coin.",
        "parameters": {
            "type": "object",
            "properties": {"side": {"type": "string", "enum": ["heads", "tails"]}},
            "required": ["side"],
        },
    },
}


@pytest.fixture(scope="module")
def client(tiny):
    with ollama.Client(str(tiny.base_url), timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def tutor(bundled):
    with ollama.Client(str(bundled.base_url), timeout=120) as client:
        yield client


def test_models(client, tiny):
    [listed] = client.list().models
    assert listed.model == "tiny"
    assert listed.size > 0
    assert len(listed.digest) == 64
    assert listed.details.family == "phi4flash"
    assert listed.details.quantization_level == "F32"
    [running] = client.ps().models
    assert (running.model, running.context_length) == ("tiny", tiny.app.state.models.get("tiny").llm.max_model_len)
    for name in ("tiny", "tiny:latest"):
        shown = client.show(name)
        assert shown.modelinfo["phi4flash.block_count"] > 0
        assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
        assert "<|assistant|>" in shown.template
    assert tiny.get("/api/version").json()["version"]
    assert tiny.head("/").status_code == 200


def test_a_chat_plain_and_streamed(tutor):
    plain = tutor.chat("tutor", HELLO, options=GREEDY)
    assert r"\boxed{7}" in plain.message.content
    assert plain.message.thinking
    assert (plain.done, plain.done_reason) == (True, "stop")
    assert plain.eval_count > 5
    assert plain.prompt_eval_count > 5
    assert plain.total_duration >= plain.eval_duration > 0
    lines = list(tutor.chat("tutor", HELLO, options=GREEDY, stream=True))
    assert "".join(line.message.content for line in lines) == plain.message.content
    assert "".join(line.message.thinking or "" for line in lines) == plain.message.thinking
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == plain.eval_count


def test_thinking_off_and_bounded(tutor):
    off = tutor.chat("tutor", HELLO, think=False, options={**GREEDY, "num_predict": 40})
    assert not off.message.thinking
    assert tutor.chat("tutor", HELLO, think=True, options=GREEDY).message.thinking
    assert tutor.chat("tutor", HELLO, think="low", options=GREEDY).message.thinking
    with pytest.raises(ollama.ResponseError, match="think is 'much'"):
        tutor.chat("tutor", HELLO, think="much")


def test_generate(tutor, client):
    plain = tutor.generate("tutor", "What is 3 + 4?", options=GREEDY)
    assert r"\boxed{7}" in plain.response
    assert plain.thinking
    assert len(plain.context) == plain.prompt_eval_count + plain.eval_count
    assert plain.prompt_eval_count == tutor.chat("tutor", HELLO, options=GREEDY).prompt_eval_count
    lines = list(tutor.generate("tutor", "What is 3 + 4?", options=GREEDY, stream=True))
    assert "".join(line.response for line in lines) == plain.response
    onward = tutor.generate("tutor", "And 5 + 6?", context=plain.context, options={**GREEDY, "num_predict": 2})
    assert onward.prompt_eval_count > len(plain.context)
    raw = client.generate("tiny", "3 + 4", raw=True, options={**GREEDY, "num_predict": 3})
    assert raw.prompt_eval_count < plain.prompt_eval_count
    assert raw.eval_count <= 3


def test_options_and_logprobs(client, tiny):
    options = {"temperature": 1, "seed": 4, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "repeat_penalty": 1.1}
    options |= {"num_predict": 8, "num_ctx": 4096, "num_thread": 2}
    first = client.generate("tiny", "3 + 4", raw=True, options=options, logprobs=True, top_logprobs=2)
    assert client.generate("tiny", "3 + 4", raw=True, options=options).response == first.response
    assert len(first.logprobs) == first.eval_count
    assert {len(entry.top_logprobs) for entry in first.logprobs} == {2}
    lines = list(
        client.generate("tiny", "3 + 4", raw=True, options=options, logprobs=True, top_logprobs=2, stream=True)
    )
    entries = [entry for line in lines for entry in line.logprobs or ()]
    assert entries == first.logprobs
    stop = next(char for char in first.response if char.strip())
    cut = client.generate("tiny", "3 + 4", raw=True, options={**options, "stop": [stop]})
    assert (cut.response, cut.done_reason) == (first.response.partition(stop)[0], "stop")
    for bad, words in (
        ({"mirostat": 1}, "options.mirostat is 1"),
        ({"temprature": 1}, "options has the field 'temprature'"),
        ({"top_p": 3}, "top_p is 3"),
    ):
        answer = tiny.post("/api/generate", json={"model": "tiny", "prompt": "a", "options": bad})
        assert answer.status_code == 400
        assert words in answer.json()["error"]


def test_formats(client):
    options = {"temperature": 1, "seed": 1}
    for think in (False, None):
        answer = client.chat("tiny", HELLO, format=SCHEMA, options={**options, "max_thinking_tokens": 5}, think=think)
        assert json.loads(answer.message.content)["even"] in (True, False)
    with pytest.raises(ollama.ResponseError, match="it must be json, or a JSON schema"):
        client._request_raw("POST", "/api/chat", json={"model": "tiny", "messages": HELLO, "format": "xml"})


def test_tools(tutor, bundled):
    # Ollama's clients have no `tool_choice`, but others that speak its protocol do.
    body = {
        "model": "tutor", "messages": HELLO, "tools": [COIN], "think": False,
        "tool_choice": {"type": "function", "function": {"name": "coin"}},
        "stream": False,
        "options": {**GREEDY, "num_predict": 200},
    }  # fmt: skip
    body["tools"][0]["function"]["parameters"]["additionalProperties"] = False
    answer = bundled.post("/api/chat", json=body).json()
    call = answer["message"]["tool_calls"][0]["function"]
    assert call["name"] == "coin"
    assert call["arguments"]["side"] in ("heads", "tails")
    lines = [json.loads(line) for line in bundled.post("/api/chat", json=body | {"stream": True}).text.splitlines()]
    calls = [one["function"] for line in lines for one in line["message"].get("tool_calls", ())]
    assert calls == [one["function"] for one in answer["message"]["tool_calls"]]
    turn = [*HELLO, ollama.ChatResponse(**answer).message, {"role": "tool", "tool_name": "coin", "content": "tails"}]
    again = tutor.chat("tutor", turn, tools=[COIN], options={**GREEDY, "num_predict": 4})
    assert again.prompt_eval_count > answer["prompt_eval_count"]


def test_errors_and_what_is_not_done_here(client):
    for call, status, words in (
        (lambda: client.chat("gone", HELLO), 404, "there is no model 'gone'"),
        (lambda: client.show("gone"), 404, "there is no model 'gone'"),
        (lambda: client.generate("tiny", "a", suffix="b"), 400, "suffix is 'b'"),
        (lambda: client.generate("tiny", "a", template="b"), 400, "send the whole prompt with raw"),
        (lambda: client.chat("tiny", [{"role": "user", "content": "a", "images": ["aGk="]}]), 400, "only text"),
        (lambda: client.embed("tiny", "a"), 400, "none of them makes embeddings"),
        (lambda: client.pull("tiny"), 403, "sambay serve"),
        (lambda: list(client.chat("gone", HELLO, stream=True)), 404, "there is no model"),
    ):
        with pytest.raises(ollama.ResponseError, match=words) as caught:
            call()
        assert caught.value.status_code == status


def test_loading_and_unloading(client):
    assert client.generate("tiny").done_reason == "load"
    assert client.generate("tiny", keep_alive=0).done_reason == "unload"
    assert client.chat("tiny", []).message.content == ""


def test_leaving_in_mid_stream(client, tiny, wait_for):
    [served] = tiny.app.state.models
    options = {"num_predict": -1, "temperature": 1}
    for _ in range(3):  # one may end by itself
        lines = client.chat("tiny", HELLO, options=options, stream=True)
        next(lines)
        lines.close()
        wait_for(lambda: not served.load and not served.llm.engine.busy)
