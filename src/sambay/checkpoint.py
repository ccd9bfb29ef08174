"""Checkpoints: Hugging Face names on disk, legible names in memory, and nothing but renaming between them.

Beside the weights, the two JSON files: `config.json` and `generation_config.json`.

Only this module knows both name sets. Weights are read from `model.safetensors`, or from the shards that
`model.safetensors.index.json` lists, through a memory mapping that is private and copy-on-write: a tensor
whose dtype and device already fit is a view of the file, is paged in when it is first read, and may be
trained, because a write copies the page and never reaches the file.

Source: the tensor names of `microsoft/Phi-4-mini-flash-reasoning`; the safetensors format.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from sambay.config import DTYPES, SambaYConfig
from sambay.errors import CheckpointError, ConfigError
from sambay.files import StoredTensor, atomic_write, few, open_weights, write_weights

__all__ = [
    "GENERATION_FILE", "HEAD", "NAMES", "check_tied_head", "load_end_ids", "load_generation_config",
    "load_weights", "resolve_dtype", "save_config", "save_generation_config", "save_weights",
    "to_disk_name", "to_memory_name",
]  # fmt: skip

GENERATION_FILE = "generation_config.json"

_EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_LAYER_GROUPS = (  # a prefix in memory, the same on disk, what may follow either
    ("mixer_norm", "input_layernorm", "weight bias"),
    ("mlp_norm", "post_attention_layernorm", "weight bias"),
    ("mixer", "attn", "in_proj.weight in_proj.bias conv1d.weight conv1d.bias x_proj.weight dt_proj.weight"),
    ("mixer", "attn", "dt_proj.bias A_log D Wqkv.weight Wqkv.bias out_proj.weight out_proj.bias"),
    ("mixer", "attn.inner_cross_attn", "lambda_q1 lambda_k1 lambda_q2 lambda_k2 subln.weight"),
    ("mlp", "mlp", "fc1.weight fc1.bias fc2.weight fc2.bias"),
)
NAMES: tuple[tuple[str, str], ...] = (
    ("embedding.weight", "model.embed_tokens.weight"),
    *(
        (f"layers.*.{memory}.{leaf}", f"model.layers.*.{disk}.{leaf}")
        for memory, disk, leaves in _LAYER_GROUPS
        for leaf in leaves.split()
    ),
    ("final_norm.weight", "model.final_layernorm.weight"),
    ("final_norm.bias", "model.final_layernorm.bias"),
    ("lm_head.weight", "lm_head.weight"),
    ("lm_head.bias", "lm_head.bias"),
)
"""Every (name in memory, name on disk); `*` stands for the layer number, the same in both."""

_TO_DISK = dict(NAMES)
_TO_MEMORY = {disk: memory for memory, disk in NAMES}
_LAYER = re.compile(r"(?<=layers\.)(0|[1-9][0-9]*)(?=\.)")

# The dtypes of a safetensors header that are weights as they stand: integers and 8-bit floats need scales,
# which a plain checkpoint does not hold.
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PACKED = {"U8": torch.uint8}
_SUFFIX = ".packed"
"""Ends the name of a quantised weight, which holds its scales, in place of `.weight`; see `quant.formats`."""


def to_disk_name(name: str) -> str:
    """The Hugging Face name of a parameter of `SambaY`.

    Raises:
        CheckpointError: no parameter has that name.
    """
    return _rename(name, _TO_DISK, "in memory")


def to_memory_name(name: str) -> str:
    """The name in `SambaY.state_dict()` of a tensor on disk; the exact inverse of `to_disk_name`.

    Raises:
        CheckpointError: no tensor of this architecture has that name.
    """
    return _rename(name, _TO_MEMORY, "on disk")


def _rename(name: str, table: Mapping[str, str], where: str) -> str:
    if name.endswith(_SUFFIX):
        plain = _rename(name.removesuffix(_SUFFIX) + ".weight", table, where)
        return plain.removesuffix(".weight") + _SUFFIX
    layer = _LAYER.search(name)
    renamed = table.get(_LAYER.sub("*", name, count=1)) if layer else table.get(name)
    if renamed is None or "*" in name:
        raise CheckpointError(f"no tensor of a SambaY model is called {name!r} {where}")
    return renamed.replace("*", layer.group(), 1) if layer else renamed


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype that is meant: one, the name of one, or None for "auto" and None, which decide nothing.

    Raises:
        ConfigError: weights cannot be of that dtype.
    """
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}: it must be one of auto, {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found


def load_weights(
    model: nn.Module,
    directory: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    matrices: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Give a model, usually one built under `torch.device("meta")`, the weights of a checkpoint directory.

    Names, shapes and dtypes are all checked, by the headers, before any weight is read. Parameters are
    replaced, not copied into, so an optimiser must be made afterwards; `requires_grad` stays as it was.
    Values are not looked at: a NaN in the file is a NaN in the model.

    Args:
        model: `SambaY`, or any module with its parameter names.
        directory: holds `model.safetensors`, or `model.safetensors.index.json` and its shards.
        dtype: one for the whole model, or its name: `A_log`, `D`, `dt_proj.bias` and the lambdas included,
            however they are stored (operations that need float32 widen them where they compute). None and
            "auto" keep what is stored. On the CPU, tensors stored so are views of the mapped file; others are
            converted one at a time.
        matrices: another dtype, of the weights of those modules that are `as_stored`; None keeps their bfloat16.
        device: where the parameters go.
        progress: called after each tensor with (bytes done, bytes in all), sizes as stored.

    Raises:
        ConfigError: a dtype that weights cannot have.
        CheckpointError: files that are missing, damaged, in pickle format or at odds with their index;
            tensors that are missing, surplus, misshapen or not floating point.
    """
    chosen, directory = resolve_dtype(dtype), Path(directory)
    wanted = {to_disk_name(name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    with contextlib.ExitStack() as stack:
        stored = open_weights(directory, stack)
        tied_head = None if HEAD in wanted or _EMBEDDING not in wanted else stored.pop(HEAD, None)
        _check({disk: shape for disk, (_, shape) in wanted.items()}, stored, directory)
        if tied_head is not None:
            _check_tied_head(tied_head, stored[_EMBEDDING])
        kept = {f"{name}.weight" for name, one in model.named_modules() if getattr(one, "as_stored", False)}
        dtypes = _DTYPES | _PACKED
        sizes = {name: dtypes[found.dtype].itemsize * math.prod(found.shape) for name, found in stored.items()}
        total, done = sum(sizes.values()), 0
        state = {}
        for disk, found in stored.items():
            tensor, name = found.read(), wanted[disk][0]
            # Codes stay as they are.
            stays = disk.endswith(_SUFFIX) or (name in kept and tensor.dtype is torch.bfloat16)
            own = matrices if name in kept else None
            state[name] = tensor.to(device, own or (tensor.dtype if stays else chosen or tensor.dtype))
            done += sizes[disk]
            if progress is not None:
                progress(done, total)
    model.load_state_dict(state, assign=True)
    hollow = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not hollow, f"not in the state dict, so still without values: {hollow[:5]}"


def save_weights(model: nn.Module, directory: str | Path, *, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write the weights of a model under their Hugging Face names, as stored, in one file or in shards.

    A crash at any point leaves the checkpoint that was there readable, or the new one: new shards never take
    the name of a file in use, and one rename or removal makes the new files valid. A tied head is not
    written. It is safe to save into the directory that the weights are mapped from. Two processes must not
    save into one directory at the same time.

    Args:
        model: `SambaY`, or any module with its parameter names.
        directory: made when it does not exist; shards of an earlier save in it are removed.
        max_shard_bytes: the most tensor data in one file; a larger tensor has a file of its own.

    Raises:
        CheckpointError: the directory cannot be written or the disk is full, or a bound that is not positive.
    """
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes is {max_shard_bytes}: it must be at least 1")
    tensors = {to_disk_name(name): tensor for name, tensor in model.state_dict().items()}
    with _writing(Path(directory)):
        write_weights(tensors, Path(directory), max_shard_bytes)


def save_config(config: SambaYConfig, directory: str | Path) -> None:
    """Write `config.json` as Hugging Face has it; the old one stays when that fails.

    Raises:
        CheckpointError: the directory cannot be written.
    """
    _write_json(Path(directory) / "config.json", config.to_dict())


def save_generation_config(content: Mapping[str, Any], directory: str | Path) -> None:
    """Write `generation_config.json`: how a checkpoint is to be sampled, and which tokens end a reply.

    Raises:
        CheckpointError: the directory cannot be written.
    """
    _write_json(Path(directory) / GENERATION_FILE, content)


def load_end_ids(directory: str | Path, config: SambaYConfig) -> frozenset[int]:
    """The tokens that end a reply: those of `generation_config.json` and those of the configuration.

    Raises:
        CheckpointError: the file cannot be read, or names what is no token.
    """
    ends = load_generation_config(directory).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    for token in ends:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < config.vocab_size:
            raise CheckpointError(
                f"{Path(directory) / GENERATION_FILE}: eos_token_id is {ends}: it must be token ids from 0 to "
                f"{config.vocab_size - 1}"
            )
    return frozenset(ends) | frozenset(config.eos_token_ids)


def load_generation_config(directory: str | Path) -> dict[str, Any]:
    """What `generation_config.json` holds, nothing where there is none.

    Raises:
        CheckpointError: it cannot be read, or is not a JSON object.
    """
    path = Path(directory) / GENERATION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}: it must be a JSON object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())


def _kinds(name: str) -> Mapping[str, torch.dtype]:
    return _PACKED if name.endswith(_SUFFIX) else _DTYPES


def _check(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], where: Path) -> None:
    """Raise unless the stored tensors are exactly the wanted ones, in shape and kind."""
    both = [name for name in wanted if name in stored]
    problems = {
        "missing": [f"{name} (expected {list(wanted[name])})" for name in wanted if name not in stored],
        "surplus": [f"{name} (found {list(stored[name].shape)})" for name in stored if name not in wanted],
        "misshapen": [
            f"{name} (expected {list(wanted[name])}, found {list(stored[name].shape)})"
            for name in both
            if wanted[name] != stored[name].shape
        ],
        "of a wrong dtype": [
            f"{name} (expected one of {', '.join(_kinds(name))}, found {stored[name].dtype})"
            for name in both
            if stored[name].dtype not in _kinds(name)
        ],
    }
    found = "; ".join(f"{len(names)} {kind}: {few(names)}" for kind, names in problems.items() if names)
    if found:
        raise CheckpointError(f"the weights in {where} do not fit the configuration: tensors {found}")


def check_tied_head(directory: Path) -> None:
    """Refuse a checkpoint whose files hold a head that is not the embedding, for a model that ties the two.

    Raises:
        CheckpointError: they differ, or the files are missing or damaged.
    """
    with contextlib.ExitStack() as stack:
        stored = open_weights(directory, stack)
        if HEAD in stored:
            _check_tied_head(stored[HEAD], stored[_EMBEDDING])


def _check_tied_head(head: StoredTensor, embedding: StoredTensor) -> None:
    """A file may repeat the tied embedding as the head, but not contradict it; compared bit by bit."""
    same = (head.shape, head.dtype) == (embedding.shape, embedding.dtype)
    if not same or not torch.equal(head.read().view(torch.uint8), embedding.read().view(torch.uint8)):
        raise CheckpointError(
            f"{head.path} holds a {HEAD} ({head.dtype}, {list(head.shape)}) that differs from the embedding "
            f"({embedding.dtype}, {list(embedding.shape)}), but the configuration ties the two: "
            "set tie_word_embeddings to false"
        )


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory} cannot be written ({error}): make room or choose another directory; "
            "a checkpoint that was there is still whole"
        ) from error
