"""What to generate with: sampling parameters under the names that vLLM's users know."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sambay.errors import SamplingError

__all__ = ["SamplingParams", "StructuredOutputsParams"]

_STRUCTURES = ("json", "regex", "choice", "grammar", "json_object")


@dataclass(frozen=True)
class StructuredOutputsParams:
    """What the answer must be, to the last character: exactly one of the first five fields says it.

    Attributes:
        json: a JSON schema, as a mapping or as text.
        regex: a regular expression that the whole answer matches; without look-around and back-references.
        choice: the answers that are possible.
        grammar: a context-free grammar in the Lark dialect of llguidance, or in the GBNF of llama.cpp.
        json_object: any JSON object.
        disable_any_whitespace: JSON on one line, without a space.
        whitespace_pattern: a regular expression of the white space that JSON may have at a place; by default a space,
            or a new line and its indentation.

    Raises:
        SamplingError: none or several of them, or one of the wrong type.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in _STRUCTURES if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            has = f"has {' and '.join(given)}" if given else "is empty"
            raise SamplingError(f"structured_outputs {has}: give exactly one of {', '.join(_STRUCTURES)}")
        if self.json is not None and not isinstance(self.json, str | Mapping):
            raise SamplingError(f"json is {self.json!r:.200}: it must be a JSON schema, as a mapping or as text")
        for name in ("regex", "grammar", "whitespace_pattern"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise SamplingError(f"{name} is {value!r:.200}: it must be text that is not empty")
        choice = self.choice
        if choice is not None and (
            isinstance(choice, str)
            or not isinstance(choice, Sequence)
            or not choice
            or not all(isinstance(one, str) and one for one in choice)
        ):
            raise SamplingError(f"choice is {choice!r:.200}: it must be a list of strings, none empty")

    @property
    def kind(self) -> str:
        """The name of the field that says what the answer must be."""
        return next(name for name in _STRUCTURES if getattr(self, name) not in (None, False))


@dataclass
class SamplingParams:
    """How tokens are chosen and when a completion ends.

    Attributes:
        n: completions of each prompt.
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_p: keep the most probable tokens that together reach this probability, in (0, 1].
        top_k: keep this many of the most probable tokens, of equal ones those with the lowest ids; 0 or -1 keeps all.
        min_p: drop tokens less probable than this share of the most probable one, in [0, 1].
        repetition_penalty: above 1 makes tokens of the prompt and the completion less likely (their logits are
            divided by it when positive, multiplied when negative).
        presence_penalty: subtracted from the logit of every token that the completion holds, in [-2, 2].
        frequency_penalty: the same, once for every occurrence, in [-2, 2].
        seed: the same seed gives the same text; None draws one from the engine's own stream.
        max_tokens: tokens of a completion at most; None goes on to the end of the context. The default is 4096,
            not the 16 of vLLM: a model that thinks has not begun to answer by then.
        min_tokens: tokens before which no end and no stop token ends a completion; a structure that is complete, and
            to which nothing can be added, does.
        stop: strings that end a completion; they are not part of its text.
        stop_token_ids: further tokens that end a completion.
        include_stop_str_in_output: leave the stop string in the text, or the text of the stop token.
        ignore_eos: go on over end-of-sequence tokens.
        logprobs: log-probabilities to return per token, besides the chosen one's; None for none at all.
        skip_special_tokens: leave control tokens out of the text.
        logit_bias: token id -> what is added to its logit, in [-100, 100], before all penalties.
        allowed_token_ids: the only tokens that may come; None allows all.
        bad_words: text that must not come, as the tokenizer spells it at the beginning of a text and after a space;
            other spellings of it are not seen.
        max_thinking_tokens: tokens inside `<think>` at most; then the thinking is closed, at the end of a line where
            one comes among the last eighth of them (64 at most), and the model answers. 0 closes it at once. The
            tokens that close it are not counted; they are part of the text, with the log-probabilities that the model
            gave them.
        structured_outputs: what the answer must be; the thinking before it is free. An end-of-sequence token can come
            exactly where the answer is complete; if nothing can be added, the completion ends there by itself. Stop
            strings, stop tokens and max_tokens may still cut it.

    Raises:
        SamplingError: an impossible value, with its bound.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 4096
    min_tokens: int = 0
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    skip_special_tokens: bool = True
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    max_thinking_tokens: int | None = None
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        self._number("temperature", 0, math.inf)
        self._number("top_p", 0, 1, above=True)
        self._number("min_p", 0, 1)
        self._number("repetition_penalty", 0, math.inf, above=True)
        self._number("presence_penalty", -2, 2)
        self._number("frequency_penalty", -2, 2)
        self._integer("n", 1, 1024)
        self._integer("top_k", -1)
        self._integer("min_tokens", 0)
        for name, least, most in (
            ("max_tokens", 1, None),
            ("logprobs", 0, 1000),
            ("max_thinking_tokens", 0, None),
            ("seed", -(2**63), 2**64 - 1),
        ):
            if getattr(self, name) is not None:
                self._integer(name, least, most)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingError(f"min_tokens is {self.min_tokens}: it must not be above max_tokens {self.max_tokens}")
        for name in ("stop_token_ids", "allowed_token_ids", "bad_words"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str | Mapping) or not isinstance(value, Iterable)):
                what = "strings" if name == "bad_words" else "token ids"
                raise SamplingError(f"{name} is {value!r:.200}: it must be a list of {what}")
        if self.stop is not None and not isinstance(self.stop, str | Iterable):
            raise SamplingError(f"stop is {self.stop!r:.200}: it must be a string or a list of strings")
        stops = self.stop_strings
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise SamplingError(f"stop is {self.stop!r}: it must be a string or a list of strings, none empty")
        for token in self.stop_token_ids or ():
            _check_token("stop_token_ids", token)
        self._check_bias()
        allowed = self.allowed_token_ids
        if allowed is not None:
            if not allowed:
                raise SamplingError("allowed_token_ids is empty: give at least one token, or None to allow all")
            for token in allowed:
                _check_token("allowed_token_ids", token)
        words = self.bad_words
        if words is not None and not all(isinstance(word, str) and word.strip() for word in words):
            raise SamplingError(f"bad_words is {words!r:.200}: it must be a list of strings, none empty or blank")
        structure = self.structured_outputs
        if structure is not None and not isinstance(structure, StructuredOutputsParams):
            raise SamplingError(
                f"structured_outputs is {structure!r:.200}: it must be a StructuredOutputsParams, such as "
                "StructuredOutputsParams(json=schema)"
            )
        if structure is not None and self.ignore_eos:
            raise SamplingError("ignore_eos cannot be with structured_outputs, which end where they are complete")

    def _check_bias(self) -> None:
        if self.logit_bias is not None and not isinstance(self.logit_bias, Mapping):
            raise SamplingError(f"logit_bias is {self.logit_bias!r:.200}: it must be a mapping of token ids to numbers")
        for token, bias in (self.logit_bias or {}).items():
            _check_token("logit_bias", token)
            if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not -100 <= bias <= 100:
                raise SamplingError(f"logit_bias has {bias!r} for token {token}: it must be a number from -100 to 100")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none when there are none."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def _number(self, name: str, least: float, most: float, *, above: bool = False) -> None:
        value = getattr(self, name)
        fits = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
        if not fits or not (least < value if above else least <= value) or not value <= most:
            low = f"above {least}" if above else f"{least} or more"
            high = "" if most == math.inf else f" and at most {most}"
            raise SamplingError(f"{name} is {value!r}: it must be a number {low}{high}")

    def _integer(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not fits or (most is not None and value > most):
            bound = f"{least} or more" if most is None else f"from {least} to {most}"
            raise SamplingError(f"{name} is {value!r}: it must be an integer, {bound}")


def _check_token(name: str, token: object) -> None:
    if isinstance(token, bool) or not isinstance(token, int) or token < 0:
        raise SamplingError(f"{name} has {token!r}: it must be a token id, 0 or more")
