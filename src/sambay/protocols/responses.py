"""OpenAI's responses: bodies read, events and the response written, and what was answered kept for the next turn.

The input's items become the messages of a chat; what is asked of it beyond that is refused: files, images, tools that
run on the server, truncation, answers in the background. Thinking is an item of the output with its whole text as
`reasoning_text`; summaries of it are not made, and thinking that a client sends back is not shown to the model again.

A response is kept for `previous_response_id` unless `store` is false: the last thousand, in 64 MiB at most, in memory
only. As at OpenAI, `instructions` are those of one response and do not go over to the next.

Source: OpenAI's API reference and the types of its client.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sambay.engine import RequestOutput, SamplingParams, StreamEvent
from sambay.errors import BodyError, NotFoundError
from sambay.protocols.body import ChatBody, Fields, Json, read_effort, read_format
from sambay.protocols.openai import chat_logprobs, read_choice
from sambay.protocols.tools import Function, Part, TurnReader
from sambay.recent import Recent
from sambay.tokenizer import Tokenizer

__all__ = ["RESPONSES", "ResponseBody", "ResponseEvents", "Responses", "read_response"]

RESPONSES = "/v1/responses"

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
    "stop", "min_tokens", "max_thinking_tokens",
)  # fmt: skip
"""Fields that are those of `SamplingParams`; most of them are not OpenAI's, but every other protocol has them."""

_WITHOUT_EFFECT = (
    "user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "max_tool_calls",
    "stream_options", "prompt_cache_options",
)  # fmt: skip

_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True)
class ResponseBody(ChatBody):
    """A response to be given.

    Attributes:
        items: the input of this turn, as it is given back.
        conversation: the messages, without the instructions, for the next turn.
        store: whether the response is kept.
        echo: fields of the body that the response repeats.
    """

    items: Sequence[Json] = ()
    conversation: Sequence[Json] = ()
    store: bool = True
    echo: Json = field(default_factory=dict)


def read_response(raw: object, earlier: Callable[[str], Sequence[Json]]) -> ResponseBody:
    """Read what was sent.

    Args:
        raw: from JSON.
        earlier: the conversation that ended with the response of an id.

    Raises:
        BodyError: a field is missing, not known, of the wrong type, or cannot be done.
        NotFoundError: from `earlier`.
    """
    fields = Fields(raw, _WITHOUT_EFFECT)
    given = fields.take("input", (str, list), "text, or a list of items")
    if not given:
        raise BodyError("input must be text, or a list of at least one item, not empty", "input")
    items = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    instructions = fields.take("instructions", str, "text")
    previous = fields.take("previous_response_id", str, "the id of a response")
    new = _messages(items)
    if not new:
        raise BodyError("input has no message: give at least one", "input")
    conversation = [*(earlier(previous) if previous else ()), *new]
    messages = [{"role": "system", "content": instructions}] if instructions else []
    fields.only("truncation", ["disabled"], "a prompt that is too long is refused, and not cut")
    fields.only("background", [False], "a response is given at once")
    for name in ("conversation", "prompt"):
        fields.only(name, [None], "it is not kept here: give input, and previous_response_id")
    sampling = fields.given(_SAMPLING)
    longest = fields.take("max_output_tokens", int, "an integer")
    if longest is not None:
        sampling["max_tokens"] = longest
    reasoning = fields.take("reasoning", Mapping, 'an object, such as {"effort": "low"}', {})
    effort = reasoning.get("effort")
    template = {} if effort is None else read_effort(str(effort), "reasoning.effort", sampling)
    text = fields.take("text", Mapping, "an object with a format", {})
    format_ = text.get("format") or {"type": "text"}
    if not isinstance(format_, Mapping):
        raise BodyError(f"text.format is {format_!r:.99}: it must be an object with a type", "text.format")
    structure = read_format(format_, "text.format")
    tools_given = fields.take("tools", list, "a list of tools", [])
    choice = fields.take("tool_choice", (str, Mapping), "none, auto, required, or a function", "auto")
    parallel = fields.flag("parallel_tool_calls", True)
    functions = []
    for index, one in enumerate(tools_given):
        if not isinstance(one, Mapping) or one.get("type") != "function":
            raise BodyError(f"tools[{index}] is {one!r:.99}: it must have the type function", "tools")
        functions.append(Function.read(one, f"tools[{index}]"))
    tools = read_choice(functions, choice, parallel=parallel)
    if structure is not None:
        sampling["structured_outputs"] = structure
    if tools is not None:
        tools.hold(sampling)
    include = fields.take("include", list, "a list of names", [])
    top = fields.take("top_logprobs", int, "an integer")
    if _LOGPROBS in include or top:
        sampling["logprobs"] = top or 0
    store = fields.flag("store", True)
    metadata = fields.take("metadata", Mapping, "an object", {})
    model, stream = fields.take("model", str, "the name of a model"), fields.flag("stream")
    fields.refuse_the_rest()
    echo = {
        "instructions": instructions, "max_output_tokens": longest, "metadata": metadata,
        "parallel_tool_calls": parallel, "previous_response_id": previous, "store": store,
        "reasoning": {"effort": effort, "summary": None}, "text": {"format": format_}, "tool_choice": choice,
        "tools": tools_given, "top_logprobs": top or 0,
    }  # fmt: skip
    return ResponseBody(
        sampling, model, stream, messages=[*messages, *conversation], template=template, tools=tools,
        items=items, conversation=conversation, store=store, echo=echo,
    )  # fmt: skip


def _messages(items: Sequence[object]) -> list[Json]:
    """The messages of a chat that items are; a run of calls is one message of the assistant."""
    messages: list[Json] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type", "message") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping):
            raise BodyError(f"{where} is {item!r:.99}: it must be an item, such as a message", "input")
        if kind == "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"), where)})
        elif kind == "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            calls = messages[-1].setdefault("tool_calls", [])
            calls.append({"id": item.get("call_id"), "type": "function", "function": call})
        elif kind == "function_call_output":
            content = _content(item.get("output"), where)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind != "reasoning":
            raise BodyError(
                f"{where} has the type {kind!r:.99}: it must be message, function_call, function_call_output or "
                "reasoning",
                "input",
            )
    return messages


def _content(content: object, where: str) -> object:
    """A content with its parts as a chat has them."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or kind not in ("input_text", "output_text", "text", "refusal"):
            raise BodyError(f"{where} has a part {part!r:.99}: only text can be read", "input")
        parts.append({"type": "text", "text": part.get("refusal" if kind == "refusal" else "text")})
    return parts


class ResponseEvents:
    """The events of one response, and the response itself as it grows.

    Args:
        body: what was asked.
        model: the name to be given.
        params: what it came to.
        tokenizer: of the model.
    """

    def __init__(self, body: ResponseBody, model: str, params: SamplingParams, tokenizer: Tokenizer) -> None:
        self._body, self._tokenizer, self._top = body, tokenizer, params.logprobs or 0
        self.response: Json = {
            "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()),
            "status": "in_progress", "background": False, "error": None, "incomplete_details": None, "model": model,
            "output": [], "service_tier": "default", "temperature": params.temperature, "top_p": params.top_p,
            "truncation": "disabled", "usage": None, "user": None, **body.echo,
        }  # fmt: skip
        self._turn = TurnReader(body.tools)
        self._sequence = 0
        self._open: Json | None = None
        self._seen = 0
        self._pending: list[Json] = []

    def begin(self) -> list[Json]:
        """The events before all others."""
        return [self._whole("response.created"), self._whole("response.in_progress")]

    def push(self, event: StreamEvent) -> list[Json]:
        """The events of one token, often one, sometimes none."""
        self._note(event)
        out: list[Json] = []
        for part in self._turn.push(event):
            out += self._call(part) if part.kind == "call" else self._text(part)
        return out

    def end(self, output: RequestOutput) -> list[Json]:
        """The events after the last token.

        Args:
            output: finished, without an error.
        """
        one = output.outputs[0]
        whole = one.finish_reason == "stop"
        out = self._close("completed" if whole else "incomplete")
        self.response["status"] = "completed" if whole else "incomplete"
        if not whole:
            reason = "max_output_tokens" if one.finish_reason == "length" else one.finish_reason
            self.response["incomplete_details"] = {"reason": reason}
        self.response["completed_at"] = int(time.time())
        prompt, generated = len(output.prompt_token_ids), len(one.token_ids)
        self.response["usage"] = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": output.cached_tokens or 0, "cache_write_tokens": 0},
            "output_tokens": generated,
            "output_tokens_details": {"reasoning_tokens": one.reasoning_tokens},
            "total_tokens": prompt + generated,
        }
        return [*out, self._whole(f"response.{self.response['status']}")]

    def fail(self, message: str) -> list[Json]:
        """The events with which it ends where something went wrong.

        Args:
            message: one sentence.
        """
        out = self._close("incomplete")
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        return [*out, self._whole("response.failed")]

    def _event(self, kind: str, **fields: object) -> Json:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}

    def _whole(self, kind: str) -> Json:
        return self._event(kind, response={**self.response, "output": [*self.response["output"]]})

    def _note(self, event: StreamEvent) -> None:
        """Keep the log-probabilities of a token, which may give no text yet."""
        found = event.output.outputs[event.index].logprobs
        if found is not None:
            self._pending += chat_logprobs([event.token_id], [found[self._seen]], self._tokenizer, self._top)
        self._seen += 1

    @property
    def _place(self) -> Json:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self.response["output"])}

    def _begin(self, item: Json) -> list[Json]:
        out = self._close("completed")
        self._open = item
        return [
            *out,
            self._event("response.output_item.added", output_index=self._place["output_index"], item={**item}),
        ]

    def _text(self, part: Part) -> list[Json]:
        out: list[Json] = []
        kind = "reasoning" if part.kind == "reasoning" else "message"
        if self._open is None or self._open["type"] != kind:
            out += self._begin(_reasoning() if kind == "reasoning" else _message())
            assert self._open is not None
            empty = _part(kind)
            out.append(self._event("response.content_part.added", **self._place, content_index=0, part=empty))
            self._open["content"] = [_part(kind)]
        assert self._open is not None
        content = self._open["content"][0]
        content["text"] += part.text
        logprobs, self._pending = self._pending, []
        if kind == "reasoning":
            delta = self._event("response.reasoning_text.delta", **self._place, content_index=0, delta=part.text)
        else:
            content["logprobs"] += logprobs
            delta = self._event(
                "response.output_text.delta", **self._place, content_index=0, delta=part.text, logprobs=logprobs
            )
        return [*out, delta]

    def _call(self, part: Part) -> list[Json]:
        out = self._begin(
            {"id": f"fc_{part.id}", "type": "function_call", "status": "in_progress", "call_id": f"call_{part.id}",
             "name": part.name, "arguments": ""}
        )  # fmt: skip
        assert self._open is not None
        self._open["arguments"] = part.text
        kind = "response.function_call_arguments"
        out.append(self._event(f"{kind}.delta", **self._place, delta=part.text))
        out.append(self._event(f"{kind}.done", **self._place, name=part.name, arguments=part.text))
        return out + self._close("completed")

    def _close(self, status: str) -> list[Json]:
        """The item that is open is done."""
        if self._open is None:
            return []
        item, place = self._open, self._place
        out: list[Json] = []
        if item["type"] != "function_call":
            content = item["content"][0]
            kind, more = ("output_text", {"logprobs": content["logprobs"]}) if "logprobs" in content else (
                "reasoning_text", {}
            )  # fmt: skip
            out.append(self._event(f"response.{kind}.done", **place, content_index=0, text=content["text"], **more))
            out.append(self._event("response.content_part.done", **place, content_index=0, part=content))
        item["status"] = status
        out.append(self._event("response.output_item.done", output_index=place["output_index"], item=item))
        self.response["output"].append(item)
        self._open = None
        return out


def _reasoning() -> Json:
    return {"id": f"rs_{uuid.uuid4().hex}", "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}


def _message() -> Json:
    id_ = f"msg_{uuid.uuid4().hex}"
    return {"id": id_, "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def _part(kind: str) -> Json:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


class Responses:
    """The responses that are kept, the least recently used of them going first; for any thread.

    They are kept as text: Python's objects would take up to twelve times the memory.

    Args:
        most: how many.
        most_bytes: of their JSON together, each with its whole conversation.
    """

    def __init__(self, most: int = 1000, most_bytes: int = 64 << 20) -> None:
        self._kept: Recent[str, str] = Recent(most, most_bytes)

    def keep(self, body: ResponseBody, response: Json) -> None:
        """Keep a response that has ended, if it is to be kept."""
        if not body.store:
            return
        conversation = [*body.conversation, *_messages(response["output"])]
        text = json.dumps({"response": response, "items": body.items, "conversation": conversation})
        self._kept.keep(response["id"], text, len(text))

    def response(self, id_: str) -> Json:
        """The response.

        Raises:
            NotFoundError: it is not kept.
        """
        found: Json = self._find(id_, "response")
        return found

    def conversation(self, id_: str) -> Sequence[Json]:
        """The messages up to and with a response, but for its instructions.

        Raises:
            NotFoundError: it is not kept.
        """
        found: Sequence[Json] = self._find(id_, "conversation")
        return found

    def items(self, id_: str) -> Sequence[Json]:
        """The input of a response.

        Raises:
            NotFoundError: it is not kept.
        """
        found: Sequence[Json] = self._find(id_, "items")
        return found

    def delete(self, id_: str) -> None:
        """Forget a response.

        Raises:
            NotFoundError: it is not kept.
        """
        if not self._kept.drop(id_):
            raise _not_found(id_)

    def _find(self, id_: str, part: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
        text = self._kept.find(id_)
        if text is None:
            raise _not_found(id_)
        return json.loads(text)[part]


def _not_found(id_: str) -> NotFoundError:
    return NotFoundError(
        f"there is no response {id_!r:.99} here: it was not stored, or deleted, or has made room for others"
    )
