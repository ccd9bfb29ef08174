"""Whatever bytes come, they are a JSON object or one sentence says why not."""

import json

import pytest

from sambay.errors import BodyError
from sambay.server.bodies import parse_json

DEEP = 10_000


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "the body is empty"),
        (b" \n ", "the body is empty"),
        (b"{", "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON: Extra data"),
        (b'{"a": \xff}', "not UTF-8: byte 6 is 0xff"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": NaN}', "NaN, which is no number"),
        (b'{"a": -Infinity}', "-Infinity, which is no number"),
        (b'{"a": 1e999}', "1e999: it is beyond"),
        (b'{"a": ' + b"9" * 30 + b"}", "it must be of 64 bits"),
        (b'{"a": ' + b"9" * 100_000 + b"}", r"9{40}\.\.\.: it must be of 64 bits"),
        (b'{"a": -9223372036854775809}', "it must be of 64 bits"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "'b' twice"),
        (b'{"a": "\\ud800"}', r"\\ud800 alone"),
        (b'{"\\uDfff": 1}', r"\\udfff alone"),
        (b"[" * DEEP + b"]" * DEEP, "more than 64 levels"),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "more than 64 levels"),
        (b"[" * DEEP, "more than 64 levels|not JSON"),
        (b"[" * 65 + b"]" * 65, "more than 64 levels"),
        (b"[1]", "must be a JSON object, not .1."),
        (b"null", "must be a JSON object, not None"),
        (b'"text"', "must be a JSON object"),
    ],
)
def test_refused(raw, words):
    with pytest.raises(BodyError, match=words) as raised:
        parse_json(raw)
    assert len(str(raised.value)) < 200
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, -1.5, 2**64 - 1, -(2**63), True, None, "ü🙂\u2028"]},
        {"deep": json.loads("[" * 62 + "]" * 62)},
        {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]},
    ],
)
def test_taken(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8-sig")) == value


def test_over_http(tiny):
    for raw in (
        b"[" * DEEP,
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b"\xff\xfe",
        b'{"model": "\xf4\x90\x80\x80"}',
    ):
        response = tiny.post("/v1/completions", content=raw)
        assert response.status_code == 400, raw[:20]
        assert response.json()["error"]["type"] == "invalid_request_error"


ODD = [
    {"prompt": "x", "temperature": "hot"},
    {"prompt": "x", "max_tokens": True},
    {"prompt": "x", "max_tokens": -(2**63)},
    {"prompt": [[]]},
    {"prompt": [[1, 2**60]]},
    {"prompt": [1.5]},
    {"prompt": {"a": 1}},
    {"prompt": "x", "n": 10**9},
    {"prompt": "x", "stop": [1]},
    {"prompt": "x", "stop": ""},
    {"prompt": "x", "logit_bias": {"-1": 3}},
    {"prompt": "x", "logit_bias": {"1": {"a": 1}}},
    {"prompt": "x", "response_format": {"type": []}},
    {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
    {"prompt": "x", "structured_outputs": {"regex": "("}},
    {"prompt": "x", "structured_outputs": {"grammar": "\x00"}},
    {"prompt": "x", "structured_outputs": {"choice": [1]}},
    {"prompt": "x", "stream": "yes"},
    {"prompt": "x", "stream_options": []},
    {"prompt": "x", "model": 5},
    {"prompt": "x", "unknown": 1},
    {"prompt": "x" * 300_000},
    {"messages": "x"},
    {"messages": []},
    {"messages": [1]},
    {"messages": [{"role": 1, "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"messages": 1}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"add_generation_prompt": False}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"self": 1}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"tools": 5}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"enable_thinking": []}},
    {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3},
    {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": {}},
    {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": {}}]},
]


@pytest.mark.parametrize("body", ODD, ids=lambda body: json.dumps(body)[:60])
def test_odd_fields_are_answered_with_a_sentence(tiny, body):
    url = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = tiny.post(url, json={"max_tokens": 2, **body})
    # Some mean something after all; none is a failure of the server's.
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        message = response.json()["error"]["message"]
        assert message
        assert "\n" not in message
