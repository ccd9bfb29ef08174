"""Tools, for all protocols: how the model hears of functions, how it calls them, and how it hears what they gave.

The format is that of Phi-4-mini: a call is `<|tool_call|>[{"name": ..., "arguments": {...}}, ...]<|/tool_call|>`, one
object or a list of them; the closing tag may be missing where the text ends. A chat template that writes tools itself
(it uses the variable `tools`) is left to it, and calls between `<tool_call>` and `</tool_call>`, as many such templates
have them, are read, too. For any other template

- the functions stand at the end of the system message, as JSON between `<|tool|>` and `<|/tool|>`, below a sentence
  that says how to call them;
- calls of earlier turns stand in the assistant's text, in the format above;
- results are a user's message, each a line `<|tool_response|>{"name": ..., "content": ...}`.

A call is given as soon as it is whole, names a function of the request, and has arguments that fit its schema; all else
between the tags is text, so that nothing of what the model said is lost. With a `choice` of "required", or a function
named, the format is forced as a grammar, so that the call always comes and always fits.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

from sambay.engine import CompletionOutput, StreamEvent, StructuredOutputsParams
from sambay.engine.structure import whitespace_of
from sambay.errors import BodyError
from sambay.protocols.schema import misfit
from sambay.streaming import undecided_from
from sambay.tokenizer import Tokenizer

__all__ = ["CallParser", "Function", "Part", "Tools", "TurnReader", "parts_of", "write_conversation"]

_OPEN, _CLOSE = "<|tool_call|>", "<|/tool_call|>"
_TAGS = {_OPEN: _CLOSE, "<tool_call>": "</tool_call>"}
_OPENING = re.compile("|".join(map(re.escape, _TAGS)))

_MOST_FORCED = 16
"""Calls that a forced answer has at most, so that it comes to an end."""

_MOST_FUNCTIONS = 512

_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How forced arguments are spelled: as `json.dumps` does, so that they are the same tokens when the client sends them
back, and the cache knows them."""

_HOW = (
    "You may call functions. To call one or more of them, write\n"
    f'{_OPEN}[{{"name": "the function", "arguments": {{"parameter": "value"}}}}]{_CLOSE}\n'
    "and nothing after it; their results come next. Call none where you can answer without. The functions, with the "
    "JSON schemas of their arguments:"
)


@dataclass(frozen=True)
class Function:
    """A function that the model may call.

    Attributes:
        name: its name.
        description: what it does, for the model.
        parameters: a JSON schema of an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @classmethod
    def read(cls, given: Mapping[str, Any], where: str, schema: str = "parameters") -> Function:
        """From what a client sent.

        Args:
            given: with a name, perhaps a description, and the schema of its parameters.
            where: the place in the body, for errors.
            schema: the name of the schema's field.

        Raises:
            BodyError: one of them is of the wrong type.
        """
        name, description, parameters = given.get("name"), given.get("description"), given.get(schema)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,128}", name):
            raise BodyError(
                f"{where} has the name {name!r:.99}: it must be letters, digits, and _ - . (1 to 128)", where
            )
        if not isinstance(description, str | None):
            raise BodyError(f"{where} has the description {description!r:.99}: it must be text", where)
        if not isinstance(parameters, Mapping | None) or (parameters or {}).get("type", "object") != "object":
            raise BodyError(
                f"{where} has the {schema} {parameters!r:.99}: they must be a JSON schema of an object", where
            )
        return cls(name, description or "", {"type": "object", **(parameters or {"properties": {}})})

    def described(self) -> dict[str, Any]:
        """As Phi-4-mini's prompts describe it."""
        return {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}


@dataclass(frozen=True)
class Tools:
    """The functions of a request.

    Attributes:
        functions: at least one, no two of the same name.
        choice: whether the model may call ("auto"), must ("required"), or must not ("none").
        only: the name of the one function that it must call, where `choice` is "required".
        parallel: whether several calls may come in one answer.

    Raises:
        BodyError: too many of them, two of one name, or a choice that is not among them.
    """

    functions: tuple[Function, ...]
    choice: Literal["auto", "required", "none"] = "auto"
    only: str | None = None
    parallel: bool = True

    def __post_init__(self) -> None:
        names = [function.name for function in self.functions]
        if len(names) > _MOST_FUNCTIONS:
            raise BodyError(f"tools has {len(names)} functions: {_MOST_FUNCTIONS} at most", "tools")
        name, times = Counter(names).most_common(1)[0] if names else ("", 1)
        if times > 1:
            raise BodyError(f"tools has {times} functions by the name of {name!r}: give each its own", "tools")
        if self.choice == "required" and not names:
            raise BodyError("tool_choice asks for a call, but there are no tools: give some", "tool_choice")
        if self.only is not None and self.only not in names:
            raise BodyError(f"tool_choice is {self.only!r:.99}: it must be one of {', '.join(names)}", "tool_choice")

    @property
    def shown(self) -> tuple[Function, ...]:
        """The functions that the model is told of."""
        return () if self.choice == "none" else self.functions

    def hold(self, sampling: dict[str, Any]) -> None:
        """Put into fields of `SamplingParams` what calls need.

        Control tokens come as text, in case the tags are such; and where a call is required, or the answer has a
        structure, that is held to calls, or to calls or such an answer.

        Args:
            sampling: changed.

        Raises:
            BodyError: the structure of an answer cannot be an alternative to calls.
        """
        answer = sampling.get("structured_outputs")
        if self.shown:
            sampling.setdefault("skip_special_tokens", False)
        if self.shown and (self.choice == "required" or answer is not None):
            sampling["structured_outputs"] = self._structure(answer)

    def _structure(self, answer: StructuredOutputsParams | None) -> StructuredOutputsParams:
        called = [one for one in self.functions if self.only in (None, one.name)]
        rules, names = [], []
        for index, one in enumerate(called):
            begin = json.dumps(f'{{"name": {json.dumps(one.name, ensure_ascii=False)}, "arguments": ')
            schema = json.dumps({**one.parameters, "x-guidance": _STYLE})
            rules.append(f'call_{index}: {begin} arguments_{index} "}}"\narguments_{index}: %json {schema}')
            names.append(f"call_{index}")
        more = f' (", " call){{0,{_MOST_FORCED - 1}}}' if self.parallel and self.only is None else ""
        calls = f"calls: {json.dumps(f'{_OPEN}[')} call{more} {json.dumps(f']{_CLOSE}')}"
        start = "start: calls"
        if self.choice == "auto" and answer is not None:
            if answer.kind not in ("json", "json_object"):
                raise BodyError(
                    f"tools cannot be with structured_outputs of the kind {answer.kind}: give a JSON schema, or "
                    "tool_choice none",
                    "structured_outputs",
                )
            wanted = {"type": "object"} if answer.json is None else answer.json
            wanted = _read_schema(wanted) if isinstance(wanted, str) else wanted
            start += f" | answer\nanswer: %json {json.dumps({**wanted, 'x-guidance': whitespace_of(answer)})}"
        return StructuredOutputsParams(grammar="\n".join([start, calls, f"call: {' | '.join(names)}", *rules]))


class Part(NamedTuple):
    """A part of what the model said.

    Attributes:
        kind: what it is.
        text: of a call, its arguments as JSON.
        name: of a call, the function's.
        id: of a call, 24 hexadecimal digits that no other call has.
    """

    kind: Literal["reasoning", "answer", "call"]
    text: str
    name: str = ""
    id: str = ""


class CallParser:
    """Finds the calls in the text of an answer, however it is cut.

    White space next to a call is dropped. Of several calls the first is given if only one may come.

    Args:
        tools: those of the request; None, or none that the model was told of, has all text be text.
    """

    def __init__(self, tools: Tools | None) -> None:
        self._functions = {one.name: one for one in (tools.shown if tools else ())}
        self._parallel = tools is None or tools.parallel
        self._held = ""
        self._space = ""
        self._close: str | None = None  # the closing tag, once the opening one has come
        self._raw = ""  # what has been read behind the opening tag, itself included, while no call has come of it
        self._expects: Literal["begin", "item", "close"] = "begin"
        self._object = _Object()
        self._after_call = False
        self.called = False
        """Whether a call was found."""

    def push(self, text: str) -> list[Part]:
        """Take the next text; return what is certain."""
        if not self._functions:
            return [Part("answer", text)] if text else []
        return self._take(text, final=False)

    def flush(self) -> list[Part]:
        """Return what was held back: the answer ends here."""
        parts = self._take("", final=True)
        space, self._space = self._space, ""
        return [*parts, Part("answer", space)] if space and not self._after_call else parts

    def _take(self, text: str, *, final: bool) -> list[Part]:
        self._held += text
        parts: list[Part] = []
        while self._held or final:
            found = self._inside(final) if self._close is not None else self._outside(final)
            if found is None:
                break
            parts += found
        return parts

    def _outside(self, final: bool) -> list[Part] | None:
        """Text up to an opening tag; None if nothing more can be said yet."""
        tag = _OPENING.search(self._held)
        if tag is not None:
            before, self._held = self._held[: tag.start()], self._held[tag.end() :]
            self._close, self._raw, self._expects = _TAGS[tag[0]], tag[0], "begin"
            return self._say(before)
        certain = len(self._held) if final else undecided_from(self._held, [*_TAGS])
        text, self._held = self._held[:certain], self._held[certain:]
        return self._say(text) if text else None

    def _inside(self, final: bool) -> list[Part] | None:
        """What stands behind an opening tag; None if nothing more can be said yet."""
        self._read(len(self._held) - len(self._held.lstrip()))
        if not self._held and not final:
            return None
        if self._expects == "close":
            return self._closing(final)
        if self._held.startswith("{"):
            return self._item(final)
        if self._held.startswith("[") and self._expects == "begin":
            self._expects = "item"
            return self._read(1)
        if self._held.startswith(",") and self._expects == "item":
            return self._read(1)
        if self._held.startswith("]") and not self._raw:
            self._expects = "close"
            return self._read(1)
        return self._leave()

    def _item(self, final: bool) -> list[Part] | None:
        """One call, if it is whole."""
        end = self._object.end(self._held)
        if end is None:
            return self._leave() if final else None
        self._object = _Object()
        part = self._part(self._held[:end])
        if part is None:
            return self._leave()
        in_list = self._expects == "item"
        self._read(end)
        self._raw, self._space, self._after_call = "", "", True
        self._expects = "item" if in_list else "close"
        wanted = self._parallel or not self.called
        self.called = True
        return [part] if wanted else []

    def _closing(self, final: bool) -> list[Part] | None:
        """The closing tag, which may be missing."""
        assert self._close is not None
        if self._held.startswith(self._close):
            self._held = self._held[len(self._close) :]
        elif not final and self._close.startswith(self._held):
            return None
        self._close = None
        return []

    def _read(self, length: int) -> list[Part]:
        """Go on over some text."""
        self._raw += self._held[:length] if self._raw else ""
        self._held = self._held[length:]
        return []

    def _leave(self) -> list[Part]:
        """What seemed to be a call is text."""
        text, self._raw, self._close, self._object = self._raw, "", None, _Object()
        return self._say(text)

    def _say(self, text: str) -> list[Part]:
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        if self._after_call:
            said = said.lstrip()
        if not said:
            return []
        self._after_call = False
        return [Part("answer", said)]

    def _part(self, text: str) -> Part | None:
        """The call that an object is, if it is one."""
        try:
            one = _read_json(text)
            function = self._functions.get(one.get("name", ""))
            arguments = one.get("arguments", one.get("parameters", {}))
            arguments = _read_json(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError, TypeError):  # the last for a name that is a list
            return None
        if function is None or not isinstance(arguments, dict) or misfit(arguments, function.parameters) is not None:
            return None
        return Part("call", json.dumps(arguments, ensure_ascii=False), function.name, uuid.uuid4().hex[:24])


class _Object:
    """Finds the end of a JSON object in a text that grows."""

    def __init__(self) -> None:
        self._seen, self._depth = 0, 0
        self._in_string, self._escaped = False, False

    def end(self, text: str) -> int | None:
        """The length of the object, None while it is not whole; at a "<" that no object can have, the length up to it.

        Args:
            text: what it was before, and more.
        """
        for place in range(self._seen, len(text)):
            char = text[place]
            if self._in_string:
                self._in_string = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    return place + 1
            elif char == "<":
                return place
        self._seen = len(text)
        return None


def _read_schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise BodyError(f"json is {text!r:.99}: it must be a JSON schema", "structured_outputs")
    return schema


def _read_json(text: str) -> Any:  # noqa: ANN401 - JSON
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


class TurnReader:
    """What one completion says, event by event: thinking, answer and calls.

    Args:
        tools: those of the request.
    """

    def __init__(self, tools: Tools | None) -> None:
        self._parser = CallParser(tools)

    @property
    def called(self) -> bool:
        """Whether a call was found."""
        return self._parser.called

    def push(self, event: StreamEvent) -> list[Part]:
        """Take the next event of the completion; return the parts that are certain."""
        parts: list[Part] = []
        for piece in event.pieces:
            parts += self._parser.push(piece.text) if piece.kind == "answer" else [Part("reasoning", piece.text)]
        return parts + self._parser.flush() if event.finish_reason else parts


def parts_of(one: CompletionOutput, tools: Tools | None) -> list[Part]:
    """What a completion that ended says: its thinking, then texts and calls in their order, none of them empty."""
    parser = CallParser(tools)
    parts = [Part("reasoning", one.reasoning)] if one.reasoning else []
    for part in parser.push(one.answer) + parser.flush():
        if parts and part.kind == parts[-1].kind == "answer":
            parts[-1] = Part("answer", parts[-1].text + part.text)
        else:
            parts.append(part)
    return parts


def write_conversation(
    messages: Sequence[Any], tools: Tools | None, tokenizer: Tokenizer
) -> tuple[Sequence[Any], dict[str, Any]]:
    """A conversation as the chat template takes it.

    Args:
        messages: as OpenAI's chat completions have them; a developer's message counts as the system's.
        tools: what the model may call.
        tokenizer: with the template.

    Returns:
        The messages, and variables of the template.
    """
    shown = [one.described() for one in (tools.shown if tools else ())]
    native = tokenizer.renders_tools
    written = [_message(one, native) if isinstance(one, Mapping) else one for one in messages]
    if native:
        return written, {"tools": [{"type": "function", "function": one} for one in shown]} if shown else {}
    written = _results_as_text(written, {id_: name for one in messages for id_, name in _names(one)})
    if shown:
        told = f"{_HOW}\n<|tool|>{json.dumps(shown, ensure_ascii=False)}<|/tool|>"
        first = written[0] if written else None
        if isinstance(first, Mapping) and first.get("role") == "system":
            written[0] = {**first, "content": _joined(first.get("content"), told)}
        else:
            written.insert(0, {"role": "system", "content": told})
    return written, {}


def _message(message: Mapping[str, Any], native: bool) -> Mapping[str, Any]:
    """One message, its calls as the template takes them or as text."""
    role, calls = message.get("role"), message.get("tool_calls")
    if role == "developer":
        return {**message, "role": "system"}
    if role != "assistant" or not calls:
        return message
    read = [_call_of(call, index) for index, call in enumerate(calls if isinstance(calls, list) else [calls])]
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    content = message.get("content") or ""
    if not isinstance(content, str | list):
        return rest | {"content": content}  # for the tokenizer to refuse
    if native:
        made = [{"id": id_, "type": "function", "function": call} for id_, call in read]
        return {**rest, "content": content, "tool_calls": made}
    text = f"{_OPEN}{json.dumps([call for _, call in read], ensure_ascii=False)}{_CLOSE}"
    return {**rest, "content": f"{content}{text}" if isinstance(content, str) else [*content, _text(text)]}


def _call_of(call: object, index: int) -> tuple[str, dict[str, Any]]:
    """The id, name and arguments of a call that a client sends back."""
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str):
        raise BodyError(f"tool_calls[{index}] is {call!r:.99}: it must have a function with a name", "messages")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = {"": arguments}  # what the client made of a call that was none: the model may see it
    return str(call.get("id") or ""), {"name": name, "arguments": arguments}


def _names(message: object) -> list[tuple[str, str]]:
    """The ids of the calls in a message, and the functions' names."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    made = [_call_of(call, index) for index, call in enumerate(calls)] if isinstance(calls, list) else []
    return [(id_, call["name"]) for id_, call in made]


def _results_as_text(messages: Sequence[Any], names: Mapping[str, str]) -> list[Any]:
    """The same messages, with each run of results as one message of the user."""
    written: list[Any] = []
    in_run = False
    for message in messages:
        is_result = isinstance(message, Mapping) and message.get("role") == "tool"
        if is_result:
            name = message.get("name") or names.get(str(message.get("tool_call_id")), "")
            line = json.dumps({"name": name, "content": _plain(message.get("content"))}, ensure_ascii=False)
            text = f"<|tool_response|>{line}"
            if in_run:
                written[-1]["content"] += f"\n{text}"
            else:
                written.append({"role": "user", "content": text})
        else:
            written.append(message)
        in_run = is_result
    return written


def _plain(content: object) -> object:
    """A result's content: the text of its parts where it has parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in content)
    return "" if content is None else content


def _joined(content: object, text: str) -> object:
    """A content with a text of its own paragraph behind it."""
    if isinstance(content, list):
        return [*content, _text(text)]
    return f"{content}\n\n{text}" if content else text


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
