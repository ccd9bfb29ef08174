"""The program `sambay`: its commands, and one sentence on the standard error for whatever goes wrong."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from sambay._version import __version__
from sambay.cli import assess, batch, bench, chat, evaluate, generate, info, quantize, serve, train
from sambay.cli.failures import explain, print_error

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="sambay",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(name: str, command: Callable[..., None], examples: str, group: typer.Typer = app) -> None:
    # Source lines are not the terminal's: each paragraph is one line, for rich to break.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    group.command(name, help=text, epilog=examples)(command)


_add("generate", generate.generate, generate.EXAMPLES)
_add("chat", chat.chat, chat.EXAMPLES)
_add("batch", batch.batch, batch.EXAMPLES)
_add("assess", assess.assess, assess.EXAMPLES)
_add("serve", serve.serve, serve.EXAMPLES)
_add("info", info.info, info.EXAMPLES)
_add("train", train.train, train.EXAMPLES)
_add("eval", evaluate.evaluate, evaluate.EXAMPLES)
_add("quantize", quantize.quantize, quantize.EXAMPLES)

_bench = typer.Typer(cls=bench.Recorded)
for _name, (_command, _examples) in bench.COMMANDS.items():
    _add(_name, _command, _examples, _bench)
_bench.callback(invoke_without_command=True)(bench.show_help)
app.add_typer(
    _bench,
    name="bench",
    help="Measure what this machine can do, and how near a model comes to it.",
    epilog=bench.EXAMPLES,
)


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
    _prepare_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
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
        message, status = explain(error)
        print_error(message)
        try:
            sys.stdout.flush()
        except OSError:  # what is still to be written cannot be
            _silence_stdout()
        return status


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a person reads it: without the line of our code that it came from."""
    print_error(str(message), kind="warning")


def _prepare_streams() -> None:
    """What is typed may hold any bytes, and the tokenizer says where they are no text; what a terminal lacks is "?"."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller (`<&-`)
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open to the end
    if isinstance(sys.stdin, TextIOWrapper) and sys.stdin.isatty():  # of a pipe or a file, `read_text` tells
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _silence_stdout() -> None:
    """The reader of our pipe has gone, or the disk is full: else Python complains when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
