"""`sambay batch`: a file of requests, answered as fast as the machine can."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.cli import options
from sambay.cli.console import Screen
from sambay.errors import PromptError
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.protocols.batch_file import Report

__all__ = ["EXAMPLES", "batch"]

EXAMPLES = """Examples:

sambay batch questions.jsonl -o answers.jsonl

sambay batch questions.jsonl -o answers.jsonl --model ./checkpoint --max-num-seqs 32 --json

A line of questions.jsonl: {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", \
"body": {"messages": [{"role": "user", "content": "What is 3 + 4?"}]}}
"""


def batch(
    file: Annotated[Path, typer.Argument(help="Requests in OpenAI's batch format, one a line.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Answers, one a line; what it has already is kept.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint directory or a name on the Hugging Face hub; without it the model that comes with "
            "sambay.",
            show_default=False,
        ),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(min=1, max=4096, help="Requests that run at once.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as one JSON object.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    max_model_len: options.MaxModelLen = None,
    memory: options.Memory = None,
    speculation: options.SpeculationMode = "auto",
    threads: options.Threads = None,
) -> None:
    """Answer a file of requests, in the batch format of OpenAI.

    Chats and completions may be mixed, each with its own settings; an answer is written when it is ready. Begun
    again after it was broken off, the command goes on where it was. A request that cannot be done gets an answer that
    says why.
    """
    options.writable(output)
    if output.exists() and file.exists() and output.samefile(file):
        raise PromptError(f"{output} is the file of the requests: choose another output")
    with task_progress("Starting"):
        from sambay.protocols.batch_file import Answers, Report, read_ids, run_batch

    names = read_ids(file)
    began = time.perf_counter()
    with Answers(output) as answers:
        strangers = answers.done.difference(names)
        if strangers:
            raise PromptError(
                f"{output} has an answer to {min(strangers)!r:.99}, which {file} does not ask: choose another output"
            )
        report = Report(len(names), len(answers.done))
        loaded = began
        if report.already < report.total:
            llm = options.open_model(
                model,
                device=device,
                dtype=dtype,
                kv_cache_dtype=kv_cache_dtype,
                mmap=mmap,
                threads=threads,
                max_model_len=max_model_len,
                memory=memory,
                speculation=speculation,
                max_num_seqs=max_num_seqs,
            )
            loaded = time.perf_counter()
            with task_progress("Answering") as bar:
                report = run_batch(
                    llm,
                    file,
                    answers,
                    most=2 * max_num_seqs,
                    model=llm.directory.name,
                    on_done=lambda now: bar.update(now.already + now.completed + now.failed, len(names)),
                )
    _tell(report, output, time.perf_counter() - loaded, as_json)


def _tell(report: Report, output: Path, seconds: float, as_json: bool) -> None:
    rate = report.completion_tokens / seconds if report.completed else 0.0
    if as_json:
        figures = {"seconds": round(seconds, 3), "completion_tokens_per_s": round(rate, 3)}
        Screen(sys.stdout).write(json.dumps({"output": str(output), **asdict(report), **figures}) + "\n")
        return
    parts = [f"{report.completed} answered"]
    parts += [f"{report.failed} failed"] if report.failed else []
    parts += [f"{report.already} there already"] if report.already else []
    parts += [f"{report.completion_tokens} tokens, {rate:.1f} tokens/s"] if report.completed else []
    Screen(sys.stderr).note(f"{output}: {', '.join(parts)}")
