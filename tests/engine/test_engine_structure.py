"""Structured output: whatever the weights and the other parameters are, the answer is what was asked for."""

import json
import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import dictate
from sambay.config import SambaYConfig
from sambay.engine import Engine, SamplingParams
from sambay.engine import StructuredOutputsParams as Structured
from sambay.engine.structure import Structures, check_structure
from sambay.errors import MissingExtraError, SamplingError
from sambay.model import SambaY
from small_tokenizers import sentencepiece_like, spelled_tags

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["cat", "dog", "häuser", "🙂"]}, "maxItems": 3},
        "home": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
    },
    "required": ["name", "age", "home"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"],
                        "additionalProperties": False}},
}  # fmt: skip
GRAMMAR = """
start: sum
sum: term (" + " term)~0..2
term: NUMBER | "(" sum ")"
NUMBER: /[1-9][0-9]{0,2}/
"""
REGEX = r"(\+\d{1,3} )?[a-z]{2,5}(ü|你|\n){1,2}[^a-z]?"
CHOICES = ["yes", "no", "häuser 你好", 'a "quoted" \\ one', "🙂🙂", "line\nbreak", "ye"]


def is_sum(text):
    while (shorter := re.sub(r"\((\d+( \+ \d+){0,2})\)", "7", text)) != text:
        text = shorter
    return re.fullmatch(r"[1-9]\d{0,2}( \+ [1-9]\d{0,2}){0,2}", text) is not None


def is_person(text):
    jsonschema.validate(json.loads(text), PERSON)
    return True


STRUCTURES = {
    "json": (Structured(json=PERSON, whitespace_pattern=r"[ \n]?"), is_person),
    "json as text, on one line": (
        Structured(json=json.dumps(PERSON), disable_any_whitespace=True),
        lambda text: is_person(text) and json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
        and "\n" not in text,
    ),
    "regex": (Structured(regex=REGEX), lambda text: re.fullmatch(REGEX, text)),
    "choice": (Structured(choice=CHOICES), lambda text: text in CHOICES),
    "lark": (Structured(grammar=GRAMMAR), is_sum),
    "gbnf": (Structured(grammar='root ::= "x" [0-9] y?\ny ::= " you"'), lambda t: re.fullmatch("x[0-9]( you)?", t)),
}  # fmt: skip
OTHERS = [
    {"temperature": 0.0},
    {"seed": 1},
    {"seed": 2, "temperature": 3.0, "repetition_penalty": 1.5, "presence_penalty": 1.0},
    {"seed": 3, "top_k": 2, "frequency_penalty": -1.0, "n": 3},
    {"seed": 4, "top_p": 0.5, "min_tokens": 20},
    {"seed": 5, "min_p": 0.3, "logit_bias": {9: 5.0, 40: -100}, "bad_words": ["dog"], "logprobs": 1},
]


def drain(engine):
    while engine.busy:
        engine.step()


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("kind", STRUCTURES)
def test_an_answer_is_what_was_asked_for(make_engine, tokenizer, assert_idle, kind, others):
    """A random model, and every other parameter besides: with a thinking before it, closed by force, and without."""
    structure, fits = STRUCTURES[kind]
    engine = make_engine(max_num_seqs=4)
    forms = [
        (engine.add(None, tokenizer.encode(prompt), SamplingParams(
            structured_outputs=structure, max_thinking_tokens=budget, max_tokens=200, **others)), prompt)
        for prompt, budget in (("the cat", 0), ("the cat<think>\n", 6), ("the <think>\n\n</think>\n", None))
    ]  # fmt: skip
    drain(engine)
    for output, prompt in forms:
        assert output.error is None
        for one in output.outputs:
            assert one.finish_reason == "stop"
            assert one.stop_reason is None
            assert fits(one.answer), one.answer
            assert bool(one.reasoning_tokens) is prompt.endswith("<think>\n")
            assert one.text.endswith(one.answer)
            if not one.reasoning_tokens:
                assert one.text == one.answer
    assert_idle(engine)


def spelled(tokenizer, token):
    """The bytes of a token, None for a control token and a tag."""
    if token in [*tokenizer.special_tokens.values(), *map(tokenizer.token_id, ("<think>", "</think>"))]:
        return None
    return tokenizer.token_bytes(token)


@given(st.lists(st.text('ab ü你🙂\n"\\', min_size=1, max_size=4), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=60)
def test_the_tokens_that_may_come_are_those_of_the_definition(tokenizer, choice, seed):
    """The tokens whose bytes go on towards a choice, and the end exactly where one is complete."""
    matcher = Structures(tokenizer, 325, frozenset([0, 3])).matcher(Structured(choice=choice))
    texts, so_far = [one.encode() for one in choice], b""
    dice = torch.Generator().manual_seed(seed)
    bytes_of = {token: spelled(tokenizer, token) for token in range(5, tokenizer.vocab_size)}
    while True:
        expected = {
            token for token, more in bytes_of.items() if more and any(text.startswith(so_far + more) for text in texts)
        } | ({0, 3} if so_far in texts else set())
        allowed = set(matcher.allowed().nonzero().flatten().tolist())
        going_on = sorted(allowed - {0, 3})
        if len({text[len(so_far)] for text in texts if text.startswith(so_far) and text != so_far}) == 1:
            assert allowed <= expected  # where only one text can come, it must be spelled as the tokenizer does
            assert allowed & {0, 3} == expected & {0, 3}
            assert going_on
        else:
            assert allowed == expected
        assert matcher.complete is (not going_on)
        if not going_on:
            break
        token = going_on[int(torch.randint(0, len(going_on), (), generator=dice))]
        wrong = min(set(range(325)) - expected)
        assert not matcher.accepts(wrong)
        assert matcher.accepts(token)
        so_far += bytes_of[token]


def test_bytes_of_a_sentencepiece_vocabulary():
    """A character that the vocabulary lacks is spelled by byte tokens, in a structure too."""
    tokenizer = sentencepiece_like(signs="</>")
    matcher = Structures(tokenizer, tokenizer.vocab_size, frozenset([2])).matcher(Structured(choice=["the ü"]))
    for token in [*tokenizer.encode("xthe")[2:], tokenizer.token_id("▁"), *tokenizer.encode("xü")[2:]]:
        assert matcher.allowed()[token]
        assert matcher.accepts(token)
    assert matcher.complete
    assert matcher.allowed().nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize(
    ("options", "layouts"),
    [
        ({}, [{}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}]),
        ({"disable_any_whitespace": True}, [{"separators": (",", ":")}]),
        ({"whitespace_pattern": "[ ]?"}, [{}, {"separators": (",", ":")}]),
    ],
)
def test_white_space_in_json(tokenizer, options, layouts):
    every = [{}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}]
    structures = Structures(tokenizer, 320, frozenset([0]))
    for layout in every:
        matcher = structures.matcher(Structured(json_object=True, **options))
        text = json.dumps({"a": [1, {"b": None}]}, **layout)
        assert all(map(matcher.accepts, tokenizer.encode(text))) is (layout in layouts), text


def test_completions_of_one_prompt_and_requests_with_one_structure_are_apart(make_engine):
    engine = make_engine(max_num_seqs=3)
    params = SamplingParams(n=3, seed=1, temperature=2.0, structured_outputs=Structured(regex="[a-z]{1,9}[0-9]{3}"))
    outputs = [engine.add(None, [9], params), engine.add(None, [9], params)]
    drain(engine)
    texts = [[one.text for one in output.outputs] for output in outputs]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    assert len(engine._guides._structures._compiled) == 1


def test_compiled_structures_are_not_kept_for_ever(tokenizer):
    structures = Structures(tokenizer, 320, frozenset([0]))
    for i in range(40):
        structures.matcher(Structured(regex=f"a{{{i + 1}}}"))
    assert len(structures._compiled) == 32
    for i in range(40):  # of 20 kB each
        structures.matcher(Structured(choice=[f"{i} {j} {'x' * 90}" for j in range(200)]))
    assert 20 < len(structures._compiled) < 32
    assert structures._compiled.size <= 1 << 19
    before = len(structures._compiled)
    large = Structured(choice=[f"{j} {'x' * 900}" for j in range(800)])
    assert structures.matcher(large).allowed().any()  # used, and not kept
    assert len(structures._compiled) == before


# The end


def test_a_model_without_an_end_ends_where_nothing_can_be_added(model, tokenizer):
    engine = Engine(model, tokenizer, end_ids=frozenset(), max_model_len=64)
    closed = engine.add(None, [9], SamplingParams(structured_outputs=Structured(regex="[a-z]{3}"), seed=1))
    open_ = engine.add(None, [9], SamplingParams(structured_outputs=Structured(regex="[a-z]+"), seed=1, max_tokens=9))
    drain(engine)
    assert (closed.outputs[0].finish_reason, len(closed.outputs[0].text)) == ("stop", 3)
    assert (open_.outputs[0].finish_reason, len(open_.outputs[0].token_ids)) == ("length", 9)
    assert re.fullmatch("[a-z]+", open_.outputs[0].text)


def test_min_tokens_hold_off_an_end_as_long_as_there_is_more_to_say(solo, tokenizer):
    for least in (1, 5, 12):
        params = SamplingParams(structured_outputs=Structured(regex="[a-z ]{1,40}"), min_tokens=least, seed=least)
        one = solo([9], params).outputs[0]
        assert one.finish_reason == "stop"
        assert len(one.token_ids) >= least or len(one.text) == 40


def test_stop_strings_and_tokens_and_the_limit_cut(solo, tokenizer):
    def run(**values):
        values |= {"structured_outputs": Structured(regex="x[ab]{30}y"), "max_thinking_tokens": 0}
        return solo([9], SamplingParams(temperature=0.0, **values)).outputs[0]

    assert run().text[0] + run().text[-1] == "xy"
    assert (run(max_tokens=5).finish_reason, len(run(max_tokens=5).token_ids)) == ("length", 5)
    letter = run().text[1]
    assert (run(stop=letter).finish_reason, run(stop=letter).text) == ("stop", "x")
    token = run().token_ids[1]
    assert (run(stop_token_ids=[token]).stop_reason, run(stop_token_ids=[token]).text) == (token, "x")


def test_what_else_is_allowed_and_the_structure_both_hold(solo, tokenizer):
    digits = [tokenizer.token_id(digit) for digit in "123"]
    structure = Structured(regex="[0-9]{6}")
    one = solo([9], SamplingParams(structured_outputs=structure, allowed_token_ids=digits, seed=1)).outputs[0]
    assert re.fullmatch("[123]{6}", one.text)
    output = solo([9], SamplingParams(structured_outputs=structure, allowed_token_ids=[40]))
    assert isinstance(output.error, SamplingError)


# With thinking


def script(monkeypatch, dictated):
    """What the model would choose, one by one; a token that may not come is the test's own error."""
    tokens = iter(dictated)

    def choose(logits, params, generator, penalties, banned, rules, allowed):
        token = next(tokens)
        assert token not in banned
        assert allowed is None or bool(allowed[token]), token
        return token

    dictate(monkeypatch, choose)


def run_script(model, tokenizer, monkeypatch, dictated, prompt="the", **values):
    engine = Engine(model, tokenizer, end_ids=frozenset([tokenizer.eos_token_id]), max_model_len=256)
    script(monkeypatch, dictated)
    output = engine.add(None, tokenizer.encode(prompt), SamplingParams(**values))
    drain(engine)
    if output.error is not None:
        raise output.error
    return output.outputs[0]


@pytest.mark.parametrize("newline", ["", "\n"])
def test_the_structure_begins_after_the_thinking(model, tokenizer, monkeypatch, newline):
    """The newline after the tag is forced where the model does not write it, and is no part of the answer."""
    structure = Structured(regex="[0-9]{3}")
    opened = "<think>\nso 12 <think> cats: { \n</think>"
    dictated = [*tokenizer.encode(opened), *tokenizer.encode("123")]
    one = run_script(model, tokenizer, monkeypatch, dictated, structured_outputs=structure)
    assert (one.text, one.reasoning, one.answer) == (f"{opened}\n123", "so 12 <think> cats: { \n", "123")
    assert one.finish_reason == "stop"
    del newline


def test_it_begins_at_once_where_the_model_does_not_think(model, tokenizer, monkeypatch):
    structure = Structured(regex="[0-9]{3}")
    one = run_script(model, tokenizer, monkeypatch, tokenizer.encode("123"), structured_outputs=structure)
    assert (one.text, one.answer) == ("123", "123")


@pytest.mark.parametrize(
    ("prompt", "values"),
    [("the", {"max_thinking_tokens": 0}), ("the<think>\n\n</think>\n", {})],
)
def test_a_thinking_that_is_off_cannot_begin(model, tokenizer, monkeypatch, prompt, values):
    structure = Structured(regex="[0-9]{3}")
    with pytest.raises(AssertionError):
        run_script(
            model, tokenizer, monkeypatch, tokenizer.encode("<think>"), prompt, structured_outputs=structure, **values
        )


@pytest.fixture(scope="module")
def speller():
    """A tokenizer without tokens for the tags, and a random model for it."""
    tokenizer = spelled_tags()
    config = SambaYConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=8, mamba_d_state=4, mamba_dt_rank=2,
        max_position_embeddings=256, bos_token_id=0, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id, torch_dtype="float32",
    )  # fmt: skip
    return SambaY.random(config, seed=3), tokenizer


def test_spelled_tags(speller, monkeypatch):
    model, tokenizer = speller
    structure = Structured(regex='["a-z<>]{3,9}!')
    think = tokenizer.encode("<think>\nso the end\n</think>\n")
    assert len(think) > 8
    answer = tokenizer.encode('"the"!')
    one = run_script(model, tokenizer, monkeypatch, [*think, *answer], structured_outputs=structure)
    assert (one.reasoning, one.answer) == ("so the end\n", '"the"!')
    # The newline within the last token of the tag is the one that is dropped: none is forced besides.
    assert len(one.token_ids) == len(think) + len(answer)
    # What begins like a tag and goes another way is the answer, tags and all.
    for text in ("<thing>!", "<<think>!", "<think!", "a<think>!"):
        if text == "<think!":
            continue
        one = run_script(model, tokenizer, monkeypatch, tokenizer.encode(text), structured_outputs=structure)
        assert (one.reasoning, one.answer) == ("", text)


def test_a_token_cannot_end_the_thinking_and_begin_the_answer(speller, monkeypatch):
    model, tokenizer = speller
    beyond = [token for text, token in tokenizer.vocabulary.items() if text.startswith(">") and len(text) > 1]
    texts = {tokenizer.decode([token]): token for token in beyond}
    assert {">{", ">\n"} <= set(texts), texts
    structure = Structured(regex="[0-9]{3}")
    before = [*tokenizer.encode("<think>\nso 1"), texts[">{"], *tokenizer.encode("2\n</think")]
    for text, token in texts.items():
        dictated = [*before, token, *tokenizer.encode("123")]
        if text == ">\n":
            one = run_script(model, tokenizer, monkeypatch, dictated, structured_outputs=structure)
            assert (one.reasoning, one.answer) == ("so 1>{2\n", "123")
        else:
            with pytest.raises(AssertionError):
                run_script(model, tokenizer, monkeypatch, dictated, structured_outputs=structure)


@given(
    st.integers(0, 2**31),
    st.sampled_from([r'"[a-z<>/\n]{1,12}"', "<[a-z]{3,8}>", r"(<think>\n?){1,2}", "[0-9]{2,4}"]),
    st.sampled_from(["the", "the <think>", "<think>\n", "x<think>\n</think>"]),
    st.sampled_from([None, 0, 5]),
)
@settings(max_examples=40)
def test_no_random_model_gets_around_it(speller, seed, regex, prompt, budget):
    model, tokenizer = speller
    engine = Engine(model, tokenizer, end_ids=frozenset([tokenizer.eos_token_id]), max_model_len=128)
    tags = tokenizer.encode("</think>\n<think>")
    params = SamplingParams(
        seed=seed,
        temperature=2.0,
        structured_outputs=Structured(regex=regex),
        max_thinking_tokens=budget,
        logit_bias=dict.fromkeys(tags, 3.0),  # so that tags come about, whole and torn
    )
    output = engine.add(None, tokenizer.encode(prompt), params)
    drain(engine)
    one = output.outputs[0]
    assert output.error is None
    if one.finish_reason == "stop":
        assert re.fullmatch(regex, one.answer), one.text
    else:  # its thinking never ended
        assert (budget, one.answer) == (None, "")


# What cannot be


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regex": "a("}, "regex a( cannot be used: unclosed group"),
        ({"regex": "(?=a)b"}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"regex": r"[^\s\S]"}, "nothing can fulfil it"),
        ({"json": "{"}, "json { cannot be used: Expecting property name"),
        ({"json": "[]"}, "a JSON schema is an object"),
        ({"json": {"type": "foo"}}, 'json {"type": "foo"} cannot be used: Invalid type: foo'),
        ({"json": {"$ref": "http://x.y/z"}}, "is not present in a registry"),
        ({"json": {"type": "string", "minLength": 5, "maxLength": 3}}, "Unsatisfiable schema"),
        ({"json": {"not": {}}}, "Unimplemented keys"),
        ({"grammar": "start: a"}, 'unknown name: "a"'),
        ({"grammar": "hello"}, "Expected ::="),
        ({"json": {}, "whitespace_pattern": "("}, "cannot be used"),
    ],
)
def test_a_structure_that_is_not_valid_is_one_sentence(make_engine, assert_idle, values, message):
    engine = make_engine()
    with pytest.raises(SamplingError) as caught:
        engine.add(None, [9], SamplingParams(structured_outputs=Structured(**values)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert_idle(engine)


def test_without_the_library(make_engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(
        MissingExtraError, match=r"structured output needs llguidance.*pip install 'sambay\[constrain\]'"
    ):
        check_structure(Structured(regex="a"))
    with pytest.raises(MissingExtraError):
        make_engine().add(None, [9], SamplingParams(structured_outputs=Structured(regex="a")))


def test_a_structure_that_grows_too_complex_ends_its_request_alone(make_engine, monkeypatch, assert_idle):
    from sambay.engine.structure import Matcher

    engine = make_engine()
    bad = engine.add(None, [9], SamplingParams(structured_outputs=Structured(regex="[a-z]{9}")))
    good = engine.add(None, [9], SamplingParams(max_tokens=4, ignore_eos=True))

    def fail(self):
        raise SamplingError("the structured output cannot go on (too many items): simplify its schema or grammar")

    monkeypatch.setattr(Matcher, "allowed", fail)
    drain(engine)
    assert "too many items" in str(bad.error)
    assert len(good.outputs[0].token_ids) == 4
    assert_idle(engine)


def test_a_structure_that_becomes_too_complex_is_the_fault_of_who_asked_for_it(tokenizer):
    ends = frozenset([tokenizer.eos_token_id])
    matcher = Structures(tokenizer, tokenizer.vocab_size, ends).matcher(Structured(choice=["a", "b", "c"] * 5000))
    [token] = tokenizer.encode("b")
    with pytest.raises(SamplingError, match="the structured output cannot go on"):
        matcher.accepts(token)
