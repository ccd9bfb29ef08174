"""What went wrong, in one sentence on the standard error."""

from __future__ import annotations

import sys

from sambay.cli.console import neutralise, styled
from sambay.errors import SambaYError

__all__ = ["explain", "print_error"]


def explain(error: Exception) -> tuple[str, int]:
    """One sentence on an error, and the exit status that it means.

    Args:
        error: of any kind; one that nobody foresaw is said to be our mistake.

    Returns:
        The sentence, and 2 for wrong usage, otherwise 1.
    """
    if isinstance(error, SambaYError):
        return str(error), 1
    # Wrong usage is an exception of click, of which some versions of typer bring a copy of their own: it is
    # known by what it can do.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        return " ".join(format_message().split()).rstrip(".") + hint, 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({first_line}): use a smaller batch or context, or a smaller dtype", 1
    return f"unexpected {type(error).__name__}: {first_line} (our mistake: SAMBAY_DEBUG=1 shows where)", 1


def print_error(message: str, kind: str = "error") -> None:
    """Print `error: <message>`, or another kind, as one line on the standard error."""
    label = f"\x1b[1;31m{kind}:\x1b[0m" if styled(sys.stderr) else f"{kind}:"
    print(label, neutralise(" ".join(message.splitlines())), file=sys.stderr, flush=True)
