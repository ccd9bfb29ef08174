"""The model of a benchmark: a checkpoint, or seeded random weights in the shape of a preset, made once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sambay import hub
from sambay.checkpoint import load_end_ids
from sambay.config import PRESETS, preset
from sambay.errors import CheckpointError, ConfigError
from sambay.model import SambaY
from sambay.ops.backend import rest_torch
from sambay.quant.convert import random_checkpoint
from sambay.quant.formats import BITS, GROUPS, HEAD_FORMAT, QuantFormat
from sambay.quant.resident import make_resident
from sambay.quant.stored import VERSION, is_quantised
from sambay.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = ["BenchModel", "cache_directory", "locate", "open_model"]

_RANDOM = "random:"
_PLAIN = "16"
"""Bits that mean bfloat16."""
_GROUP = 32
_SEED = 0


@dataclass(frozen=True)
class BenchModel:
    """A loaded model and what to say about it.

    Attributes:
        name: as typed, or that of the bundled one.
        model: on the CPU.
        tokenizer: None for random weights, which read no text.
        ends: tokens that end a reply.
        random: whether the weights are random: they measure speed, never quality.
        resident: whether packed weights were copied into large pages.
    """

    name: str
    model: SambaY
    tokenizer: Tokenizer | None
    ends: frozenset[int]
    random: bool
    resident: bool

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        model = self.model
        return {
            "name": self.name,
            "parameters": model.config.num_parameters(),
            "bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "kv_cache_dtype": str(model.cache_dtype).removeprefix("torch."),
            "quantised": is_quantised(model),
            "random": self.random,
            "large_pages": self.resident,
            "layers": model.config.num_hidden_layers,
            "hidden_size": model.config.hidden_size,
            "context": model.config.max_position_embeddings,
        }


def cache_directory() -> Path:
    """Where what can be made again is kept for this user; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME")
    if home:
        return Path(home) / "sambay"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sambay"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "sambay"


def locate(model: str | None, progress: Callable[[int, int], None] | None = None) -> Path:
    """The directory of a model; one with random weights is made if this user has not got it yet.

    Args:
        model: a directory, a hub name, `random:PRESET[:BITS[:GROUP]]` (16 bits are bfloat16), or None for the
            bundled model.
        progress: called with (bytes written, bytes in all) where one is made.

    Raises:
        ConfigError: no such preset, or bits or groups that weights cannot have.
        CheckpointError: no such model, or the cache cannot be written.
    """
    if model is None:
        return hub.bundled_model()
    if model.startswith(_RANDOM):
        name, _, digits = model.removeprefix(_RANDOM).partition(":")
        digits, _, group = digits.partition(":")
        if digits not in ("", *map(str, BITS), _PLAIN):
            raise ConfigError(
                f"{model} asks for weights of {digits!r} bits: choose 4, 6, 8 or 16, such as {_RANDOM}{name}:4"
            )
        if digits == _PLAIN:
            if group:
                raise ConfigError(
                    f"{model} asks for groups of weights of 16 bits, which have none: leave {group!r} out"
                )
            return _random(name, None, progress)
        if group not in ("", *map(str, GROUPS)):
            raise ConfigError(
                f"{model} asks for groups of {group!r} weights: choose 32, 64 or 128, such as {_RANDOM}{name}:4:64"
            )
        return _random(name, QuantFormat(int(digits or 4), int(group or _GROUP)), progress)
    if model in PRESETS and not Path(model).is_dir():
        raise CheckpointError(f"{model} is a preset, which has no weights: {_RANDOM}{model} makes random ones")
    return hub.resolve(model)


def _random(name: str, body: QuantFormat | None, progress: Callable[[int, int], None] | None) -> Path:
    config = preset(name) if body else replace(preset(name), torch_dtype="bfloat16")
    made_of = json.dumps([config.to_dict(), str(body), str(HEAD_FORMAT), VERSION], sort_keys=True)
    mark, bits = hashlib.sha256(made_of.encode()).hexdigest()[:8], body.bits if body else _PLAIN
    directory = cache_directory() / "random" / f"{name}-{bits}bit-{mark}"
    if not (directory / "config.json").is_file():
        try:
            random_checkpoint(config, body, directory, _SEED, progress=progress)
        except CheckpointError:
            if not (directory / "config.json").is_file():  # else another process has made the same meanwhile
                raise
    return directory


def open_model(
    model: str | None,
    directory: Path,
    dtype: str,
    mmap: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BenchModel:
    """Load a model.

    Args:
        model: as typed, None for the bundled one.
        directory: that `locate` found.
        dtype: of the weights; "auto" for that of the checkpoint.
        mmap: as `LLM` has it.
        progress: called with (bytes read, bytes in all).

    Raises:
        ConfigError, CheckpointError: what `SambaY.from_pretrained` or `Tokenizer.from_pretrained` refuses.
    """
    found = SambaY.from_pretrained(directory, dtype=dtype, inference=dtype == "auto", progress=progress)
    random = getattr(found, "quantisation_method", None) == "random" or (model or "").startswith(_RANDOM)
    if found.on_kernels:
        rest_torch()
    resident = make_resident(found, None if mmap is None else not mmap, progress)
    tokenizer = Tokenizer.from_pretrained(directory) if (directory / TOKENIZER_FILE).exists() else None
    return BenchModel(
        model or "the bundled model", found, tokenizer, load_end_ids(directory, found.config), random, resident
    )
