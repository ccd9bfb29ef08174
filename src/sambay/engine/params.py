"""What to generate with: sampling parameters under the names that vLLM's users know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sambay.errors import SamplingError

__all__ = ["SamplingParams"]


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
        min_tokens: tokens before which no end and no stop token ends a completion.
        stop: strings that end a completion; they are not part of its text.
        stop_token_ids: further tokens that end a completion.
        include_stop_str_in_output: leave the stop string in the text, or the text of the stop token.
        ignore_eos: go on over end-of-sequence tokens.
        logprobs: log-probabilities to return per token, besides the chosen one's; None for none at all.
        skip_special_tokens: leave control tokens out of the text.

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
            ("seed", -(2**63), 2**64 - 1),
        ):
            if getattr(self, name) is not None:
                self._integer(name, least, most)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingError(f"min_tokens is {self.min_tokens}: it must not be above max_tokens {self.max_tokens}")
        stops = self.stop_strings
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise SamplingError(f"stop is {self.stop!r}: it must be a string or a list of strings, none empty")
        for token in self.stop_token_ids or ():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise SamplingError(f"stop_token_ids has {token!r}: it must be a token id, 0 or more")

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
