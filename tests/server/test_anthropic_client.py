"""The official client `anthropic` against the real server."""

import json

import pytest

anthropic = pytest.importorskip("anthropic")

HELLO = [{"role": "user", "content": "What is 3 + 4?"}]
SYSTEM = [
    {"type": "text", "text": "Answer with the number, and say how. " * 20, "cache_control": {"type": "ephemeral"}}
]
COIN = {
    "name": "coin",
    "description": "Throws a coin.",
    "input_schema": {
        "type": "object",
        "properties": {"side": {"enum": ["heads", "tails"]}},
        "required": ["side"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(tiny):
    with anthropic.Anthropic(base_url=str(tiny.base_url), api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def tutor(bundled):
    with anthropic.Anthropic(base_url=str(bundled.base_url), api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_models(client):
    [listed] = client.models.list()
    assert (listed.id, listed.display_name, listed.type) == ("tiny", "tiny", "model")
    assert client.models.retrieve("tiny").created_at == listed.created_at


def test_a_message_plain_and_streamed(tutor):
    fields = {"model": "tutor", "max_tokens": 500, "messages": HELLO, "extra_body": {"temperature": 0}}
    plain = tutor.messages.create(**fields)
    assert [block.type for block in plain.content] == ["thinking", "text"]
    assert r"\boxed{7}" in plain.content[1].text
    assert (plain.stop_reason, plain.stop_sequence) == ("end_turn", None)
    events = list(tutor.messages.create(**fields, stream=True))
    kinds = [one.type for one in events if one.type != "content_block_delta"]
    assert kinds == [
        "message_start", "content_block_start", "content_block_stop", "content_block_start", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    with tutor.messages.stream(**fields) as stream:
        final = stream.get_final_message()
    assert [block.model_dump() for block in final.content] == [block.model_dump() for block in plain.content]
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert final.stop_reason == "end_turn"


def test_counting_and_caching(tutor):
    fields = {"model": "tutor", "messages": HELLO, "system": SYSTEM}
    count = tutor.messages.count_tokens(**fields).input_tokens
    first = tutor.messages.create(**fields, max_tokens=300, extra_body={"temperature": 0})
    assert first.usage.input_tokens + first.usage.cache_read_input_tokens == count
    turn = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And 5 + 6?"}]
    second = tutor.messages.create(
        model="tutor", messages=turn, system=SYSTEM, max_tokens=300, extra_body={"temperature": 0}
    )
    assert second.usage.cache_read_input_tokens > 100
    assert second.usage.input_tokens < 100
    with tutor.messages.stream(**fields | {"messages": turn}, max_tokens=300) as stream:
        assert stream.get_final_message().usage.cache_read_input_tokens > 100


def test_thinking(tutor):
    fields = {"model": "tutor", "max_tokens": 500, "messages": HELLO, "extra_body": {"temperature": 0}}
    off = tutor.messages.create(**fields, thinking={"type": "disabled"})
    assert {block.type for block in off.content} == {"text"}
    bounded = tutor.messages.create(**fields, thinking={"type": "enabled", "budget_tokens": 3})
    free = tutor.messages.create(**fields, thinking={"type": "adaptive"})
    assert len(bounded.content[0].thinking) < len(free.content[0].thinking)
    for thinking, words in (
        ({"type": "enabled", "budget_tokens": 900}, "it must be below max_tokens"),
        ({"type": "enabled"}, "thinking.budget_tokens is None"),
        ({"type": "much"}, "enabled, disabled or adaptive"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=words):
            tutor.messages.create(**fields, thinking=thinking)


def test_stops_and_lengths(client):
    fields = {"model": "tiny", "messages": HELLO, "thinking": {"type": "disabled"}}
    fields["extra_body"] = {"top_k": 1}
    whole = client.messages.create(**fields, max_tokens=12)
    text = whole.content[0].text
    stop = next(char for char in text if char.strip())
    cut = client.messages.create(**fields, max_tokens=12, stop_sequences=[stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    assert "".join(block.text for block in cut.content) == text.partition(stop)[0]
    assert client.messages.create(**fields, max_tokens=1).stop_reason == "max_tokens"


def test_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"even": {"type": "boolean"}},
        "required": ["even"],
        "additionalProperties": False,
    }
    answer = client.messages.create(
        model="tiny", max_tokens=100, messages=HELLO, thinking={"type": "disabled"},
        output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "low"},
    )  # fmt: skip
    assert json.loads(answer.content[0].text)["even"] in (True, False)


@pytest.mark.parametrize(
    "choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "coin"}]
)
def test_tools(tutor, choice):
    fields = {
        "model": "tutor", "max_tokens": 300, "messages": HELLO, "tools": [COIN], "extra_body": {"temperature": 0},
        "thinking": {"type": "disabled"},
    }  # fmt: skip
    plain = tutor.messages.create(**fields, tool_choice=choice)
    assert plain.stop_reason == "tool_use"
    [block] = plain.content
    assert (block.type, block.name) == ("tool_use", "coin")
    assert block.input["side"] in ("heads", "tails")
    with tutor.messages.stream(**fields, tool_choice=choice) as stream:
        [streamed] = stream.get_final_message().content
    assert (streamed.name, streamed.input) == (block.name, block.input)
    result = [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "tails"}]}]
    turn = [*HELLO, {"role": "assistant", "content": plain.content}, {"role": "user", "content": result}]
    again = tutor.messages.create(**fields | {"messages": turn, "max_tokens": 4})
    assert again.usage.cache_read_input_tokens > 100


@pytest.mark.parametrize(
    ("fields", "kind", "name", "words"),
    [
        ({"model": "gone"}, anthropic.NotFoundError, "not_found_error", "there is no model 'gone'"),
        ({"extra_body": {"top_p": 2}}, anthropic.BadRequestError, "invalid_request_error", "top_p is 2"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "at least one message"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "only text, thinking and tools",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": "It is"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "the last message is the assistant's",
        ),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "own",
        ),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "invalid_request_error", "there are no tools"),
    ],
)
def test_errors(client, fields, kind, name, words):
    with pytest.raises(kind, match=words) as caught:
        client.messages.create(**{"model": "tiny", "max_tokens": 9, "messages": HELLO} | fields)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == name
    assert caught.value.request_id


def test_max_tokens_must_be_there(tiny):
    answer = tiny.post("/v1/messages", json={"model": "tiny", "messages": HELLO})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("max_tokens is missing")


def test_leaving_in_mid_stream(client, tiny, wait_for):
    [served] = tiny.app.state.models
    with client.messages.create(model="tiny", max_tokens=100_000, messages=HELLO, stream=True) as stream:
        next(iter(stream))
    wait_for(lambda: not served.load and not served.llm.engine.busy)
