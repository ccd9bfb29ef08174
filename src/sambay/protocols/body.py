"""What the bodies of all protocols share: fields that are taken once and checked, and the chat that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sambay.engine import StructuredOutputsParams
from sambay.errors import BodyError
from sambay.protocols.tools import Tools, write_conversation
from sambay.tokenizer import Tokenizer

__all__ = ["EFFORTS", "Body", "ChatBody", "Fields", "Json", "read_effort", "read_format"]

Json: TypeAlias = dict[str, Any]

EFFORTS: dict[str, int | None] = {
    "none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": 16384, "xhigh": None, "max": None,
}  # fmt: skip
"""How many tokens of thinking an effort allows at most; None for no bound, 0 for no thinking at all."""

_ANSWER = 4096
"""Tokens that are left for the answer where an effort is given and no bound for the whole."""


@dataclass(frozen=True)
class Body:
    """What all kinds of body have.

    Attributes:
        sampling: fields of `SamplingParams` that were given.
        model: the name of the model that is to answer; None leaves the choice.
        stream: whether the answer is to come in pieces.
        include_usage: whether the last piece is to say what was used.
    """

    sampling: Json = field(default_factory=dict)
    model: str | None = None
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True)
class ChatBody(Body):
    """A chat to be answered.

    Attributes:
        messages: as OpenAI's chat completions have them.
        template: further variables of the chat template.
        tools: what the model may call, None for nothing.
    """

    messages: Sequence[Any] = ()
    template: Json = field(default_factory=dict)
    tools: Tools | None = None

    def prompts(self, tokenizer: Tokenizer) -> list[tuple[str | None, list[int]]]:
        """The prompt as text and as tokens, one.

        Raises:
            PromptError: the messages are malformed, or the template refuses them.
        """
        messages, variables = write_conversation(self.messages, self.tools, tokenizer)
        variables |= self.template
        return [(tokenizer.render_chat(messages, **variables), tokenizer.encode_chat(messages, **variables))]


class Fields:
    """The fields of a body, each to be taken once; null is as if it were not there.

    Args:
        values: from JSON.
        without_effect: fields that say nothing about what is generated, and may be left over.
        where: what stands before a field's name in errors, such as "options.".

    Raises:
        BodyError: it is no object.
    """

    def __init__(self, values: object, without_effect: Sequence[str] = (), where: str = "") -> None:
        if not isinstance(values, Mapping):
            raise BodyError(f"{where[:-1] or 'the body'} must be a JSON object, not {values!r:.99}", where[:-1] or None)
        self._values = {name: value for name, value in values.items() if value is not None}
        self._without_effect, self._where = without_effect, where

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str, kind: type | tuple[type, ...], what: str, default: Any = None) -> Any:  # noqa: ANN401 - JSON
        """A field, checked to be of a type."""
        value = self._values.pop(name, default)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        fits = isinstance(value, kind) and (not isinstance(value, bool) or bool in kinds)
        if value is not default and not fits:
            raise BodyError(f"{self._where}{name} is {value!r:.99}: it must be {what}", f"{self._where}{name}")
        return value

    def any(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - JSON
        """A field of any type."""
        return self._values.pop(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A field that is true or false."""
        return bool(self.take(name, bool, "true or false", default))

    def only(self, name: str, allowed: Sequence[object], why: str) -> None:
        """A field that is taken only with values that change nothing."""
        value = self._values.pop(name, allowed[0])
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise BodyError(f"{self._where}{name} is {value!r:.99}: {why}", f"{self._where}{name}")

    def given(self, names: Sequence[str]) -> Json:
        """Those of some fields that are there, as they are."""
        return {name: self._values.pop(name) for name in names if name in self._values}

    def refuse_the_rest(self) -> None:
        """All that is to be taken has been: what is left is not known."""
        place = f"{self._where[:-1]} has" if self._where else "the body has"
        for name in self._values:
            if name not in self._without_effect:
                raise BodyError(
                    f"{place} the field {name!r:.99}, which is not known here: leave it out", f"{self._where}{name:.99}"
                )


def read_effort(effort: str, name: str, sampling: Json) -> Json:
    """What an effort of thinking means: a budget goes into `sampling`.

    Args:
        effort: one of `EFFORTS`.
        name: of the field, for errors.
        sampling: fields of `SamplingParams`; where they bound the whole, that holds, too, and otherwise there is room
            for the thinking and an answer of 4096 tokens.

    Returns:
        Variables of the chat template.

    Raises:
        BodyError: it is not one of them.
    """
    if effort not in EFFORTS:
        raise BodyError(f"{name} is {effort!r:.99}: it must be one of {', '.join(EFFORTS)}", name)
    budget = EFFORTS[effort]
    if budget is None:
        sampling.setdefault("max_tokens", None)
    elif budget:
        sampling.setdefault("max_thinking_tokens", budget)
        sampling.setdefault("max_tokens", budget + _ANSWER)
    return {"enable_thinking": budget != 0}


def read_format(asked: Mapping[str, Any], name: str, nested: str | None = None) -> StructuredOutputsParams | None:
    """What the answer must be, in OpenAI's words.

    Args:
        asked: with a type: text, json_object, or json_schema.
        name: of the field, for errors.
        nested: the name of the field of `asked` that holds the schema's fields, None if `asked` does.

    Raises:
        BodyError: it is none of them.
    """
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    holder = asked if nested is None else asked.get(nested)
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if kind != "json_schema" or not isinstance(holder, Mapping) or not isinstance(schema, Mapping | None):
        needs = "a schema" if nested is None else f"a {nested}"
        raise BodyError(
            f"{name} is {dict(asked)!r:.99}: its type must be text, json_object, or json_schema with {needs}", name
        )
    return StructuredOutputsParams(json=schema or {})
