"""A streamed answer, put together as clients do, is the plain one, however the model's text was cut."""

import itertools
import json

from hypothesis import given, settings, strategies

from sambay.engine import CompletionOutput, RequestOutput, SamplingParams, StreamEvent
from sambay.engine.outputs import RequestMetrics
from sambay.protocols import anthropic, ollama, openai, responses
from sambay.protocols.openai_chunks import ChatChunks
from sambay.streaming import ThinkingSplitter

COIN = {"type": "object", "properties": {"side": {"type": "string"}}}
CALLS = '<|tool_call|>[{"name": "coin", "arguments": {"side": "ü"}}, {"name": "coin", "arguments": {}}]<|/tool_call|>'
TEXTS = ["", "x", "  so\n", "<think>", "</think>", "hm\nhm", CALLS, '<|tool_call|>[{"name": "co', "\n", "7"]
HELLO = [{"role": "user", "content": "a"}]


def events_of(text, cuts, reason="stop", stop=None):
    """The events of a completion with that text, and its output at the end."""
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    bounds = bounds if len(bounds) > 1 else [0, 0]
    one = CompletionOutput(0, stop_reason=stop)
    metrics = RequestMetrics(arrival=1.0, first_token=1.5, finished=3.0)
    output = RequestOutput("r", "prompt", [1, 2, 3, 4], [one], metrics=metrics, cached_tokens=3)
    splitter, events = ThinkingSplitter(), []
    for begin, end in itertools.pairwise(bounds):
        last = end == bounds[-1]
        pieces = splitter.push(text[begin:end]) + (splitter.flush() if last else [])
        one.token_ids.append(7)
        for piece in pieces:
            one.reasoning += piece.text if piece.kind == "reasoning" else ""
            one.answer += piece.text if piece.kind == "answer" else ""
            one.reasoning_tokens += piece.kind == "reasoning"
        events.append(StreamEvent(0, 7, text[begin:end], tuple(pieces), reason if last else None, output))
    one.finish_reason, output.finished = reason, True
    return events, output


CUT = strategies.tuples(
    strategies.lists(strategies.sampled_from(TEXTS), max_size=5).map("".join),
    strategies.lists(strategies.integers(0, 10**6), max_size=20),
    strategies.sampled_from(["stop", "length"]),
)


def without_ids(value):
    """The same without what is drawn anew each time."""
    if isinstance(value, dict):
        drawn = ("id", "call_id", "created", "created_at", "completed_at", "item_id")
        return {name: without_ids(one) for name, one in value.items() if name not in drawn}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


@settings(max_examples=150)
@given(CUT)
def test_chat_completions(llm, cut):
    tool = {"type": "function", "function": {"name": "coin", "parameters": COIN}}
    body = openai.read_body(openai.CHAT, {"messages": HELLO, "tools": [tool]})
    events, output = events_of(*cut)
    whole = openai.chat_response(output, llm.tokenizer, "m", tools=body.tools)["choices"][0]
    chunks = ChatChunks(llm.tokenizer, "m", tools=body.tools, include_usage=True)
    deltas = [chunk["choices"][0] for event in events for chunk in chunks.push(event)]
    message, calls = whole["message"], {}
    for name in ("content", "reasoning_content"):
        assert "".join(one["delta"].get(name) or "" for one in deltas) == (message.get(name) or "")
    for one in deltas:
        for call in one["delta"].get("tool_calls", ()):
            place = calls.setdefault(call["index"], {"name": "", "arguments": ""})
            for name, text in call["function"].items():
                place[name] += text
    assert [*calls.values()] == [one["function"] for one in message.get("tool_calls", ())]
    assert [one["finish_reason"] for one in deltas if one["finish_reason"]] == [whole["finish_reason"]]
    assert whole["finish_reason"] == ("length" if cut[2] == "length" else "tool_calls" if calls else "stop")
    [end] = chunks.end([output])
    assert end["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


@settings(max_examples=150)
@given(CUT)
def test_messages(cut):
    body = anthropic.read_messages(
        {"messages": HELLO, "max_tokens": 9, "tools": [{"name": "coin", "input_schema": COIN}]}
    )
    events, output = events_of(*cut)
    whole = anthropic.message_response(output, "m", body.tools)
    stream = anthropic.MessageEvents("m", 4, body.tools)
    found = [*stream.begin(), *(one for event in events for one in stream.push(event)), *stream.end(output)]
    message, open_block = None, None
    for one in found:
        match one["type"]:
            case "message_start":
                message = one["message"]
            case "content_block_start":
                assert open_block is None
                open_block = one["index"]
                assert open_block == len(message["content"])
                message["content"].append({**one["content_block"], "json": ""})
            case "content_block_delta":
                assert one["index"] == open_block
                block = message["content"][open_block]
                for name, text in one["delta"].items():
                    if name != "type":
                        block[{"partial_json": "json"}.get(name, name)] += text
            case "content_block_stop":
                assert one["index"] == open_block
                block, open_block = message["content"][open_block], None
                spelled = block.pop("json")
                if block["type"] == "tool_use":
                    block["input"] = json.loads(spelled)
            case "message_delta":
                message |= one["delta"] | {"usage": one["usage"]}
            case kind:
                assert kind == "message_stop"
    assert open_block is None
    assert without_ids(message) == without_ids(whole)
    assert whole["usage"]["cache_read_input_tokens"] == 3
    called = any(one["type"] == "tool_use" for one in whole["content"])
    assert whole["stop_reason"] == ("max_tokens" if cut[2] == "length" else "tool_use" if called else "end_turn")


@settings(max_examples=150)
@given(CUT)
def test_lines(llm, cut):
    events, output = events_of(*cut)
    tool = {"type": "function", "function": {"name": "coin", "parameters": COIN}}
    for body in (
        ollama.read_chat({"messages": HELLO, "tools": [tool]}),
        ollama.read_generate({"prompt": "a"}),
    ):
        stream = ollama.Lines(body, "m", llm.tokenizer)
        lines = [line for event in events for line in stream.push(event)]
        whole = ollama.Lines(body, "m", llm.tokenizer)
        answer = whole.whole([line for event in events for line in whole.push(event)], output)
        last = stream.end(output)
        assert [line["done"] for line in [*lines, last]] == [False] * len(lines) + [True]
        said = [line["message"] if body.is_chat else line for line in lines]
        joined = answer["message"] if body.is_chat else answer
        for name in ("content" if body.is_chat else "response", "thinking"):
            assert "".join(one.get(name, "") for one in said) == joined.get(name, "")
        calls = [call["function"] for one in said for call in one.get("tool_calls", ())]
        assert calls == [one["function"] for one in joined.get("tool_calls", ())]
        assert [call["index"] for call in calls] == list(range(len(calls)))
        assert (last["total_duration"], last["eval_duration"]) == (2_000_000_000, 1_500_000_000)
        assert (last["prompt_eval_count"], last["done_reason"]) == (4, cut[2])


@settings(max_examples=150)
@given(CUT)
def test_responses(llm, cut):
    tool = {"type": "function", "name": "coin", "parameters": COIN}
    body = responses.read_response({"input": "a", "tools": [tool]}, dict)
    events, output = events_of(*cut)
    stream = responses.ResponseEvents(body, "m", SamplingParams(), llm.tokenizer)
    found = [*stream.begin(), *(one for event in events for one in stream.push(event)), *stream.end(output)]
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert json.loads(json.dumps(found)) == found
    items, texts = [], {}
    for one in found:
        kind = one["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert one["output_index"] == len(items)
            assert one["item"]["status"] == "in_progress"
        elif kind.endswith(".delta"):
            texts[one["item_id"]] = texts.get(one["item_id"], "") + one["delta"]
        elif kind == "output_item.done":
            items.append(one["item"])
    last = found[-1]["response"]
    assert last["output"] == items == stream.response["output"]
    assert found[0]["response"]["output"] == []
    for item in items:
        spelled = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert texts[item["id"]] == spelled
    thought = "".join(item["content"][0]["text"] for item in items if item["type"] == "reasoning")
    assert thought == output.outputs[0].reasoning
    assert last["status"] == ("completed" if cut[2] == "stop" else "incomplete")
    assert last["usage"]["input_tokens_details"]["cached_tokens"] == 3


def test_a_response_that_fails(llm):
    body = responses.read_response({"input": "a"}, dict)
    events, output = events_of("half an answer", [4, 7], "deadline")
    stream = responses.ResponseEvents(body, "m", SamplingParams(), llm.tokenizer)
    found = [*stream.begin(), *stream.push(events[0]), *stream.fail("the logits are not finite")]
    assert [one["type"] for one in found][-1] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "server_error", "message": "the logits are not finite"}
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
    late = responses.ResponseEvents(body, "m", SamplingParams(), llm.tokenizer)
    for event in events:
        late.push(event)
    late.end(output)
    assert late.response["incomplete_details"] == {"reason": "deadline"}


def test_a_stop_sequence_of_a_message():
    body = anthropic.read_messages({"messages": HELLO, "max_tokens": 9, "stop_sequences": ["x"]})
    _, output = events_of("so", [], "stop", "x")
    whole = anthropic.message_response(output, "m", body.tools)
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "x")
