"""From logits to a token: penalties, temperature, truncation, and one random draw per token.

Each completion draws from its own generator, once per token, so that its text does not depend on what else
runs in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sambay.engine.outputs import Logprob
from sambay.engine.params import SamplingParams
from sambay.errors import SambaYError

__all__ = ["sample", "top_logprobs"]

_FIRST_CANDIDATES = 256
"""Tokens looked at first: a nucleus is rarely larger, and sorting a vocabulary of 200,064 costs milliseconds."""


def sample(
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator,
    prompt_ids: list[int],
    output_ids: list[int],
    banned: tuple[int, ...] = (),
) -> int:
    """Choose the next token.

    Args:
        logits: (vocab,) of the model, any dtype.
        params: how to choose.
        generator: on the CPU; advanced by one draw unless the choice is greedy.
        prompt_ids: tokens of the prompt, for the repetition penalty.
        output_ids: tokens generated so far, for all penalties.
        banned: tokens that must not be chosen.

    Returns:
        A token id.

    Raises:
        SambaYError: the logits are not finite.
    """
    logits = _penalise(logits.float(), params, prompt_ids, output_ids)
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


def _penalise(logits: Tensor, params: SamplingParams, prompt_ids: list[int], output_ids: list[int]) -> Tensor:
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt_ids, *output_ids}), device=logits.device)
        values = logits[seen]
        values = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        logits = logits.index_copy(0, seen, values)
    if output_ids and (params.presence_penalty or params.frequency_penalty):
        tokens, counts = torch.tensor(output_ids, device=logits.device).unique(return_counts=True)
        penalty = params.presence_penalty + params.frequency_penalty * counts
        logits = logits.index_add(0, tokens, -penalty.to(logits.dtype))
    return logits


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
