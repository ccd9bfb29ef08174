"""The models that are served, by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sambay.engine import LLM, AsyncEngine
from sambay.engine.budget import memory_bytes
from sambay.errors import ConfigError, ModelNotFoundError
from sambay.quant.resident import free_memory

__all__ = ["Models", "ServedModel", "share_memory"]


@dataclass(eq=False)
class ServedModel:
    """A model that requests can name.

    Attributes:
        name: what they call it.
        llm: the model, with a tokenizer.
        engine: runs it.
        created: when it was loaded, in seconds since 1970.
        load: sequences that have been taken and not ended, waiting or running.
    """

    name: str
    llm: LLM
    engine: AsyncEngine
    created: int = field(default_factory=lambda: int(time.time()))
    load: int = 0

    @classmethod
    def of(cls, name: str, llm: LLM) -> ServedModel:
        """Start the engine of a model.

        Raises:
            PromptError: it has no tokenizer, so that no text can be read.
        """
        llm.get_tokenizer().refuse_beyond(llm.max_model_len)
        return cls(name, llm, AsyncEngine(llm))


class Models:
    """The models of a server.

    Args:
        served: at least one; the first answers those who name none.

    Raises:
        ConfigError: two have the same name.
    """

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self._served = {one.name: one for one in served}
        if not served or len(self._served) < len(served):
            names = ", ".join(one.name for one in served)
            raise ConfigError(f"the models to be served are {names or 'none'}: give each a name of its own, NAME=DIR")

    def get(self, name: str | None) -> ServedModel:
        """The model of that name, the first for None.

        Raises:
            ModelNotFoundError: there is none.
        """
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise ModelNotFoundError(f"there is no model {name!r:.99} here: there is {', '.join(self._served)}")
        return self._served[name]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._served)

    async def aclose(self) -> None:
        """End all engines, with an error for requests that still run."""
        for one in self:
            await one.engine.aclose()


def share_memory(memory: str | None, directories: Sequence[Path]) -> int | None:
    """What the states of each of several models may take.

    Args:
        memory: all of them together, such as "4GB"; None for half of what is free beside all weights.
        directories: of the models.

    Returns:
        Bytes; None for one model and no memory given, which is then left to `LLM`.

    Raises:
        ConfigError: it is no amount.
    """
    if memory is not None:
        return memory_bytes(memory) // len(directories)
    free = free_memory()
    if len(directories) == 1 or free is None:
        return None
    weights = sum(file.stat().st_size for one in directories for file in one.glob("*.safetensors"))
    return max(1, (free - weights) // 2 // len(directories))
