"""Names on disk <-> names in memory, as rules of the loader of transformers: derived from `sambay.checkpoint`."""

from __future__ import annotations

import re

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from sambay.checkpoint import NAMES, to_disk_name
from sambay.errors import CheckpointError

__all__ = ["disk_name", "register_names"]

PREFIX = "model."
"""Where `SambaY` is inside of the transformers class."""


def register_names(class_name: str) -> None:
    """Tell transformers how to load, and in reverse how to save, a model of this class.

    Args:
        class_name: under a class name a rule goes before any of the same model type.
    """
    rules = [WeightRenaming(_pattern(f"^{disk}", r"(\d+)"), _pattern(PREFIX + name, r"\1")) for name, disk in NAMES]
    register_checkpoint_conversion_mapping(class_name, rules, overwrite=True)


def _pattern(name: str, layer: str) -> str:
    head = "^" if name.startswith("^") else ""
    return head + re.escape(name.removeprefix("^")).replace(r"\*", layer)


def disk_name(name: str) -> str:
    """The name on disk of a parameter of the transformers class; a name that is not known stays as it is."""
    try:
        return to_disk_name(name.removeprefix(PREFIX))
    except CheckpointError:
        return name
