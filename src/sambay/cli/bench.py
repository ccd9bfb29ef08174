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
    from sambay.bench.peer import Peer

__all__ = ["COMMANDS", "EXAMPLES", "Recorded", "show_help"]

EXAMPLES = """Examples:

sambay bench machine

sambay bench decode --batch 1,16

sambay bench decode random:phi4-mini-flash --batch 1 --plot decode.png --save results.jsonl

sambay bench decode random:phi4-mini-flash --batch 1 --peer llama.cpp
"""

_OUTPUT = "Output"
_PEER = "Peer"
_ENGINE, _SAMPLED = "Requests through the engine", "Steps of long generations"
_WIDEST = 150
"""Columns of a table, of which none is cut: a narrower terminal breaks the lines."""

Model = Annotated[
    str | None,
    typer.Argument(
        help="A checkpoint directory, a name on the Hugging Face hub, or random:PRESET[:BITS[:GROUP]], such as "
        "random:phi4-mini-flash:4, for random weights, made once; without it the model that comes with sambay.",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="How often everything is measured, in turns.")]
Steps = Annotated[int, typer.Option("--tokens", min=1, help="Steps of a round.")]
Prompt = Annotated[int, typer.Option(min=1, help="Tokens before the first one that is generated.")]
Generate = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens that are generated; by default 32768, or what the context has room for.",
        show_default=False,
    ),
]
Points = Annotated[int, typer.Option(min=2, help="Depths that are measured.")]
PeerName = Annotated[
    str | None,
    typer.Option(
        "--peer",
        help='Measure llama.cpp beside the model, in turns: "llama.cpp", which runs random weights of Phi-4-mini\'s '
        "shape in Q4_0, made once.",
        rich_help_panel=_PEER,
        show_default=False,
    ),
]
PeerFlash = Annotated[
    str,
    typer.Option(
        help="Flash attention of the peer: on, off, or better: both are measured, and the better one counts.",
        rich_help_panel=_PEER,
    ),
]
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
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    peer: PeerName = None,
    peer_flash: PeerFlash = "better",
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time the steps of a model at some depths, and compare the bytes that they move with the bandwidth of the memory.

    A depth is reached by filling states and caches with random numbers, which costs a step what a real text would.
    """
    depths, batches = _numbers("--depth", _DEPTHS if depth is None else depth, 0), _numbers("--batch", batch, 1)
    run = _Run(context, "decode", as_json, plot, save, threads, peer, peer_flash)
    found = run.open(model, dtype, kv_cache_dtype, mmap)
    if depth is None:
        most = found.model.config.max_position_embeddings - tokens
        depths = [one for one in depths if one <= most] or [0]
    other = run.open_peer()
    with task_progress("Measuring") as bar:
        from sambay.bench.decode import measure_decode

        measured = measure_decode(
            found.model, depths, batches, tokens=tokens, rounds=rounds, peer=other, progress=bar.update
        )
    shapes = {"depth": depths, "batch": batches, "tokens": tokens, "rounds": rounds}
    run.finish(shapes, [row for one in measured for row in one.rows()])


def prefill(
    context: typer.Context,
    model: Model = None,
    length: Annotated[str, typer.Option(help="Tokens of the prompt; several, with commas.")] = "512,2048",
    chunk: Annotated[str, typer.Option(help="Tokens that are computed at once; 0 takes the prompt whole.")] = "512",
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    peer: PeerName = None,
    peer_flash: PeerFlash = "better",
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time prompts, and compare the operations that they need with what products of matrices reach."""
    lengths, chunks = _numbers("--length", length, 1), _numbers("--chunk", chunk, 0)
    run = _Run(context, "prefill", as_json, plot, save, threads, peer, peer_flash)
    found, other = run.open(model, dtype, kv_cache_dtype, mmap), run.open_peer()
    with task_progress("Measuring") as bar:
        from sambay.bench.prefill import measure_prefill

        results = measure_prefill(found.model, lengths, chunks, rounds=rounds, peer=other, progress=bar.update)
    run.finish({"length": lengths, "chunk": chunks, "rounds": rounds}, results)


def latency(
    context: typer.Context,
    model: Model = None,
    prompt: Prompt = 2048,
    generate: Generate = None,
    points: Points = 8,
    tokens: Steps = 8,
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    peer: PeerName = None,
    peer_flash: PeerFlash = "better",
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Show the time that a long generation takes against the tokens generated, as the paper does.

    It is not one long run: steps are timed at some depths, and the cost between them is interpolated.
    """
    run = _Run(context, "latency", as_json, plot, save, threads, peer, peer_flash)
    found = run.open(model, dtype, kv_cache_dtype, mmap)
    other = run.open_peer()
    length = _length(found, prompt, generate)
    with task_progress("Measuring") as bar:
        from sambay.bench.generation import measure_latency

        results = measure_latency(
            found.model, prompt, length, points=points, tokens=tokens, rounds=rounds, peer=other, progress=bar.update
        )
    run.finish({"prompt": prompt, "generate": length, "points": points, "tokens": tokens, "rounds": rounds}, results)


def throughput(
    context: typer.Context,
    model: Model = None,
    concurrency: Annotated[
        str, typer.Option(help="Requests that run at once; several numbers, with commas.", rich_help_panel=_ENGINE)
    ] = "1,2,4,8,16,32",
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests in all; by default as many as the largest number at once.",
            rich_help_panel=_ENGINE,
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens before the first one that is generated, at random. By default school problems, which end as "
            "they do; 2048 with --batch.",
            show_default=False,
        ),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens that are generated at most; by default 256; with --batch 32768, or what the context has room "
            "for.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Sequences of a long generation whose steps are timed at some depths; several numbers, with commas.",
            rich_help_panel=_SAMPLED,
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Measure as many sequences, too, as so much memory holds to their end, such as 20GB.",
            rich_help_panel=_SAMPLED,
            show_default=False,
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Depths that are measured.", rich_help_panel=_SAMPLED)] = 5,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Steps of a round.", rich_help_panel=_SAMPLED)] = 4,
    rounds: Rounds = 5,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    peer: PeerName = None,
    peer_flash: PeerFlash = "better",
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Show how many tokens a second requests make that run at once, against one after another.

    They are real ones, through the engine: prompts, choosing tokens, text. With --batch it is long generations instead,
    and not one long run: steps are timed at some depths, and the cost between them is interpolated.
    """
    sampled = batch is not None
    for name in ("concurrency", "requests") if sampled else ("memory", "points", "tokens", "peer", "peer_flash"):
        if _given(context, name):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} does not go with --batch" if sampled else f"{option} goes with --batch only")
    if not sampled:
        levels = _numbers("--concurrency", concurrency, 1)
        run = _Run(context, "concurrency", as_json, plot, save, threads)
        found = run.open(model, dtype, kv_cache_dtype, mmap)
        count, most = requests or max(levels), generate or 256
        with task_progress("Measuring") as bar:
            from sambay.bench.concurrency import measure_concurrency

            results = measure_concurrency(
                found.model, found.tokenizer, levels,
                requests=count, prompt=prompt, generate=most, rounds=rounds, progress=bar.update,
            )  # fmt: skip
        shapes = {"concurrency": levels, "requests": count, "prompt": prompt, "generate": most, "rounds": rounds}
        run.finish(shapes, results)
        return
    batches = _numbers("--batch", batch or "", 1)
    from sambay.engine.budget import memory_bytes  # torch takes a second, which help need not wait for

    budget = None if memory is None else memory_bytes(memory, "--memory")
    run = _Run(context, "throughput", as_json, plot, save, threads, peer, peer_flash)
    found, other = run.open(model, dtype, kv_cache_dtype, mmap), run.open_peer()
    before = prompt or 2048
    length = _length(found, before, generate)
    with task_progress("Measuring") as bar:
        from sambay.bench.generation import measure_throughput

        results = measure_throughput(
            found.model, batches, before, length,
            points=points, tokens=tokens, rounds=rounds, memory=budget, peer=other, progress=bar.update,
        )  # fmt: skip
    shapes = {"batch": batches, "prompt": before, "generate": length, "memory": budget}
    run.finish(shapes | {"points": points, "tokens": tokens, "rounds": rounds}, results)


def prefix(
    context: typer.Context,
    model: Model = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the first question.")] = 2048,
    turns: Annotated[int, typer.Option(min=1, help="Questions of the conversation.")] = 4,
    new: Annotated[int, typer.Option(min=1, help="Tokens of each further question.")] = 32,
    generate: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 32,
    rounds: Rounds = 3,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time the first token of each answer of a conversation, with the prefix cache and without it."""
    run = _Run(context, "prefix", as_json, plot, save, threads)
    found = run.open(model, dtype, kv_cache_dtype, mmap)
    with task_progress("Measuring") as bar:
        from sambay.bench.prefix import measure_prefix

        results = measure_prefix(
            found.model, prompt, turns=turns, new=new, generate=generate, rounds=rounds, progress=bar.update
        )
    run.finish({"prompt": prompt, "turns": turns, "new": new, "generate": generate, "rounds": rounds}, results)


def speculation(
    context: typer.Context,
    model: Model = None,
    text: Annotated[
        str, typer.Option(help="What is generated: repeats, quotes, new or misleads, with commas.")
    ] = "repeats,quotes,new,misleads",
    batch: Annotated[str, typer.Option(help="Sequences that are generated together.")] = "1",
    mode: Annotated[str, typer.Option("--speculation", help="What is measured beside off: auto, on.")] = "auto",
    prompt: Prompt = 512,
    generate: Annotated[int, typer.Option(min=2, help="Tokens that are generated.")] = 256,
    rounds: Rounds = 3,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    mmap: options.Mmap = None,
    threads: options.Threads = None,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Time texts that repeat their prompt, or do not, with speculation and without it."""
    batches = _numbers("--batch", batch, least=1)
    texts, modes = text.split(","), ["off", *(one for one in mode.split(",") if one != "off")]
    run = _Run(context, "speculation", as_json, plot, save, threads)
    found = run.open(model, dtype, kv_cache_dtype, mmap)
    with task_progress("Measuring") as bar:
        from sambay.bench.speculation import measure_speculation

        results = measure_speculation(
            found.model,
            prompt,
            texts=texts,
            batches=batches,
            generate=generate,
            rounds=rounds,
            modes=modes,
            progress=bar.update,
        )
    shapes = {"text": texts, "batch": batches, "prompt": prompt, "generate": generate}
    run.finish(shapes | {"speculation": modes, "rounds": rounds}, results)


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "machine": (machine, "Examples:\n\nsambay bench machine --plot machine.png\n"),
    "decode": (decode, "Examples:\n\nsambay bench decode random:phi4-mini-flash:4 --batch 1 --depth 0,8192\n"),
    "prefill": (prefill, "Examples:\n\nsambay bench prefill random:phi4-mini-flash:4 --length 2048 --chunk 256,512\n"),
    "latency": (latency, "Examples:\n\nsambay bench latency random:phi4-mini-flash:4 --plot latency.png\n"),
    "throughput": (
        throughput,
        "Examples:\n\nsambay bench throughput --concurrency 1,16 --plot throughput.png\n\n"
        "sambay bench throughput random:phi4-mini-flash:4 --concurrency 1,16 --prompt 128 --generate 32\n\n"
        "sambay bench throughput random:phi4-mini-flash:4 --batch 1 --memory 20GB --peer llama.cpp\n",
    ),
    "prefix": (prefix, "Examples:\n\nsambay bench prefix --prompt 7000 --turns 5 --plot prefix.png\n"),
    "speculation": (speculation, "Examples:\n\nsambay bench speculation --text repeats,new --batch 1,4\n"),
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


def _given(context: typer.Context, name: str) -> bool:
    """Whether a person gave this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _length(found: BenchModel, prompt: int, generate: int | None) -> int:
    """Tokens that are generated, by default what the context has room for."""
    room = found.model.config.max_position_embeddings - prompt
    return max(1, min(_GENERATED, room)) if generate is None else generate


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
    threads = record["threads"]
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
    console.print(view.note, style="dim")
    if peer is not None:
        console.print(PEER_NOTE, style="dim")
    if record["machine"]["isa"] is None and model is None:
        console.print("There are no compiled kernels here: these are figures of torch. `sambay info` says why.")
    if record["peak_rss"] is not None:
        console.print(f"peak memory {record['peak_rss'] / 1e9:.2f} GB")
