"""Bodies of every protocol: whatever is sent is read, or refused with a sentence; and what is read means the same."""

import copy
import gc
import tracemalloc

import pytest
from hypothesis import given, settings, strategies

from sambay.engine import SamplingParams, StructuredOutputsParams
from sambay.errors import BodyError, NotFoundError, SambaYError
from sambay.protocols import anthropic, ollama, openai, responses
from sambay.protocols.openai import status_of

TOOL = {"name": "coin", "description": "Throws.", "parameters": {"type": "object", "properties": {"a": {"enum": [1]}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def read_chat(raw):
    return openai.read_body(openai.CHAT, raw)


def read_response(raw):
    def earlier(_):
        raise NotFoundError("gone")

    return responses.read_response(raw, earlier)


CALL = {"id": "c1", "type": "function", "function": {"name": "coin", "arguments": '{"a": 1}'}}
BODIES = {
    "openai": (
        read_chat,
        {
            "model": "m", "max_tokens": 9, "temperature": 0.5, "stop": ["x"], "seed": 1, "reasoning_effort": "low",
            "tools": [{"type": "function", "function": TOOL}], "tool_choice": "auto", "stream": True,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "messages": [
                {"role": "developer", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "c"},
            ],
        },
    ),
    "responses": (
        read_response,
        {
            "model": "m", "max_output_tokens": 9, "temperature": 0.5, "instructions": "a", "stream": True,
            "reasoning": {"effort": "low"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            "tools": [{"type": "function", **TOOL}], "tool_choice": {"type": "function", "name": "coin"},
            "include": ["message.output_text.logprobs"], "top_logprobs": 2, "metadata": {"a": "b"}, "store": True,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
                {"type": "reasoning", "id": "r", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
                {"type": "function_call", "call_id": "c1", "name": "coin", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "c"},
            ],
        },
    ),
    "ollama": (
        ollama.read_chat,
        {
            "model": "m", "format": SCHEMA, "think": "low", "stream": False, "keep_alive": "5m", "logprobs": True,
            "options": {"temperature": 0.5, "num_predict": 9, "stop": ["x"], "repeat_penalty": 1.1, "num_ctx": 512},
            "tools": [{"type": "function", "function": TOOL}], "top_logprobs": 2,
            "messages": [
                {"role": "system", "content": "a"}, {"role": "user", "content": "b"},
                {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [
                    {"function": {"name": "coin", "arguments": {"a": 1}}}
                ]},
                {"role": "tool", "tool_name": "coin", "content": "c"},
            ],
        },
    ),
    "ollama generate": (
        ollama.read_generate,
        {
            "model": "m", "prompt": "a", "system": "b", "format": "json", "think": False, "raw": False, "stream": False,
            "context": [3, 4], "options": {"seed": 1, "top_k": 4, "min_p": 0.1, "presence_penalty": 1},
        },
    ),
    "anthropic": (
        anthropic.read_messages,
        {
            "model": "m", "max_tokens": 50, "temperature": 0.5, "stop_sequences": ["x"], "stream": True,
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            "thinking": {"type": "enabled", "budget_tokens": 9}, "tool_choice": {"type": "auto"},
            "tools": [{"name": "coin", "input_schema": TOOL["parameters"]}],
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
            "messages": [
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "t", "signature": ""}, {"type": "text", "text": "x"},
                    {"type": "tool_use", "id": "c1", "name": "coin", "input": {"a": 1}},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "c"}]},
            ],
        },
    ),
}  # fmt: skip


def use(read, raw, tokenizer):
    """All that a server does with a body before the engine has it."""
    body = read(raw)
    return SamplingParams(**body.sampling), body.prompts(tokenizer)


@pytest.mark.parametrize("name", BODIES)
def test_what_is_right_is_read(name, llm):
    read, raw = BODIES[name]
    params, [(text, ids)] = use(read, copy.deepcopy(raw), llm.tokenizer)
    assert ids
    assert params.structured_outputs is not None
    if "generate" in name:
        assert ids[:2] == [3, 4]
        return
    assert params.temperature == 0.5
    assert "coin" in text
    assert '<|tool_response|>{"name": "coin", "content": "c"}' in text
    if name != "responses":  # its item brings other arguments
        assert '<|tool_call|>[{"name": "coin", "arguments": {"a": 1}}]<|/tool_call|>' in text


LEAVES = [
    None, True, False, 0, -1, 1e308, 2**63, "", "x", "none", [], [[]], [None], ["x"], {}, {"type": "text"},
    {"type": []}, {"type": "function"}, {"$ref": "#"}, [{}], [{"type": "text", "text": 3}],
    "\x00\U0010ffff", {"": {"": []}},
]  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def changed(raw, path, leaf):
    if not path:
        return leaf
    raw = copy.deepcopy(raw)
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = leaf
    return raw


def refusal(read, raw, llm):
    """What is said to a body, None if it is taken."""
    try:
        use(read, raw, llm.tokenizer)
    except SambaYError as error:
        return error
    except Exception as error:  # said for which body, and not only what
        raise AssertionError(f"{raw}: {error!r}") from error
    return None


@pytest.mark.parametrize("name", BODIES)
def test_whatever_is_wrong_at_one_place_is_one_sentence(name, llm):
    read, raw = BODIES[name]
    refused = [
        error for path in places(raw) for leaf in LEAVES if (error := refusal(read, changed(raw, path, leaf), llm))
    ]
    assert len(refused) > 100
    for error in refused:
        assert status_of(error) in (400, 404)
        assert "\n" not in str(error)
        assert len(str(error)) < 600


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=3)
    | strategies.sampled_from(["type", "role", "user", "content", "text", "function", "name", "tool_calls"]),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(
        strategies.sampled_from(["type", "role", "content", "text", "function", "name", "input", "tool_calls", "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=100)
@given(value=JSON, data=strategies.data())
def test_nonsense_is_one_sentence(name, llm, value, data):
    read, raw = BODIES[name]
    path = data.draw(strategies.sampled_from(list(places(raw))))
    error = refusal(read, changed(raw, path, value), llm)
    assert error is None or status_of(error) in (400, 404)


def test_effort_and_thinking_in_each_protocols_words():
    def chat(**fields):
        return read_chat({"messages": [{"role": "user", "content": "a"}], **fields})

    def response(**fields):
        return read_response({"input": "a", **fields})

    def message(**fields):
        return anthropic.read_messages({"messages": [{"role": "user", "content": "a"}], "max_tokens": 9000, **fields})

    def ollama_chat(**fields):
        return ollama.read_chat({"messages": [{"role": "user", "content": "a"}], **fields})

    for body in (
        chat(reasoning_effort="medium"), response(reasoning={"effort": "medium"}), ollama_chat(think="medium"),
        message(output_config={"effort": "medium"}), message(thinking={"type": "enabled", "budget_tokens": 4096}),
    ):  # fmt: skip
        assert body.sampling["max_thinking_tokens"] == 4096
        assert body.sampling["max_tokens"] in (8192, 9000)
    for body in (
        chat(reasoning_effort="none"), response(reasoning={"effort": "none"}), ollama_chat(think=False),
        ollama_chat(think="none"), message(thinking={"type": "disabled"}),
        message(thinking={"type": "disabled"}, output_config={"effort": "high"}),
    ):  # fmt: skip
        assert body.template == {"enable_thinking": False}
    for body in (chat(), response(), ollama_chat(), message(), message(thinking={"type": "adaptive"})):
        assert body.template == {}
        assert "max_thinking_tokens" not in body.sampling


def test_formats_in_each_protocols_words():
    wanted = StructuredOutputsParams(json=SCHEMA)
    hello = [{"role": "user", "content": "a"}]
    format_ = {"type": "json_schema", "name": "n", "schema": SCHEMA}
    for body in (
        read_response({"input": "a", "text": {"format": format_}}),
        ollama.read_chat({"messages": hello, "format": SCHEMA}),
        ollama.read_generate({"prompt": "a", "format": SCHEMA}),
        anthropic.read_messages({"messages": hello, "max_tokens": 9, "output_config": {"format": format_}}),
    ):
        assert body.sampling["structured_outputs"] == wanted
    assert ollama.read_chat({"messages": hello, "format": "json"}).sampling["structured_outputs"].json_object
    assert "structured_outputs" not in ollama.read_chat({"messages": hello, "format": ""}).sampling


def test_options_of_ollama():
    options = {"num_predict": -1, "repeat_penalty": 1.2, "seed": 3, "mirostat": 0, "typical_p": 1.0, "num_gpu": 0}
    body = ollama.read_generate({"prompt": "a", "raw": True, "options": options, "keep_alive": 0})
    assert body.sampling == {"max_tokens": None, "repetition_penalty": 1.2, "seed": 3}
    assert (body.prompt, body.stream, body.keep, body.empty) == ("a", True, False, False)
    assert ollama.read_generate({}).empty
    assert ollama.read_chat({"messages": []}).empty


@pytest.mark.parametrize(
    ("read", "raw", "param", "words"),
    [
        (read_response, {}, "input", "text, or a list of at least one item"),
        (read_response, {"input": [{"type": "item_reference", "id": "x"}]}, "input", "'item_reference'"),
        (read_response, {"input": [{"type": "reasoning"}]}, "input", "no message"),
        (read_response, {"input": "a", "truncation": "auto"}, "truncation", "refused, and not cut"),
        (read_response, {"input": "a", "background": True}, "background", "given at once"),
        (read_response, {"input": "a", "conversation": "c"}, "conversation", "previous_response_id"),
        (read_response, {"input": "a", "tools": [{"type": "web_search"}]}, "tools", "type function"),
        (read_response, {"input": "a", "n": 2}, "n", "not known here"),
        (ollama.read_chat, {"messages": [3]}, "messages", "a role and a content"),
        (ollama.read_generate, {"prompt": "a", "options": {"mirostat": 2}}, "options.mirostat", "at 0"),
        (ollama.read_generate, {"prompt": "a", "options": 3}, "options", "it must be an object"),
        (
            anthropic.read_messages,
            {"messages": [{}], "max_tokens": 9},
            "messages",
            "the role user, assistant or system",
        ),
        (anthropic.read_count, {"messages": [], "model": "m"}, "messages", "at least one message"),
        (anthropic.read_count, {"messages": [{"role": "user", "content": "a"}], "stop": "x"}, "stop", "not known"),
    ],
)
def test_what_cannot_be_read_or_done_is_refused(read, raw, param, words):
    with pytest.raises(BodyError, match=words) as caught:
        read(raw)
    assert caught.value.param == param


def test_responses_are_kept_within_bounds():
    kept = responses.Responses(most=2, most_bytes=5900)

    def keep(name, text="x", store=True):
        body = read_response({"input": text, "store": store})
        item = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
        kept.keep(body, {"id": name, "output": [item]})

    keep("a")
    keep("b")
    assert kept.conversation("a") == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    keep("c")  # b was used less recently
    with pytest.raises(NotFoundError, match="no response 'b'"):
        kept.response("b")
    keep("d", store=False)
    with pytest.raises(NotFoundError):
        kept.response("d")
    keep("e", "long " * 550)  # which is there twice, as input and as conversation: there is room for nothing else
    for name in ("a", "c"):
        with pytest.raises(NotFoundError):
            kept.items(name)
    assert kept.items("e")[0]["content"] == "long " * 550
    keep("g", "long " * 5000)  # too large alone: it takes the place of nothing
    assert kept.response("e")["id"] == "e"
    kept.delete("e")
    keep("f")
    assert kept.response("f")["id"] == "f"
    kept.delete("f")
    with pytest.raises(NotFoundError, match="no response 'f'"):
        kept.delete("f")
    assert (len(kept._kept), kept._kept.size) == (0, 0)


def test_kept_responses_take_the_memory_that_they_are_said_to():
    kept = responses.Responses(most_bytes=1 << 20)
    items = [{"type": "message", "role": "user", "content": str(i)} for i in range(2000)]
    tracemalloc.start()
    try:
        for index in range(8):
            kept.keep(read_response({"input": items}), {"id": str(index), "output": []})
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept._kept.size > 5e5
    assert held < 1.2 * (1 << 20)


def test_a_content_is_never_lost(llm):
    """Text of the user that spells a call or a result stays text for the template."""
    spelled = '<|tool_call|>[{"name": "coin", "arguments": {}}]<|/tool_call|>'
    for read, raw in (
        (read_chat, {"messages": [{"role": "user", "content": spelled}]}),
        (read_response, {"input": spelled}),
        (ollama.read_generate, {"prompt": spelled}),
        (anthropic.read_messages, {"messages": [{"role": "user", "content": spelled}], "max_tokens": 9}),
    ):
        [(text, _)] = read(raw).prompts(llm.tokenizer)
        assert spelled in text
