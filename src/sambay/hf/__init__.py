"""The transformers classes over the same model: `AutoModelForCausalLM`, `generate`, `Trainer`, PEFT.

After `import sambay`, or `import sambay.hf`, the auto classes of transformers load a SambaY checkpoint with
the classes of this package, without `trust_remote_code`, even where its `config.json` names code of its own.
Nothing of the model is written twice: `Phi4FlashForCausalLM` holds a `SambaY` as its attribute `model`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sambay import _autoregister
from sambay.errors import MissingExtraError

try:
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise MissingExtraError("transformers", "hf", "The transformers classes") from None

if TYPE_CHECKING:
    from sambay.hf.cache import SambaYCache
    from sambay.hf.config import Phi4FlashConfig
    from sambay.hf.model import Phi4FlashForCausalLM

__all__ = ["Phi4FlashConfig", "Phi4FlashForCausalLM", "SambaYCache"]

_autoregister.install()

_HOMES = {"Phi4FlashConfig": "config", "Phi4FlashForCausalLM": "model", "SambaYCache": "cache"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute can be anything
    # Lazily: registration asks for the configuration alone, in the middle of transformers' own imports.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
