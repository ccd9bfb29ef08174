"""OpenAI's protocol over a real port: plain and streamed answers are the same."""

import json

GREEDY = {"temperature": 0, "max_tokens": 12}
HELLO = [{"role": "user", "content": "What is 3 + 4?"}]


def events(response):
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_models(tiny):
    assert tiny.get("/health").json()["status"] == "ok"
    listed = tiny.get("/v1/models").json()
    assert [one["id"] for one in listed["data"]] == ["tiny"]
    assert tiny.get("/v1/models/tiny").json() == listed["data"][0]
    missing = tiny.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_a_streamed_chat_is_the_plain_one_in_pieces(tiny):
    body = {"model": "tiny", "messages": HELLO, "n": 2, "logprobs": True, "top_logprobs": 2, **GREEDY}
    plain = tiny.post("/v1/chat/completions", json=body).json()
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    response = tiny.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, last = events(response)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], plain["usage"]["completion_tokens"])
    assert {(one["id"], one["object"]) for one in chunks} == {(chunks[0]["id"], "chat.completion.chunk")}
    for expected in plain["choices"]:
        mine = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == expected["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        for name in ("content", "reasoning_content"):
            joined = "".join(one["delta"].get(name) or "" for one in mine)
            assert joined == (expected["message"].get(name) or "")
        found = [entry for one in mine if one["logprobs"] for entry in one["logprobs"]["content"]]
        assert found == expected["logprobs"]["content"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [expected["finish_reason"]]


def test_streamed_completions_of_several_prompts(tiny):
    body = {"prompt": ["3 + 4 =", "5 + 6 ="], "n": 2, "echo": True, **GREEDY}
    plain = tiny.post("/v1/completions", json=body).json()
    chunks = events(tiny.post("/v1/completions", json=body | {"stream": True}))
    for expected in plain["choices"]:
        mine = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == expected["index"]]
        assert "".join(one["text"] for one in mine) == expected["text"]
        assert mine[-1]["finish_reason"] == expected["finish_reason"]


def test_the_bundled_model_thinks_apart_from_its_answer(bundled):
    answer = bundled.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 0}).json()
    assert answer["model"] == "tutor"
    assert r"\boxed{7}" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_client_that_goes_aborts_its_request(tiny, wait_for):
    [served] = tiny.app.state.models
    body = {"prompt": "3 + 4", "ignore_eos": True, "max_tokens": 100_000, "stream": True}
    with tiny.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["choices"]
        assert served.load == 1
    wait_for(lambda: not served.load and not served.llm.engine.busy)
