"""From logits to a token: penalties, temperature, truncation, and a random draw.

Each completion draws from its own generator, once per token (never when greedy), so that what it draws does not
depend on what else runs in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sambay.engine.outputs import Logprob
from sambay.engine.params import SamplingParams
from sambay.errors import SambaYError
from sambay.ops import backend

__all__ = ["Penalties", "sample", "top_logprobs"]


class Penalties:
    """What the penalties of one completion look at: its distinct tokens and how often it wrote each.

    A token is taken in once, when it comes: no step looks at all of them again.

    Args:
        params: the penalties.
        prompt_ids: tokens of the prompt; only the repetition penalty counts them.
        device: where the logits will be.
    """

    def __init__(self, params: SamplingParams, prompt_ids: list[int], device: torch.device) -> None:
        self._params = params
        seen = dict.fromkeys(prompt_ids if params.repetition_penalty != 1 else ())
        self._rows = {token: row for row, token in enumerate(seen)}
        self._tokens = torch.tensor([*seen], dtype=torch.long, device=device)
        self._counts = torch.zeros_like(self._tokens)

    @classmethod
    def of(cls, params: SamplingParams, prompt_ids: list[int], device: torch.device) -> Penalties | None:
        """The penalties of a completion, None where there are none."""
        needed = params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
        return cls(params, prompt_ids, device) if needed else None

    def add(self, token: int) -> None:
        """Count a token that was generated."""
        row = self._rows.setdefault(token, len(self._rows))
        if row == len(self._tokens):
            self._tokens = torch.cat((self._tokens, self._tokens.new_tensor([token])))
            self._counts = torch.cat((self._counts, self._counts.new_zeros(1)))
        self._counts[row] += 1

    def apply(self, logits: Tensor) -> Tensor:
        """The logits (vocab,) less the penalties, as a new tensor."""
        params, tokens, counts = self._params, self._tokens, self._counts
        values = logits[tokens]
        if params.repetition_penalty != 1:
            values = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        if params.presence_penalty or params.frequency_penalty:
            penalty = (params.presence_penalty + params.frequency_penalty * counts).masked_fill(counts == 0, 0)
            values = values - penalty.to(logits.dtype)
        return logits.index_copy(0, tokens, values)


def sample(
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator,
    penalties: Penalties | None = None,
    banned: tuple[int, ...] = (),
) -> int:
    """Choose the next token.

    Args:
        logits: (vocab,) of the model, any dtype.
        params: how to choose.
        generator: on the CPU; advanced by one draw unless the choice is greedy.
        penalties: to be applied first; None for none.
        banned: tokens that must not be chosen.

    Returns:
        A token id.

    Raises:
        SambaYError: the largest logit is not finite: one is NaN or infinite, or all are minus infinity.
    """
    if penalties is not None:
        logits = penalties.apply(logits.float())
    elif banned:
        logits = logits.clone()
    if banned:
        logits[list(banned)] = -torch.inf
    greedy = params.temperature == 0
    token = backend.choose(
        logits,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        draw=0.0 if greedy else torch.rand((), generator=generator, dtype=torch.float64).item(),
    )
    if token is None:
        raise SambaYError(
            f"the model's largest logit is {float(logits.max())}, so no token can be chosen: the weights are damaged, "
            "or too large for float16 (then take dtype float32 or bfloat16)"
        )
    return token


def top_logprobs(logits: Tensor, token: int, count: int) -> dict[int, Logprob]:
    """Log-probabilities of the `count` most probable tokens and of the chosen one.

    Args:
        logits: (vocab,) of the model, any dtype.
        token: the chosen token.
        count: how many alternatives, 0 or more.
    """
    rank, tokens, logprobs = backend.top_logprobs(logits, token, count)
    out = {token: Logprob(logprobs[0], rank)}
    for place, (other, logprob) in enumerate(zip(tokens[1:], logprobs[1:], strict=True), start=1):
        out.setdefault(other, Logprob(logprob, place))
    return out
