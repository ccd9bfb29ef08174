"""Make transformers know our model, at no cost to those who do not use transformers.

After a plain `import sambay`, `AutoModelForCausalLM.from_pretrained(...)` gives our class without
`trust_remote_code`, whichever of the two was imported first. transformers is never imported from here: where
it is not loaded yet, a finder on `sys.meta_path` waits for its auto classes and registers right after them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]

_CONFIG = "transformers.models.auto.configuration_auto"
_MODEL = "transformers.models.auto.modeling_auto"

# What `sambay.hf.model` imports. transformers imports its auto classes from many places, also from within
# these, and a half-initialised module has not got the names that we need: then we wait until it is done.
_NEEDED = (
    "transformers.cache_utils",
    "transformers.configuration_utils",
    "transformers.conversion_mapping",
    "transformers.core_model_loading",
    "transformers.generation.utils",
    "transformers.modeling_outputs",
    "transformers.modeling_utils",
)
_WATCHED = frozenset((_CONFIG, _MODEL, *_NEEDED))


class _AutoClassFinder:
    """Finds nothing by itself: has the watched modules tell when they have been executed."""

    def __init__(self) -> None:
        self.executed: set[str] = set()
        self.pending = {_CONFIG, _MODEL}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ask the other finders, and wrap what executes the module."""
        if name not in _WATCHED:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                self._watch(name, spec)
                return spec
        return None

    def _watch(self, name: str, spec: ModuleSpec) -> None:
        loader: Any = spec.loader  # of any kind
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            self.executed.add(name)
            self.register()

        try:
            loader.exec_module = execute_and_register
        except AttributeError:  # a loader that cannot be changed: `import sambay.hf` still registers
            return

    def _ready(self, name: str) -> bool:
        module = sys.modules.get(name)
        if module is None:
            return False
        running = getattr(getattr(module, "__spec__", None), "_initializing", False)
        return name in self.executed or not running

    def register(self) -> None:
        """Register what can be registered now; harmless to repeat."""
        try:
            if _CONFIG in self.pending and self._ready(_CONFIG):
                self.pending.discard(_CONFIG)  # first, since the import below may come back here
                from sambay.hf.registration import register_config

                register_config()
            needed = [name for name in _NEEDED if name in sys.modules]
            if _MODEL in self.pending and all(map(self._ready, (_CONFIG, _MODEL, *needed))):
                self.pending.discard(_MODEL)
                from sambay.hf.registration import register_model

                register_model()
        except Exception as error:  # importing transformers must not fail because of us
            self.pending.clear()
            warnings.warn(
                f"sambay could not register its model with transformers ({error}): "
                "AutoModelForCausalLM will not know it; pip install -U 'sambay[hf]'",
                RuntimeWarning,
                stacklevel=2,
            )
        if not self.pending and self in sys.meta_path:
            sys.meta_path.remove(self)


def install() -> None:
    """Register with transformers: now if its auto classes are loaded, else as soon as they are.

    Without transformers this does nothing; to call it again does nothing either.
    """
    if any(isinstance(finder, _AutoClassFinder) for finder in sys.meta_path):
        return
    try:
        if "transformers" not in sys.modules and importlib.util.find_spec("transformers") is None:
            return
    except (ImportError, ValueError):  # something odd stands in its place
        return
    finder = _AutoClassFinder()
    sys.meta_path.insert(0, finder)
    finder.register()
