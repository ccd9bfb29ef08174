"""Bodies in and out: every field is taken, refused with a reason, or known to be without effect."""

import json
import re

import pytest

from sambay.engine import SamplingParams, StructuredOutputsParams
from sambay.errors import BodyError, ContextError, PromptError, SambaYError, SamplingError
from sambay.protocols.openai import (
    CHAT,
    COMPLETIONS,
    chat_response,
    completion_response,
    error_body,
    read_body,
    status_of,
)

HELLO = [{"role": "user", "content": "the cat"}]


def chat(**fields):
    return read_body(CHAT, {"messages": HELLO, **fields})


def completion(**fields):
    return read_body(COMPLETIONS, {"prompt": "the cat", **fields})


def answer(llm, body):
    params = llm.get_default_sampling_params(**body.sampling)
    prompts = [{"prompt_token_ids": ids} for _, ids in body.prompts(llm.tokenizer)]
    return llm.generate(prompts, params)


SAME = {
    "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": -1,
    "frequency_penalty": 2, "n": 3, "seed": 9, "stop": ["a", "b"], "stop_token_ids": [7], "min_tokens": 2,
    "max_tokens": 50, "max_thinking_tokens": 8, "allowed_token_ids": [5, 6], "bad_words": ["no"], "ignore_eos": True,
    "include_stop_str_in_output": True, "skip_special_tokens": False,
}  # fmt: skip


@pytest.mark.parametrize("read", [chat, completion])
def test_fields_of_sampling_params(read):
    assert read(**SAME).sampling == SAME
    assert SamplingParams(**read(**SAME).sampling) == SamplingParams(**SAME)
    assert read().sampling == {}
    assert read(**dict.fromkeys(SAME), logprobs=None, stream=None, user="me", model="x", metadata={}).sampling == {}
    assert read(logit_bias={"12": -100, "7": 1.5}).sampling == {"logit_bias": {12: -100, 7: 1.5}}
    with pytest.raises(SamplingError, match="logit_bias has 'the'"):
        SamplingParams(**read(logit_bias={"the": 1}).sampling)


def test_a_chat():
    body = chat(max_completion_tokens=9, max_tokens=5, logprobs=True, top_logprobs=4)
    assert body.sampling == {"max_tokens": 9, "logprobs": 4}
    assert chat(logprobs=True).sampling == {"logprobs": 0}
    assert chat(logprobs=False).sampling == {}
    assert (body.messages, body.template, body.stream) == (HELLO, {}, False)
    assert chat(reasoning_effort="none").template == {"enable_thinking": False}
    assert chat(enable_thinking=True).template == {"enable_thinking": True}
    assert chat(chat_template_kwargs={"x": 1}, enable_thinking=False).template == {"x": 1, "enable_thinking": False}
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert chat(reasoning_effort="low").sampling == {"max_thinking_tokens": 1024, "max_tokens": 5120}
    assert chat(reasoning_effort="high", max_tokens=50).sampling["max_tokens"] == 50
    assert chat(reasoning_effort="max").sampling == {"max_tokens": None}
    assert chat(reasoning_effort="low", enable_thinking=False).template == {"enable_thinking": False}
    assert chat(tools=[], tool_choice="none", n=1, parallel_tool_calls=True).sampling == {"n": 1}


def test_prompts_of_a_completion(llm):
    tokenizer = llm.tokenizer
    assert completion().prompts(tokenizer) == [("the cat", tokenizer.encode("the cat"))]
    for prompt, expected in (
        (["a", "b"], [("a", tokenizer.encode("a")), ("b", tokenizer.encode("b"))]),
        ([5, 6], [(None, [5, 6])]),
        ([[5, 6], [7]], [(None, [5, 6]), (None, [7])]),
    ):
        assert completion(prompt=prompt).prompts(tokenizer) == expected
    assert completion(n=2, best_of=2, logprobs=3).sampling == {"n": 2, "logprobs": 3}


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize("read", [chat, completion])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, StructuredOutputsParams(json_object=True)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            StructuredOutputsParams(json=SCHEMA),
        ),
        ({"structured_outputs": {"regex": "a+"}}, StructuredOutputsParams(regex="a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, StructuredOutputsParams(choice=["a", "b"])),
    ],
)
def test_structures(read, fields, expected):
    assert read(**fields).sampling.get("structured_outputs") == expected


@pytest.mark.parametrize(
    ("url", "body", "param", "message"),
    [
        (CHAT, [], None, "the body must be a JSON object"),
        (CHAT, {}, "messages", "at least one message"),
        (CHAT, {"messages": []}, "messages", "at least one message"),
        (CHAT, {"messages": "hi"}, "messages", "messages is 'hi': it must be a list of messages"),
        (CHAT, {"messages": HELLO, "temprature": 1}, "temprature", "field 'temprature', which is not known"),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs", "it needs logprobs to be true"),
        (CHAT, {"messages": HELLO, "logprobs": 2}, "logprobs", "logprobs is 2: it must be true or false"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools", "and a function"),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice", "there are no tools"),
        (CHAT, {"messages": HELLO, "tool_choice": "maybe"}, "tool_choice", "none, auto, required, or name a function"),
        (CHAT, {"messages": HELLO, "functions": [{"name": "f"}]}, "functions", "give tools instead"),
        (CHAT, {"messages": HELLO, "modalities": ["audio"]}, "modalities", "the answer is text"),
        (CHAT, {"messages": HELLO, "reasoning_effort": "much"}, "reasoning_effort", "one of none, minimal, low"),
        (CHAT, {"messages": HELLO, "max_completion_tokens": True}, "max_completion_tokens", "must be an integer"),
        (CHAT, {"messages": HELLO, "stream": 1}, "stream", "it must be true or false"),
        (CHAT, {"messages": HELLO, "ignore_eos": "no"}, "ignore_eos", "it must be true or false"),
        (CHAT, {"messages": HELLO, "logit_bias": [1]}, "logit_bias", "an object of token ids"),
        (CHAT, {"messages": HELLO, "response_format": "json"}, "response_format", "an object with a type"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}, "response_format", "must be text, json_object"),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema"}},
            "response_format",
            "with a json_schema",
        ),
        (CHAT, {"messages": HELLO, "structured_outputs": {"yaml": 1}}, "yaml", "structured_outputs has no 'yaml'"),
        (
            CHAT,
            {"messages": HELLO, "structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "response_format",
            "give one of them",
        ),
        (CHAT, {"messages": HELLO, "prompt": "x"}, "prompt", "not known here"),
        (COMPLETIONS, {}, "prompt", "not empty"),
        (COMPLETIONS, {"prompt": ["a", ""]}, "prompt", "prompt has ''"),
        (COMPLETIONS, {"prompt": {"a": 1}}, "prompt", "text, token ids, or a list of those"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix", "continued at its end"),
        (COMPLETIONS, {"prompt": "a", "best_of": 3, "n": 2}, "best_of", "it must be n"),
        (COMPLETIONS, {"prompt": "a", "echo": True, "logprobs": 1}, "echo", "those of the prompt are not computed"),
        (COMPLETIONS, {"prompt": "a", "logprobs": True}, "logprobs", "must be an integer"),
    ],
)
def test_what_cannot_be_read_or_done_is_refused(url, body, param, message):
    with pytest.raises(BodyError) as caught:
        read_body(url, body)
    assert message in str(caught.value)
    assert caught.value.param == param
    assert "\n" not in str(caught.value)


def test_the_answer_to_a_chat(llm):
    body = chat(n=2, seed=1, temperature=0.8, max_tokens=12, logprobs=True, top_logprobs=3, ignore_eos=True)
    output = answer(llm, body)[0]
    response = chat_response(output, llm.tokenizer, "tiny", top_logprobs=3)
    assert json.loads(json.dumps(response)) == response
    assert (response["object"], response["model"]) == ("chat.completion", "tiny")
    assert re.fullmatch("chatcmpl-[0-9a-f]{32}", response["id"])
    assert [choice["index"] for choice in response["choices"]] == [0, 1]
    for choice, one in zip(response["choices"], output.outputs, strict=True):
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"] == one.answer
        assert choice["message"].get("reasoning_content", "") == one.reasoning
        assert choice["finish_reason"] == "length"
        entries = choice["logprobs"]["content"]
        assert len(entries) == 12
        assert (
            b"".join(bytes(entry["bytes"]) for entry in entries)
            .decode(errors="replace")
            .startswith(llm.tokenizer.decode(one.token_ids[:3], skip_special_tokens=False).rstrip("\ufffd"))
        )
        for entry in entries:
            top = [other["logprob"] for other in entry["top_logprobs"]]
            assert len(top) == 3
            assert top == sorted(top, reverse=True)
            assert entry["logprob"] <= top[0]
    prompt = len(output.prompt_token_ids)
    assert response["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": 24, "total_tokens": prompt + 24,
        "prompt_tokens_details": {"cached_tokens": output.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    plain = chat_response(answer(llm, chat(max_tokens=2))[0], llm.tokenizer, "tiny")
    assert plain["choices"][0]["logprobs"] is None


def test_reasoning_is_apart(llm):
    prompt = llm.tokenizer.render_chat(HELLO) + "<think>\n"
    params = SamplingParams(max_thinking_tokens=4, max_tokens=12, seed=1, ignore_eos=True)
    output = llm.generate(prompt, params)[0]
    response = chat_response(output, llm.tokenizer, "tiny")
    message = response["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == (output.outputs[0].reasoning, output.outputs[0].answer)
    assert response["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 5


def test_the_answer_to_completions(llm):
    body = completion(prompt=["the cat", "on"], n=2, seed=1, max_tokens=3, logprobs=1, ignore_eos=True)
    outputs = answer(llm, body)
    response = completion_response(outputs, llm.tokenizer, "tiny")
    assert response["object"] == "text_completion"
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2, 3]
    texts = [one.text for output in outputs for one in output.outputs]
    assert [choice["text"] for choice in response["choices"]] == texts
    for choice in response["choices"]:
        logprobs = choice["logprobs"]
        assert {len(values) for values in logprobs.values()} == {3}
        for token, logprob, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert top[token] == logprob
    assert response["usage"]["completion_tokens"] == 12
    for prompt, text in (("the cat", "the cat"), (llm.tokenizer.encode("the cat"), "the cat")):
        echoed = completion(prompt=prompt, echo=True, max_tokens=2, seed=3)
        choices = completion_response(answer(llm, echoed), llm.tokenizer, "tiny", echo=True)["choices"]
        assert choices[0]["text"].startswith(text)
        assert choices[0]["logprobs"] is None


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (BodyError("no", "n"), 400, None, "n"),
        (SamplingError("no"), 400, None, None),
        (PromptError("no"), 400, None, None),
        (ContextError("no"), 400, "context_length_exceeded", None),
        (SambaYError("the largest logit is nan"), 500, None, None),
        (RuntimeError("no"), 500, None, None),
    ],
)
def test_errors(error, status, code, param):
    assert status_of(error) == status
    kind = "invalid_request_error" if status == 400 else "server_error"
    assert error_body(error, status) == {
        "error": {"message": str(error), "type": kind, "param": param, "code": code}
    }  # fmt: skip


def test_the_bytes_of_tokens(llm):
    tokenizer = llm.tokenizer
    for text in ("häuser 你好 🙂", "∮\n", "<|end|><think>"):
        assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))).decode() == text
    assert tokenizer.token_bytes(10**6) == b""
