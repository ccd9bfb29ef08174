"""Data parallelism on the CPU: worker processes that compute gradients of a share of each step.

Two processes of one thread each do twice the work of one, while one process with two threads waits at a
barrier after every small operation, and waits long when the machine is shared. The weights live in shared
memory; workers read them and return gradients, and only the trainer changes them.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import torch
from torch import Tensor, multiprocessing

from sambay.data.documents import Document
from sambay.errors import SambaYError
from sambay.model import SambaY
from sambay.ops import backend

__all__ = ["GradientWorkers", "split_documents"]

_DIED = "a training worker died, perhaps for lack of memory: resume the run"

LossSum = Callable[[SambaY, Sequence[Document]], Tensor]
"""The summed loss of some documents; a module-level function or a partial of one, so that it can be sent."""


def split_documents(documents: Sequence[Document], parts: int) -> list[list[Document]]:
    """Deal documents, longest first, each to the part of the fewest tokens; some parts may be empty, never the first.

    All wait for the slowest worker, so a part that is a tenth too large makes the step a tenth longer.
    """
    out: list[list[Document]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for document in sorted(documents, key=lambda document: len(document.ids), reverse=True):
        least = sizes.index(min(sizes))
        out[least].append(document)
        sizes[least] += len(document.ids)
    return out


class GradientWorkers:
    """Processes that compute gradients beside the trainer.

    Args:
        model: its parameters are moved to shared memory.
        loss_sum: what to differentiate.
        count: processes besides the trainer's own, possibly 0.
        threads: CPU threads of each.
    """

    def __init__(self, model: SambaY, loss_sum: LossSum, count: int, threads: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._pipes: list[Connection] = []
        self._gradients: list[list[Tensor]] = []
        self._processes = []
        if not count:
            return
        model.share_memory()
        context = multiprocessing.get_context("spawn")
        for _ in range(count):
            ours, theirs = context.Pipe()
            gradients = [torch.zeros_like(p).share_memory_() for p in self._parameters]
            process = context.Process(target=_serve, args=(model, loss_sum, threads, theirs, gradients), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._gradients.append(gradients)
            self._processes.append(process)

    def __len__(self) -> int:
        return len(self._pipes)

    def start(self, shares: Sequence[Sequence[Document]], scale: float) -> None:
        """Let every worker differentiate `scale` times the summed loss of its share.

        Raises:
            SambaYError: a worker died.
        """
        for pipe, share in zip(self._pipes, shares, strict=True):
            try:
                pipe.send((list(share), scale))
            except OSError:
                raise SambaYError(_DIED) from None

    def collect(self) -> float:
        """Add the workers' gradients to the parameters', in order, and return the sum of their scaled losses.

        Raises:
            SambaYError: a worker failed or died.
        """
        loss = 0.0
        for pipe, gradients in zip(self._pipes, self._gradients, strict=True):
            try:
                part = pipe.recv()
            except (EOFError, OSError):
                raise SambaYError(_DIED) from None
            if isinstance(part, str):
                raise SambaYError(f"a training worker failed:\n{part}")
            loss += part
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient.clone()
                else:
                    parameter.grad += gradient
        return loss

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=10)


def _serve(model: SambaY, loss_sum: LossSum, threads: int, pipe: Connection, gradients: Sequence[Tensor]) -> None:
    """A worker's life: receive documents, return their loss, leave their gradients in shared memory."""
    # Ctrl-C reaches the whole process group; the trainer decides what it means, and ends us by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    backend.use_threads(threads)
    parameters = [p for p in model.parameters() if p.requires_grad]
    while True:
        try:
            documents, scale = pipe.recv()
        except EOFError:
            return
        answer: float | str = 0.0
        try:
            for parameter in parameters:
                parameter.grad = None
            if documents:
                total = loss_sum(model, documents) * scale
                total.backward()
                answer = total.item()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter.grad is None:
                    gradient.zero_()
                else:
                    gradient.copy_(parameter.grad)
        except Exception:
            answer = traceback.format_exc()
        try:
            pipe.send(answer)
        except OSError:  # the trainer is gone
            return
