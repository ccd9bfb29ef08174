"""`sambay quantize`: weights of 4, 6 or 8 bits, and what that costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sambay.cli import options
from sambay.cli.console import Screen, neutralise, plain_console
from sambay.errors import ConfigError
from sambay.progress import task_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sambay.quant.convert import Summary
    from sambay.tokenizer import Tokenizer

__all__ = ["EXAMPLES", "quantize"]

EXAMPLES = """Examples:

sambay quantize -o tutor-4bit --bits 4 --method gptq --report

sambay quantize microsoft/Phi-4-mini-flash-reasoning -o flash-4bit --bits 4

sambay quantize ./checkpoint -o small --bits 4 --method gptq --calibration text.txt

sambay quantize --random phi4-mini-flash -o random-4bit --bits 4
"""

_PIECE = 1024
"""Tokens of a piece of calibration text."""

_GENERATOR = "problems"
_REPORT = "Report"


def quantize(
    model: options.Model = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new directory.", show_default=False)
    ] = None,
    bits: Annotated[int, typer.Option(help="Of a weight of the layers: 4, 6 or 8.")] = 4,
    group: Annotated[int, typer.Option(help="Weights that share a scale: 32, 64 or 128.")] = 32,
    head_bits: Annotated[int, typer.Option(help="Of the embedding and the head: 4, 6 or 8.")] = 6,
    head_group: Annotated[int, typer.Option(help="The same as --group, of the embedding and the head.")] = 128,
    method: Annotated[
        str, typer.Option(help="rtn: to nearest; mse: least error of the weights; gptq: least error on text.")
    ] = "mse",
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Text for gptq: a file, or 'problems' for the problem generator, the bundled model's choice.",
            show_default=False,
        ),
    ] = None,
    calibration_tokens: Annotated[int, typer.Option(min=1, help="How much of it, at most.")] = 16_384,
    random: Annotated[
        str | None,
        typer.Option(help="Random weights in the shape of this preset instead of a model.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights.")] = 0,
    report: Annotated[
        bool,
        typer.Option("--report", help="Compare with the original on unseen problems.", rich_help_panel=_REPORT),
    ] = False,
    problems: Annotated[
        int, typer.Option(min=0, help="Problems that both solve; 0 leaves that out.", rich_help_panel=_REPORT)
    ] = 100,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a solution at most.", rich_help_panel=_REPORT)
    ] = 768,
    report_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that perplexity is measured on.", rich_help_panel=_REPORT)
    ] = 16_384,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")] = False,
    threads: options.Threads = None,
) -> None:
    """Make a checkpoint with weights of 4, 6 or 8 bits, which every command then takes as its model.

    The original is read tensor by tensor, so a model that does not fit in memory can be quantised.
    """
    if output is None:
        raise ConfigError("there is no output directory: give one with -o")
    if random is not None and (model is not None or report or calibration is not None):
        raise ConfigError("--random makes its own weights: leave out MODEL, --calibration and --report")
    with task_progress("Starting"):
        from sambay.quant.convert import quantize as convert
        from sambay.quant.convert import random_checkpoint
        from sambay.quant.formats import QuantFormat
        from sambay.quant.rounding import check_method

        options.apply_threads(threads)
    check_method(method)
    body, head = QuantFormat(bits, group), QuantFormat(head_bits, head_group)
    if random is not None:
        from sambay.config import preset

        shape = preset(random)
        with task_progress("Writing") as bar:
            summary = random_checkpoint(shape, body, output, seed, head_format=head, progress=bar.update)
        _print(summary, None, as_json)
        return
    from sambay import hub

    directory = hub.bundled_model() if model is None else hub.resolve(model)
    if report:
        _tokenizer(directory)  # whether there is one, before the work
    documents = None
    if method == "gptq" or calibration is not None:
        documents = _calibration(directory, calibration, calibration_tokens)
    with task_progress("Quantising") as bar:
        summary = convert(
            directory,
            output,
            bits=bits,
            group=group,
            head_bits=head_bits,
            head_group=head_group,
            method=method,
            calibration=documents,
            progress=bar.update,
        )
    found = _compare(directory, output, problems, max_tokens, report_tokens) if report else None
    _print(summary, found, as_json)


def _tokenizer(directory: Path) -> Tokenizer:
    from sambay.tokenizer import Tokenizer

    return Tokenizer.from_pretrained(directory)


def _calibration(directory: Path, source: str | None, tokens: int) -> Sequence[Sequence[int]]:
    """Token ids of texts, at most so many tokens in all."""
    from sambay import hub

    if source is None and not directory.samefile(hub.bundled_model()):
        raise ConfigError(
            "gptq needs text that is like what the model will read: give a file with --calibration, or "
            "'--calibration problems' for school problems"
        )
    if source in (None, _GENERATOR):
        from sambay.data.documents import ProblemSource

        draw = ProblemSource(_tokenizer(directory), seed=1, split="train", smalltalk=0.05, second_turns=0.1)
        documents: list[Sequence[int]] = []
        index, left = 0, tokens
        while left > 0:
            documents.append(draw(index).ids[:left])
            left -= len(documents[-1])
            index += 1
        return documents
    assert source is not None
    try:
        text = Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not UTF-8 text (byte {error.start}): convert it") from None
    # A token is rarely more than a few bytes: no need to encode a book for its first pages.
    ids = _tokenizer(directory).encode(text[: 16 * tokens], add_special_tokens=False)[:tokens]
    if not ids:
        raise ConfigError(f"{source} holds no text: calibration needs some")
    return [ids[at : at + _PIECE] for at in range(0, len(ids), _PIECE)]


def _compare(directory: Path, output: Path, problems: int, max_tokens: int, tokens: int) -> dict[str, Any]:
    """The original against the quantised model: divergence on solutions of unseen problems, and accuracy."""
    from sambay.data.documents import ProblemSource, collate, fill
    from sambay.engine import LLM
    from sambay.eval.problems import evaluate_problems
    from sambay.quant.measure import compare

    models = [LLM(path, max_num_seqs=64) for path in (directory, output)]
    tokenizer, reference = _tokenizer(directory), models[0].model
    with task_progress("Comparing") as bar:
        draw = ProblemSource(tokenizer, seed=1, split="test")
        step = min(2048, tokens)
        drawn = fill(draw, 0, step, reference.config.max_position_embeddings)
        batches = [collate(next(drawn)[0], reference.device) for _ in range(max(1, tokens // step))]
        divergence = compare(reference, models[1].model, batches, bar.update)
    found: dict[str, Any] = {"divergence": divergence.to_dict()}
    if problems:
        done = 0
        with task_progress("Solving") as bar:

            def count(_attempt: object) -> None:
                nonlocal done
                done += 1
                bar.update(done, 2 * problems)

            scores = [evaluate_problems(llm, problems, 1, None, count, max_tokens=max_tokens).total for llm in models]
        found["accuracy"] = {
            name: score.to_dict() for name, score in zip(("original", "quantised"), scores, strict=True)
        }
    return found


def _print(summary: Summary, report: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        values = summary.to_dict() | ({} if report is None else {"report": report})
        Screen(sys.stdout).write(json.dumps(values) + "\n")
        return
    from rich.table import Table

    console = plain_console()
    console.print(neutralise(str(summary.directory)), style="bold")
    size = f"{summary.nbytes / 1e6:,.1f} MB"
    console.print(size if not summary.source_nbytes else f"{size}, was {summary.source_nbytes / 1e6:,.1f} MB")
    if summary.errors:
        text = f"relative error of the weights {summary.weight_error:.2%}"
        if summary.output_error is not None:
            text += f", of what the layers compute from them {summary.output_error:.2%}"
        console.print(text)
    if report is None:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "original", "quantised"):
        table.add_column(name, justify="right" if name else "left")
    one = report["divergence"]
    table.add_row("perplexity", f"{one['reference_perplexity']:.4f}", f"{one['perplexity']:.4f}")
    table.add_row("divergence, mean", "", f"{one['kl_mean']:.5f}")
    table.add_row("divergence, 99 % below", "", f"{one['kl_p99']:.4f}")
    table.add_row("same likeliest token", "", f"{one['same_top']:.2%}")
    if "accuracy" in report:
        cells = [
            f"{score['accuracy']:.1%} ({score['interval_95'][0]:.1%} to {score['interval_95'][1]:.1%})"
            for score in report["accuracy"].values()
        ]
        table.add_row("problems solved", *cells)
    console.print(table)
    console.print(f"divergence in nats, over {one['tokens']:,} tokens of solutions")
