"""The configuration as transformers wants it: the same fields, convertible to and from `SambaYConfig`."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from sambay.config import DTYPES, MODEL_TYPE, SambaYConfig

__all__ = ["Phi4FlashConfig"]

_FIELDS = tuple(field.name for field in dataclasses.fields(SambaYConfig) if field.name != "torch_dtype")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Phi4FlashConfig(PreTrainedConfig):
    """The configuration of a SambaY model for transformers.

    Args:
        **kwargs: the keys of a `config.json`. Those of `SambaYConfig` are checked as there; what is not given
            is as in Phi-4-mini-flash, but a vocabulary of another size has no special tokens unless they are
            given. All other keys are kept as attributes, as transformers does.

    Raises:
        ConfigError: a value out of range.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - transformers' own way to declare it

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - checked below
        # Remote code that a checkpoint names is replaced by this package, and would not be saved with it.
        kwargs.pop("auto_map", None)
        defaults = SambaYConfig().to_dict()
        del defaults["mamba_dt_rank"]  # follows the width
        if "vocab_size" in kwargs:
            defaults |= dict.fromkeys(_TOKENS)
        checked = SambaYConfig.from_dict(defaults | _without_foreign_dtype(kwargs)).to_dict()
        for name in ("mb_per_layer", "hidden_act", "use_cache"):
            setattr(self, name, kwargs.pop(name, checked[name]))
        for name in _FIELDS:
            given = kwargs.pop(name, None)
            if name in checked or given is not None:
                setattr(self, name, checked.get(name, given))
        super().__init__(**kwargs)

    @classmethod
    def from_sambay(cls, config: SambaYConfig) -> Phi4FlashConfig:
        """The same configuration for transformers."""
        return cls(**config.to_dict())

    def to_sambay(self) -> SambaYConfig:
        """The same configuration for `SambaY`.

        Raises:
            ConfigError: an attribute has been set to an impossible value.
        """
        return SambaYConfig.from_dict(_without_foreign_dtype(self.to_dict()))


def _without_foreign_dtype(values: dict[str, Any]) -> dict[str, Any]:
    """Only the weights tell their dtype for sure; one that a checkpoint cannot have says nothing here."""
    name = str(values.get("dtype") or values.get("torch_dtype") or "float32").removeprefix("torch.")
    kept = {key: value for key, value in values.items() if key not in ("dtype", "torch_dtype")}
    return kept | {"torch_dtype": name if name in DTYPES else "float32"}
