"""How the tokenizer spells what the engine forces, watches for or forbids."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sambay.errors import SamplingError
from sambay.tokenizer import Tokenizer

__all__ = ["CLOSE", "OPEN", "Tags", "bad_word_ids", "ids_within"]

OPEN, CLOSE = "<think>", "</think>"


class Tags:
    """The tags around the thinking, as tokens.

    Args:
        tokenizer: of the model.
        vocab: size of the model's vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        self._tokenizer, self._vocab = tokenizer, vocab

    def check(self) -> None:
        """Refuse a tokenizer with which the end of the thinking cannot be written, or not be seen in time.

        Raises:
            SamplingError: it is such a one.
        """
        decoder = self._tokenizer.stream(skip_special_tokens=False)
        if not "".join(map(decoder.push, ids_within(self._tokenizer, CLOSE))).endswith(CLOSE):
            raise SamplingError(
                f"the tokenizer spells {CLOSE} in bytes that are no text before the next token comes: "
                "max_thinking_tokens and structured_outputs cannot be used with it"
            )
        self.closing(False)

    def none(self) -> Tensor:
        """No token at all: (vocab,) bool."""
        return torch.zeros(self._vocab, dtype=torch.bool)

    @functools.cached_property
    def newline(self) -> tuple[int, ...]:
        """The tokens of a newline.

        Raises:
            SamplingError: the tokenizer cannot spell it.
        """
        return ids_within(self._tokenizer, "\n")

    @functools.cached_property
    def _closing(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return ids_within(self._tokenizer, f"\n{CLOSE}\n"), ids_within(self._tokenizer, f"{CLOSE}\n")

    def closing(self, line_ended: bool) -> tuple[int, ...]:
        """The tokens that close the thinking on a line of its own.

        Args:
            line_ended: the text so far ends with a newline.

        Raises:
            SamplingError: the tokenizer cannot spell them.
        """
        return self._closing[line_ended]

    @functools.cached_property
    def _opening(self) -> dict[str, tuple[int, ...]]:
        """For each beginning of `OPEN`, the tokens that lead from there to its end, or one newline beyond it."""
        ways = {}
        for there in range(len(OPEN)):
            rest = OPEN[there:]
            texts = [rest[:end] for end in range(1, len(rest) + 1)] + [f"{rest}\n"]
            spelled = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
            whole = [ids[0] for ids, text in zip(spelled, texts, strict=True) if self._is(ids, text)]
            ways[OPEN[:there]] = tuple(whole)
        return ways

    def _is(self, ids: list[int], text: str) -> bool:
        return len(ids) == 1 and self._tokenizer.decode(ids, skip_special_tokens=False) == text

    def opening(self, held: str) -> tuple[int, ...]:
        """The tokens that lead on to the end of `OPEN`, none where the text has gone another way.

        Args:
            held: all of the text so far.
        """
        return self._opening.get(held, ())

    @functools.cached_property
    def _beyond(self) -> dict[int, tuple[int, ...]]:
        """For each number of characters of `CLOSE`, the tokens that complete it and go on with more than a newline."""
        texts = [(token, self._tokenizer.decode([index], skip_special_tokens=False), index)
                 for token, index in self._tokenizer.vocabulary.items() if ">" in token]  # fmt: skip
        beyond: dict[int, tuple[int, ...]] = {}
        for there in range(len(CLOSE)):
            rest = CLOSE[there:]
            beyond[there] = tuple(
                index for _, text, index in texts if text.startswith(rest) and text[len(rest) :] not in ("", "\n")
            )
        return beyond

    def beyond(self, held: str) -> tuple[int, ...]:
        """The tokens that would close the thinking and begin the answer at once.

        Args:
            held: the end of the text so far that may begin `CLOSE`.
        """
        return self._beyond[len(held)] if CLOSE.startswith(held) else ()


def ids_within(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The tokens of a text that stands within another.

    Raises:
        SamplingError: the tokenizer cannot spell it so that it reads the same.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    # Some tokenizers put a space before a text: there it is taken from behind another one.
    before = tokenizer.encode("a", add_special_tokens=False)
    plain = tokenizer.decode(before, skip_special_tokens=False)
    for spelled in (ids, tokenizer.encode(f"a{text}", add_special_tokens=False)[len(before) :]):
        if tokenizer.decode([*before, *spelled], skip_special_tokens=False) == f"{plain}{text}":
            return tuple(spelled)
    raise SamplingError(f"the tokenizer cannot spell {text!r}: thinking cannot be closed with it")


def bad_word_ids(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The tokens of each word, and of each word after a space where a token takes the space in."""
    found: list[tuple[int, ...]] = []
    for word in words:
        plain = tuple(tokenizer.encode(word, add_special_tokens=False))
        spaced = tuple(tokenizer.encode(f" {word.lstrip()}", add_special_tokens=False))
        found += [plain, *([spaced] if len(spaced) == len(plain) and spaced[0] != plain[0] else [])]
    return [word for word in found if word]
