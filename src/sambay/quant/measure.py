"""What quantisation costs: perplexity, and how far the distribution of the next token moves.

Source: the divergence is KL(original || quantised), in nats, token by token, as llama.cpp reports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sambay.data.documents import PackedBatch
from sambay.errors import ConfigError
from sambay.model import SambaY

__all__ = ["Divergence", "compare"]


@dataclass(frozen=True)
class Divergence:
    """How a model differs from the original on some text.

    Attributes:
        tokens: that were predicted.
        perplexity: of the model.
        reference_perplexity: of the original.
        kl_mean: mean divergence of a token, in nats.
        kl_p99: the divergence that 99 % of the tokens stay below.
        kl_max: the largest.
        same_top: share of tokens of which both find the same one likeliest.
    """

    tokens: int
    perplexity: float
    reference_perplexity: float
    kl_mean: float
    kl_p99: float
    kl_max: float
    same_top: float

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return asdict(self)


@torch.inference_mode()
def compare(
    reference: SambaY,
    model: SambaY,
    batches: Sequence[PackedBatch],
    progress: Callable[[int, int], None] | None = None,
) -> Divergence:
    """Run two models over the same text.

    Args:
        reference: the original.
        model: of the same vocabulary.
        batches: text, on the device of both.
        progress: called with (batches done, batches in all).

    Raises:
        ConfigError: no text, or models of different vocabularies.
    """
    if reference.config.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"the models have {reference.config.vocab_size} and {model.config.vocab_size} tokens: "
            "only models of one vocabulary can be compared"
        )
    if not batches:
        raise ConfigError("there is no text to compare the models on: give at least one document")
    divergences, same = [], 0
    losses = [0.0, 0.0]
    for done, one in enumerate(batches, 1):
        first, second = (torch.log_softmax(each.run(one.batch, None).float(), dim=-1) for each in (reference, model))
        for index, logs in enumerate((first, second)):
            losses[index] -= float(logs.gather(1, one.targets.unsqueeze(1)).double().sum())
        divergences.append((first.exp() * (first - second)).sum(dim=1))
        same += int((first.argmax(dim=1) == second.argmax(dim=1)).sum())
        if progress is not None:
            progress(done, len(batches))
    every = torch.cat(divergences).double().clamp_min(0).sort().values
    tokens = len(every)
    return Divergence(
        tokens=tokens,
        perplexity=math.exp(losses[1] / tokens),
        reference_perplexity=math.exp(losses[0] / tokens),
        kl_mean=float(every.mean()),
        kl_p99=float(every[min(tokens - 1, math.ceil(0.99 * tokens) - 1)]),
        kl_max=float(every[-1]),
        same_top=same / tokens,
    )
