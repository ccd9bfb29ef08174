"""sambay: the home of decoder-hybrid-decoder language models.

>>> from sambay import LLM
>>> print(LLM().chat([{"role": "user", "content": "What is 3 + 4?"}])[0].outputs[0].answer)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sambay import _autoregister
from sambay._version import __version__

if TYPE_CHECKING:
    from sambay.config import PRESETS, LayerRole, SambaYConfig, preset
    from sambay.engine import (
        LLM,
        AsyncEngine,
        CompletionOutput,
        RequestOutput,
        SamplingParams,
        StreamEvent,
        StructuredOutputsParams,
    )
    from sambay.errors import SambaYError
    from sambay.model import SambaY
    from sambay.state import StatePool
    from sambay.tokenizer import Tokenizer

__all__ = [
    "LLM",
    "PRESETS",
    "AsyncEngine",
    "CompletionOutput",
    "LayerRole",
    "RequestOutput",
    "SambaY",
    "SambaYConfig",
    "SambaYError",
    "SamplingParams",
    "StatePool",
    "StreamEvent",
    "StructuredOutputsParams",
    "Tokenizer",
    "__version__",
    "preset",
]

# Imported when first used: torch takes a second, which `sambay --help` need not wait for.
_HOMES = {
    "LLM": "engine",
    "AsyncEngine": "engine",
    "CompletionOutput": "engine",
    "RequestOutput": "engine",
    "SamplingParams": "engine",
    "StreamEvent": "engine",
    "StructuredOutputsParams": "engine",
    "PRESETS": "config",
    "LayerRole": "config",
    "SambaYConfig": "config",
    "preset": "config",
    "SambaY": "model",
    "SambaYError": "errors",
    "StatePool": "state",
    "Tokenizer": "tokenizer",
}

_autoregister.install()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'sambay' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sambay.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
