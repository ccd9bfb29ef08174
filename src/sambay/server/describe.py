"""What the OpenAPI description says of bodies, which are read by `sambay.protocols` and not by FastAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "CHAT",
    "COMPLETION",
    "COUNT",
    "GENERATE",
    "MESSAGE",
    "MESSAGES",
    "OF_ANTHROPIC",
    "OF_OLLAMA",
    "OLLAMA_CHAT",
    "RESPONSE",
    "SAMPLING",
    "answers",
    "of_body",
]

Schema = dict[str, Any]

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string", "description": "One sentence: what is wrong, and what to do."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_FAILURES = {
    400: "The request cannot be done as it is.",
    401: "The API key is missing or wrong.",
    403: "The page or the name that it comes from is not allowed.",
    404: "There is no such model or path.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "Too many requests, or too many that wait: Retry-After says when to come again.",
    503: "The server is about to end.",
}


def answers(success: str, *, stream: bool = False, error: Schema = _ERROR) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route.

    Args:
        success: what status 200 means.
        stream: whether it may come as server-sent events.
        error: the schema of errors.
    """
    content: Schema = {"application/json": {"schema": {"type": "object"}}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failures: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": {"schema": error}}}
        for status, text in _FAILURES.items()
    }
    return {200: {"description": success, "content": content}, **failures}


def of_body(required: Mapping[str, Schema], optional: Mapping[str, Schema], *, closed: bool = True) -> Schema:
    """The `openapi_extra` of a route that reads a JSON object.

    Args:
        required: schemas of the fields that must be there.
        optional: schemas of the others.
        closed: whether any other field is refused.
    """
    schema: Schema = {"type": "object", "required": list(required), "properties": {**required, **optional}}
    if closed:
        schema["additionalProperties"] = False
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(least: float, most: float | None = None) -> Schema:
    bounds = {"minimum": least} | ({} if most is None else {"maximum": most})
    return _or_null({"type": "number", **bounds})


def _integer(least: int, most: int | None = None) -> Schema:
    bounds = {"minimum": least} | ({} if most is None else {"maximum": most})
    return _or_null({"type": "integer", **bounds})


_FLAG = _or_null({"type": "boolean"})
_TOKENS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_TEXTS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}

SAMPLING: dict[str, Schema] = {
    "model": _or_null({"type": "string", "description": "One of /v1/models; by default the first."}),
    "stream": _FLAG,
    "stream_options": _or_null({"type": "object", "properties": {"include_usage": {"type": "boolean"}}}),
    "n": _integer(1, 1024),
    "max_tokens": _integer(1),
    "min_tokens": _integer(0),
    "temperature": _number(0),
    "top_p": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    "top_k": _integer(-1),
    "min_p": _number(0, 1),
    "repetition_penalty": _or_null({"type": "number", "exclusiveMinimum": 0}),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": {"anyOf": [{"type": "string", "minLength": 1}, _TEXTS, {"type": "null"}]},
    "stop_token_ids": _or_null(_TOKENS),
    "allowed_token_ids": _or_null({**_TOKENS, "minItems": 1}),
    "bad_words": _or_null(_TEXTS),
    "logit_bias": _or_null({"type": "object", "additionalProperties": {"type": "number"}}),
    "ignore_eos": _FLAG,
    "include_stop_str_in_output": _FLAG,
    "skip_special_tokens": _FLAG,
    "max_thinking_tokens": _integer(0),
    "response_format": _or_null(
        {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"enum": ["text", "json_object", "json_schema"]},
                "json_schema": {"type": "object", "properties": {"schema": {"type": "object"}}},
            },
        }
    ),
    "structured_outputs": _or_null(
        {
            "type": "object",
            "minProperties": 1,
            "properties": {
                "json": {"type": ["object", "string"]},
                "regex": {"type": "string"},
                "choice": _TEXTS,
                "grammar": {"type": "string"},
                "json_object": {"type": "boolean"},
            },
        }
    ),
    "user": _or_null({"type": "string"}),
}
"""Fields that chats and completions share."""

_CONTENT: Schema = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            },
        },
    ]
}

MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"type": "string"}, "content": _CONTENT},
    },
}
"""A conversation."""

CHAT = of_body(
    {"messages": MESSAGES},
    {
        **SAMPLING,
        "max_completion_tokens": _integer(1),
        "logprobs": _FLAG,
        "top_logprobs": _integer(0, 1000),
        "reasoning_effort": _or_null({"type": "string"}),
        "enable_thinking": _FLAG,
        "chat_template_kwargs": _or_null({"type": "object"}),
        "tools": _or_null({"type": "array", "items": {"type": "object"}}),
        "tool_choice": {},
        "parallel_tool_calls": _FLAG,
    },
)
"""Of `/v1/chat/completions`."""

COMPLETION = of_body(
    {
        "prompt": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
                {**_TOKENS, "minItems": 1},
                {"type": "array", "minItems": 1, "items": {**_TOKENS, "minItems": 1}},
            ]
        }
    },
    {**SAMPLING, "logprobs": _integer(0, 1000), "echo": _FLAG, "best_of": _integer(1, 1024)},
)
"""Of `/v1/completions`."""

_OBJECT = _or_null({"type": "object"})
_OBJECTS = _or_null({"type": "array", "items": {"type": "object"}})
_TEXT = _or_null({"type": "string"})

RESPONSE = of_body(
    {"input": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}]}},
    {
        **{
            name: SAMPLING[name]
            for name in ("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
        },
        "instructions": _TEXT,
        "previous_response_id": _TEXT,
        "max_output_tokens": _integer(1),
        "max_thinking_tokens": _integer(0),
        "reasoning": _OBJECT,
        "text": _OBJECT,
        "tools": _OBJECTS,
        "tool_choice": {},
        "parallel_tool_calls": _FLAG,
        "include": _or_null({"type": "array", "items": {"type": "string"}}),
        "top_logprobs": _integer(0, 1000),
        "store": _FLAG,
        "metadata": _OBJECT,
    },
)
"""Of `/v1/responses`."""

OF_OLLAMA: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
"""Errors in Ollama's protocol."""

_OF_BOTH: dict[str, Schema] = {
    "model": SAMPLING["model"],
    "stream": _FLAG,
    "format": {"anyOf": [{"enum": ["", "json"]}, {"type": "object"}, {"type": "null"}]},
    "options": _OBJECT,
    "think": {"anyOf": [{"type": "boolean"}, {"type": "string"}, {"type": "null"}]},
    "keep_alive": {},
    "logprobs": _FLAG,
    "top_logprobs": _integer(0, 1000),
}

OLLAMA_CHAT = of_body({}, {**_OF_BOTH, "messages": _OBJECTS, "tools": _OBJECTS, "tool_choice": {}})
"""Of `/api/chat`."""

GENERATE = of_body({}, {**_OF_BOTH, "prompt": _TEXT, "system": _TEXT, "raw": _FLAG, "context": _or_null(_TOKENS)})
"""Of `/api/generate`."""

OF_ANTHROPIC: Schema = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
"""Errors in Anthropic's protocol."""

_PROMPT: dict[str, Schema] = {
    "model": SAMPLING["model"],
    "system": {"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}]},
    "thinking": _OBJECT,
    "output_config": _OBJECT,
    "tools": _OBJECTS,
    "tool_choice": _OBJECT,
}
_TURNS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["user", "assistant", "system"]}, "content": {"type": ["string", "array"]}},
    },
}

MESSAGE = of_body(
    {"messages": _TURNS, "max_tokens": {"type": "integer", "minimum": 1}},
    {
        **_PROMPT,
        "stream": _FLAG,
        "temperature": SAMPLING["temperature"],
        "top_p": SAMPLING["top_p"],
        "top_k": SAMPLING["top_k"],
        "stop_sequences": _or_null(_TEXTS),
        "metadata": _OBJECT,
    },
)
"""Of `/v1/messages`."""

COUNT = of_body({"messages": _TURNS}, _PROMPT)
"""Of `/v1/messages/count_tokens`."""
