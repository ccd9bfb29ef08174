"""What the commands write: model text that cannot drive the terminal, dim asides, errors, progress, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from sambay.engine import StreamEvent

__all__ = ["ReplyPrinter", "Screen", "neutralise", "plain_console", "status", "styled"]

# Control characters in model text could move the cursor, set the title or fake a prompt: they are shown as
# pictures (␛), those of the second block, which have none, as a replacement character.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: "\u2421"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")


def neutralise(text: str) -> str:
    """The text with every control character but newline and tab replaced by a visible one."""
    return text.translate(_PICTURES)


def styled(stream: TextIO) -> bool:
    """Whether colours and dimming are welcome there."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Screen:
    """An output stream, safe and styled where it is a terminal and verbatim where it is not.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()
        self._styled = styled(stream)
        self._line_open = False

    def write(self, text: str, *, dim: bool = False) -> None:
        """Write text as it comes, at once.

        Args:
            text: of any origin.
            dim: an aside, such as thinking.
        """
        if not text:
            return
        shown = neutralise(text) if self.is_terminal else text
        self._stream.write(f"\x1b[2m{shown}\x1b[22m" if dim and self._styled else shown)
        self._stream.flush()
        self._line_open = not text.endswith("\n")

    def note(self, text: str) -> None:
        """Write a dim line of our own."""
        self.write(f"{text}\n", dim=True)

    def end_line(self) -> None:
        """Begin a new line unless this one is empty."""
        if self._line_open:
            self.write("\n")


class ReplyPrinter:
    """Prints completions as they stream: thinking dimmed on a terminal, the text as it is in a pipe.

    Completions that run at once are printed one after the other, in their order: the first streams, the others
    are held until it is their turn.

    Args:
        screen: where to print.
        hide_thinking: print answers only.
        count: completions.
        as_ids: print token ids, for a checkpoint without a tokenizer.
    """

    def __init__(self, screen: Screen, *, hide_thinking: bool = False, count: int = 1, as_ids: bool = False) -> None:
        self._screen, self._hide, self._count, self._as_ids = screen, hide_thinking, count, as_ids
        self._held: list[list[StreamEvent]] = [[] for _ in range(count)]
        self._turn = -1
        self._next_turn()

    def push(self, event: StreamEvent) -> None:
        """Take the next event."""
        if event.index != self._turn:
            self._held[event.index].append(event)
            return
        self._print(event)
        while event.finish_reason and event.index == self._turn and self._turn + 1 < self._count:
            self._next_turn()
            for event in self._held[self._turn]:
                self._print(event)

    def _next_turn(self) -> None:
        self._turn += 1
        self._thought = False
        self._screen.end_line()
        if self._count > 1:
            self._screen.note(f"--- {self._turn + 1} of {self._count} ---")

    def _print(self, event: StreamEvent) -> None:
        if self._as_ids:
            self._screen.write(f"{event.token_id} ")
        elif not self._screen.is_terminal and not self._hide:
            self._screen.write(event.text)
        else:
            for piece in event.pieces:
                if piece.kind == "reasoning":
                    self._think(piece.text)
                else:
                    self._answer(piece.text)

    def _think(self, text: str) -> None:
        if not self._hide:
            self._screen.write(text, dim=True)
        elif not self._thought and self._screen.is_terminal:
            self._screen.end_line()
            self._screen.write("(thinking ...)", dim=True)  # else nothing would seem to happen
        self._thought = True

    def _answer(self, text: str) -> None:
        if self._thought and self._screen.is_terminal:
            self._screen.end_line()
            self._screen.write("\n")
        self._thought = False
        self._screen.write(text)


def plain_console(*, stderr: bool = False) -> Console:
    """A rich console that prints text as it is: no markup, no emoji codes, no guessed highlighting."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 120  # what is read by no one in a terminal need not be cut to 80 columns
    return console


@contextmanager
def status(label: str) -> Iterator[None]:
    """Say on the standard error what is under way, with a spinner where it is a terminal.

    Args:
        label: such as "Preparing the data".
    """
    if sys.stderr.isatty():
        with plain_console(stderr=True).status(label):
            yield
    else:
        print(f"{label} ...", file=sys.stderr, flush=True)
        yield
