"""Text that streams out token by token: whole characters, stop strings, and thinking apart from the answer.

Each class gives the same text however the stream was cut.
"""

from __future__ import annotations

import abc
import codecs
import functools
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tokenizers import Tokenizer as Backend

from sambay.errors import SamplingError

__all__ = [
    "ByteLevelStream",
    "Piece",
    "StopMatcher",
    "StreamDecoder",
    "ThinkingSplitter",
    "WindowStream",
    "spelled_bytes",
    "split_thinking",
    "undecided_from",
]


class StreamDecoder(abc.ABC):
    """Text from ids that arrive one by one; from `Tokenizer.stream`.

    All that `push` and `flush` return, joined, is what decoding all ids at once gives, less a last character
    that was never completed. No piece holds part of a character, and a push costs no more as the text grows.
    """

    @abc.abstractmethod
    def push(self, token_id: int) -> str:
        """Take the next id and return the text that is now certain, often one word, sometimes nothing."""

    @abc.abstractmethod
    def flush(self) -> str:
        """Return what is still held, without an incomplete last character. The stream ends here."""


class ByteLevelStream(StreamDecoder):
    """For tokens that are spelled in bytes: UTF-8 is put together as its bytes come."""

    def __init__(self, backend: Backend, skip: frozenset[int]) -> None:
        self._backend, self._skip = backend, skip
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """See `StreamDecoder.push`."""
        token = None if token_id in self._skip else self._backend.id_to_token(token_id)
        return "" if token is None else self._utf8.decode(spelled_bytes(token))

    def flush(self) -> str:
        """See `StreamDecoder.flush`."""
        held = self._utf8.decode(b"", final=True)
        # It may be the beginning of a surrogate, which is no character: then each byte of it is invalid.
        return "" if held == "\ufffd" else held


class WindowStream(StreamDecoder):
    """For tokens whose text depends on their neighbours only: decode the last few, and return what is new.

    A run of byte tokens (`<0xE2>`) is held to its end, because the library reads it as text only if all of it
    is valid, and as U+FFFD for each byte otherwise.
    """

    def __init__(self, backend: Backend, skip: frozenset[int], byte_fallback: bool) -> None:
        self._backend, self._skip, self._byte_fallback = backend, skip, byte_fallback
        self._before: list[int] = []  # ids whose text is out, as the left neighbours of what follows
        self._bytes: list[int] = []  # a run of byte tokens
        self._run = bytearray()  # and the bytes they stand for

    def push(self, token_id: int) -> str:
        """See `StreamDecoder.push`."""
        token = None if token_id in self._skip else self._backend.id_to_token(token_id)
        if token is None:
            return ""
        byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token) if self._byte_fallback else None
        if byte is not None:
            self._bytes.append(token_id)
            self._run.append(int(byte[1], 16))
            return ""
        return self._advance([*self._bytes, token_id])

    def flush(self) -> str:
        """See `StreamDecoder.flush`."""
        ids = self._bytes
        try:
            self._run.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                ids = ids[: error.start]
        return self._advance(ids)

    def _advance(self, ids: list[int]) -> str:
        """The text of `ids` in their place; they become the left neighbours."""
        self._bytes, self._run = [], bytearray()
        old = self._text(self._before)
        window = self._before + ids
        new = self._text(window)[len(old) :]
        if new or not old:  # else the ids change nothing, and the neighbours they would displace still count
            # After a neighbour without text of its own, the next token would look like the first of all.
            self._before = next((window[-n:] for n in (1, 2) if self._text(window[-n:])), window)
        return new

    def _text(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)


class StopMatcher:
    """Ends a text stream at the first stop string, wherever the stream is cut.

    The match that begins first wins, and of those that begin together the longest. Only text that may be the
    beginning of a match is held back.

    Args:
        stops: the stop strings; none means that nothing ever matches.
        include: whether the emitted text ends with the stop string.

    Raises:
        SamplingError: `stops` is one string instead of a list of them, or has an empty string.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise SamplingError(f"stop strings must be a list of strings that are not empty, not {stops!r}")
        self._stops = sorted(stops, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._stops)) or "(?!)")
        self._include = include
        self._held = ""
        self.matched: str | None = None
        """The stop string that matched, if any; `flush` can still set it when stop strings overlap."""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take the next text; return the text that is safe to emit and the stop string that matched."""
        return self._take(text, final=False), self.matched

    def flush(self) -> str:
        """Return the text that was held back: the stream ends here."""
        return self._take("", final=True)

    def _take(self, text: str, *, final: bool) -> str:
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        undecided = len(text) if final else undecided_from(text, self._stops)
        match = self._pattern.search(text)
        if match is None or match.start() >= undecided:
            self._held = text[undecided:]
            return text[:undecided]
        self._held, self.matched = "", match[0]
        return text[: match.end() if self._include else match.start()]


class Piece(NamedTuple):
    """A piece of the model's text."""

    kind: Literal["reasoning", "answer"]
    text: str


class ThinkingSplitter:
    """Splits a text stream into what the model thinks and what it answers, wherever the stream is cut.

    The first `<think>` opens the thinking and the first `</think>` after it closes it for good: a tag that
    comes later, or a closing one without an opening one, is plain text. One newline directly after either tag
    is dropped.

    Args:
        started_open: the prompt already ends with `<think>`, so that the text begins inside the thinking.
    """

    def __init__(self, started_open: bool = False) -> None:
        self._kind: Literal["reasoning", "answer"] = "reasoning" if started_open else "answer"
        self._tags = ["<think>", "</think>"][started_open:]  # those that still mean something
        self._after_tag = started_open
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Whether the text is now between the tags."""
        return self._kind == "reasoning"

    @property
    def before_text(self) -> bool:
        """Whether a tag came last, so that a newline would be dropped."""
        return self._after_tag and not self._held

    @property
    def held(self) -> str:
        """The end of the text so far that may begin a tag."""
        return self._held

    def settle(self) -> None:
        """From here on no tag means anything: all text is of the kind that it is now."""
        self._tags = []

    def push(self, text: str) -> list[Piece]:
        """Take the next text; return the pieces that are certain, none of them empty."""
        if not self._held and not (self._tags and self._tags[0][0] in text):  # as most are
            return self._piece(text)
        pieces: list[Piece] = []
        text = self._held + text
        while self._tags and self._tags[0] in text:
            before, _, text = text.partition(self._tags.pop(0))
            pieces += self._piece(before)
            self._kind = "reasoning" if self._tags else "answer"
            self._after_tag = True
        undecided = undecided_from(text, self._tags[:1])
        self._held = text[undecided:]
        return pieces + self._piece(text[:undecided])

    def flush(self) -> list[Piece]:
        """Return the text that was held back: the stream ends here."""
        held, self._held = self._held, ""
        return self._piece(held)

    def _piece(self, text: str) -> list[Piece]:
        if self._after_tag and text:
            text = text.removeprefix("\n")
            self._after_tag = False
        return [Piece(self._kind, text)] if text else []


def split_thinking(text: str, started_open: bool = False) -> tuple[str, str]:
    """Split a whole text into (reasoning, answer), by the rules of `ThinkingSplitter`.

    Args:
        text: what the model generated.
        started_open: the prompt already ends with `<think>`.
    """
    splitter = ThinkingSplitter(started_open)
    pieces = splitter.push(text) + splitter.flush()
    reasoning = "".join(piece.text for piece in pieces if piece.kind == "reasoning")
    return reasoning, "".join(piece.text for piece in pieces if piece.kind == "answer")


def undecided_from(text: str, wanted: Sequence[str]) -> int:
    """The first place from which `text` is only the beginning of one of `wanted`, or its length."""
    if not wanted:
        return len(text)
    longest = max(map(len, wanted))
    for start in range(max(0, len(text) - longest + 1), len(text)):
        rest = text[start:]
        if any(len(one) > len(rest) and one.startswith(rest) for one in wanted):
            return start
    return len(text)


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """Byte-level tokens spell a byte as itself if it is printable Latin-1, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)).difference(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


@functools.lru_cache(1 << 15)
def spelled_bytes(token: str) -> bytes:
    """The bytes of a byte-level token. One with any other character is text, as in the library."""
    table = _byte_of_character()
    return bytes(table[char] for char in token) if table.keys() >= set(token) else token.encode()
