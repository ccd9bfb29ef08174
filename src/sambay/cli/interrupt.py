"""Ctrl-C where stopping in the middle would leave something half done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Interrupt", "deferred_interrupt"]


@dataclass
class Interrupt:
    """Whether Ctrl-C has been pressed."""

    requested: bool = False


@contextmanager
def deferred_interrupt(on_request: Callable[[], None] | None = None) -> Iterator[Interrupt]:
    """Within it the first Ctrl-C only sets a flag, to be looked at between two steps; a second one raises.

    Args:
        on_request: called at the first one, to tell the user.

    Yields:
        The flag.
    """
    flag = Interrupt()

    def handle(signum: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.requested = True
        if on_request is not None:
            on_request()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
