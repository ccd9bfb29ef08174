"""Make quantised checkpoints: from a checkpoint, tensor by tensor, or from nothing but a configuration."""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sambay import checkpoint, hub
from sambay.config import SambaYConfig
from sambay.errors import CheckpointError, ConfigError
from sambay.model import Attention, Head, Mamba, SambaY
from sambay.quant.calibrate import Calibration
from sambay.quant.formats import FACTOR, HEAD_FORMAT, PANEL, QuantFormat, Rounded, pack, packed_shape, unpack
from sambay.quant.rounding import check_method, output_error, weight_error
from sambay.quant.rounding import quantise as round_weights
from sambay.quant.stored import (
    Entry,
    Quantisation,
    is_quantised,
    new_directory,
    quantisable,
    tensor_entry,
    write_checkpoint,
)

__all__ = ["MatrixError", "Summary", "quantize", "random_checkpoint"]

_COMPANY = ("*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt", "LICENSE*", "NOTICE*")
"""Files that go with the weights. Of the JSON files not those that describe the weights themselves."""

_NOT_COMPANY = ("config.json", "model.safetensors.index.json", "trainer.json")

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class MatrixError:
    """What rounding did to one matrix.

    Attributes:
        weights: relative error of the weights.
        outputs: relative error of its outputs on the calibration data, if there was any.
    """

    weights: float
    outputs: float | None


@dataclass(frozen=True)
class Summary:
    """A quantised checkpoint.

    Attributes:
        directory: where it is.
        method: how it was rounded.
        nbytes: of its tensors.
        source_nbytes: of the tensors that it was made from.
        errors: by the name of the matrix in memory.
    """

    directory: Path
    method: str
    nbytes: int
    source_nbytes: int
    errors: dict[str, MatrixError]

    @property
    def weight_error(self) -> float:
        """Root mean square over the matrices of the relative error of the weights."""
        return _rms([one.weights for one in self.errors.values()])

    @property
    def output_error(self) -> float | None:
        """The same of the outputs, over the matrices that were calibrated."""
        known = [one.outputs for one in self.errors.values() if one.outputs is not None]
        return _rms(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {
            "directory": str(self.directory),
            "method": self.method,
            "bytes": self.nbytes,
            "source_bytes": self.source_nbytes,
            "weight_error": self.weight_error,
            "output_error": self.output_error,
            "matrices": {name: asdict(one) for name, one in self.errors.items()},
        }


def quantize(
    model: SambaY | str | Path,
    out: str | Path,
    *,
    bits: int = 4,
    group: int = 32,
    head_bits: int = HEAD_FORMAT.bits,
    head_group: int = HEAD_FORMAT.group,
    method: str = "mse",
    calibration: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write a quantised copy of a model, which `SambaY.from_pretrained` loads.

    One matrix is in memory at a time: a checkpoint is mapped, not read. The embedding and the head, in which an
    error goes straight into the logits, have a format of their own. Norms, biases, the convolution and the small
    projections of a Mamba layer stay as they are stored.

    Args:
        model: a checkpoint directory, a hub name, or a model in memory.
        out: the new directory; must not exist, or be empty.
        bits: of the matrices of the layers: 4, 6 or 8.
        group: columns that share a scale, 32, 64 or 128.
        head_bits: of the embedding and of the head.
        head_group: of the same.
        method: "rtn", "mse" or "gptq" (see `rounding`). The embedding and the head, which a look-up shares, are
            rounded by "mse" where the layers are by "gptq".
        calibration: token ids of texts; "gptq" needs them. With "rtn" and "mse" they only measure output errors.
        progress: called with (bytes written, bytes in all).

    Raises:
        ConfigError: an impossible option.
        CheckpointError: the model cannot be read or is quantised already, or `out` cannot be written.
    """
    check_method(method)
    body, head = QuantFormat(bits, group), QuantFormat(head_bits, head_group)
    if method == "gptq" and calibration is None:
        raise ConfigError("method 'gptq' needs activations: give calibration data, or choose 'mse'")
    directory = None if isinstance(model, SambaY) else hub.resolve(model)
    if isinstance(model, SambaY):
        source, config = model, model.config.to_dict()
    else:
        assert directory is not None
        source, config = _mapped(directory)
    if is_quantised(source):
        raise CheckpointError(f"{directory or 'the model'} is quantised already: quantise the original")
    statistics = None
    if calibration is not None:
        # A checkpoint of mixed dtypes does not run as it is stored; where it is of one, this maps it once more.
        runs = source if directory is None else SambaY.from_pretrained(directory, inference=True)
        statistics = Calibration(runs, calibration)
    sizes = quantisable(source)
    formats = {name: head if name in ("embedding", "lm_head") else body for name in sizes}
    errors: dict[str, MatrixError] = {}

    def make(name: str, weight: Tensor) -> Tensor:
        hessian = statistics.hessian(name) if statistics is not None and name.startswith("layers.") else None
        way = "mse" if method == "gptq" and hessian is None else method
        weight = weight.detach().cpu()
        try:
            found = round_weights(weight, formats[name], way, hessian=hessian if way == "gptq" else None)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.to_disk_name(name + '.weight')} cannot be quantised: {error}") from None
        rounded = found.weights()
        errors[name] = MatrixError(
            weight_error(weight, rounded), None if hessian is None else output_error(weight, rounded, hessian)
        )
        return pack(found)

    def packed(name: str, weight: Tensor) -> Entry:
        shape = packed_shape(formats[name], *sizes[name])
        return Entry(checkpoint.to_disk_name(f"{name}.packed"), shape, torch.uint8, lambda: make(name, weight))

    entries = _entries(source, packed)
    nbytes = sum(entry.nbytes for entry in entries)
    with new_directory(Path(out), nbytes) as temporary:
        write_checkpoint(temporary, entries, Quantisation(formats, method), config, sizes, progress)
        if directory is not None:
            _copy_company(directory, temporary)
    source_nbytes = sum(tensor.nbytes for tensor in source.state_dict().values())
    return Summary(Path(out), method, nbytes, source_nbytes, errors)


def _mapped(directory: Path) -> tuple[SambaY, dict[str, Any]]:
    """A checkpoint as it is stored, its weights views of the file, and its `config.json`."""
    config = SambaYConfig.from_json(directory / "config.json")
    values: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in values:
        raise CheckpointError(f"{directory} is quantised already: quantise the original")
    with torch.device("meta"):
        model = SambaY(config)
    checkpoint.load_weights(model, directory)
    return model, values


def _entries(model: nn.Module, packed: Callable[[str, Tensor], Entry]) -> list[Entry]:
    """The entries of all tensors of a model, packed ones for those that are quantised."""
    sizes = quantisable(model)
    entries = []
    for name, tensor in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and module in sizes:
            entries.append(packed(module, tensor))
        else:
            entries.append(tensor_entry(checkpoint.to_disk_name(name), tensor))
    return entries


def _copy_company(source: Path, target: Path) -> None:
    for pattern in _COMPANY:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and path.name not in _NOT_COMPANY:
                shutil.copyfile(path, target / path.name)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


def random_checkpoint(
    config: SambaYConfig,
    format: QuantFormat | None,
    out: str | Path,
    seed: int = 0,
    *,
    head_format: QuantFormat | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write a model with random weights, usually in quantised form at once, tensor by tensor: for measuring speed.

    Codes have the bell-shaped distribution of rounded Gaussian weights, and scales give each matrix the spread
    that initialisation would give it. The same seed gives the same file on every machine.

    Args:
        config: the shape.
        format: of the matrices of the layers; None for plain ones, of the configuration's dtype.
        out: the new directory; must not exist, or be empty.
        seed: of the weights.
        head_format: of the embedding and of the head, by default `HEAD_FORMAT`.
        progress: called with (bytes written, bytes in all).

    Raises:
        CheckpointError: `out` cannot be written.
    """
    with torch.device("meta"):
        model = SambaY(config)
    sizes = quantisable(model)
    head = head_format or HEAD_FORMAT
    formats = {name: head if name in ("embedding", "lm_head") else format for name in sizes} if format else {}

    def spread(name: str) -> float:
        if name == "embedding":
            return 0.02 if config.tie_word_embeddings else 1e-4
        return 1 / math.sqrt(3 * sizes[name][1])  # uniform within 1 / sqrt(fan in)

    def plain(name: str, _weight: Tensor) -> Entry:
        dtype: torch.dtype = getattr(torch, config.torch_dtype)

        def make() -> Tensor:
            dice = np.random.default_rng([seed, *name.encode()])
            return _random_plain(dice, dtype, *sizes[name], spread(name))

        return Entry(checkpoint.to_disk_name(f"{name}.weight"), sizes[name], dtype, make)

    def packed(name: str, _weight: Tensor) -> Entry:
        shape = packed_shape(formats[name], *sizes[name])

        def make() -> Tensor:
            dice = np.random.default_rng([seed, *name.encode()])
            return _random_packed(dice, formats[name], *sizes[name], spread(name))

        return Entry(checkpoint.to_disk_name(f"{name}.packed"), shape, torch.uint8, make)

    small = _random_rest(model, sizes, seed)
    entries = [
        tensor_entry(entry.name, small[entry.name]) if entry.name in small else entry
        for entry in _entries(model, packed if format else plain)
    ]
    nbytes = sum(entry.nbytes for entry in entries)
    with new_directory(Path(out), nbytes) as temporary:
        how = Quantisation(formats, "random") if format else None
        write_checkpoint(temporary, entries, how, config.to_dict(), sizes, progress)
    return Summary(Path(out), "random", nbytes, 0, {})


def _random_rest(model: SambaY, sizes: dict[str, tuple[int, int]], seed: int) -> dict[str, Tensor]:
    """Initialised values of what is not quantised, by their names on disk, in the dtype of the configuration."""
    generator = torch.Generator().manual_seed(seed)
    dtype: torch.dtype = getattr(torch, model.config.torch_dtype)
    found = {}
    with torch.no_grad():
        for module_name, module in model.named_modules():
            if module_name in sizes or not any(True for _ in module.parameters(recurse=False)):
                continue
            own = {name: torch.empty(one.shape) for name, one in module.named_parameters(recurse=False)}
            for name, tensor in own.items():
                setattr(module, name, nn.Parameter(tensor))
        for module_name, module in model.named_modules():
            if module_name in sizes:
                bias = getattr(module, "bias", None)
                if bias is not None:
                    module.bias = nn.Parameter(torch.zeros(bias.shape))
            elif isinstance(module, nn.Linear | nn.Conv1d):
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm | Head):
                module.reset_parameters()
        for module in model.modules():
            if isinstance(module, Mamba | Attention):
                module.reset_parameters(generator)
        for name, tensor in model.state_dict().items():
            if not tensor.is_meta:
                found[checkpoint.to_disk_name(name)] = tensor.to(dtype)
    return found


def _random_plain(dice: np.random.Generator, dtype: torch.dtype, rows: int, columns: int, spread: float) -> Tensor:
    """A matrix of random weights of a standard deviation, (rows, columns), of which little is float32 at a time."""
    out = torch.empty(rows, columns, dtype=dtype)
    step = max(1, _BLOCK_BYTES // columns)
    for part in out.split(step):
        part.copy_(torch.from_numpy(dice.standard_normal(part.shape, dtype=np.float32) * np.float32(spread)))
    return out


def _random_packed(dice: np.random.Generator, format: QuantFormat, rows: int, columns: int, spread: float) -> Tensor:
    """A packed matrix of random weights of a standard deviation, (P, S, nbytes)."""
    shape = packed_shape(format, rows, columns)
    table, deviation = _bell(format)
    out = np.empty(shape, dtype=np.uint8)
    blocks = out.reshape(-1, format.block_nbytes)
    step = max(1, _BLOCK_BYTES // format.block_nbytes)
    for at in range(0, len(blocks), step):
        part = blocks[at : at + step]
        each = PANEL * format.columns if format.bits == 6 else format.block_nbytes - format.header_nbytes
        drawn = table[np.frombuffer(dice.bytes(2 * each * len(part)), dtype="<u2")].reshape(len(part), -1)
        if format.bits == 6:  # in which a byte has parts of four codes
            codes = torch.from_numpy(drawn).view(-1, format.columns) - format.offset
            scale = torch.zeros(len(codes), 2, dtype=torch.float16)
            part[:] = pack(Rounded(codes.view(torch.int8), scale, format)).view(len(part), -1).numpy()
        else:
            part[:, format.header_nbytes :] = drawn
        part[:, : format.header_nbytes] = _random_scales(dice, format, len(part), spread / deviation)
    packed = torch.from_numpy(out)
    _clear_padding(packed, format, rows, columns)
    return packed


def _random_scales(
    dice: np.random.Generator, format: QuantFormat, blocks: int, mean: float
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Headers of superblocks: (blocks, header_nbytes). Groups differ by some tenths, in either sign where codes do."""
    each = PANEL * format.columns // format.group
    sizes = np.exp(0.15 * dice.standard_normal((blocks, each), dtype=np.float32) - 0.0225)
    if format.bits != 8:
        sizes *= dice.integers(0, 2, sizes.shape, dtype=np.int8) * 2 - 1
    out = np.zeros((blocks, format.header_nbytes), dtype=np.uint8)
    if format.nested:
        usual = 11  # in the middle of what factors of groups of about one size are
        factors = np.clip(np.rint(usual * sizes), -FACTOR, FACTOR).astype(np.int8).reshape(blocks * PANEL, -1)
        scales = torch.full((blocks * PANEL, 1), mean / usual, dtype=torch.float16)
        codes = torch.zeros(blocks * PANEL, format.columns, dtype=torch.int8)
        whole = pack(Rounded(codes, scales, format, torch.from_numpy(factors)))
        out[:] = whole.view(blocks, -1)[:, : format.header_nbytes].numpy()
    else:
        out[:] = (sizes * mean).astype("<f2").view(np.uint8)
    return out


@functools.cache
def _bell(format: QuantFormat) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], float]:
    """From 16 uniform bits to two codes of 4 bits, or one of 6 or 8, as stored; and the deviation of a code."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4096, format.group, generator=generator)
    codes = round_weights(weights, format).codes.flatten().sort().values.float()
    deviation = float(codes.std())
    if format.bits != 4:
        places = torch.linspace(0, len(codes) - 1, 1 << 16).long()
        return (codes[places] + format.offset).to(torch.uint8).numpy(), deviation
    nibbles = (codes[torch.linspace(0, len(codes) - 1, 256).long()] + format.offset).to(torch.uint8)
    return (nibbles.view(1, 256) | nibbles.view(256, 1) << 4).flatten().numpy(), deviation


def _clear_padding(out: Tensor, format: QuantFormat, rows: int, columns: int) -> None:
    """Weights of value 0 beyond the last row and column: what holds them is packed anew."""
    panels, blocks, _ = out.shape
    width = format.columns
    if columns % width:
        out[:, -1:] = pack(unpack(out[:, -1:], format, panels * PANEL, columns % width))
    if rows % PANEL:
        out[-1:] = pack(unpack(out[-1:], format, rows % PANEL, blocks * width))
