"""Options that several commands share, and the model that they open."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sambay.config import DTYPES
from sambay.progress import task_progress

if TYPE_CHECKING:
    from sambay.engine import LLM

__all__ = [
    "Deterministic",
    "Device",
    "Dtype",
    "HideThinking",
    "KvCacheDtype",
    "MaxModelLen",
    "MaxThinkingTokens",
    "MaxTokens",
    "Memory",
    "MinP",
    "Mmap",
    "Model",
    "NoThinking",
    "RepetitionPenalty",
    "Seed",
    "SpeculationMode",
    "StateDir",
    "System",
    "Temperature",
    "Threads",
    "TopK",
    "TopP",
    "apply_threads",
    "check_sampling",
    "open_model",
    "read_text",
    "writable",
]

_MACHINE, _SAMPLING = "Machine", "Sampling (by default what the checkpoint recommends)"

Model = Annotated[
    str | None,
    typer.Argument(
        help="A checkpoint directory or a name on the Hugging Face hub; without it the model that comes with sambay.",
        show_default=False,
    ),
]
System = Annotated[str | None, typer.Option(help="A system message.", show_default=False)]
HideThinking = Annotated[bool, typer.Option("--hide-thinking", help="Print the answer only.")]

Temperature = Annotated[
    float | None,
    typer.Option(help="0 always takes the likeliest token.", rich_help_panel=_SAMPLING, show_default=False),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Keep the likeliest tokens that together reach this probability.",
        rich_help_panel=_SAMPLING,
        show_default=False,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(help="Keep this many tokens; 0 keeps all.", rich_help_panel=_SAMPLING, show_default=False),
]
MinP = Annotated[
    float | None,
    typer.Option(
        help="Drop tokens below this share of the likeliest one's probability.",
        rich_help_panel=_SAMPLING,
        show_default=False,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Above 1 discourages repeating.", rich_help_panel=_SAMPLING, show_default=False),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="The same seed gives the same text; without it each run draws a new one.",
        rich_help_panel=_SAMPLING,
        show_default=False,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Tokens of a reply at most.", rich_help_panel=_SAMPLING, show_default=False),
]
MaxThinkingTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens of thinking at most: then it is closed, and the model answers.",
        rich_help_panel=_SAMPLING,
        show_default=False,
    ),
]
NoThinking = Annotated[bool, typer.Option("--no-thinking", help="Answer without thinking.", rich_help_panel=_SAMPLING)]

Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1; auto takes a GPU where there is one.", rich_help_panel=_MACHINE)
]
Dtype = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(DTYPES)}; auto takes that of the checkpoint, and computes on the CPU in float32 with "
        "weights of bfloat16.",
        rich_help_panel=_MACHINE,
    ),
]
KvCacheDtype = Annotated[
    str,
    typer.Option(
        "--kv-cache-dtype",
        help="What keys and values are kept in: float32, bfloat16, float16, int8; auto takes that of the weights, "
        "bfloat16 for a quantised model.",
        rich_help_panel=_MACHINE,
    ),
]
Mmap = Annotated[
    bool | None,
    typer.Option(
        "--mmap/--no-mmap",
        help="Leave the weights that the kernels read (quantised, or of bfloat16) in the mapped file, or copy them "
        "into large pages, which are read faster; by default large models are copied where memory has room twice over.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        help="Tokens of prompt and reply at most; by default the model's context.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="What the states of all sequences may take, such as 4GB; by default half of what is free beside the "
        "weights, or less where that is enough.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Save the state at the end of each turn in this directory, and go on from there after a restart.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Refuse a model or a machine where a token could depend on how its prompt was cut, on what was cached, or "
        "on what else is computed.",
        rich_help_panel=_MACHINE,
    ),
]
SpeculationMode = Annotated[
    str,
    typer.Option(
        "--speculation",
        help="Look up what followed the last words earlier in the text, and compute several tokens at once where the "
        "same comes again: off, on, or auto, where it is measured to be faster. The text is the same.",
        rich_help_panel=_MACHINE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="CPU threads; by default one per core.",
        rich_help_panel=_MACHINE,
        show_default=False,
    ),
]


def apply_threads(threads: int | None) -> None:
    """Use so many CPU threads, in torch and in the compiled kernels; None leaves their own choices.

    Raises:
        BackendError: SAMBAY_ISA names an instruction set that cannot be used: said now, not after hours of work.
    """
    from sambay.ops import backend, native

    native.available()
    if threads is not None:
        backend.use_threads(threads)


def open_model(
    model: str | None,
    *,
    device: str,
    dtype: str,
    threads: int | None,
    kv_cache_dtype: str = "auto",
    mmap: bool | None = None,
    max_model_len: int | None = None,
    max_num_seqs: int = 16,
    memory: int | str | None = None,
    state_dir: Path | None = None,
    deterministic: bool = False,
    speculation: str = "auto",
) -> LLM:
    """Load the model of a command, with a progress bar where a person watches.

    Args:
        model: a directory or a hub name, None for the bundled model.
        device: as typed.
        dtype: as typed.
        threads: CPU threads, None for torch's choice.
        kv_cache_dtype: as typed.
        mmap: as typed, None for the default.
        max_model_len: tokens of a sequence at most, None for the model's context.
        max_num_seqs: sequences that run at once.
        memory: as typed, None for the default.
        state_dir: where sessions are saved, None for nowhere.
        deterministic: as typed.
        speculation: as typed.

    Raises:
        SambaYError: no such model, a damaged one, or an impossible option.
    """
    with task_progress("Starting"):  # torch alone takes a second
        from sambay.engine import LLM

        apply_threads(threads)
    return LLM(
        model,
        device=device,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        mmap=mmap,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        memory=memory,
        state_dir=state_dir,
        deterministic=deterministic,
        speculation=speculation,
        # Requests without a seed draw theirs from this one: a person who asks twice wants another answer.
        seed=secrets.randbits(63),
        progress=True,
    )


def check_sampling(**values: object) -> dict[str, object]:
    """The sampling options that were given, validated before a model is loaded for nothing.

    Args:
        **values: fields of `SamplingParams`; None means not given.

    Raises:
        SamplingError: an impossible value.
    """
    from sambay.engine import SamplingParams

    given = {name: value for name, value in values.items() if value is not None}
    SamplingParams(**given)  # type: ignore[arg-type]  # it checks the types itself, whatever was typed
    return given


def read_text(read: Callable[[], str]) -> str:
    """What a method of the standard input reads.

    Raises:
        BadParameter: it is no text.
    """
    try:
        return read()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise typer.BadParameter(
            f"standard input has the byte 0x{byte:02x}, which is not {error.encoding.upper()}: convert it first, "
            "such as with iconv -t UTF-8"
        ) from None


def writable(path: Path) -> Path:
    """The path, if a file can be made or changed there: found out before the work, not after it.

    Raises:
        OSError: it is a directory or not writable, or its directory is missing or not writable.
    """
    parent = path.parent
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory, a file name is needed", str(path))
    if not parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory", str(parent))
    for one in (parent, path):
        if one.exists() and not os.access(one, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable", str(one))
    return path
