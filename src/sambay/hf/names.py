"""Names on disk <-> names in memory, as rules of the loader of transformers, from those in `checkpoint`."""

from __future__ import annotations

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming

from sambay.checkpoint import NAMES, to_disk_name
from sambay.config import ARCHITECTURE, MODEL_TYPE
from sambay.errors import CheckpointError

__all__ = ["disk_name", "register_names"]

PREFIX = "model."
"""Where `SambaY` is inside of the transformers class."""


def register_names() -> None:
    """Tell transformers how to load, and in reverse how to save, our model.

    The rules are regular expressions with the layer number as their one group. Their dots are not escaped,
    since not every version of transformers takes that back when it reverses a rule; they match nothing else.
    They rename modules rather than weights, so that PEFT adapters made for the names on disk load too.
    """
    modules = dict.fromkeys((_module(memory), _module(disk)) for memory, disk in NAMES)
    rules: list[WeightConverter | WeightRenaming] = [
        WeightRenaming("^" + disk.replace("*", r"(\d+)"), PREFIX + memory.replace("*", r"\1"))
        for memory, disk in modules
    ]
    # transformers looks for the class first, and versions before 5.3 or so for nothing but the model type.
    for key in (ARCHITECTURE, MODEL_TYPE):
        register_checkpoint_conversion_mapping(key, rules, overwrite=True)


def _module(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def disk_name(name: str) -> str:
    """The name on disk of a parameter of the transformers class; a name that is not known stays as it is."""
    try:
        return to_disk_name(name.removeprefix(PREFIX))
    except CheckpointError:
        return name
