"""Checkpoints: Hugging Face names on disk, legible names in memory, and nothing but renaming between them.

Only this module knows both name sets. Weights are read from `model.safetensors`, or from the shards that
`model.safetensors.index.json` lists, through a memory mapping that is private and copy-on-write: a tensor whose
dtype and device already fit is a view of the file, is paged in when it is first read, and may be trained,
because a write copies the page and never reaches the file.

Source: the tensor names of `microsoft/Phi-4-mini-flash-reasoning`; the safetensors format.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sambay.config import SambaYConfig
from sambay.errors import CheckpointError
from sambay.files import atomic_write

__all__ = ["NAMES", "load_weights", "save_config", "save_weights", "target_dtype", "to_disk_name", "to_memory_name"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

NAMES: tuple[tuple[str, str], ...] = (
    ("embedding.weight", "model.embed_tokens.weight"),
    *((f"layers.*.mixer_norm.{leaf}", f"model.layers.*.input_layernorm.{leaf}") for leaf in ("weight", "bias")),
    *((f"layers.*.mlp_norm.{leaf}", f"model.layers.*.post_attention_layernorm.{leaf}") for leaf in ("weight", "bias")),
    *(
        (f"layers.*.mixer.{leaf}", f"model.layers.*.attn.{leaf}")
        for leaf in (
            "in_proj.weight", "in_proj.bias", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight",
            "dt_proj.bias", "A_log", "D", "Wqkv.weight", "Wqkv.bias", "out_proj.weight", "out_proj.bias",
        )
    ),
    *(
        (f"layers.*.mixer.{leaf}", f"model.layers.*.attn.inner_cross_attn.{leaf}")
        for leaf in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "subln.weight")
    ),
    *(
        (f"layers.*.mlp.{leaf}", f"model.layers.*.mlp.{leaf}")
        for leaf in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    ),
    ("final_norm.weight", "model.final_layernorm.weight"),
    ("final_norm.bias", "model.final_layernorm.bias"),
    ("lm_head.weight", "lm_head.weight"),
    ("lm_head.bias", "lm_head.bias"),
)  # fmt: skip
"""Every (name in memory, name on disk); `*` stands for the layer number, the same in both."""

_TO_DISK = dict(NAMES)
_TO_MEMORY = {disk: memory for memory, disk in NAMES}
_LAYER = re.compile(r"(?<=layers\.)(0|[1-9][0-9]*)(?=\.)")

# The dtypes of a safetensors header that are weights as they stand. Integers and 8-bit floats need scales that
# a plain checkpoint does not hold.
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_SHARD = re.compile(r"model(-r[0-9]+)?-[0-9]{5}-of-[0-9]{5}\.safetensors")
_LEFTOVER = re.compile(r"\.model[^/]*\.safetensors(\.index\.json)?\.[0-9]+-[0-9a-f]{8}\.tmp")


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
    layer = _LAYER.search(name)
    renamed = table.get(_LAYER.sub("*", name, count=1)) if layer else table.get(name)
    if renamed is None or "*" in name:
        raise CheckpointError(f"no tensor of a SambaY model is called {name!r} {where}")
    return renamed.replace("*", layer.group(), 1) if layer else renamed


def target_dtype(name: str, stored: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype that a parameter is loaded in.

    The decision: one dtype for the whole model, `A_log`, `D`, `dt_proj.bias` and the lambdas included, however
    they are stored (operations that need float32 widen them where they compute).

    Args:
        name: the name in memory; unused by the present decision.
        stored: the dtype on disk.
        dtype: what the caller asked for; None keeps each tensor as it is stored.
    """
    del name
    return stored if dtype is None else dtype


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file, known by its header only."""

    path: Path
    file: Any  # an open `safetensors.safe_open`
    shape: tuple[int, ...]
    dtype: str

    def read(self, name: str) -> Tensor:
        with _explained(self.path):
            tensor: Tensor = self.file.get_tensor(name)
        return tensor


def load_weights(
    model: nn.Module,
    directory: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Give a model, usually one built under `torch.device("meta")`, the weights of a checkpoint directory.

    Names, shapes and dtypes are all checked, by the headers, before any weight is read. Parameters are replaced,
    not copied into, so an optimiser must be made afterwards; `requires_grad` stays as it was. Values are not
    looked at: a NaN in the file is a NaN in the model.

    Args:
        model: `SambaY`, or any module with its parameter names.
        directory: holds `model.safetensors`, or `model.safetensors.index.json` and its shards.
        dtype: a floating dtype for all parameters (see `target_dtype`); None keeps what is stored. Tensors that
            are stored so, for the CPU, are views of the mapped file; others are converted one at a time.
        device: where the parameters go.
        progress: called after each tensor with (bytes done, bytes in all), sizes as stored.

    Raises:
        CheckpointError: files that are missing, damaged, in pickle format or at odds with their index; tensors
            that are missing, surplus, misshapen or not floating point.
    """
    assert dtype is None or dtype.is_floating_point, dtype
    directory = Path(directory)
    wanted = {to_disk_name(name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    with contextlib.ExitStack() as stack:
        stored = _scan(directory, stack)
        head = stored.pop("lm_head.weight") if "lm_head.weight" not in wanted and "lm_head.weight" in stored else None
        _check({disk: shape for disk, (_, shape) in wanted.items()}, stored, directory)
        if head is not None:
            _check_tied_head(head, stored["model.embed_tokens.weight"])
        sizes = {disk: _DTYPES[found.dtype].itemsize * math.prod(found.shape) for disk, found in stored.items()}
        total, done = sum(sizes.values()), 0
        state = {}
        for disk, found in stored.items():
            tensor, (name, _) = found.read(disk), wanted[disk]
            if tensor.data_ptr() % tensor.element_size():  # some writers do not align; the CPU kernels ask for it
                tensor = tensor.clone()
            state[name] = tensor.to(device=device, dtype=target_dtype(name, tensor.dtype, dtype))
            done += sizes[disk]
            if progress is not None:
                progress(done, total)
    model.load_state_dict(state, assign=True)
    hollow = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not hollow, f"not in the state dict, so still without values: {hollow[:5]}"


def save_weights(model: nn.Module, directory: str | Path, *, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write the weights of a model under their Hugging Face names, as stored, in one file or in shards.

    A crash at any point leaves the checkpoint that was there readable, or the new one: new files never take the
    name of a file in use, and one rename or removal makes the new ones valid. A tied head is not written. It is
    safe to save into the directory that the weights are mapped from. Two processes must not save into one
    directory at the same time.

    Args:
        model: `SambaY`, or any module with its parameter names.
        directory: made when it does not exist; shards of an earlier save in it are removed.
        max_shard_bytes: the largest amount of tensor data in one file; a tensor above it has a file of its own.

    Raises:
        CheckpointError: the directory cannot be written or the disk is full, or a bound that is not positive.
    """
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes is {max_shard_bytes}: it must be at least 1")
    directory = Path(directory)
    tensors = {to_disk_name(name): tensor for name, tensor in model.state_dict().items()}
    shards = _plan_shards({name: tensor.nbytes for name, tensor in tensors.items()}, max_shard_bytes)

    def write(path: Path, names: Iterable[str]) -> None:
        # Per shard, so that what comes from another device, or was not contiguous, is never copied all at once.
        shard = {name: tensors[name].detach().to("cpu").contiguous() for name in names}
        atomic_write(path, lambda temporary: save_file(shard, temporary, metadata={"format": "pt"}))

    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if len(shards) == 1:
            write(directory / SINGLE, shards[0])  # the new checkpoint is valid from here on: it goes before an index
            (directory / INDEX).unlink(missing_ok=True)
            _remove_stale(directory, in_use=())
            return
        files = _new_shard_names(directory, len(shards))
        try:
            for file, names in zip(files, shards, strict=True):
                write(directory / file, names)
        except BaseException:
            for file in files:
                (directory / file).unlink(missing_ok=True)
            raise
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
        }
        atomic_write(directory / INDEX, (json.dumps(index, indent=2) + "\n").encode())
        (directory / SINGLE).unlink(missing_ok=True)  # the new one is valid from the index on, or from here
        _remove_stale(directory, in_use=files)


def save_config(config: SambaYConfig, directory: str | Path) -> None:
    """Write `config.json` as Hugging Face has it; the old one stays when that fails.

    Raises:
        CheckpointError: the directory cannot be written.
    """
    directory = Path(directory)
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write(directory / "config.json", (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def _scan(directory: Path, stack: contextlib.ExitStack) -> dict[str, _Stored]:
    """Open every weight file (closed by `stack`) and list its tensors, in the order of the files."""
    index = None if (directory / SINGLE).is_file() else _read_index(directory)
    stored: dict[str, _Stored] = {}
    for path in [directory / SINGLE] if index is None else [directory / name for name in sorted(set(index.values()))]:
        with _explained(path):
            file = stack.enter_context(safe_open(path, framework="pt"))  # type: ignore[no-untyped-call]
            for name in file.offset_keys():  # in this order the file is read from front to back
                header = file.get_slice(name)
                found = _Stored(path, file, tuple(header.get_shape()), header.get_dtype())
                if name in stored:
                    raise CheckpointError(f"tensor {name} is in both {stored[name].path} and {path}: remove one of them")
                stored[name] = found
    if index is not None:
        for name, shard in index.items():
            if name not in stored or stored[name].path.name != shard:
                raise CheckpointError(
                    f"{directory / INDEX} places tensor {name} in {shard}, which does not hold it: "
                    "index and shards are of different checkpoints, so copy or download all of them again"
                )
        if surplus := stored.keys() - index.keys():
            raise CheckpointError(
                f"{directory / INDEX} does not list {_some(sorted(surplus))}, which its shards hold: "
                "index and shards are of different checkpoints, so copy or download all of them again"
            )
    return stored


def _read_index(directory: Path) -> dict[str, str]:
    path = directory / INDEX
    if not path.is_file():
        if not directory.is_dir():
            raise CheckpointError(f"{directory} is not a directory: give the directory that holds {SINGLE}")
        if any(path for kind in ("pytorch_model*.bin", "*.pt", "*.pth") for path in directory.glob(kind)):
            raise CheckpointError(
                f"{directory} holds weights in pickle format only, which can run code and is never loaded: "
                "convert them to safetensors (save_pretrained of transformers does)"
            )
        raise CheckpointError(f"{directory} holds neither {SINGLE} nor {INDEX}: download or copy the weights again")
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not an index of shards ({type(error).__name__}: {error}): download or copy it again"
        ) from None
    if not shards:
        raise CheckpointError(f"{path} lists no tensors: download or copy it again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {shard!r}: a shard is a .safetensors file in the same directory")
        if not (directory / shard).is_file():
            raise CheckpointError(f"{path} names {shard}, which is not there: download or copy it again")
    return shards


def _check(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, _Stored], directory: Path) -> None:
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
            f"{name} (expected one of {', '.join(_DTYPES)}, found {stored[name].dtype})"
            for name in both
            if stored[name].dtype not in _DTYPES
        ],
    }
    found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
    if found:
        raise CheckpointError(f"the weights in {directory} do not fit the configuration: tensors {found}")


def _check_tied_head(head: _Stored, embedding: _Stored) -> None:
    """A file may repeat the tied embedding as the head, but not contradict it; compared bit by bit."""
    same = (head.shape, head.dtype) == (embedding.shape, embedding.dtype)
    if same:
        pair = [stored.read(name) for stored, name in ((head, "lm_head.weight"), (embedding, "model.embed_tokens.weight"))]
        same = torch.equal(*(tensor.view(torch.uint8) for tensor in pair))
    if not same:
        raise CheckpointError(
            f"{head.path} holds a lm_head.weight ({head.dtype}, {list(head.shape)}) that differs from the embedding "
            f"({embedding.dtype}, {list(embedding.shape)}), but the configuration ties the two: set tie_word_embeddings to false"
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever reading a weight file can raise into one sentence with the remedy."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        pointer = False
        with contextlib.suppress(OSError), path.open("rb") as file:
            pointer = file.read(23) == b"version https://git-lfs"
        if pointer:
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`") from None
        raise CheckpointError(
            f"{path} cannot be read, it is truncated or damaged ({error}): download or copy it again"
        ) from None


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory} cannot be written ({error}): make room or choose another directory; "
            "a checkpoint that was there is still whole"
        ) from error


def _plan_shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names by shard, in order, each shard up to `most` bytes or a single tensor."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _new_shard_names(directory: Path, count: int) -> list[str]:
    """Shard names of which none exists: to replace shards one by one would mix two checkpoints in a crash."""
    for revision in itertools.count():
        stem = f"model-r{revision}" if revision else "model"
        names = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        if not any((directory / name).exists() for name in names):
            return names
    raise AssertionError("itertools.count ends")


def _remove_stale(directory: Path, in_use: Iterable[str]) -> None:
    """Remove the shards of earlier saves, and the temporary files of a save that was killed."""
    keep = set(in_use)
    for path in directory.iterdir():
        if (_SHARD.fullmatch(path.name) and path.name not in keep) or _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _some(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
