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

__all__ = ["Penalties", "sample", "top_logprobs"]

_FIRST_CANDIDATES = 256
"""Tokens looked at first: a nucleus is rarely larger, and sorting a vocabulary of 200,064 takes 20 ms, this 0.4 ms."""


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
        if params.repetition_penalty != 1:
            values = logits[tokens]
            values = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
            logits = logits.index_copy(0, tokens, values)
        penalty = (params.presence_penalty + params.frequency_penalty * counts).masked_fill(counts == 0, 0)
        return logits.index_add(0, tokens, -penalty.to(logits.dtype))


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
    logits = logits.float() if penalties is None else penalties.apply(logits.float())
    if banned:
        logits = logits.clone()
        logits[list(banned)] = -torch.inf
    best = int(logits.argmax())
    if not bool(logits[best].isfinite()):
        raise SambaYError(
            f"the model's largest logit is {float(logits[best])}, so no token can be chosen: the weights are damaged, "
            "or too large for float16 (then take dtype float32 or bfloat16)"
        )
    if params.temperature == 0:
        return best
    # float64 on the CPU: the cumulated sum of 200K probabilities must reach 1.
    scaled = (logits - logits[best]).to("cpu", torch.float64) / params.temperature
    mass = scaled.exp()
    total = float(mass.sum())
    probabilities, tokens = _candidates(mass, total, params)
    point = torch.rand((), generator=generator, dtype=torch.float64) * probabilities.sum()
    index = int(torch.searchsorted(probabilities.cumsum(0), point, right=True))
    return int(tokens[min(index, len(tokens) - 1)])


def _candidates(mass: Tensor, total: float, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The tokens that truncation leaves, most probable first: (masses, ids)."""
    size = mass.numel()
    limit = params.top_k if params.top_k > 0 else size
    if limit >= size and params.top_p >= 1 and params.min_p <= 0:
        return mass, torch.arange(size)
    count = limit = min(limit, size)
    if params.top_k <= 0:
        count = min(size, _FIRST_CANDIDATES)
    while True:
        values, tokens = torch.topk(mass, count)
        # A nucleus is a share of what top-k leaves; both rules keep a prefix of the sorted tokens.
        whole = float(values.sum()) if params.top_k > 0 else total
        kept = (values >= params.min_p * values[0]) & (values.cumsum(0) - values < params.top_p * whole)
        if count == limit or not bool(kept[-1]):
            return values[kept], tokens[kept]
        count = min(limit, count * 8)


def top_logprobs(logits: Tensor, token: int, count: int) -> dict[int, Logprob]:
    """Log-probabilities of the `count` most probable tokens and of the chosen one.

    Args:
        logits: (vocab,) of the model, any dtype.
        token: the chosen token.
        count: how many alternatives, 0 or more.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs[token]
    out = {token: Logprob(float(chosen), int((logprobs > chosen).sum()) + 1)}
    if count:
        values, tokens = torch.topk(logprobs, min(count, logprobs.numel()))
        for rank, (value, other) in enumerate(zip(values.tolist(), tokens.tolist(), strict=True), start=1):
            out.setdefault(other, Logprob(value, rank))
    return out
