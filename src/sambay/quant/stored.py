"""Quantised checkpoints on disk: which matrices are packed and how, and the one file that holds them.

`config.json` says under `quantization_config` that a checkpoint is quantised; the metadata of `model.safetensors`
says how each matrix is. The data of every packed matrix begins at a multiple of 64 bytes of the file, hence of
memory when it is mapped: the kernels read it where it lies. docs/quantised-format.md describes all of it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sambay.checkpoint import to_disk_name, to_memory_name
from sambay.checksums import checksum, with_checksums
from sambay.config import SambaYConfig
from sambay.errors import CheckpointError, ConfigError
from sambay.files import SINGLE, few, open_weights
from sambay.layers import keep_as_stored
from sambay.quant.formats import QuantFormat
from sambay.quant.linear import QuantEmbedding, QuantHead, QuantLinear

__all__ = [
    "ALIGNMENT", "VERSION", "Entry", "Quantisation", "is_quantised", "new_directory", "prepare", "quantisable",
    "replace_modules", "save", "tensor_entry", "write_checkpoint",
]  # fmt: skip

ALIGNMENT = 64
"""Bytes: a cache line, and the width of a vector register."""

VERSION = 2
_METHOD = "sambay"
_KEY = "sambay_quantisation"
_KINDS = (QuantLinear, QuantEmbedding)
_MATRICES = frozenset(("in_proj", "out_proj", "Wqkv", "fc1", "fc2"))
_LEFTOVER = re.compile(r"\.([0-9]+)-[0-9a-f]{8}\.tmp")
_WORDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
}  # fmt: skip


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised.

    Attributes:
        formats: by the name in memory of each module that is ("layers.0.mlp.fc1", "embedding").
        method: how the weights were rounded: "rtn", "mse", "gptq", or "random".
    """

    formats: Mapping[str, QuantFormat]
    method: str

    def to_config(self) -> dict[str, Any]:
        """What `config.json` says under `quantization_config`: a summary for people and other programs."""
        head = self.formats.get("lm_head", self.formats.get("embedding"))
        body = [one for name, one in self.formats.items() if name not in ("embedding", "lm_head")]
        out: dict[str, Any] = {"quant_method": _METHOD, "version": VERSION, "method": self.method}
        if body:
            most = max(body, key=body.count)
            out.update(bits=most.bits, group=most.group)
        if head is not None:
            out.update(head_bits=head.bits, head_group=head.group)
        return out


@dataclass(frozen=True)
class Entry:
    """A tensor of a file to be written: its header now, its values when it is its turn.

    Attributes:
        name: on disk.
        shape: of the tensor.
        dtype: of the tensor.
        make: returns it, on the CPU.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


def tensor_entry(name: str, tensor: Tensor) -> Entry:
    """The entry of a tensor that is there already."""
    return Entry(name, tuple(tensor.shape), tensor.dtype, lambda: tensor.detach().cpu())


def quantisable(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The modules that are quantised, by name in memory, with (rows, columns); the embedding and the head last.

    What stays is small and sensitive: the projections of the step sizes and of B and C, the convolution, the decay
    rates, norms, lambdas and biases.
    """
    found = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _MATRICES
    }
    for name in ("embedding", "lm_head"):
        weight = getattr(getattr(model, name), "weight", None)
        if weight is not None:
            found[name] = (weight.shape[0], weight.shape[1])
    return found


def replace_modules(model: nn.Module, formats: Mapping[str, QuantFormat]) -> None:
    """Put quantised modules, without values, in the places of plain ones.

    Args:
        model: `SambaY`, usually on the meta device.
        formats: by the name of the module.
    """
    sizes = quantisable(model)
    for name, format in formats.items():
        rows, columns = sizes[name]
        parent, _, leaf = name.rpartition(".")
        old = model.get_submodule(name)
        has_bias = getattr(old, "bias", None) is not None
        new: nn.Module
        with torch.device("meta"):
            if name == "embedding":
                new = QuantEmbedding(rows, columns, format)
            else:
                new = (QuantHead if name == "lm_head" else QuantLinear)(columns, rows, format, has_bias)
        new.train(old.training)
        setattr(model.get_submodule(parent), leaf, new)


def is_quantised(model: nn.Module) -> bool:
    """Whether any module of a model is."""
    return any(isinstance(module, _KINDS) for module in model.modules())


def described_in(directory: Path) -> dict[str, Any] | None:
    """What the `config.json` of a checkpoint says about its quantisation; None for a plain one."""
    found = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    return found or None


def prepare(model: nn.Module, directory: Path) -> None:
    """Make a model that is about to be loaded ready for what a checkpoint holds; a plain one is left alone.

    Args:
        model: on the meta device.
        directory: of the checkpoint; `SambaYConfig.from_json` has accepted its `config.json`, and would not have if
            other software had quantised it.

    Raises:
        CheckpointError: quantised by a later version of this software, or damaged.
    """
    described = described_in(directory)
    if described is None:
        return
    found = _read(directory)
    sizes = quantisable(model)
    odd = [f"{name} ({shape[0]} x {shape[1]})" for name, (_, shape) in found.items() if sizes.get(name) != shape]
    if odd:
        raise CheckpointError(
            f"the quantised matrices in {directory} do not fit its config.json: {few(odd)}: "
            "copy the whole directory again"
        )
    replace_modules(model, {name: format for name, (format, _) in found.items()})
    keep_as_stored(model)
    model.quantisation_method = str(described.get("method", "unknown"))  # type: ignore[assignment]  # a module's fields are modules


def _read(directory: Path) -> dict[str, tuple[QuantFormat, tuple[int, int]]]:
    """Format and (rows, columns) of every packed matrix, by name in memory, from the metadata of the file."""
    with contextlib.ExitStack() as stack:
        tensors = open_weights(directory, stack)
        metadata = next(iter(tensors.values())).file.metadata() if tensors else None
    path = directory / SINGLE
    try:
        values = json.loads((metadata or {})[_KEY])
        version, entries = values["version"], values["tensors"].items()
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path} does not say how it is quantised although config.json says that it is: copy it again, or "
            "quantise the original again"
        ) from None
    if version != VERSION:
        raise CheckpointError(
            f"{path} has version {version!r} of the quantised format, this sambay reads {VERSION}: update sambay, or "
            "quantise the original again"
        )
    found = {}
    for name, one in entries:
        try:
            memory = to_memory_name(f"{name}.packed").removesuffix(".packed")
            found[memory] = QuantFormat(one["bits"], one["group"]), (one["rows"], one["columns"])
        except (ConfigError, CheckpointError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} describes {name} wrongly ({error}): quantise the original again") from None
    return found


def save(model: nn.Module, directory: str | Path) -> None:
    """Write a quantised model to a new directory.

    Args:
        model: `SambaY` with quantised modules.
        directory: must not exist, or be empty.

    Raises:
        CheckpointError: the directory holds something, or cannot be written.
    """
    formats = {name: module.format for name, module in model.named_modules() if isinstance(module, _KINDS)}
    quantisation = Quantisation(formats, str(getattr(model, "quantisation_method", "unknown")))
    entries = [tensor_entry(to_disk_name(name), tensor) for name, tensor in model.state_dict().items()]
    config = cast("SambaYConfig", model.config).to_dict()
    with new_directory(Path(directory), sum(entry.nbytes for entry in entries)) as temporary:
        write_checkpoint(temporary, entries, quantisation, config, _sizes(model, formats))


def _sizes(model: nn.Module, formats: Mapping[str, QuantFormat]) -> dict[str, tuple[int, int]]:
    modules = {name: cast("QuantLinear | QuantEmbedding", model.get_submodule(name)) for name in formats}
    return {
        name: (one.out_features, one.in_features)
        if isinstance(one, QuantLinear)
        else (one.num_embeddings, one.embedding_dim)
        for name, one in modules.items()
    }


@contextlib.contextmanager
def new_directory(directory: Path, nbytes: int) -> Iterator[Path]:
    """A checkpoint's directory that comes into being whole, by one rename, or not at all.

    One that is there is filled when all is written, `config.json` last: it may be where a disk is mounted, or all that
    this user can write to, and be neither replaced nor have a neighbour.

    Args:
        directory: must not exist, or be empty but for what a run that was killed has left; its parent is made.
        nbytes: what will be written, roughly; found not to fit before the work, not after it.

    Yields:
        A temporary directory within it or beside it, to be filled.

    Raises:
        CheckpointError: it holds something, cannot be written, or the disk is too small.
    """
    directory = directory.absolute()  # "." has no name
    there = directory.is_dir()
    place = directory if there else directory.parent
    temporary = place / f".{directory.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if directory.is_symlink() or (directory.exists() and not there):
            raise CheckpointError(f"{directory} exists and is not a directory: choose another name")
        _remove_leftovers(place, directory.name)
        if there and any(directory.iterdir()):
            raise CheckpointError(f"{directory} exists and is not empty: choose another directory, or remove it")
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if free < nbytes:
            raise CheckpointError(
                f"{directory} needs {nbytes / 1e9:.3g} GB and {free / 1e9:.3g} GB are free: make room or choose "
                "another disk"
            )
        temporary.mkdir()
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if there:
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
                path.rename(directory / path.name)
        else:
            temporary.rename(directory)
    except OSError as error:
        raise CheckpointError(
            f"{directory} cannot be written ({error}): make room or choose another directory"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(place: Path, name: str) -> None:
    """Remove the temporary directories of runs that were killed; those that still run keep theirs."""
    for path in place.glob(f".{glob.escape(name)}.*.tmp"):
        found = _LEFTOVER.fullmatch(path.name.removeprefix(f".{name}"))
        if found and not _runs(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether there is a process of that number; yes where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def write_checkpoint(
    directory: Path,
    entries: Sequence[Entry],
    quantisation: Quantisation | None,
    config: Mapping[str, Any],
    sizes: Mapping[str, tuple[int, int]],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `model.safetensors` and `config.json` into a directory, tensor by tensor.

    Args:
        directory: exists.
        entries: every tensor of the checkpoint; each is made when it is written, and let go.
        quantisation: which of them are packed, and how; None where none is, and then `config` is what is written.
        config: `config.json` without its `quantization_config`. The activations of a quantised model are float32,
            so that is what it will say.
        sizes: (rows, columns) of the packed matrices by name in memory.
        progress: called with (bytes done, bytes in all).

    Raises:
        OSError: the disk is full, or the like.
    """
    metadata = {"format": "pt"}
    if quantisation is not None:
        metadata[_KEY] = json.dumps(_described(quantisation, sizes))
        config = {**config, "torch_dtype": "float32", "quantization_config": quantisation.to_config()}
        config.pop("dtype", None)
    _write_file(directory / SINGLE, entries, metadata, progress)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _described(quantisation: Quantisation, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """What the metadata of the file says of its packed matrices."""
    described = {
        to_disk_name(f"{name}.packed").removesuffix(".packed"): {
            "bits": format.bits, "group": format.group, "rows": sizes[name][0], "columns": sizes[name][1],
        }
        for name, format in quantisation.formats.items()
    }  # fmt: skip
    return {"version": VERSION, "method": quantisation.method, "tensors": described}


def _write_file(
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    progress: Callable[[int, int], None] | None,
) -> None:
    """A safetensors file whose data begins at a multiple of 64, as does every tensor whose size is one.

    The format knows no gaps. So tensors of other sizes, small vectors of odd widths, come last, those of the widest
    alignment first: each is aligned at least to its elements. The header comes first and holds checksums of what comes
    after it: it is written twice.
    """
    ordered = sorted(entries, key=lambda entry: -math.gcd(entry.nbytes, ALIGNMENT))
    total = sum(entry.nbytes for entry in ordered)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for entry in ordered:
        end = offset + entry.nbytes
        header[entry.name] = {
            "dtype": _WORDS[entry.dtype], "shape": list(entry.shape), "data_offsets": [offset, end],
        }  # fmt: skip
        offset = end
    sums = {entry.name: checksum(memoryview(b"")) for entry in ordered}
    text = _header_text(header, sums)
    done = 0
    with path.open("wb") as file:
        file.write(text)
        for entry in ordered:
            sums[entry.name] = _write_tensor(file, entry)
            done += entry.nbytes
            if progress is not None:
                progress(done, total)
        summed = _header_text(header, sums)
        assert len(summed) == len(text)
        file.seek(0)
        file.write(summed)


def _write_tensor(file: BufferedWriter, entry: Entry) -> str:
    """Returns the checksum. The tensor is gone before the next is made: of two large ones one is in memory."""
    tensor = entry.make()
    assert tensor.shape == entry.shape, (entry.name, tensor.shape)
    assert tensor.dtype is entry.dtype, (entry.name, tensor.dtype)
    data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    found = checksum(data.data)
    data.tofile(file)
    return found


def _header_text(header: Mapping[str, Any], sums: Mapping[str, str]) -> bytes:
    """What stands before the data: the length of the header and, padded, the header."""
    text = json.dumps(with_checksums(header, sums), separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
