"""The official client `openai` against the real server: chats, completions, responses."""

import itertools
import json

import pytest

openai = pytest.importorskip("openai")

HELLO = [{"role": "user", "content": "What is 3 + 4?"}]
SYSTEM = {"role": "system", "content": "Answer with the number, and say how you found it. " * 20}
GREEDY = {"temperature": 0, "max_tokens": 16}
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}, "even": {"type": "boolean"}},
    "required": ["sum", "even"],
    "additionalProperties": False,
}
COIN = {
    "name": "coin",
    "description": "Throws a coin.",
    "parameters": {
        "type": "object",
        "properties": {"side": {"enum": ["heads", "tails"]}},
        "required": ["side"],
        "additionalProperties": False,
    },
}
TOOL = {"type": "function", "function": COIN}


@pytest.fixture(scope="module")
def client(tiny):
    with openai.OpenAI(base_url=f"{tiny.base_url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def tutor(bundled):
    with openai.OpenAI(base_url=f"{bundled.base_url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_models(client):
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "sambay"


def test_a_chat_plain_and_streamed(tutor):
    fields = {"model": "tutor", "messages": HELLO, "temperature": 0}
    plain = tutor.chat.completions.create(**fields)
    assert r"\boxed{7}" in plain.choices[0].message.content
    assert plain.choices[0].finish_reason == "stop"
    chunks = list(tutor.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


def test_a_second_turn_is_cached(tutor):
    first = tutor.chat.completions.create(model="tutor", messages=[SYSTEM, *HELLO], temperature=0)
    turn = [SYSTEM, *HELLO, first.choices[0].message, {"role": "user", "content": "And 5 + 6?"}]
    second = tutor.chat.completions.create(model="tutor", messages=turn, temperature=0)
    assert second.usage.prompt_tokens_details.cached_tokens > 100


def test_n_logprobs_stop_and_seed(client):
    fields = {"model": "tiny", "messages": HELLO, "n": 2, "seed": 5, "max_tokens": 6, "logprobs": True}
    first = client.chat.completions.create(**fields, top_logprobs=3, extra_body={"ignore_eos": True})
    assert [one.index for one in first.choices] == [0, 1]
    for choice in first.choices:
        assert choice.finish_reason == "length"
        assert len(choice.logprobs.content) == 6
        assert {len(one.top_logprobs) for one in choice.logprobs.content} == {3}
    again = client.chat.completions.create(**fields, top_logprobs=3, extra_body={"ignore_eos": True})
    assert [one.message.content for one in again.choices] == [one.message.content for one in first.choices]
    text = client.completions.create(model="tiny", prompt="3 + 4", **GREEDY, extra_body={"ignore_eos": True})
    whole = text.choices[0].text
    stop = next(char for char in whole if char.strip())
    cut = client.completions.create(
        model="tiny", prompt="3 + 4", **GREEDY, stop=[stop], extra_body={"ignore_eos": True}
    )
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (whole.partition(stop)[0], "stop")


def test_a_schema(client):
    format_ = {"type": "json_schema", "json_schema": {"name": "sum", "strict": True, "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, response_format=format_, reasoning_effort="none", seed=1
    )
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"sum", "even"}
    response = client.responses.create(
        model="tiny", input="What is 3 + 4?", reasoning={"effort": "none"},
        text={"format": {"type": "json_schema", "name": "sum", "schema": SCHEMA}},
    )  # fmt: skip
    assert set(json.loads(response.output_text)) == {"sum", "even"}


def test_tools(tutor):
    fields = {
        "model": "tutor", "messages": HELLO, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False,
        "reasoning_effort": "none", "temperature": 0,
    }  # fmt: skip
    plain = tutor.chat.completions.create(**fields).choices[0]
    assert plain.finish_reason == "tool_calls"
    [call] = plain.message.tool_calls
    assert call.function.name == "coin"
    assert json.loads(call.function.arguments)["side"] in ("heads", "tails")
    with tutor.chat.completions.stream(**fields) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls[0].function.arguments == call.function.arguments
    # The result goes back, and what was said is not computed again.
    turn = [*HELLO, plain.message, {"role": "tool", "tool_call_id": call.id, "content": "tails"}]
    again = tutor.chat.completions.create(**fields | {"messages": turn, "tool_choice": "auto"}, max_tokens=5)
    assert again.usage.prompt_tokens_details.cached_tokens > 100
    none = tutor.chat.completions.create(**fields | {"tool_choice": "none"}, max_tokens=5)
    assert none.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"model": "gone"}, openai.NotFoundError, "there is no model 'gone'"),
        ({"temperature": -1}, openai.BadRequestError, "temperature is -1"),
        ({"messages": []}, openai.BadRequestError, "at least one message"),
        ({"tool_choice": "required"}, openai.BadRequestError, "there are no tools"),
        ({"messages": [{"role": "user", "content": "a " * 200_000}]}, openai.BadRequestError, "the context holds"),
    ],
)
def test_errors(client, fields, kind, words):
    with pytest.raises(kind, match=words) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO} | fields)
    assert caught.value.type == "invalid_request_error"
    if "input" not in fields and "messages" not in fields:
        with pytest.raises(kind, match=words):
            client.responses.create(**{"model": "tiny", "input": "hi"} | fields)


def test_a_response(tutor):
    response = tutor.responses.create(model="tutor", input="What is 3 + 4?", temperature=0)
    assert response.status == "completed"
    assert r"\boxed{7}" in response.output_text
    assert [one.type for one in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert tutor.responses.retrieve(response.id).output_text == response.output_text
    assert [one.content for one in tutor.responses.input_items.list(response.id)] == ["What is 3 + 4?"]
    second = tutor.responses.create(
        model="tutor", input=[{"role": "user", "content": [{"type": "input_text", "text": "And 5 + 6?"}]}],
        previous_response_id=response.id, temperature=0, instructions=SYSTEM["content"],
    )  # fmt: skip
    assert second.usage.input_tokens > response.usage.input_tokens
    third = tutor.responses.create(
        model="tutor", input="And 7 + 8?", previous_response_id=second.id, instructions=SYSTEM["content"]
    )
    assert third.usage.input_tokens_details.cached_tokens > 100
    tutor.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        tutor.responses.create(model="tutor", input="And?", previous_response_id=response.id)
    unkept = tutor.responses.create(model="tutor", input="What is 1 + 1?", store=False)
    with pytest.raises(openai.NotFoundError, match="not stored"):
        tutor.responses.retrieve(unkept.id)


def test_a_streamed_response(tutor):
    fields = {
        "model": "tutor",
        "input": "What is 3 + 4?",
        "temperature": 0,
        "include": ["message.output_text.logprobs"],
    }
    events = list(tutor.responses.create(**fields, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    kinds = [one.type.removeprefix("response.") for one in events]
    runs = [kind for kind, _ in itertools.groupby(kinds)]
    assert runs == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    deltas = [one for one in events if one.type == "response.output_text.delta"]
    assert len(deltas) > 3
    thought = "".join(one.delta for one in events if one.type == "response.reasoning_text.delta")
    assert thought == events[-1].response.output[0].content[0].text
    last = events[-1].response
    assert "".join(one.delta for one in deltas) == last.output_text
    entries = [entry for one in deltas for entry in one.logprobs]
    assert len(entries) == len(last.output[1].content[0].logprobs) > 3
    assert last.output_text == tutor.responses.create(**fields).output_text
    with tutor.responses.stream(**fields) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == last.output_text


def test_a_response_that_is_cut(client):
    prompt = {"model": "tiny", "input": "What is 3 + 4?", "temperature": 0, "max_output_tokens": 12}
    cut = client.responses.create(**prompt, extra_body={"min_tokens": 12})
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.output[-1].status == "incomplete"


def test_tools_of_a_response(tutor):
    tools = [{"type": "function", **COIN}]
    fields = {
        "model": "tutor", "input": "Throw!", "tools": tools, "tool_choice": {"type": "function", "name": "coin"},
        "reasoning": {"effort": "none"}, "temperature": 0,
    }  # fmt: skip
    events = list(tutor.responses.create(**fields, stream=True))
    assert [one.type for one in events][2:-1] == [
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done",
    ]  # fmt: skip
    [call] = events[-1].response.output
    assert (call.type, call.name) == ("function_call", "coin")
    assert json.loads(call.arguments)["side"] in ("heads", "tails")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "tails"}
    second = tutor.responses.create(
        model="tutor", input=[result], previous_response_id=events[-1].response.id, tools=tools, max_output_tokens=4,
    )  # fmt: skip
    assert second.usage.input_tokens_details.cached_tokens > 0
    sent = tutor.responses.create(
        model="tutor", tools=tools, max_output_tokens=4,
        input=[{"role": "user", "content": "Throw!"}, call.model_dump(exclude_none=True), result],
    )  # fmt: skip
    assert sent.usage.input_tokens == second.usage.input_tokens


def test_leaving_in_mid_stream(client, tiny, wait_for):
    [served] = tiny.app.state.models
    endless = {"extra_body": {"ignore_eos": True, "max_tokens": 100_000}, "stream": True}
    with client.chat.completions.create(model="tiny", messages=HELLO, **endless) as stream:
        next(iter(stream))
        assert served.load == 1
    wait_for(lambda: not served.load and not served.llm.engine.busy)
    with client.responses.create(
        model="tiny", input="a", stream=True, extra_body={"min_tokens": 100_000, "max_output_tokens": 100_000}
    ) as stream:
        assert next(iter(stream)).type == "response.created"
        assert served.load == 1
    wait_for(lambda: not served.load and not served.llm.engine.busy)
