"""Training documents: chats as token ids, and which of the tokens are learned.

A document is a prompt, which is only read, and a completion, which is learned token by token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sambay.batch import Batch
from sambay.data.problems import Problem, problem_at, smalltalk_at
from sambay.errors import ConfigError
from sambay.tokenizer import Tokenizer

__all__ = ["Document", "PackedBatch", "ProblemSource", "collate", "completion_text", "fill"]

_TOO_MANY = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids of one training example.

    Attributes:
        ids: prompt and completion.
        prompt_length: tokens at the beginning that are read and not learned.
        label: what it belongs to, for losses by kind.
    """

    ids: tuple[int, ...]
    prompt_length: int
    label: str

    @property
    def learned(self) -> int:
        """How many of the tokens are learned; the first one of all has nothing to be predicted from."""
        return max(0, len(self.ids) - max(1, self.prompt_length))


def completion_text(problem: Problem) -> str:
    """What the assistant says to a problem: its thinking, then the reply."""
    return f"<think>\n{problem.thinking}\n</think>\n{problem.reply}"


class ProblemSource:
    """Documents of the problem generator by index, the same on every machine.

    Args:
        tokenizer: of the model.
        seed: of the stream.
        split: "train" or "test"; no problem of one occurs in the other.
        families: share of each family, None for the generator's own.
        smalltalk: share of documents that are no mathematics.
        second_turns: share of documents that begin with an earlier question and its answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        seed: int,
        split: str = "train",
        families: Mapping[str, float] | None = None,
        smalltalk: float = 0.0,
        second_turns: float = 0.0,
    ) -> None:
        end = tokenizer.token_id("<|end|>")
        if end is None:
            raise ConfigError("the tokenizer has no <|end|> token: the problem data is in the Phi chat format")
        self.tokenizer, self.end, self.seed, self.split = tokenizer, end, seed, split
        self.families, self.smalltalk, self.second_turns = families, smalltalk, second_turns

    def __call__(self, index: int) -> Document:
        """The document at `index`, any number from 0 up."""
        # Strings seed the same everywhere; the problem itself is drawn from its own stream.
        dice = random.Random(f"{self.seed}/{self.split}/{index}")
        problem = self._problem(index, dice.random() < self.smalltalk)
        messages = [{"role": "user", "content": problem.question}]
        if dice.random() < self.second_turns:
            # Earlier turns are remembered without their thinking, as the chat command shows them to the model.
            before = self._problem(dice.randrange(1 << 40), dice.random() < 0.2)
            messages[:0] = [
                {"role": "user", "content": before.question},
                {"role": "assistant", "content": before.reply},
            ]
        prompt = self.tokenizer.encode_chat(messages)
        answer = self.tokenizer.encode(completion_text(problem), add_special_tokens=False)
        return Document((*prompt, *answer, self.end), len(prompt), problem.family)

    def _problem(self, index: int, smalltalk: bool) -> Problem:
        if smalltalk:
            return smalltalk_at(self.seed, index)
        return problem_at(self.seed, index, self.split, self.families)


@dataclass(frozen=True)
class PackedBatch:
    """Documents packed for one pass, every token predicting the next one of its own document.

    Attributes:
        batch: the inputs; only rows whose target is learned ask for logits, so that prompts run only the
            layers that they need.
        targets: (R,) int64, the token that follows each of those rows.
        counts: learned tokens of each document.
    """

    batch: Batch
    targets: Tensor
    counts: tuple[int, ...]


def fill(
    source: Callable[[int], Document], index: int, tokens: int, longest: int
) -> Iterator[tuple[list[Document], int]]:
    """Draw whole documents for step after step, without end, from the document at `index` on.

    Args:
        source: documents by index.
        index: where to begin.
        tokens: input tokens per step, at most (a single longer document still makes a step).
        longest: a document of more tokens is left out: cut, it would teach a solution without its end.

    Yields:
        The documents of a step, and the index at which the next one begins.

    Raises:
        ConfigError: very many documents in a row are left out.
    """
    waiting: list[Document] = []
    filled = left_out = 0
    while True:
        document = source(index)
        if len(document.ids) > longest or not document.learned:
            left_out += 1
            if left_out == _TOO_MANY:
                raise ConfigError(f"longest is {longest}: {_TOO_MANY} documents in a row are longer; raise it")
            index += 1
            continue
        left_out = 0
        length = len(document.ids) - 1
        if waiting and filled + length > tokens:
            yield waiting, index
            waiting, filled = [], 0
        waiting.append(document)
        filled += length
        index += 1


def collate(documents: Sequence[Document], device: torch.device | str) -> PackedBatch:
    """Pack documents of at least two tokens each, for a model on `device`."""
    lengths = [len(document.ids) - 1 for document in documents]
    counts = tuple(document.learned for document in documents)
    inputs = torch.tensor([token for document in documents for token in document.ids[:-1]], device=device)
    pairs = zip(documents, counts, strict=True)
    learned = [token for document, count in pairs for token in document.ids[len(document.ids) - count :]]
    targets = torch.tensor(learned, device=device)
    return PackedBatch(Batch.packed(inputs, lengths, wanted=counts), targets, counts)
