"""The program `sambay`: its commands, and one sentence on the standard error for whatever goes wrong."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from sambay._version import __version__
from sambay.cli import chat, evaluate, generate, info, train
from sambay.cli.console import print_error
from sambay.errors import SambaYError

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="sambay",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate)
app.command("chat", epilog=chat.EXAMPLES)(chat.chat)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("eval", epilog=evaluate.EXAMPLES)(evaluate.evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sambay {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run, train and examine decoder-hybrid-decoder language models on any machine."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: those after the program's name; None takes this process's.

    Returns:
        The exit status: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    _make_streams_lenient()
    try:
        status = app(args=arguments, prog_name="sambay", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            _silence_stdout()
            return 1
        if os.environ.get("SAMBAY_DEBUG") == "1":
            raise
        message, status = _explain(error)
        print_error(message)
        return status


def _make_streams_lenient() -> None:
    """Bytes that are no UTF-8 come through to the tokenizer, which says where; what a terminal lacks is "?"."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _silence_stdout() -> None:
    """The reader of our pipe has gone: without this, Python complains when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> tuple[str, int]:
    """One sentence on an error, and the exit status."""
    if isinstance(error, SambaYError):
        return str(error), 1
    # Wrong usage is an exception of click, of which some versions of typer bring a copy of their own: it is
    # known by what it can do.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        return " ".join(format_message().split()) + hint, 2
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 1
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({first_line}): use a smaller batch or context, or a smaller dtype", 1
    return (
        f"unexpected {type(error).__name__}: {first_line} (a mistake of ours: SAMBAY_DEBUG=1 shows where)",
        1,
    )
