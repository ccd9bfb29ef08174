"""`sambay eval`: how many unseen problems a model solves."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.cli import options
from sambay.cli.console import Screen, plain_console
from sambay.files import atomic_write
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.eval.problems import Attempt, Report, Score

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = """Examples:

sambay eval

sambay eval runs/tutor/checkpoint-2400 --problems 200 -o attempts.jsonl

sambay eval --families fractions,equations --json
"""


def evaluate(
    model: options.Model = None,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 500,
    seed: Annotated[int, typer.Option(help="The same seed gives the same problems.")] = 1,
    families: Annotated[
        list[str] | None,
        typer.Option(help="Only these, in equal shares: repeated, or with commas.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Problems that run at once.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a solution at most.")] = 768,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write every attempt to this file, one JSON object a line.", show_default=False
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
) -> None:
    r"""Let a model solve school problems that are in no training data, and count the right answers.

    One greedy attempt each; the number in the last \boxed{} counts.
    """
    if output is not None:
        options.writable(output)
    wanted = [name.strip() for text in families or () for name in text.split(",") if name.strip()]
    with task_progress("Starting"):
        from sambay.eval.problems import check_families, evaluate_problems

    check_families(wanted)
    llm = options.open_model(
        model,
        device=device,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        mmap=mmap,
        threads=threads,
        max_num_seqs=batch,
    )
    done = 0
    with task_progress("Solving") as bar:

        def on_done(attempt: Attempt) -> None:
            nonlocal done
            done += 1
            bar.update(done, problems)

        report = evaluate_problems(llm, problems, seed, wanted or None, on_done, max_tokens=max_tokens)
    if output is not None:
        lines = (json.dumps(asdict(attempt), ensure_ascii=False) + "\n" for attempt in report.attempts)
        atomic_write(output, "".join(lines).encode())
    if as_json:
        Screen(sys.stdout).write(json.dumps({"model": str(llm.directory), **report.to_dict()}) + "\n")
    else:
        _show(report)


def _show(report: Report) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("family", "problems", "correct", "accuracy", "95 % interval"):
        table.add_column(name, justify="left" if name == "family" else "right")

    def add(name: str, score: Score, style: str | None = None) -> None:
        low, high = score.interval
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(name, str(score.count), str(score.correct), f"{score.accuracy:.1%}", interval, style=style)

    for family, score in report.families.items():
        add(family, score)
    add("all", report.total, "bold")
    console = plain_console()
    console.print(table)
    console.print(f"{report.mean_tokens:.0f} tokens a solution; {report.ended:.1%} ended by themselves")
