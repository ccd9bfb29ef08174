"""`sambay bench`: what this machine can do, and how near a model comes to it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sambay.cli import options
from sambay.cli.console import Screen, neutralise, plain_console
from sambay.errors import ConfigError
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.bench.models import BenchModel

__all__ = ["COMMANDS", "EXAMPLES", "Recorded", "show_help"]

EXAMPLES = """Examples:

sambay bench machine

sambay bench decode --batch 1,16

sambay bench decode random:phi4-mini-flash --batch 1 --plot decode.png --save results.jsonl
"""

_OUTPUT = "Output"
_WIDEST = 104
"""Columns of a table, of which none is cut: a narrower terminal breaks the lines."""

Model = Annotated[
    str | None,
    typer.Argument(
        help="A checkpoint directory, a name on the Hugging Face hub, or random:PRESET[:BITS], such as "
        "random:phi4-mini-flash:4, for random weights, made once; without it the model that comes with sambay.",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="How often everything is measured, in turns.")]
Steps = Annotated[int, typer.Option("--tokens", min=1, help="Steps of a round.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON instead of a table.", rich_help_panel=_OUTPUT)
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw the figures: a .png, .svg or .pdf file.", rich_help_panel=_OUTPUT, show_default=False),
]
Save = Annotated[
    Path | None,
    typer.Option(help="Add the line of JSON to this file.", rich_help_panel=_OUTPUT, show_default=False),
]


class Recorded(TyperGroup):
    """A group of commands that keeps what was typed, for the record of a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click, or typer's copy of it
        """Remember the arguments and parse them."""
        ctx.meta[_TYPED] = list(args)
        return super().parse_args(ctx, args)


_TYPED = "sambay.bench.typed"
_DEPTHS = "0,512,2048,8192"
_GENERATED = 32_768


def show_help(context: typer.Context) -> None:
    """What there is to measure, when nothing was named."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def machine(
    context: typer.Context,
    rounds: Rounds = 5,
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Measure reading from memory, products of matrices on every instruction set, and waking the threads."""
    run = _Run(context, "machine", as_json, plot, save, threads)
    with task_progress("Measuring") as bar:
        from sambay.bench.machine import measure_machine

        results = measure_machine(rounds=rounds, progress=bar.update)
    run.finish({"rounds": rounds}, results)


def decode(
    context: typer.Context,
    model: Model = None,
    depth: Annotated[
        str | None,
        typer.Option(
            help="Tokens before, with commas; by default those of 0,512,2048,8192 that the context has room for.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Sequences that advance together.")] = "1,4,16",
    tokens: Steps = 8,
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time the steps of a model at some depths, and compare the bytes that they move with the bandwidth of the memory.

    A depth is reached by filling states and caches with random numbers, which costs a step what a real text would.
    """
    depths, batches = _numbers("--depth", _DEPTHS if depth is None else depth, 0), _numbers("--batch", batch, 1)
    run = _Run(context, "decode", as_json, plot, save, threads)
    found = run.open(model, dtype)
    if depth is None:
        most = found.model.config.max_position_embeddings - tokens
        depths = [one for one in depths if one <= most] or [0]
    with task_progress("Measuring") as bar:
        from sambay.bench.decode import measure_decode

        measured = measure_decode(found.model, depths, batches, tokens=tokens, rounds=rounds, progress=bar.update)
    shapes = {"depth": depths, "batch": batches, "tokens": tokens, "rounds": rounds}
    run.finish(shapes, [one.to_dict() for one in measured])


def prefill(
    context: typer.Context,
    model: Model = None,
    length: Annotated[str, typer.Option(help="Tokens of the prompt; several, with commas.")] = "512,2048",
    chunk: Annotated[str, typer.Option(help="Tokens that are computed at once; 0 takes the prompt whole.")] = "512",
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time prompts, and compare the operations that they need with what products of matrices reach."""
    lengths, chunks = _numbers("--length", length, 1), _numbers("--chunk", chunk, 0)
    run = _Run(context, "prefill", as_json, plot, save, threads)
    found = run.open(model, dtype)
    with task_progress("Measuring") as bar:
        from sambay.bench.prefill import measure_prefill

        results = measure_prefill(found.model, lengths, chunks, rounds=rounds, progress=bar.update)
    run.finish({"length": lengths, "chunk": chunks, "rounds": rounds}, results)


def latency(
    context: typer.Context,
    model: Model = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens before the first one that is generated.")] = 2048,
    generate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens at the end of the curve; by default 32768, or what the context has room for.",
            show_default=False,
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Depths that are measured.")] = 8,
    tokens: Steps = 8,
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Show the time that a long generation takes against the tokens generated, as the paper does.

    It is not one long run: steps are timed at some depths, and the cost between them is interpolated.
    """
    run = _Run(context, "latency", as_json, plot, save, threads)
    found = run.open(model, dtype)
    if generate is None:
        generate = max(1, min(_GENERATED, found.model.config.max_position_embeddings - prompt))
    with task_progress("Measuring") as bar:
        from sambay.bench.decode import measure_latency

        results = measure_latency(
            found.model, prompt, generate, points=points, tokens=tokens, rounds=rounds, progress=bar.update
        )
    run.finish({"prompt": prompt, "generate": generate, "points": points, "tokens": tokens, "rounds": rounds}, results)


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "machine": (machine, "Examples:\n\nsambay bench machine --plot machine.png\n"),
    "decode": (decode, "Examples:\n\nsambay bench decode random:phi4-mini-flash:4 --batch 1 --depth 0,8192\n"),
    "prefill": (prefill, "Examples:\n\nsambay bench prefill random:phi4-mini-flash:4 --length 2048 --chunk 256,512\n"),
    "latency": (latency, "Examples:\n\nsambay bench latency random:phi4-mini-flash:4 --plot latency.png\n"),
}
"""The modes, with their examples."""


def _numbers(option: str, text: str, least: int) -> list[int]:
    """What an option lists, such as "0,512"; each number once."""
    found: list[int] = []
    for word in text.split(","):
        word = word.strip()
        if not word.isascii() or not word.isdigit() or int(word) < least or len(word) > 12:
            raise ConfigError(
                f"{option} {text!r} has {word!r}: give whole numbers of {least} or more, with commas between them"
            )
        if int(word) not in found:
            found.append(int(word))
    return found


class _Run:
    """One run of a mode: what was asked for is checked first, its record printed, drawn and saved last."""

    def __init__(
        self,
        context: typer.Context,
        mode: str,
        as_json: bool,
        plot: Path | None,
        save: Path | None,
        threads: int | None,
    ) -> None:
        with task_progress("Starting"):
            from sambay.bench import record, views

        self._as_json, self._plot, self._save = as_json, plot, save
        if plot is not None:
            views.check_plot(options.writable(plot))
        if save is not None:
            options.writable(save)
        options.apply_threads(threads)
        typed = context.meta.get(_TYPED, [mode])
        self._record = record.new_record(mode, shlex.join(["sambay", "bench", *typed]))

    def open(self, model: str | None, dtype: str) -> BenchModel:
        """Load the model."""
        from sambay.bench import models
        from sambay.bench.probes import served_by

        with task_progress("Preparing") as bar:
            directory = models.locate(model, bar.update)
        with task_progress("Loading") as bar:
            found = models.open_model(model, directory, dtype, bar.update)
        served = served_by(found.model.dtype)
        self._record |= {"model": found.to_dict(), "backend": str(served)}
        return found

    def finish(self, shapes: dict[str, Any], results: list[dict[str, Any]]) -> None:
        """Complete the record, print it, and keep it where that was asked for."""
        from sambay.bench import record, views

        self._record |= {"shapes": shapes, "results": results, "peak_rss": record.peak_rss()}
        if self._as_json:
            Screen(sys.stdout).write(json.dumps(self._record, ensure_ascii=False) + "\n")
        else:
            _show(self._record)
        if self._save is not None:
            record.append(self._record, self._save)
        if self._plot is not None:
            views.draw(self._record, self._plot)


def _show(record: dict[str, Any]) -> None:
    from rich.table import Table

    from sambay.bench.views import VIEWS

    view, console = VIEWS[record["mode"]], plain_console()
    model = record.get("model")
    if model is not None:
        console.print(neutralise(model["name"]), style="bold")
        console.print(f"{model['parameters']:,} parameters, {model['bytes'] / 1e6:,.1f} MB; on {record['backend']}")
        if model["random"]:
            console.print("random weights: they measure speed, never quality")
    threads = record["threads"]
    kernels = "" if threads["kernels"] is None else f"{threads['kernels']} of the kernels, "
    console.print(f"{record['machine']['cpu']}; threads: {kernels}{threads['torch']} of torch")
    table = Table(box=None, pad_edge=False)
    for column in view.columns:
        table.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    for row in record["results"]:
        table.add_row(*(column.show(row) for column in view.columns))
    width, console.width = console.width, max(console.width, _WIDEST)
    console.print(table)
    console.width = width
    console.print(view.note, style="dim")
    if record["machine"]["isa"] is None and model is None:
        console.print("There are no compiled kernels here: these are figures of torch. `sambay info` says why.")
    if record["peak_rss"] is not None:
        console.print(f"peak memory {record['peak_rss'] / 1e9:.2f} GB")
