"""Which sequences compute how many tokens in the next step. Pure Python: it knows nothing of tensors.

Running sequences come first, one token each; what is left of the step's budget goes to prompts, in chunks and
in order of arrival, so that a long prompt never stalls the others and never needs unbounded memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sambay.engine.request import Completion, Request

__all__ = ["Scheduler", "Share"]


@dataclass(frozen=True)
class Share:
    """One sequence's part of a step.

    Attributes:
        completion: the sequence.
        tokens: how many tokens it computes.
    """

    completion: Completion
    tokens: int


class Scheduler:
    """First come, first served.

    Args:
        max_sequences: sequences that run at once.
        max_tokens: tokens computed in one step, at least `max_sequences`.
    """

    def __init__(self, max_sequences: int, max_tokens: int) -> None:
        self.max_sequences, self.max_tokens = max_sequences, max(max_tokens, max_sequences)
        self.waiting: deque[Completion] = deque()
        self.running: list[Completion] = []

    @property
    def busy(self) -> bool:
        """True while anything waits or runs."""
        return bool(self.waiting or self.running)

    def admit(self) -> list[Completion]:
        """Move waiting sequences into free places and return them.

        Further completions of a prompt wait until the first has computed it, and then begin with its state.
        """
        admitted: list[Completion] = []
        for completion in list(self.waiting):
            if len(self.running) >= self.max_sequences:
                break
            if completion.index and completion.request.forked is None:
                continue
            self.waiting.remove(completion)
            self.running.append(completion)
            admitted.append(completion)
        return admitted

    def forks_wait(self, request: Request) -> bool:
        """Whether further completions of a prompt wait for it to be computed."""
        return len(request.completions) > 1 and request.completions[-1] in self.waiting

    def plan(self) -> list[Share]:
        """The shares of the next step."""
        shares, left = [], self.max_tokens
        pending = [(completion, completion.length - completion.computed) for completion in self.running]
        for decoding in (True, False):
            for completion, count in pending:
                if (count == 1) is decoding and left:
                    tokens = min(count, left)
                    shares.append(Share(completion, tokens))
                    left -= tokens
        return shares

    def drop(self, completion: Completion) -> None:
        """Forget a sequence that has ended."""
        if completion in self.running:
            self.running.remove(completion)
        elif completion in self.waiting:
            self.waiting.remove(completion)
