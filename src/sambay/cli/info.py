"""`sambay info`: what a model is, what it costs, and what would run it, without loading its weights.

And, if asked, whether they are as they were written: the one thing for which they are read.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sambay._version import __version__
from sambay.cli import options
from sambay.cli.console import Screen, neutralise, plain_console
from sambay.errors import CheckpointError
from sambay.progress import task_progress

if TYPE_CHECKING:
    import torch

    from sambay.config import SambaYConfig

__all__ = ["EXAMPLES", "info"]

EXAMPLES = """Examples:

sambay info

sambay info phi4-mini-flash

sambay info ./checkpoint --json

sambay info ./checkpoint-4bit --verify
"""

_CONTEXTS = (4096, 32_768, 65_536)


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint directory, a preset such as phi4-mini-flash, or a name on the Hugging Face hub; "
            "without it the model that comes with sambay.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read all weights and compare them with the checksums that a quantised checkpoint holds. The exit "
            "status is 0 only if all are as they were written.",
        ),
    ] = False,
    device: options.Device = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
) -> None:
    """Show the layers, sizes and state of a model, its tokenizer, and the backends that would run it."""
    directory = _directory(model)
    if verify and directory is None:
        raise typer.BadParameter(f"{model} is a preset, which has no weights to --verify: give a directory")
    report = describe(model, directory, device, kv_cache_dtype)
    problem = None
    if verify:
        assert directory is not None
        report["verification"], problem = _verify(directory)
    if as_json:
        Screen(sys.stdout).write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    elif problem is None:
        _show(report)
    if problem is not None:
        raise CheckpointError(problem)


def _directory(model: str | None) -> Path | None:
    """Where a model lies; None for a preset, which is a shape only."""
    from sambay import hub
    from sambay.config import PRESETS

    if model is None:
        return hub.bundled_model()
    return None if model in PRESETS and not Path(model).is_dir() else hub.resolve(model)


def _verify(directory: Path) -> tuple[dict[str, Any], str | None]:
    """What the checksums say as plain data, and what is wrong in a sentence."""
    from sambay.checksums import verify

    with task_progress("Verifying") as bar:
        found = verify(directory, bar.update)
    return found.to_dict(), found.problem()


def describe(model: str | None, directory: Path | None, device: str, kv_cache_dtype: str = "auto") -> dict[str, Any]:
    """All that `sambay info` knows without reading weights, as plain data.

    Args:
        model: the name of a preset, if there is no directory.
        directory: of the checkpoint.
        device: as typed, such as "auto".
        kv_cache_dtype: what keys and values are kept in, as typed.

    Raises:
        SambaYError: no such device, or a damaged checkpoint.
    """
    import torch

    from sambay import ops
    from sambay.config import PRESETS, SambaYConfig
    from sambay.engine.llm import resolve_device
    from sambay.kv import cache_dtype_of
    from sambay.ops import native
    from sambay.ops.backend import widens
    from sambay.quant.stored import described_in

    found, kept = resolve_device(device), cache_dtype_of(kv_cache_dtype)
    config = PRESETS[model or ""] if directory is None else SambaYConfig.from_json(directory / "config.json")
    dtype: torch.dtype = getattr(torch, config.torch_dtype)
    if widens(dtype, found):
        kept, dtype = kept or dtype, torch.float32  # as `SambaY.from_pretrained` decides
    if kept is None and directory is not None and described_in(directory) is not None:
        kept = torch.bfloat16  # as `SambaY.cache_dtype` decides
    return {
        "model": model if directory is None else str(directory),
        "parameters": config.num_parameters(),
        "architecture": _architecture(config),
        "layers": [role.value for role in config.layer_plan()],
        "weights": _weights(config, directory),
        "verification": None,
        "state": _state(config, dtype, kept),
        "tokenizer": None if directory is None else _tokenizer(directory),
        "device": _device_name(found),
        "threads": torch.get_num_threads(),
        "native": native.describe()._asdict(),
        "backends": [choice._asdict() for choice in ops.describe_backends(found.type)],
        "versions": _versions(),
    }


def _architecture(config: SambaYConfig) -> dict[str, Any]:
    return {
        "layers": config.num_hidden_layers,
        "hidden size": config.hidden_size,
        "intermediate size": config.intermediate_size,
        "query heads": config.num_attention_heads,
        "key-value heads": config.num_key_value_heads,
        "head size": config.head_dim,
        "attention": "differential" if config.differential_attention else "plain",
        "sliding window": config.sliding_window,
        "mamba channels": config.d_inner,
        "mamba states": config.mamba_d_state,
        "convolution width": config.mamba_d_conv,
        "norm": config.norm_type,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "tied embeddings": config.tie_word_embeddings,
    }


def _weights(config: SambaYConfig, directory: Path | None) -> list[dict[str, Any]]:
    """Tensors and bytes by dtype: from the headers of the files, or from the shapes of a preset."""
    import torch

    from sambay.files import open_weights

    if directory is None:
        dtype: torch.dtype = getattr(torch, config.torch_dtype)
        count = config.num_parameters()
        return [{"dtype": config.torch_dtype, "parameters": count, "bytes": count * dtype.itemsize}]
    totals: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for tensor in open_weights(directory, stack).values():
            totals[tensor.dtype] = totals.get(tensor.dtype, 0) + math.prod(tensor.shape)
    return [
        {"dtype": dtype, "parameters": count, "bytes": count * _bits(dtype) // 8}
        for dtype, count in sorted(totals.items())
    ]


def _bits(dtype: str) -> int:
    """Bits of an element, from a dtype in the words of safetensors: F32, BF16, I8, F8_E4M3, BOOL."""
    digits = "".join(char for char in dtype.partition("_")[0] if char.isdigit())
    return int(digits or 8)


def _state(config: SambaYConfig, dtype: torch.dtype, kept: torch.dtype | None) -> dict[str, Any]:
    from sambay.state import state_bytes

    sizes = state_bytes(config, dtype, kept)
    per_token = sizes["shared KV per token"]
    fixed = sum(sizes.values()) - per_token
    context = config.max_position_embeddings
    contexts = sorted({*(length for length in _CONTEXTS if length <= context), context})
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "cache dtype": str(kept or dtype).removeprefix("torch."),
        "bytes": sizes,
        "fixed": fixed,
        "total by context": {str(length): fixed + length * per_token for length in contexts},
    }


def _tokenizer(directory: Path) -> dict[str, Any] | None:
    from sambay.tokenizer import TOKENIZER_FILE, Tokenizer

    if not (directory / TOKENIZER_FILE).exists():
        return None
    tokenizer = Tokenizer.from_pretrained(directory)
    return {
        "vocabulary": tokenizer.vocab_size,
        "special tokens": tokenizer.special_tokens,
        "chat template": tokenizer.has_chat_template,
    }


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "numpy", "safetensors", "tokenizers")
    return {
        "sambay": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in packages},
    }


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    console = plain_console()
    sizes, tokenizer = report["state"], report["tokenizer"]

    def section(title: str, rows: dict[str, str]) -> None:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for name, value in rows.items():
            # What comes out of a checkpoint may hold anything; a terminal must not obey it.
            table.add_row(f"  {name}", neutralise(value))
        console.print(f"\n{title}", style="bold")
        console.print(table)

    console.print(neutralise(str(report["model"])), style="bold")
    console.print(f"{report['parameters']:,} parameters in {len(report['layers'])} layers")
    section("Architecture", {name: _plain(value) for name, value in report["architecture"].items()})
    section("Layers", _layer_rows(report["layers"]))
    section(
        "Weights",
        {one["dtype"]: f"{_size(one['bytes'])}  ({one['parameters']:,} values)" for one in report["weights"]},
    )
    if (verified := report["verification"]) is not None:
        kinds = ", ".join(sorted({one["algorithm"] for one in verified["files"]}))
        size = f"{verified['tensors']:,} tensors, {_size(verified['bytes'])}"
        section("Checksums", {"as they were written": f"{size}  ({kinds})"})
    rows = {name: f"{_size(value)}  ({value:,} bytes)" for name, value in sizes["bytes"].items()}
    rows |= {"fixed, together": _size(sizes["fixed"])}
    rows |= {f"at {int(length):,} tokens": _size(value) for length, value in sizes["total by context"].items()}
    section(
        f"State of a sequence ({sizes['dtype']}; keys and values {sizes['cache dtype']}; scan states float32)", rows
    )
    if tokenizer is not None:
        special = ", ".join(f"{token} {index}" for token, index in [*tokenizer["special tokens"].items()][:8])
        more = len(tokenizer["special tokens"]) - 8
        rows = {
            "vocabulary": f"{tokenizer['vocabulary']:,}",
            "special tokens": f"{special} and {more} more" if more > 0 else special,
            "chat template": _plain(tokenizer["chat template"]),
        }
        section("Tokenizer", rows)
    else:
        section("Tokenizer", {"none": "prompts are token ids"})
    section("Machine", {"device": report["device"], "torch threads": str(report["threads"]), **report["versions"]})
    section("Compiled kernels", _native_rows(report["native"]))
    backends = {one["operation"]: f"{one['backend']}: {one['reason']}" for one in report["backends"]}
    section("Backends", backends)


def _native_rows(report: dict[str, Any]) -> dict[str, str]:
    if report["isa"] is None:
        return {"none": report["reason"]}
    kernels = ", ".join(f"{name} ({isa})" for name, isa in report["kernels"].items())
    return {
        "instruction set": f"{report['isa']}: {report['reason']}",
        "threads": f"{report['threads']}; {report['threads_reason']}",
        "kernels": kernels,
    }


def _layer_rows(layers: list[str]) -> dict[str, str]:
    """Roles that alternate, as one row: layers by number to what they are."""
    rows: dict[str, str] = {}
    pairs = [tuple(layers[at : at + 2]) for at in range(0, len(layers), 2)]
    start = 0
    while start < len(pairs):
        end = start + 1
        while end < len(pairs) and pairs[end] == pairs[start]:
            end += 1
        if end - start == 1:
            rows |= {str(2 * start + place): role for place, role in enumerate(pairs[start])}
        else:
            rows[f"{2 * start}-{2 * end - 1}"] = f"{end - start} x ({', '.join(pairs[start])})"
        start = end
    return rows


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(count: int) -> str:
    """Bytes for people: three digits and a binary unit."""
    power = max(0, min(4, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
