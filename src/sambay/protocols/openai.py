"""The bodies of OpenAI's chat completions and completions: read into what the engine takes, written from what it gives.

A field that is not known, or that cannot be done, is refused and not passed over; null is as if it were not there. Of
vLLM's further fields those with a counterpart in `SamplingParams` are taken, too.

Source: OpenAI's API reference; the names of further fields are vLLM's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sambay.engine import Logprob, RequestOutput, StructuredOutputsParams
from sambay.errors import BodyError, ContextError, ModelNotFoundError, NotFoundError, SambaYError
from sambay.protocols.body import Body, ChatBody, Fields, Json, read_effort, read_format
from sambay.protocols.tools import Function, Part, Tools, parts_of
from sambay.tokenizer import Tokenizer

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "CompletionBody",
    "chat_logprobs",
    "chat_response",
    "completion_logprobs",
    "completion_response",
    "envelope",
    "error_body",
    "finish_reason",
    "read_body",
    "read_choice",
    "status_of",
    "tool_call",
    "usage",
]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "n",
    "seed", "stop", "stop_token_ids", "min_tokens", "max_tokens", "max_thinking_tokens", "allowed_token_ids",
    "bad_words",
)  # fmt: skip
"""Fields that are those of `SamplingParams`, which checks them."""

_FLAGS = ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens")

_WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields that say nothing about what is generated."""


@dataclass(frozen=True)
class CompletionBody(Body):
    """Prompts to be completed.

    Attributes:
        texts: each prompt, text or token ids.
        echo: whether the prompt is part of the text.
    """

    texts: Sequence[str | list[int]] = ()
    echo: bool = False

    def prompts(self, tokenizer: Tokenizer) -> list[tuple[str | None, list[int]]]:
        """The prompts as text, None where it was given as tokens, and as tokens.

        Raises:
            PromptError: a text is not valid Unicode.
        """
        return [(one, tokenizer.encode(one)) if isinstance(one, str) else (None, one) for one in self.texts]


def read_body(url: str, body: object) -> ChatBody | CompletionBody:
    """Read what was sent to an endpoint.

    Args:
        url: `CHAT` or `COMPLETIONS`.
        body: from JSON.

    Raises:
        BodyError: a field is missing, not known, of the wrong type, or cannot be done. What `SamplingParams` checks is
            not checked here.
    """
    fields = _Fields(body, _WITHOUT_EFFECT)
    found = _read_chat(fields) if url == CHAT else _read_completion(fields)
    fields.refuse_the_rest()
    return found


class _Fields(Fields):
    """The fields that chats and completions share."""

    def sampling(self) -> Json:
        """The fields of `SamplingParams` that both kinds of body have."""
        found = self.given(_SAMPLING)
        found |= {name: self.flag(name) for name in _FLAGS if name in self}
        bias = self.take("logit_bias", Mapping, "an object of token ids and numbers")
        if bias is not None:
            found["logit_bias"] = {_token_id(token): value for token, value in bias.items()}
        structure = self._structure()
        if structure is not None:
            found["structured_outputs"] = structure
        return found

    def _structure(self) -> StructuredOutputsParams | None:
        """What the answer must be, in OpenAI's words or in vLLM's."""
        asked = self.take("response_format", Mapping, 'an object with a type, such as {"type": "json_object"}')
        given = self.take("structured_outputs", Mapping, "an object with one of json, regex, choice, grammar")
        if given is None:
            return None if asked is None else read_format(asked, "response_format", "json_schema")
        if asked is not None and asked.get("type") != "text":
            raise BodyError("response_format and structured_outputs: give one of them", "response_format")
        try:
            return StructuredOutputsParams(**given)
        except TypeError:
            known = StructuredOutputsParams.__dataclass_fields__
            wrong = next(name for name in given if name not in known)
            raise BodyError(f"structured_outputs has no {wrong!r}: it has {', '.join(known)}", wrong) from None

    def common(self) -> Json:
        """The fields of `Body`, but for the sampling."""
        options = self.take("stream_options", Mapping, 'an object, such as {"include_usage": true}', {})
        return {
            "model": self.take("model", str, "the name of a model"),
            "stream": self.flag("stream"),
            "include_usage": bool(options.get("include_usage")),
        }

    def tools(self) -> Tools | None:
        """What the model may call, and whether it must."""
        given = self.take("tools", list, "a list of tools", [])
        choice = self.take("tool_choice", (str, Mapping), "none, auto, required, or a function", "auto")
        parallel = self.flag("parallel_tool_calls", True)
        self.only("functions", [[]], "give tools instead")
        self.only("function_call", ["none", "auto"], "give tool_choice instead")
        functions = []
        for index, one in enumerate(given):
            where = f"tools[{index}]"
            function = one.get("function") if isinstance(one, Mapping) and one.get("type") == "function" else None
            if not isinstance(function, Mapping):
                raise BodyError(f"{where} is {one!r:.99}: it must have the type function, and a function", "tools")
            functions.append(Function.read(function, where))
        return read_choice(functions, choice, parallel=parallel, nested="function")


def read_choice(
    functions: Sequence[Function], choice: object, *, parallel: bool, nested: str | None = None
) -> Tools | None:
    """The tools of a request, with a `tool_choice` in OpenAI's words.

    Args:
        functions: those that were given.
        choice: none, auto, required, an object that names a function, or one with the type allowed_tools.
        parallel: whether several calls may come in one answer.
        nested: the name of the field of such objects that holds the name, None if they do.

    Raises:
        BodyError: it is none of them, or names what is not there.
    """
    only = None
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = choice if nested is None else choice.get("allowed_tools")
        names = [
            _named(one, nested) for one in (allowed.get("tools") or [] if isinstance(allowed, Mapping) else [])
        ]  # fmt: skip
        missing = [name for name in names if name not in [one.name for one in functions]]
        if not names or missing or not isinstance(allowed, Mapping):
            raise BodyError(f"tool_choice is {dict(choice)!r:.200}: it must allow functions among tools", "tool_choice")
        functions = [one for one in functions if one.name in names]
        choice = allowed.get("mode", "auto")
    elif isinstance(choice, Mapping) and choice.get("type") == "function":
        only, choice = _named(choice, nested), "required"
    if choice not in ("auto", "none", "required"):
        raise BodyError(
            f"tool_choice is {choice!r:.99}: it must be none, auto, required, or name a function", "tool_choice"
        )
    if only is not None and not functions:
        raise BodyError(f"tool_choice is {only!r:.99}, but there are no tools: give some", "tool_choice")
    if not functions and choice != "required":
        return None
    return Tools(tuple(functions), choice, only, parallel)


def _named(one: object, nested: str | None) -> str:
    """The name in an object that names a function."""
    holder = one.get(nested) if nested is not None and isinstance(one, Mapping) else one
    return str(holder.get("name")) if isinstance(holder, Mapping) else ""


def _read_chat(fields: _Fields) -> ChatBody:
    messages = fields.take("messages", list, "a list of messages")
    if not messages:
        raise BodyError("messages must be a list of at least one message", "messages")
    tools = fields.tools()
    fields.only("modalities", [["text"]], "the answer is text")
    fields.only("add_generation_prompt", [True], "the answer is a turn of its own")
    template = dict(fields.take("chat_template_kwargs", Mapping, "an object of template variables", {}))
    reserved = template.keys() & {"self", "messages", "add_generation_prompt"}
    if reserved:
        raise BodyError(
            f"chat_template_kwargs has {min(reserved)!r}, which the template gets anyway: leave it out",
            "chat_template_kwargs",
        )
    thinking = fields.take("enable_thinking", bool, "true or false")
    effort = fields.take("reasoning_effort", str, "a string")
    longest = fields.take("max_completion_tokens", int, "an integer")
    sampling = fields.sampling()
    if longest is not None:
        sampling["max_tokens"] = longest
    if effort is not None:
        template |= read_effort(effort, "reasoning_effort", sampling)
    if thinking is not None:
        template["enable_thinking"] = thinking and template.get("enable_thinking", True)
    if tools is not None:
        tools.hold(sampling)
    wanted = fields.flag("logprobs")
    top = fields.take("top_logprobs", int, "an integer")
    if top is not None and not wanted:
        raise BodyError(f"top_logprobs is {top}: it needs logprobs to be true", "top_logprobs")
    if wanted:
        sampling["logprobs"] = top or 0
    return ChatBody(sampling, **fields.common(), messages=messages, template=template, tools=tools)


def _read_completion(fields: _Fields) -> CompletionBody:
    prompt = fields.take("prompt", (str, list), "text, token ids, or a list of those")
    if not prompt:
        raise BodyError("prompt must be text, token ids, or a list of those, not empty", "prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    texts = prompt if several else [prompt]
    for one in texts:
        if not one or not isinstance(one, str | list):
            raise BodyError(f"prompt has {one!r:.99}: each must be text or token ids, not empty", "prompt")
    fields.only("suffix", [""], "text can only be continued at its end")
    echo = fields.flag("echo")
    best = fields.take("best_of", int, "an integer")
    logprobs = fields.take("logprobs", int, "an integer")
    sampling = fields.sampling()
    if best is not None and best != sampling.get("n", 1):
        raise BodyError(f"best_of is {best}: all n completions are given, so it must be n", "best_of")
    if logprobs is not None:
        if echo:
            raise BodyError("echo cannot be with logprobs: those of the prompt are not computed", "echo")
        sampling["logprobs"] = logprobs
    return CompletionBody(sampling, **fields.common(), texts=texts, echo=echo)


def _token_id(token: str) -> int | str:
    """JSON's keys are strings; what is no number is left for `SamplingParams` to refuse."""
    return int(token) if token.isascii() and token.isdigit() else token


def chat_response(
    output: RequestOutput, tokenizer: Tokenizer, model: str, *, top_logprobs: int = 0, tools: Tools | None = None
) -> Json:
    """The body of an answered chat.

    Args:
        output: finished, without an error.
        tokenizer: of the model.
        model: the name to be given.
        top_logprobs: how many alternatives for each token, if log-probabilities were asked for.
        tools: what the model might call.
    """
    choices = []
    for one in output.outputs:
        content = None
        if one.logprobs is not None:
            content = {"content": chat_logprobs(one.token_ids, one.logprobs, tokenizer, top_logprobs)}
        parts = parts_of(one, tools)
        text = "".join(part.text for part in parts if part.kind == "answer")
        calls = [tool_call(part) for part in parts if part.kind == "call"]
        message: Json = {"role": "assistant", "content": None if calls and not text else text, "refusal": None}
        if one.reasoning:
            message["reasoning_content"] = one.reasoning
        if calls:
            message["tool_calls"] = calls
        reason = finish_reason(one.finish_reason, called=bool(calls))
        choices.append({"index": one.index, "message": message, "logprobs": content, "finish_reason": reason})
    return _response("chatcmpl", "chat.completion", model, choices, [output])


def finish_reason(reason: str | None, *, called: bool) -> str | None:
    """Why a choice of a chat ended, in OpenAI's words.

    Args:
        reason: in the engine's.
        called: whether the model called a function.
    """
    return "tool_calls" if called and reason == "stop" else reason


def tool_call(part: Part) -> Json:
    """A call as OpenAI's messages have it."""
    return {"id": f"call_{part.id}", "type": "function", "function": {"name": part.name, "arguments": part.text}}


def completion_response(
    outputs: Sequence[RequestOutput], tokenizer: Tokenizer, model: str, *, echo: bool = False
) -> Json:
    """The body of completed prompts: n choices for the first, then those for the next.

    Args:
        outputs: one for each prompt, finished, without an error.
        tokenizer: of the model.
        model: the name to be given.
        echo: put the prompt before each text.
    """
    choices: list[Json] = []
    for output in outputs:
        before = ""
        if echo:
            before = output.prompt if output.prompt is not None else tokenizer.decode(output.prompt_token_ids)
        for one in output.outputs:
            logprobs = None
            if one.logprobs is not None:
                logprobs = completion_logprobs(one.token_ids, one.logprobs, tokenizer)
            choices.append(
                {
                    "index": len(choices),
                    "text": before + one.text,
                    "logprobs": logprobs,
                    "finish_reason": one.finish_reason,
                }
            )
    return _response("cmpl", "text_completion", model, choices, outputs)


def _response(prefix: str, kind: str, model: str, choices: list[Json], outputs: Sequence[RequestOutput]) -> Json:
    return {**envelope(prefix, kind, model), "choices": choices, "usage": usage(outputs)}


def envelope(prefix: str, kind: str, model: str) -> Json:
    """What every answer begins with.

    Args:
        prefix: of its id.
        kind: the `object` that it is.
        model: the name to be given.
    """
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def usage(outputs: Sequence[RequestOutput]) -> Json:
    """The tokens that some prompts and their completions came to, so far."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    completions = [one for output in outputs for one in output.outputs]
    generated = sum(len(one.token_ids) for one in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": sum(output.cached_tokens or 0 for output in outputs)},
        "completion_tokens_details": {"reasoning_tokens": sum(one.reasoning_tokens for one in completions)},
    }


def chat_logprobs(
    tokens: Sequence[int], entries: Sequence[Mapping[int, Logprob]], tokenizer: Tokenizer, most: int
) -> list[Json]:
    """Log-probabilities as chats have them.

    Args:
        tokens: of a completion, some or all.
        entries: of each token, as in `CompletionOutput.logprobs`.
        tokenizer: of the model.
        most: how many alternatives for each token.
    """

    def entry(token: int, found: Logprob) -> Json:
        spelled = tokenizer.token_bytes(token)
        return {"token": found.decoded_token, "logprob": found.logprob, "bytes": list(spelled)}

    return [
        entry(token, found[token])
        | {"top_logprobs": [entry(other, of_it) for other, of_it in _likeliest(found)[:most]]}
        for token, found in zip(tokens, entries, strict=True)
    ]


def _likeliest(found: Mapping[int, Logprob]) -> list[tuple[int, Logprob]]:
    return sorted(found.items(), key=lambda entry: entry[1].rank)


def completion_logprobs(
    tokens: Sequence[int], entries: Sequence[Mapping[int, Logprob]], tokenizer: Tokenizer, place: int = 0
) -> Json:
    """Log-probabilities as completions have them.

    Args:
        tokens: of a completion, some or all.
        entries: of each token, as in `CompletionOutput.logprobs`.
        tokenizer: of the model.
        place: characters of the completion before the first of the tokens.
    """
    texts = [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
    offsets = []
    for text in texts:
        offsets.append(place)
        place += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [found[token].logprob for token, found in zip(tokens, entries, strict=True)],
        "top_logprobs": [
            {of_it.decoded_token or "": of_it.logprob for _, of_it in _likeliest(found)} for found in entries
        ],
        "text_offset": offsets,
    }


def status_of(error: Exception) -> int:
    """The HTTP status of what went wrong: 400 for what a request asks for, 500 for what is not its doing."""
    if isinstance(error, NotFoundError):
        return 404
    # The base class itself is raised for numbers that overflow, and for our mistakes.
    return 400 if isinstance(error, SambaYError) and type(error) is not SambaYError else 500


def error_body(error: Exception, status: int) -> Json:
    """What went wrong, as OpenAI's clients read it.

    Args:
        error: whose text is one sentence.
        status: the HTTP status that goes with it.
    """
    code = getattr(error, "code", None)
    if isinstance(error, ContextError | ModelNotFoundError):
        code = "context_length_exceeded" if isinstance(error, ContextError) else "model_not_found"
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": getattr(error, "param", None), "code": code}}
