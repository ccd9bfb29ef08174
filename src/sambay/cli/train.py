"""`sambay train`: drive a run, show how it goes, and stop it so that it can go on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sambay.cli.console import Screen, plain_console, status
from sambay.cli.interrupt import deferred_interrupt
from sambay.errors import ConfigError

if TYPE_CHECKING:
    from sambay.train.trainer import StepReport, Trainer

__all__ = ["EXAMPLES", "train"]

EXAMPLES = """Examples:

sambay train recipes/tutor.toml -o runs/tutor

sambay train recipes/tutor.toml -o runs/tutor --resume --minutes 30
"""


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe: what to train, on what, for how long (TOML).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run from its latest checkpoint.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Stop after this long, with a checkpoint.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Train a model by a recipe. Ctrl-C saves a checkpoint; --resume goes on from it."""
    if recipe.is_dir():
        raise ConfigError(f"{recipe} is a directory: give a recipe, a TOML file such as recipes/tutor.toml")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file: give a directory for the run, such as -o runs/{recipe.stem}")
    from sambay.train.recipe import Recipe

    loaded = Recipe.load(recipe)
    with status("Preparing the data and the model"):
        from sambay.train.trainer import Trainer, latest_checkpoint

        trainer = Trainer(loaded, output, resume=resume)
    tally = _Tally()
    stopped = _drive(trainer, tally, None if minutes is None else minutes * 60)
    checkpoint = latest_checkpoint(output)
    log = _read_log(output)
    _plot(log, output)
    summary = {
        "directory": str(output),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "step": trainer.step,
        "steps": loaded.schedule.steps,
        "finished": trainer.step >= loaded.schedule.steps,
        "interrupted": stopped,
        "loss": tally.loss,
        "eval": next((entry["eval"] for _, entry in sorted(log.items(), reverse=True) if "eval" in entry), None),
        "tokens": tally.tokens,
        "seconds": round(tally.seconds, 3),
        "tokens_per_second": round(tally.rate, 1),
    }
    screen = Screen(sys.stdout)
    if as_json:
        screen.write(json.dumps(summary) + "\n")
    else:
        screen.write(f"{trainer.step} of {loaded.schedule.steps} steps done\n{checkpoint}\n")
        if not summary["finished"]:
            words = ["sambay", "train", str(recipe), "-o", str(output), "--resume"]
            screen.write(f"go on with: {shlex.join(words)}\n")
    if stopped:
        raise typer.Exit(130)


@dataclass
class _Tally:
    """What this process did."""

    loss: float | None = None
    tokens: int = 0
    seconds: float = 0.0

    def add(self, report: StepReport) -> None:
        # A mean over about twenty steps: the loss of one step says little.
        self.loss = report.loss if self.loss is None else 0.95 * self.loss + 0.05 * report.loss
        self.tokens += report.tokens
        self.seconds += report.seconds

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0


class _Stopped(Exception):
    """Raised between two steps to leave the loop, after Ctrl-C."""


def _drive(trainer: Trainer, tally: _Tally, max_seconds: float | None) -> bool:
    """Train, shown; True when Ctrl-C ended it, with a checkpoint of the last whole step."""

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the signal came while this very stream was written to
            print("stopping after this step (Ctrl-C again stops at once, unsaved)", file=sys.stderr, flush=True)

    with _shown(trainer, tally) as show, deferred_interrupt(tell) as interrupt:

        def on_step(report: StepReport) -> None:
            tally.add(report)
            show(report)
            if interrupt.requested and report.step < trainer.recipe.schedule.steps:
                raise _Stopped

        try:
            trainer.run(max_seconds=max_seconds, on_step=on_step)
        except _Stopped:
            trainer.save()
            return True
    return False


@contextlib.contextmanager
def _shown(trainer: Trainer, tally: _Tally) -> Iterator[Callable[[StepReport], None]]:
    """A function that shows a step: a bar on a terminal, elsewhere a line as often as the log has one."""
    steps, every, first = trainer.recipe.schedule.steps, trainer.recipe.run.log_every, trainer.step
    begun = time.perf_counter()

    def describe(report: StepReport) -> str:
        return f"loss {tally.loss:.4f}  lr {report.lr:.2e}  {tally.rate:,.0f} tokens/s"

    def line(report: StepReport) -> None:
        if report.step % every == 0 or report.step == steps:
            left = (time.perf_counter() - begun) / (report.step - first) * (steps - report.step)
            text = f"step {report.step}/{steps}  {describe(report)}  {left / 60:.1f} min left"
            print(text, file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=plain_console(stderr=True)) as bar:
        task = bar.add_task("", total=steps, completed=first, numbers="")
        yield lambda report: bar.update(task, completed=report.step, numbers=describe(report))


def _read_log(directory: Path) -> dict[int, dict[str, Any]]:
    """The log by step; a step that was run again after a resume counts as it went last."""
    entries: dict[int, dict[str, Any]] = {}
    path = directory / "log.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(text)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        entries.setdefault(entry["step"], {}).update(entry)
    return entries


def _plot(log: dict[int, dict[str, Any]], directory: Path) -> None:
    """Write `loss.png`, where matplotlib is there to draw it."""
    if importlib.util.find_spec("matplotlib") is None or not log:
        return
    from matplotlib.figure import Figure

    from sambay.files import atomic_write

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per learned token)")
    training = {step: entry["loss"] for step, entry in sorted(log.items()) if "loss" in entry}
    unseen = {step: entry["eval"]["all"] for step, entry in sorted(log.items()) if "eval" in entry}
    axes.plot(list(training), list(training.values()), label="training", linewidth=1)
    axes.plot(list(unseen), list(unseen.values()), label="unseen problems", marker="o", markersize=3)
    axes.legend()
    axes.grid(alpha=0.3)
    atomic_write(directory / "loss.png", lambda path: figure.savefig(path, format="png", dpi=120))
