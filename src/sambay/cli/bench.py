"""`sambay bench`: what this machine can do, and how near a model comes to it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.cli import options
from sambay.cli.bench_run import Recorded, Run, numbers
from sambay.errors import ConfigError
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.bench.models import BenchModel

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
Model = Annotated[
    str | None,
    typer.Argument(
        help="A checkpoint directory, a name on the Hugging Face hub, or random:PRESET[:BITS], such as "
        "random:phi4-mini-flash:4, for random weights (of 4, 6, 8 or 16 bits), made once; without it the model that "
        "comes with sambay.",
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
    run = Run(context, "machine", as_json, plot, save, threads)
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
    depths, batches = numbers("--depth", _DEPTHS if depth is None else depth, 0), numbers("--batch", batch, 1)
    run = Run(context, "decode", as_json, plot, save, threads, peer, peer_flash)
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
    lengths, chunks = numbers("--length", length, 1), numbers("--chunk", chunk, 0)
    run = Run(context, "prefill", as_json, plot, save, threads, peer, peer_flash)
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
    run = Run(context, "latency", as_json, plot, save, threads, peer, peer_flash)
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
            help="Requests in all; by default as many as the largest number at once. With four times as many the end, "
            "when fewer and fewer run, weighs little.",
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
        levels = numbers("--concurrency", concurrency, 1)
        run = Run(context, "concurrency", as_json, plot, save, threads)
        found = run.open(model, dtype, kv_cache_dtype, mmap)
        count, most = requests or max(levels), generate or 256
        with task_progress("Measuring") as bar:
            from sambay.bench.concurrency import measure_concurrency

            results = measure_concurrency(
                found.model, found.tokenizer, levels, ends=found.ends,
                requests=count, prompt=prompt, generate=most, rounds=rounds, progress=bar.update,
            )  # fmt: skip
        shapes = {"concurrency": levels, "requests": count, "prompt": prompt, "generate": most, "rounds": rounds}
        run.finish(shapes, results)
        return
    batches = numbers("--batch", batch or "", 1)
    from sambay.engine.budget import memory_bytes  # torch takes a second, which help need not wait for

    budget = None if memory is None else memory_bytes(memory, "--memory")
    run = Run(context, "throughput", as_json, plot, save, threads, peer, peer_flash)
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
    run = Run(context, "prefix", as_json, plot, save, threads)
    found = run.open(model, dtype, kv_cache_dtype, mmap)
    with task_progress("Measuring") as bar:
        from sambay.bench.prefix import measure_prefix

        results = measure_prefix(
            found.model, prompt, turns=turns, new=new, generate=generate, rounds=rounds, progress=bar.update
        )
    run.finish({"prompt": prompt, "turns": turns, "new": new, "generate": generate, "rounds": rounds}, results)


def serve(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Of any server of OpenAI's protocol, such as http://127.0.0.1:8000.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="What requests call the model; by default the first that the server lists.", show_default=False
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            help="Conversations at once, the next one as soon as one has ended; several, with commas. By default "
            "1,4,16; with --rate the most at once, by default any.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Conversations that begin in a second instead, at random, done or not; several, with commas.",
            show_default=False,
        ),
    ] = None,
    conversations: Annotated[
        int | None,
        typer.Option(min=1, help="At each level; by default 4 times the concurrency, 16 at least.", show_default=False),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Words of a question: a number or a range; several, with commas, are equally likely.")
    ] = "16-64",
    generate: Annotated[
        str, typer.Option(help="Tokens of an answer at most: a number or a range; several, with commas.")
    ] = "128",
    turns: Annotated[int, typer.Option(min=1, help="Questions of each conversation.")] = 1,
    prefix: Annotated[int, typer.Option(min=0, help="Words of a system message that all have in common.")] = 0,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Have all answers as long as they may be; not every server can.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="The same one asks the same; by default another each time.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that the server may be silent.")] = 600.0,
    as_json: AsJson = False,
    plot: Plot = None,
    save: Save = None,
) -> None:
    """Drive a running server: tokens a second, the time to the first token and between tokens, and what fails.

    What is asked are school problems. A server that asks for a key gets that in the environment's OPENAI_API_KEY.
    """
    prompts, answers = _mix("--prompt", prompt), _mix("--generate", generate)
    most = None if concurrency is None else numbers("--concurrency", concurrency, 1)
    rates = None if rate is None else _rates(rate)
    if rates is not None and most is not None and len(most) > 1:
        raise ConfigError(f"--concurrency {concurrency!r} with --rate is the most at once: give one number")
    run = Run(context, "serve", as_json, plot, save, None)
    from sambay.bench.serve import Level, Load, Target, find_model, measure_serving

    target = Target(url, model, os.environ.get("OPENAI_API_KEY") or None, timeout)
    with task_progress("Asking"):
        name = find_model(target)
    run.about_server(url, name)
    if rates is not None:
        levels = [Level(conversations or 16, most[0] if most else None, one) for one in rates]
    else:
        levels = [Level(conversations or max(16, 4 * one), one) for one in most or [1, 4, 16]]
    load = Load(prompts, answers, turns, prefix, ignore_eos, secrets.randbits(32) if seed is None else seed)
    with task_progress("Measuring") as bar:
        results = measure_serving(target, name, load, levels, progress=bar.update)
    run.finish(asdict(load), results)


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
    batches = numbers("--batch", batch, 1)
    texts, modes = text.split(","), ["off", *(one for one in mode.split(",") if one != "off")]
    run = Run(context, "speculation", as_json, plot, save, threads)
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
    "serve": (
        serve,
        "Examples:\n\nsambay bench serve http://127.0.0.1:8000 --concurrency 1,16,64 --plot serve.png\n\n"
        "sambay bench serve http://127.0.0.1:8000 --rate 0.5,1,2 --conversations 60 --prompt 20,500-1000 --turns 3\n",
    ),
    "prefix": (prefix, "Examples:\n\nsambay bench prefix --prompt 7000 --turns 5 --plot prefix.png\n"),
    "speculation": (speculation, "Examples:\n\nsambay bench speculation --text repeats,new --batch 1,4\n"),
}
"""The modes, with their examples."""


def _mix(option: str, text: str) -> list[tuple[int, int]]:
    """Ranges that an option lists, such as "16-64,512"."""
    found = []
    for word in text.split(","):
        ends = [numbers(option, end, 1)[0] for end in word.split("-", 1)]
        if ends[0] > ends[-1]:
            raise ConfigError(f"{option} {text!r} has {word.strip()!r}: a range begins with its smaller number")
        found.append((ends[0], ends[-1]))
    return found


def _rates(text: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0.001 <= one <= 1e6 for one in found):
        raise ConfigError(f"--rate {text!r}: give numbers from 0.001 to 1000000, with commas between them")
    return found


def _given(context: typer.Context, name: str) -> bool:
    """Whether a person gave this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _length(found: BenchModel, prompt: int, generate: int | None) -> int:
    """Tokens that are generated, by default what the context has room for."""
    room = found.model.config.max_position_embeddings - prompt
    return max(1, min(_GENERATED, room)) if generate is None else generate
