"""One run of `sambay bench`: what was asked for is checked first, its record printed, drawn and saved last."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from sambay.cli import options
from sambay.cli.console import Screen, neutralise, plain_console
from sambay.errors import ConfigError
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.bench.models import BenchModel
    from sambay.bench.peer import Peer

__all__ = ["Recorded", "Run", "numbers"]

_WIDEST = 150
"""Columns of a table, of which none is cut: a narrower terminal breaks the lines."""

_TYPED = "sambay.bench.typed"


class Recorded(TyperGroup):
    """A group of commands that keeps what was typed, for the record of a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click, or typer's copy of it
        """Remember the arguments and parse them."""
        ctx.meta[_TYPED] = list(args)
        return super().parse_args(ctx, args)


def numbers(option: str, text: str, least: int) -> list[int]:
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


class Run:
    """One run of a mode.

    Args:
        context: of the command.
        mode: whose view shows the record.
        as_json: print the record as a line of JSON.
        plot: a file to draw, None for none.
        save: a file to add the record to, None for none.
        threads: CPU threads, None for the default.
        peer: what to measure beside the model, None for nothing.
        peer_flash: its setting.

    Raises:
        SambaYError: what cannot be done.
        OSError: a file cannot be written.
    """

    def __init__(
        self,
        context: typer.Context,
        mode: str,
        as_json: bool,
        plot: Path | None,
        save: Path | None,
        threads: int | None,
        peer: str | None = None,
        peer_flash: str = "better",
    ) -> None:
        with task_progress("Starting"):
            from sambay.bench import record, views

        self._as_json, self._plot, self._save = as_json, plot, save
        if plot is not None:
            views.check_plot(options.writable(plot))
        if save is not None:
            options.writable(save)
        self._peer, self._flash = peer, peer_flash
        if peer is not None:
            from sambay.bench.peer import check_peer

            check_peer(peer, peer_flash)
        options.apply_threads(threads)
        typed = context.meta.get(_TYPED, [mode])
        self._record = record.new_record(mode, shlex.join(["sambay", "bench", *typed]))

    def open(self, model: str | None, dtype: str, kv_cache_dtype: str, mmap: bool | None) -> BenchModel:
        """Load the model."""
        from sambay.bench import models, record
        from sambay.bench.probes import served_by
        from sambay.kv import cache_dtype_of

        kept = cache_dtype_of(kv_cache_dtype)
        with task_progress("Preparing") as bar:
            directory = models.locate(model, bar.update)
        with task_progress("Loading") as bar:
            found = models.open_model(model, directory, dtype, mmap, bar.update)
        found.model.cache_dtype = kept
        served = served_by(found.model.dtype)
        self._record |= {"model": found.to_dict(), "backend": str(served), "threads": record.threads()}
        return found

    def about_server(self, url: str, model: str) -> None:
        """Note which server is measured, by the name of its model."""
        del self._record["threads"]  # ours; its own are not known
        self._record["server"] = {"url": url, "model": model}

    def open_peer(self) -> Peer | None:
        """Load the model of the peer that was asked for; it has as many threads as we have."""
        if self._peer is None:
            return None
        from sambay.bench.peer import open_peer

        threads = self._record["threads"]
        with task_progress(f"Preparing {self._peer}") as bar:
            found = open_peer(self._peer, self._flash, threads["kernels"] or threads["torch"], bar.update)
        self._record["peer"] = found.model.describe()
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

    from sambay.bench.views import PEER_NOTE, VIEWS

    view, console = VIEWS[record["mode"]], plain_console()
    model = record.get("model")
    if model is not None:
        console.print(neutralise(model["name"]), style="bold")
        console.print(
            f"{model['parameters']:,} parameters, {model['bytes'] / 1e6:,.1f} MB, keys and values in "
            f"{model['kv_cache_dtype']}; on {record['backend']}"
        )
        if model["random"]:
            console.print("random weights: they measure speed, never quality")
    server, threads = record.get("server"), record.get("threads")
    if server is not None:
        console.print(neutralise(f"{server['model']} at {server['url']}"), style="bold")
    if threads is not None:
        kernels = "" if threads["kernels"] is None else f"{threads['kernels']} of the kernels, "
        console.print(f"{record['machine']['cpu']}; threads: {kernels}{threads['torch']} of torch")
    peer = record.get("peer")
    if peer is not None:
        its = peer["model"]
        console.print(
            f"beside {peer['name']} (llama-cpp-python {peer['llama-cpp-python']}; threads: {peer['threads']}): random "
            f"{its['shape']}, {its['parameters']:,} parameters, {its['bytes'] / 1e6:,.1f} MB, {its['types']}"
        )
    columns = view.shown(record)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    for row in record["results"]:
        table.add_row(*(column.cell(row) for column in columns))
    width, console.width = console.width, max(console.width, _WIDEST)
    console.print(table)
    console.width = width
    for row in record["results"]:
        if "obstacle" in row:
            console.print(f"{' '.join(column.cell(row) for column in columns if column.key)}: {row['obstacle']}")
        if row.get("errors"):
            kinds = ", ".join(f"{kind} ({count})" for kind, count in row["errors"].items())
            console.print(neutralise(f"failed: {kinds}{'; ' * bool(row['failure'])}{row['failure'] or ''}"))
    console.print(view.note, style="dim")
    if peer is not None:
        console.print(PEER_NOTE, style="dim")
    if record["machine"]["isa"] is None and model is None and server is None:
        console.print("There are no compiled kernels here: these are figures of torch. `sambay info` says why.")
    if record["peak_rss"] is not None and server is None:
        console.print(f"peak memory {record['peak_rss'] / 1e9:.2f} GB")
