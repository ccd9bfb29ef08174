"""Files on disk: written whole or not at all, and sets of safetensors files read and written by any names.

A set of weights is `model.safetensors`, or shards that `model.safetensors.index.json` lists. What the tensors
are called, and which there should be, is for `checkpoint.py` to know.

Source: the safetensors format, and the index of shards of Hugging Face transformers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sambay.errors import CheckpointError

if TYPE_CHECKING:  # `atomic_write` is used where torch, a second of start-up, is not
    from torch import Tensor

__all__ = ["INDEX", "SINGLE", "StoredTensor", "atomic_write", "few", "open_weights", "write_weights"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SHARD = re.compile(r"model(-r[0-9]+)?-[0-9]{5}-of-[0-9]{5}\.safetensors")
_LEFTOVER = re.compile(r"\.model.*\.safetensors(\.index\.json)?\.[0-9]+-[0-9a-f]{8}\.tmp")


def atomic_write(path: str | Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file so that a crash, a full disk or a power cut leaves the old one or the new one, whole.

    The content goes to a hidden temporary file in the same directory, is flushed to the disk, and takes the
    name in one step. Whoever has the old file open or memory-mapped keeps the old content.

    Args:
        path: the file to write or to replace; its directory must exist. A symbolic link is replaced.
        content: the bytes, or a function that writes them to the temporary path that it is given.

    Raises:
        OSError: the directory is missing or not writable, or the disk is full. Nothing has changed then. What
            the function raises comes through likewise.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Created here, by the umask: a writer may replace it by a file of other rights (safetensors: 0600).
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            content(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # The rename itself must reach the disk too; some network file systems cannot sync a directory.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(directory)
        finally:
            os.close(directory)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in an open file, known by its header until it is read.

    Args:
        name: as in the file.
        path: of the file.
        file: the open `safetensors.safe_open`.
        shape: of the tensor.
        dtype: in the words of the format: F32, BF16, I64, ...
    """

    name: str
    path: Path
    file: Any
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor on the CPU, a view of the private mapping of the file (writing to it copies the page).

        Raises:
            CheckpointError: the file has become unreadable.
        """
        with _explained(self.path):
            tensor: Tensor = self.file.get_tensor(self.name)
        # Some writers do not align the data; torch and the CPU kernels count on it.
        return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def open_weights(directory: Path, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Open every weight file of a directory and list its tensors by name.

    Only headers are read. `model.safetensors` goes before an index, as it does for transformers.

    Args:
        directory: of the checkpoint.
        stack: closes the files; tensors that were read stay valid.

    Raises:
        CheckpointError: no weights, weights in pickle format only, a damaged or truncated file, a tensor in
            two shards, an index that names a missing shard or does not agree with the shards.
    """
    with _explained(directory):
        index = None if (directory / SINGLE).is_file() else _read_index(directory)
    files = [SINGLE] if index is None else sorted(set(index.values()))
    stored: dict[str, StoredTensor] = {}
    for path in (directory / file for file in files):
        with _explained(path):
            file = stack.enter_context(safe_open(path, framework="pt"))
            for name in file.keys():  # noqa: SIM118 - not a mapping: it cannot be iterated
                header = file.get_slice(name)
                if name in stored:
                    raise CheckpointError(f"{name} is in both {stored[name].path} and {path}: remove one")
                stored[name] = StoredTensor(name, path, file, tuple(header.get_shape()), header.get_dtype())
    if index is not None:
        found = {(name, tensor.path.name) for name, tensor in stored.items()}
        if odd := sorted(f"{name} in {file}" for name, file in found ^ set(index.items())):
            raise CheckpointError(
                f"{directory / INDEX} and its shards do not agree on {few(odd)}: they are of different "
                "checkpoints, so download or copy all of them again"
            )
    return stored


def write_weights(tensors: Mapping[str, Tensor], directory: Path, max_shard_bytes: int) -> None:
    """Write tensors as one file or as shards with an index, and remove the shards of earlier saves.

    A crash at any point leaves what was there readable, or the new files: new shards never take the name of
    a file in use, and one rename or removal makes the new files valid.

    Args:
        tensors: by their names on disk, on any device.
        directory: made when it does not exist. Two processes must not write to it at the same time.
        max_shard_bytes: the most tensor data in one file; a larger tensor has a file of its own.

    Raises:
        OSError, SafetensorError: the directory cannot be written or the disk is full.
    """
    from safetensors.torch import save_file

    shards = _plan_shards({name: tensor.nbytes for name, tensor in tensors.items()}, max_shard_bytes)

    def write(path: Path, names: Iterable[str]) -> None:
        # Per shard, so that what is on another device, or not contiguous, is never copied all at once.
        shard = {name: tensors[name].detach().to("cpu").contiguous() for name in names}
        atomic_write(path, lambda temporary: save_file(shard, temporary, metadata={"format": "pt"}))

    directory.mkdir(parents=True, exist_ok=True)
    if len(shards) == 1:
        write(directory / SINGLE, shards[0])  # valid from here on: it goes before an index
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
    (directory / SINGLE).unlink(missing_ok=True)  # the new files are valid from the index on, or from here
    _remove_stale(directory, in_use=files)


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
        raise CheckpointError(f"{directory} holds neither {SINGLE} nor {INDEX}: download or copy the weights")
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): str(shard) for name, shard in weight_map.items()}
        absent = [shard for shard in sorted(set(shards.values())) if not (directory / shard).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not an index of shards ({type(error).__name__}: {error}): download or copy it again"
        ) from None
    if not shards:
        raise CheckpointError(f"{path} lists no tensors: download or copy it again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {shard!r}: a shard is a .safetensors file beside it")
    if absent:
        raise CheckpointError(f"{path} names {few(absent)}, not there: download or copy what is missing")
    return shards


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever reading a weight file can raise into one sentence with the remedy."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): make it readable or copy it again") from None
    except (SafetensorError, RuntimeError) as error:
        pointer = False
        with contextlib.suppress(OSError), path.open("rb") as file:
            pointer = file.read(23) == b"version https://git-lfs"
        if pointer:
            raise CheckpointError(f"{path} is a Git LFS pointer, no weights: run `git lfs pull`") from None
        raise CheckpointError(f"{path} is truncated or damaged ({error}): download or copy it again") from None


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
    stem, revision = "model", 0
    while True:
        names = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        if not any((directory / name).exists() for name in names):
            return names
        revision += 1
        stem = f"model-r{revision}"


def _remove_stale(directory: Path, in_use: Iterable[str]) -> None:
    """Remove the shards of earlier saves, and the temporary files of a save that was killed."""
    keep = set(in_use)
    for path in directory.iterdir():
        if (_SHARD.fullmatch(path.name) and path.name not in keep) or _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def few(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
