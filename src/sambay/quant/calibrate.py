"""What the inputs of every matrix look like: X'X over text, gathered a few layers at a time.

The Hessians of all matrices of a large model do not fit in memory at once (k x k floats each), so the text runs
again for every group of layers whose Hessians do, and only as far as the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from sambay.batch import Batch
from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.quant.stored import quantisable

__all__ = ["Calibration"]

_BATCH_TOKENS = 2048


class _EnoughError(Exception):
    """The layers that were asked for have run."""


class Calibration:
    """Hessians of the matrices of a model, on demand.

    Args:
        model: not quantised; it is run, not changed.
        documents: token ids of each text. Nothing leaks from one to the next.
        memory: bytes that Hessians may take at once; the matrices of one layer are always taken together.
        on_pass: called when a pass over the text begins.

    Raises:
        ConfigError: no text, or tokens that the model does not have.
    """

    def __init__(
        self,
        model: SambaY,
        documents: Sequence[Sequence[int]],
        *,
        memory: int = 2 << 30,
        on_pass: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.memory, self.on_pass = model, memory, on_pass
        self.documents = [list(document) for document in documents if len(document)]
        if not self.documents:
            raise ConfigError("the calibration data is empty: give text of at least one token")
        vocabulary = model.config.vocab_size
        worst = max(max(document) for document in self.documents)
        if worst >= vocabulary:
            raise ConfigError(f"calibration token {worst} is outside the vocabulary of {vocabulary}: wrong tokenizer")
        self._sizes = {name: columns for name, (_, columns) in quantisable(model).items() if name.startswith("layers.")}
        self._held: dict[str, Tensor] = {}

    def hessian(self, name: str) -> Tensor:
        """X'X / tokens of the inputs X of a matrix, (k, k) float32.

        Asked for layer by layer, in order, each pass over the text serves as many layers as fit.

        Args:
            name: of the module in memory, such as "layers.0.mlp.fc1".
        """
        if name not in self._held:
            self._held = {}
            self._held = self._gather(self._window(_layer(name)))
        return self._held[name]

    def _window(self, first: int) -> list[str]:
        """The matrices of layers from `first` on whose Hessians fit."""
        window: list[str] = []
        used = 0
        for layer in range(first, len(self.model.layers)):
            names = [name for name in self._sizes if _layer(name) == layer]
            used += sum(4 * self._sizes[name] ** 2 for name in names)
            if window and used > self.memory:
                break
            window += names
        return window

    def _gather(self, names: Sequence[str]) -> dict[str, Tensor]:
        if self.on_pass is not None:
            self.on_pass()
        device = self.model.device
        found = {name: torch.zeros(self._sizes[name], self._sizes[name], device=device) for name in names}
        tokens = sum(map(len, self.documents))
        last = self.model.layers[max(map(_layer, names))]
        with torch.inference_mode(), _listening(self.model, found, last):
            for documents in self._batches():
                ids = torch.tensor([token for document in documents for token in document], device=device)
                lengths = tuple(map(len, documents))
                with suppress(_EnoughError):
                    # All rows: each matrix then sees its inputs whole, in one call.
                    self.model.run(Batch.packed(ids, lengths, wanted=lengths), None)
        return {name: hessian.div_(tokens).cpu().clone() for name, hessian in found.items()}

    def _batches(self) -> Iterator[list[list[int]]]:
        batch: list[list[int]] = []
        filled = 0
        for document in self.documents:
            if batch and filled + len(document) > _BATCH_TOKENS:
                yield batch
                batch, filled = [], 0
            batch.append(document)
            filled += len(document)
        yield batch


def _layer(name: str) -> int:
    return int(name.split(".")[1])


@contextmanager
def _listening(model: SambaY, sums: dict[str, Tensor], last: nn.Module) -> Iterator[None]:
    """Add the inputs of modules to their sums while the model runs, and stop it after a layer."""

    def listen(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            sums[name].addmm_(x.t(), x)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(listen(name)) for name in sums]
    # A block is not called as a module; its MLP's last projection is the last that runs.
    handles.append(last.get_submodule("mlp.fc2").register_forward_hook(_stop))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stop(_module: nn.Module, _inputs: object, _output: object) -> None:
    raise _EnoughError
