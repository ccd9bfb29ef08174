"""Anthropic's messages: bodies read, messages and the events of a stream written.

Content is text, thinking, uses of tools and their results; images and documents are refused, and so are tools that run
on the server. Thinking that a client sends back is not shown to the model again. What `thinking` says: enabled bounds
the thinking to `budget_tokens`, disabled leaves it out, adaptive or nothing leaves it to the model (other than at
Anthropic, where nothing means no thinking: our models are made for thinking). Its `signature` is empty, as nobody
checks it. Of the usage, `input_tokens` were computed and `cache_read_input_tokens` were not.

Source: Anthropic's API reference and the types of its client.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sambay.engine import CompletionOutput, RequestOutput, StreamEvent
from sambay.errors import BodyError
from sambay.protocols.body import ChatBody, Fields, Json, read_effort, read_format
from sambay.protocols.tools import Function, Part, Tools, TurnReader, parts_of

__all__ = ["COUNT_TOKENS", "MESSAGES", "MessageEvents", "error_body", "message_response", "read_count", "read_messages"]

MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"

_SAMPLING = ("temperature", "top_p", "top_k")
_WITHOUT_EFFECT = (
    "metadata", "service_tier", "cache_control", "inference_geo", "speed", "diagnostics", "betas", "context_management",
)  # fmt: skip

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip

_STOP = {"stop": "end_turn", "length": "max_tokens"}


def read_messages(raw: object) -> ChatBody:
    """Read what was sent to `MESSAGES`.

    Raises:
        BodyError: a field is missing, not known, of the wrong type, or cannot be done.
    """
    fields = Fields(raw, _WITHOUT_EFFECT)
    longest = fields.take("max_tokens", int, "an integer")
    if longest is None:
        raise BodyError("max_tokens is missing: it says how many tokens the answer may have", "max_tokens")
    sampling = {**fields.given(_SAMPLING), "max_tokens": longest}
    stops = fields.take("stop_sequences", list, "a list of strings")
    if stops:
        sampling["stop"] = stops
    model, stream = fields.take("model", str, "the name of a model"), fields.flag("stream")
    body = _read(fields, sampling)
    fields.refuse_the_rest()
    return ChatBody(sampling, model, stream, messages=body.messages, template=body.template, tools=body.tools)


def read_count(raw: object) -> ChatBody:
    """Read what was sent to `COUNT_TOKENS`.

    Raises:
        BodyError: as `read_messages`.
    """
    fields = Fields(raw, _WITHOUT_EFFECT)
    model = fields.take("model", str, "the name of a model")
    body = _read(fields, {})
    fields.refuse_the_rest()
    return ChatBody(model=model, messages=body.messages, template=body.template, tools=body.tools)


def _read(fields: Fields, sampling: Json) -> ChatBody:
    """What a prompt is made of; what bounds the thinking and the answer goes into `sampling`."""
    messages = _messages(fields)
    template = _thinking(fields, sampling)
    output = fields.take("output_config", Mapping, 'an object, such as {"effort": "low"}', {})
    effort, format_ = output.get("effort"), output.get("format")
    if effort is not None:
        template = read_effort(str(effort), "output_config.effort", sampling) | template
    if not isinstance(format_, Mapping | None):
        raise BodyError(f"output_config.format is {format_!r:.99}: it must be an object with a type", "output_config")
    tools = _tools(fields)
    structure = None if format_ is None else read_format(format_, "output_config.format")
    if structure is not None:
        sampling["structured_outputs"] = structure
    if tools is not None:
        tools.hold(sampling)
    return ChatBody(messages=messages, template=template, tools=tools)


def _thinking(fields: Fields, sampling: Json) -> Json:
    thinking = fields.take("thinking", Mapping, 'an object, such as {"type": "disabled"}', {"type": "adaptive"})
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind == "adaptive":
        return {}
    if kind == "disabled":
        return {"enable_thinking": False}
    longest = sampling.get("max_tokens")
    if kind != "enabled":
        raise BodyError(f"thinking.type is {kind!r:.99}: it must be enabled, disabled or adaptive", "thinking")
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise BodyError(f"thinking.budget_tokens is {budget!r:.99}: it must be an integer, 1 or more", "thinking")
    if longest is not None and budget >= longest:
        raise BodyError(f"thinking.budget_tokens is {budget}: it must be below max_tokens, {longest}", "thinking")
    sampling["max_thinking_tokens"] = budget
    return {"enable_thinking": True}


def _tools(fields: Fields) -> Tools | None:
    given = fields.take("tools", list, "a list of tools", [])
    choice = fields.take("tool_choice", Mapping, 'an object, such as {"type": "auto"}', {"type": "auto"})
    functions = []
    for index, one in enumerate(given):
        if not isinstance(one, Mapping) or one.get("type", "custom") not in ("custom", None):
            raise BodyError(f"tools[{index}] is {one!r:.99}: it must be a tool of your own, not the server's", "tools")
        functions.append(Function.read(one, f"tools[{index}]", "input_schema"))
    kind, parallel = choice.get("type"), not choice.get("disable_parallel_tool_use", False)
    if kind not in ("auto", "none", "any", "tool"):
        raise BodyError(f"tool_choice.type is {kind!r:.99}: it must be auto, any, tool or none", "tool_choice")
    if kind in ("auto", "none") and not functions:
        return None
    only = str(choice.get("name")) if kind == "tool" else None
    return Tools(tuple(functions), kind if kind in ("auto", "none") else "required", only, parallel)


def _messages(fields: Fields) -> list[Json]:
    """The messages of a chat."""
    system = fields.take("system", (str, list), "text, or a list of blocks of text")
    given = fields.take("messages", list, "a list of messages")
    if not given:
        raise BodyError("messages must be a list of at least one message", "messages")
    messages: list[Json] = []
    if system:
        messages.append({"role": "system", "content": _texts(system, "system")})
    for index, message in enumerate(given):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(message, Mapping) or role not in ("user", "assistant", "system"):
            raise BodyError(f"{where} is {message!r:.99}: it must have the role user, assistant or system", "messages")
        content = message.get("content")
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        elif isinstance(content, list) and content:
            messages += _from_blocks(role, content, where)
        else:
            raise BodyError(f"{where} has the content {content!r:.99}: it must be text, or blocks", "messages")
    if messages[-1]["role"] == "assistant":
        raise BodyError(
            "the last message is the assistant's: an answer cannot be begun for it, end with a user's", None
        )
    return messages


def _from_blocks(role: str, blocks: Sequence[object], where: str) -> list[Json]:
    """The messages that the blocks of one are: results of tools come first."""
    texts, calls, results = [], [], []
    for index, block in enumerate(blocks):
        place = f"{where}.content[{index}]"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping):
            raise BodyError(f"{place} is {block!r:.99}: it must be a block with a type", "messages")
        if kind == "text":
            texts.append(_texts([block], place))
        elif kind == "tool_use" and role == "assistant":
            function = {"name": block.get("name"), "arguments": block.get("input") or {}}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result" and role == "user":
            content = _texts(block.get("content") or "", place)
            text = f"error: {content}" if block.get("is_error") else content
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
        elif kind not in ("thinking", "redacted_thinking"):
            raise BodyError(f"{place} has the type {kind!r:.99}: only text, thinking and tools can be read", "messages")
    if not texts and not calls:
        return results or [{"role": role, "content": ""}]
    spoken: Json = {"role": role, "content": "\n".join(texts)}
    return [*results, spoken | ({"tool_calls": calls} if calls else {})]


def _texts(content: object, where: str) -> str:
    """The text of a content that is text, or blocks of text."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts: list[str] = []
    for block in blocks if isinstance(blocks, list) else [blocks]:
        text = block.get("text") if isinstance(block, Mapping) and block.get("type") == "text" else None
        if not isinstance(text, str):
            raise BodyError(f"{where} has {block!r:.99}: only text can be read", where.partition("[")[0])
        texts.append(text)
    return "\n".join(texts)


def message_response(output: RequestOutput, model: str, tools: Tools | None) -> Json:
    """The message that answers.

    Args:
        output: finished, without an error.
        model: the name to be given.
        tools: what the model might call.
    """
    one = output.outputs[0]
    parts = parts_of(one, tools)
    content: list[Json] = []
    for part in parts:
        if part.kind == "call":
            content.append(_block(part) | {"input": json.loads(part.text)})
        else:
            content.append(_block(part) | {"thinking" if part.kind == "reasoning" else "text": part.text})
    called = any(part.kind == "call" for part in parts)
    return _message(model, content, _usage(output)) | _ending(one, called)


class MessageEvents:
    """The events of a message that is streamed, each with its name as `type`.

    Args:
        model: the name to be given.
        prompt_tokens: tokens of the prompt.
        tools: what the model may call.
    """

    def __init__(self, model: str, prompt_tokens: int, tools: Tools | None) -> None:
        self._model, self._prompt_tokens = model, prompt_tokens
        self._turn = TurnReader(tools)
        self._index, self._kind = -1, ""

    def begin(self) -> list[Json]:
        """The events before all others."""
        usage = {"input_tokens": self._prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return [{"type": "message_start", "message": _message(self._model, [], usage | {"output_tokens": 0})}]

    def push(self, event: StreamEvent) -> list[Json]:
        """The events of one token, often one, sometimes none."""
        out: list[Json] = []
        for part in self._turn.push(event):
            if part.kind != self._kind or part.kind == "call":
                out += self._stop()
                self._index, self._kind = self._index + 1, part.kind
                out.append({"type": "content_block_start", "index": self._index, "content_block": _block(part)})
            out.append({"type": "content_block_delta", "index": self._index, "delta": _delta(part)})
        return out

    def end(self, output: RequestOutput) -> list[Json]:
        """The events after the last token.

        Args:
            output: finished, without an error.
        """
        ending = _ending(output.outputs[0], self._turn.called)
        return [
            *self._stop(),
            {"type": "message_delta", "delta": ending, "usage": _usage(output)},
            {"type": "message_stop"},
        ]

    def _stop(self) -> list[Json]:
        return [{"type": "content_block_stop", "index": self._index}] if self._index >= 0 else []


def _message(model: str, content: list[Json], usage: Json) -> Json:
    return {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _block(part: Part) -> Json:
    """A block that is still empty."""
    if part.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    if part.kind == "answer":
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": f"toolu_{part.id}", "name": part.name, "input": {}}


def _delta(part: Part) -> Json:
    if part.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": part.text}
    if part.kind == "answer":
        return {"type": "text_delta", "text": part.text}
    return {"type": "input_json_delta", "partial_json": part.text}


def _ending(one: CompletionOutput, called: bool) -> Json:
    """Why it ended."""
    reason = _STOP.get(str(one.finish_reason), "max_tokens")
    sequence = one.stop_reason if isinstance(one.stop_reason, str) else None
    if reason == "end_turn":
        reason = "tool_use" if called else "stop_sequence" if sequence is not None else reason
    return {"stop_reason": reason, "stop_sequence": sequence}


def _usage(output: RequestOutput) -> Json:
    cached = output.cached_tokens or 0
    return {
        "input_tokens": len(output.prompt_token_ids) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": sum(len(one.token_ids) for one in output.outputs),
    }


def error_body(error: Exception, status: int) -> dict[str, Any]:
    """What went wrong, as Anthropic's clients read it.

    Args:
        error: whose text is one sentence.
        status: the HTTP status that goes with it.
    """
    kind = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(error)}}
