"""Tools: what the model is told, and its calls, found in the text however it is cut, or forced."""

import itertools
import json
import random

import pytest
from hypothesis import given, strategies

from sambay.engine import CompletionOutput, SamplingParams, StreamEvent, StructuredOutputsParams
from sambay.errors import BodyError, SamplingError
from sambay.protocols.openai import CHAT, chat_response, read_body
from sambay.protocols.schema import misfit
from sambay.protocols.tools import CallParser, Function, Tools, TurnReader, parts_of, write_conversation
from sambay.streaming import Piece
from sambay.tokenizer import Tokenizer
from small_tokenizers import byte_level

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 4},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
}
COIN = {"name": "coin", "parameters": {"type": "object", "properties": {"side": {"enum": ["heads", "tails"]}}}}
TOOLS = Tools((Function.read(WEATHER, "tools[0]"), Function.read(COIN, "tools[1]")))
GIVEN = [{"type": "function", "function": one} for one in (WEATHER, COIN)]
HELLO = [{"role": "user", "content": "the cat"}]

CALL = '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Ulm"}}]<|/tool_call|>'
TWO = (
    '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "a"}}, '
    '{"name": "coin", "arguments": {}}]<|/tool_call|>'
)


def found(text, tools=TOOLS, cuts=()):
    """The parts of a text, given in pieces: texts joined, calls without their ids."""
    parser, parts = CallParser(tools), []
    bounds = [0, *sorted(cuts), len(text)]
    for begin, end in itertools.pairwise(bounds):
        parts += parser.push(text[begin:end])
    parts += parser.flush()
    joined = []
    for part in parts:
        if part.kind == "call":
            assert len(part.id) == 24
            joined.append((part.name, json.loads(part.text)))
        elif joined and isinstance(joined[-1], str):
            joined[-1] += part.text
        else:
            joined.append(part.text)
    assert parser.called == any(not isinstance(one, str) for one in joined)
    return joined


ULM = ("get_weather", {"city": "Ulm"})
TEXTS = {
    "nothing": ["nothing"],
    "": [],
    " \n": [" \n"],
    CALL: [ULM],
    f"Let me see. {CALL}": ["Let me see.", ULM],
    f"  \n{CALL}\n \n": [ULM],
    f"a {CALL} b {CALL} c\n": ["a", ULM, "b", ULM, "c\n"],
    TWO: [("get_weather", {"city": "a"}), ("coin", {})],
    '<tool_call>\n{"name": "coin", "arguments": {"side": "tails"}}\n</tool_call>': [("coin", {"side": "tails"})],
    '<|tool_call|>{"name": "get_weather", "parameters": {"city": "Ulm"}}': [ULM],
    '<|tool_call|>[{"name": "get_weather", "arguments": "{\\"city\\": \\"Ulm\\"}"}]': [ULM],
    # A tag within a string is part of it.
    '<|tool_call|>[{"name": "coin", "arguments": {"x": "<|/tool_call|>"}}]<|/tool_call|>!': [
        ("coin", {"x": "<|/tool_call|>"}), "!",
    ],
    # Each call by itself, as soon as it is whole.
    f'{CALL.removesuffix("]<|/tool_call|>")}, {{"name": "rm"}}]<|/tool_call|>': [ULM, '{"name": "rm"}]<|/tool_call|>'],
    f'{CALL.removesuffix("]<|/tool_call|>")}, {{"name": "co': [ULM, '{"name": "co'],
    '<|tool_call|>[{"name": "coin", "arguments": {}} x': [("coin", {}), "x"],
    '<|tool_call|>{"name": "coin", "arguments": {"x": ["\\\"}]", {}]}} and <|tool_call|>[{"name": "coin"}]': [
        ("coin", {"x": ['"}]', {}]}), "and", ("coin", {}),
    ],
    '<|tool_call|>[{"name": <|tool_call|>{"name": "coin"}': ['<|tool_call|>[{"name":', ("coin", {})],
    # What is no call is text: another function, arguments that do not fit, no JSON, a call that was cut off.
    **{text: [text] for text in (
        '<|tool_call|>[{"name": "rm", "arguments": {}}]<|/tool_call|>',
        '<|tool_call|>[{"name": "get_weather", "arguments": {}}]<|/tool_call|>',
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": 3}}]<|/tool_call|>',
        '<|tool_call|>[{"name": "get_weather", "arguments": "Ulm"}]<|/tool_call|>',
        '<|tool_call|>[{"name": "coin", "arguments": {"x": NaN}}]<|/tool_call|>',
        '<|tool_call|>[]<|/tool_call|>', '<|tool_call|>[{"name": []}]<|/tool_call|>', "<|tool_call|>[3]<|/tool_call|>",
        "<|tool_call|><|/tool_call|>", "<|tool_call|>", "<|tool_", "< | a <|tool_x",
        "<|tool_call|> is how a call begins", '<|tool_call|>[{"name": "coin", "argum', '<|tool_call|>[{"name": "co',
        "<|tool_call|>" + "[" * 5000,
    )},
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:60])
def test_calls_in_a_text_however_it_is_cut(text):
    assert found(text) == TEXTS[text]
    assert found(text, None) == ([text] if text else [])
    if len(text) < 300:
        assert found(text, cuts=range(1, len(text))) == TEXTS[text]
        for cut in range(1, len(text)):
            assert found(text, cuts=[cut]) == TEXTS[text]


SNIPPETS = [
    *[text for text in TEXTS if len(text) < 300],
    "<|tool_call|>",
    "<|/tool_call|>",
    "[{",
    '"',
    " ",
    "\n",
    "x",
    "<",
]


@given(strategies.lists(strategies.sampled_from(SNIPPETS), max_size=5), strategies.integers(0, 2**32))
def test_cuts_change_nothing(snippets, seed):
    text = "".join(snippets)
    draw = random.Random(seed)
    cuts = [draw.randint(0, len(text)) for _ in range(draw.randint(0, 12))]
    whole = found(text)
    assert found(text, cuts=cuts) == whole
    # Nothing that was said is lost but white space next to calls.
    said = "".join(one for one in whole if isinstance(one, str))
    assert all(part in text for one in whole if isinstance(one, str) for part in one.split())
    assert "<|tool_call|>" in text or "<tool_call>" in text or said == text


def test_one_call_only():
    assert found(TWO, Tools(TOOLS.functions, parallel=False)) == [("get_weather", {"city": "a"})]
    assert found(f"{CALL}{TWO}", Tools(TOOLS.functions, parallel=False)) == [ULM]
    assert found(CALL, Tools(TOOLS.functions, "none")) == [CALL]


def test_a_turn_event_by_event():
    output = CompletionOutput(0, reasoning="hm", answer=f"so {CALL}", finish_reason="stop")
    reader = TurnReader(TOOLS)
    pieces = [[Piece("reasoning", "hm")], [Piece("answer", "so <|tool")], [Piece("answer", CALL[6:])], []]
    parts = []
    for index, some in enumerate(pieces):
        reason = "stop" if index == len(pieces) - 1 else None
        parts += reader.push(StreamEvent(0, 1, "", tuple(some), reason, None))
    assert [part[:3] for part in parts] == [part[:3] for part in parts_of(output, TOOLS)]
    assert [part.kind for part in parts] == ["reasoning", "answer", "call"]
    assert reader.called


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, True), (1, {}), (1, "no schema"), ({}, {"type": "object"}), (1.0, {"type": "integer"}),
        (None, {"type": ["string", "null"]}), ("a", {"enum": ["a"]}), ("a", {"const": "a"}),
        ("a", {"type": "nonsense"}), ({"b": 1}, {"patternProperties": {}, "additionalProperties": False}),
        ({"a": 1}, {"properties": {"a": {"type": "number"}}}),
        ([1, "a"], {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}),
        (1, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"a": {"a": {}}}, {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}),
        ("x", {"$ref": "#/$defs/of~1all", "$defs": {"of/all": {"type": "string"}}}),
        (1, {"$ref": "#"}), (1, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), (1, {"$ref": "elsewhere"}),
        (5, {"minimum": 5, "exclusiveMaximum": 6}), ("ab", {"maxLength": 2}), ([1], {"minItems": 1}),
    ],
)  # fmt: skip
def test_what_fits_a_schema(value, schema):
    assert misfit(value, schema) is None


@pytest.mark.parametrize(
    ("value", "schema", "why"),
    [
        (1, False, "must not be there"),
        (True, {"type": "integer"}, "of the type integer"),
        (1.5, {"type": "integer"}, "of the type integer"),
        (1, {"type": ["string", "null"]}, "string or null"),
        (True, {"enum": [1]}, "one of"),
        ({}, {"required": ["a"]}, "the value has no 'a'"),
        ({"a": {"b": "x"}}, {"properties": {"a": {"properties": {"b": {"type": "number"}}}}}, "the value.a.b is 'x'"),
        ({"b": 1}, {"properties": {"a": {}}, "additionalProperties": False}, "has 'b'"),
        ({"b": 1}, {"additionalProperties": {"type": "string"}}, "the value.b is 1"),
        ([1, "a"], {"items": {"type": "integer"}}, r"the value\[1\] is 'a'"),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, "of the type string"),
        (1, {"allOf": [{}, {"type": "string"}]}, "of the type string"),
        (1, {"$ref": "#/$defs/s", "$defs": {"s": {"type": "string"}}}, "of the type string"),
        (4, {"minimum": 5}, "minimum is 5"), (6, {"exclusiveMaximum": 6}, "exclusiveMaximum is 6"),
        ("abc", {"maxLength": 2}, "maxLength is 2"), ([], {"minItems": 1}, "minItems is 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_schema(value, schema, why):
    with pytest.raises(AssertionError, match=why):
        assert misfit(value, schema) is None, misfit(value, schema)


def test_what_the_model_is_told(llm):
    tokenizer = llm.tokenizer
    assert not tokenizer.renders_tools
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Ulm?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Ulm"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "coin", "arguments": {}}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sun"}]},
        {"role": "tool", "tool_call_id": "call_2", "content": "heads"},
        {"role": "user", "content": "and?"},
    ]  # fmt: skip
    written, variables = write_conversation(history, TOOLS, tokenizer)
    assert variables == {}
    assert [one["role"] for one in written] == ["system", "user", "assistant", "user", "user"]
    assert written[0]["content"].startswith("Be brief.\n\n")
    shown = written[0]["content"].partition("<|tool|>")[2].removesuffix("<|/tool|>")
    assert json.loads(shown) == [one.described() for one in TOOLS.functions]
    # The assistant's text is the very one that a forced answer has, so that the cache knows it.
    assert found(written[2]["content"]) == [ULM, ("coin", {})]
    assert written[2]["content"].startswith(CALL.removesuffix("]<|/tool_call|>"))
    assert written[3]["content"].split("\n") == [
        '<|tool_response|>{"name": "get_weather", "content": "sun"}',
        '<|tool_response|>{"name": "coin", "content": "heads"}',
    ]
    assert tokenizer.render_chat(written)
    without, _ = write_conversation(history, Tools(TOOLS.functions, "none"), tokenizer)
    assert without[0] == {"role": "system", "content": "Be brief."}
    alone, _ = write_conversation(HELLO, TOOLS, tokenizer)
    assert [one["role"] for one in alone] == ["system", "user"]


def test_a_template_that_writes_tools_itself(llm):
    template = (
        "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %};{% endfor %}"
    )
    tokenizer = Tokenizer(byte_level._backend, {}, template=template)
    assert tokenizer.renders_tools
    call = {"id": "1", "function": {"name": "get_weather", "arguments": '{"city": "Ulm"}'}}
    history = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "sun"}]
    written, variables = write_conversation(history, TOOLS, tokenizer)
    text = tokenizer.render_chat(written, **variables)
    assert text == "get_weather;coin;user:the cat;assistant:Ulm;tool:sun;"
    assert write_conversation(HELLO, None, tokenizer) == (HELLO, {})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "has the name 'a b'"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, "a JSON schema of an object"),
        ({"tools": [{"type": "function", "function": {"name": "a", "description": 3}}]}, "must be text"),
        (
            {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(513)]},
            "tools has 513 functions: 512 at most",
        ),
        ({"tools": [{"type": "web_search"}]}, "must have the type function"),
        ({"tools": [*GIVEN, *GIVEN]}, "2 functions by the name of 'get_weather'"),
        ({"tools": GIVEN, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "get_weather, coin"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "there are no tools"),
        ({"tools": GIVEN, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}}, "among tools"),
        ({"tools": GIVEN, "structured_outputs": {"regex": "a"}}, "of the kind regex"),
        ({"tools": GIVEN, "structured_outputs": {"json": "{"}}, "it must be a JSON schema"),
    ],
)
def test_tools_that_are_refused(fields, why):
    with pytest.raises(BodyError, match=why):
        read_body(CHAT, {"messages": HELLO, **fields})


def test_choices():
    def read(choice):
        return read_body(CHAT, {"messages": HELLO, "tools": GIVEN, "tool_choice": choice}).tools

    assert read("auto") == TOOLS
    assert read("none") == Tools(TOOLS.functions, "none")
    assert read({"type": "function", "function": {"name": "coin"}}) == Tools(TOOLS.functions, "required", "coin")
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "coin"}}]}
    assert read({"type": "allowed_tools", "allowed_tools": allowed}) == Tools(TOOLS.functions[1:], "required")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_call_always_comes_and_fits(llm, choice):
    closed = {**COIN, "parameters": {**COIN["parameters"], "additionalProperties": False}}
    given = [{"type": "function", "function": one} for one in (WEATHER, closed)]
    for seed in range(3):
        fields = {"messages": HELLO, "tools": given, "tool_choice": choice, "parallel_tool_calls": False}
        body = read_body(CHAT, {**fields, "seed": seed, "temperature": 1, "reasoning_effort": "none"})
        params = llm.get_default_sampling_params(**body.sampling)
        output = llm.generate([{"prompt_token_ids": ids} for _, ids in body.prompts(llm.tokenizer)], params)[0]
        answer = chat_response(output, llm.tokenizer, "tiny", tools=body.tools)["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        assert answer["message"]["content"] is None
        (call,) = answer["message"]["tool_calls"]
        assert call["function"]["name"] in (["get_weather"] if choice != "required" else ["get_weather", "coin"])
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "get_weather":
            assert misfit(arguments, WEATHER["parameters"]) is None
        # Sent back, it is written as the model wrote it.
        written, _ = write_conversation([answer["message"]], None, llm.tokenizer)
        assert written[0]["content"] == output.outputs[0].text


def held(tools, answer=None):
    sampling = {} if answer is None else {"structured_outputs": answer}
    tools.hold(sampling)
    return sampling


def test_a_call_or_an_answer_of_a_structure(llm):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    answer = StructuredOutputsParams(json={**schema, "additionalProperties": False})
    structure = held(TOOLS, answer)["structured_outputs"]
    guide = llm.engine._guides
    guide.check(SamplingParams(structured_outputs=structure))
    matcher = guide._structures.matcher(structure)
    for text, fits in ((CALL, True), ('{"a": true}', True), ('{"a":  true}', False), ("hello", False)):
        start = matcher.copy()
        assert all(start.accepts(token) for token in llm.tokenizer.encode(text)) == fits
    assert held(TOOLS) == {"skip_special_tokens": False}
    assert held(Tools(TOOLS.functions, "none"), answer) == {"structured_outputs": answer}
    named = Tools((Function.read({"name": "größe", "parameters": {}}, "tools"),), "required", parallel=False)
    matcher = guide._structures.matcher(held(named)["structured_outputs"])
    text = '<|tool_call|>[{"name": "größe", "arguments": {"a": [1, {"b": null}]}}]<|/tool_call|>'
    assert all(matcher.accepts(token) for token in llm.tokenizer.encode(text))
    assert matcher.complete
    bad = Function.read({"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": "("}}}}, "tools")
    with pytest.raises(SamplingError, match="cannot be used"):
        guide.check(SamplingParams(**held(Tools((bad,), "required"))))
