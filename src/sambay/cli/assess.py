"""`sambay assess`: a class's answers, graded."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.cli import options
from sambay.cli.console import Screen
from sambay.errors import PromptError
from sambay.files import atomic_write
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.engine import LLM
    from sambay.tutor.assess import Grader
    from sambay.tutor.journal import Journal
    from sambay.tutor.judge import Judge

__all__ = ["EXAMPLES", "assess"]

EXAMPLES = """Examples:

sambay assess answers.csv -o graded.csv

sambay assess answers.csv -o graded.csv --plot summary.png --json

A table answers.csv: problem,answer,student,solution in any order; the solution may be left out.
"""


def assess(
    file: Annotated[Path, typer.Argument(help="A CSV of problems and answers, a row each.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The same table with the grades.", show_default=False)],
    plot: Annotated[Path | None, typer.Option(help="Draw a summary (.png, .svg, .pdf).", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    votes: Annotated[
        int, typer.Option(min=0, max=64, help="Attempts of the model beside the first, where a solution is missing.")
    ] = 4,
    model: Annotated[
        str | None,
        typer.Option(
            help="Solves the problems that have no solution: a checkpoint directory or a name on the Hugging Face hub; "
            "without it the model that comes with sambay.",
            show_default=False,
        ),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(min=1, max=4096, help="Attempts that run at once.")] = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
) -> None:
    """Grade a class's answers.

    Each answer is compared with the solution in the table, or with what the model comes to where there is none, marked
    as such with how far its attempts agree. Begun again after it was broken off, the command goes on where it was.
    """
    options.writable(output)
    if output.exists() and file.exists() and output.samefile(file):
        raise PromptError(f"{output} is the file of the answers: choose another output")
    if plot is not None:
        options.writable(plot)
        from sambay.bench.views import check_plot

        check_plot(plot)
    with task_progress("Starting"):
        from sambay.tutor.assess import Grader, graded_csv, summary
        from sambay.tutor.classroom import decode, read_table
        from sambay.tutor.journal import Journal
        from sambay.tutor.judge import Judge

    data = file.read_bytes()
    table = read_table(decode(data))
    run = hashlib.sha256(repr((data, model, votes)).encode()).hexdigest()
    with Judge() as judge, Journal(output.with_name(f"{output.name}.part"), run) as journal:
        grader = Grader(judge, table)
        for problem, reference in journal.solved.items():
            grader.learn(problem, reference)
        missing = [problem for problem in grader.open if problem not in journal.solved]
        if missing:
            llm = options.open_model(
                model,
                device=device,
                dtype=dtype,
                kv_cache_dtype=kv_cache_dtype,
                mmap=mmap,
                memory=memory,
                threads=threads,
                max_num_seqs=max_num_seqs,
            )
            _solve(llm, missing, judge, votes, grader, journal)
        with task_progress("Grading") as bar:
            for done, row in enumerate(table.rows):
                if row.number not in journal.grades:
                    journal.add_grade(row.number, grader.grade(row))
                bar.update(done + 1, len(table.rows))
        grades = [journal.grades[row.number] for row in table.rows]
        atomic_write(output, graded_csv(table, grades))
        found = summary(table, grades)
        if plot is not None:
            from sambay.tutor.plot import draw_summary

            draw_summary(found, plot)
        journal.remove()
    if as_json:
        Screen(sys.stdout).write(json.dumps({"output": str(output), **found}, ensure_ascii=False) + "\n")
        return
    share = "" if found["accuracy"] is None else f" ({found['accuracy']:.0%})"
    parts = [f"{found['correct']} of {found['graded']} answers are right{share}"]
    unsure = sum(one["source"] == "model" for one in found["problems"])
    parts += [f"{unsure} of {len(found['problems'])} problems were solved by the model"] if unsure else []
    parts += [f"{found['errors']} rows could not be graded, and say why"] if found["errors"] else []
    Screen(sys.stderr).note(f"{output}: {', '.join(parts)}")


def _solve(llm: LLM, problems: list[str], judge: Judge, votes: int, grader: Grader, journal: Journal) -> None:
    """Let the model solve what has no solution."""
    from sambay.tutor.assess import Reference
    from sambay.tutor.solving import Solved, solve_all

    done = 0
    with task_progress("Solving") as bar:

        def on_done(problem: str, solved: Solved) -> None:
            nonlocal done
            done += 1
            journal.add_solved(problem, Reference.of(solved))
            grader.learn(problem, journal.solved[problem])
            bar.update(done, len(problems))

        solve_all(llm, problems, judge, votes, on_done)
