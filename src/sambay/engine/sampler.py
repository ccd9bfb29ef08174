"""From logits to a token: biases, penalties, bans, temperature, truncation, and a random draw.

Each completion draws from its own generator, once per token (never when greedy), so that what it draws does not
depend on what else runs in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sambay.engine.outputs import Logprob
from sambay.engine.params import SamplingParams
from sambay.errors import SambaYError, SamplingError
from sambay.ops import backend

__all__ = ["Penalties", "TokenRules", "draw", "sample", "sample_rows", "top_logprobs", "wanted"]


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

    def changes(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that the penalties concern, and what becomes of their logits.

        Args:
            logits: (vocab,) float32.

        Returns:
            (k,) int64, each token once, and (k,) float32.
        """
        params, tokens, counts = self._params, self._tokens, self._counts
        values = logits[tokens]
        if params.repetition_penalty != 1:
            values = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        if params.presence_penalty or params.frequency_penalty:
            penalty = (params.presence_penalty + params.frequency_penalty * counts).masked_fill(counts == 0, 0)
            values = values - penalty.to(logits.dtype)
        return tokens, values


class TokenRules:
    """What a request says of single tokens: biases, the allowed ones, and words that must not come.

    Args:
        params: the request's.
        bad_words: (tokens of a text) for each spelling of a bad word.
        vocab: size of the vocabulary.
        device: where the logits will be.
    """

    def __init__(
        self, params: SamplingParams, bad_words: Sequence[tuple[int, ...]], vocab: int, device: torch.device
    ) -> None:
        bias = params.logit_bias or {}
        self._biased = torch.tensor([*bias], dtype=torch.long, device=device) if bias else None
        self._bias = torch.tensor([*bias.values()], dtype=torch.float32, device=device)
        self._bad_words = [word for word in bad_words if len(word) > 1]
        self._bad_tokens = tuple(word[0] for word in bad_words if len(word) == 1)
        self.allowed: Tensor | None = None
        """(vocab,) bool on the CPU, the tokens that may come; None for all."""
        if params.allowed_token_ids is not None:
            self.allowed = torch.zeros(vocab, dtype=torch.bool)
            self.allowed[list(params.allowed_token_ids)] = True

    def changes(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """The tokens with a bias and their logits with it, as in `Penalties.changes`; None where there is none."""
        return None if self._biased is None else (self._biased, logits[self._biased] + self._bias)

    def banned(self, output_ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens with which a bad word would be complete."""
        ends = [w[-1] for w in self._bad_words if tuple(output_ids[1 - len(w) :]) == w[:-1]]
        return (*self._bad_tokens, *ends)


def sample(
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator,
    penalties: Penalties | None = None,
    banned: Sequence[int] = (),
    rules: TokenRules | None = None,
    allowed: Tensor | None = None,
) -> int:
    """Choose the next token.

    Args:
        logits: (vocab,) of the model, any dtype; the same afterwards.
        params: how to choose.
        generator: on the CPU; advanced by one draw unless the choice is greedy.
        penalties: None for none.
        banned: tokens that must not be chosen.
        rules: biases, added before the penalties are; None for none.
        allowed: (vocab,) bool on the CPU, the only tokens that may be chosen; None for all.

    Returns:
        A token id.

    Raises:
        SambaYError: the largest logit is not finite: one is NaN or infinite, or all are minus infinity.
        SamplingError: no token is left.
    """
    changed = logits.float()
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        # A copy of 200,000 logits, of which a few differ, would cost more than to change these and to change them back.
        for part in (rules, penalties):
            change = None if part is None else part.changes(changed)
            if change is not None:
                _put(changed, *change, kept)
        if banned:
            tokens = torch.tensor(list(dict.fromkeys(banned)), device=logits.device)
            _put(changed, tokens, torch.full(tokens.shape, -torch.inf, device=logits.device), kept)
        token = _choose(changed, params, generator, allowed)
    finally:
        for tokens, values in reversed(kept):
            changed[tokens] = values
    if token is not None:
        return token
    largest = float(logits.max())
    if math.isfinite(largest):
        raise SamplingError(
            "no token is left to choose: what stop tokens before min_tokens, bad_words, allowed_token_ids and "
            "structured_outputs leave out is all there is; ask for less of them"
        )
    raise SambaYError(
        f"the model's largest logit is {largest}, so no token can be chosen: the weights are damaged, "
        "or too large for float16 (then take dtype float32 or bfloat16)"
    )


def draw(params: SamplingParams, generator: torch.Generator) -> float:
    """From [0, 1), what decides the next token; the generator, on the CPU, stays as it is if the choice is greedy."""
    return 0.0 if params.temperature == 0 else torch.rand((), generator=generator, dtype=torch.float64).item()


def wanted(row: int, params: SamplingParams, drawn: float) -> backend.Wanted:
    """A token that a row of logits, the parameters of a choice and a `draw` decide."""
    return backend.Wanted(row, params.temperature, params.top_k, params.top_p, params.min_p, drawn)


def sample_rows(logits: Tensor, tokens: Sequence[backend.Wanted]) -> list[int | None]:
    """Choose many at once.

    Args:
        logits: (R, vocab) of the model, any dtype.
        tokens: from `wanted`.

    Returns:
        Token ids; None: the largest logit of that row is not finite.
    """
    return backend.choose(logits, tokens) if tokens else []


def _put(logits: Tensor, tokens: Tensor, values: Tensor, kept: list[tuple[Tensor, Tensor]]) -> None:
    """Set some logits, and keep what they were."""
    kept.append((tokens, logits[tokens]))
    logits[tokens] = values


def _choose(logits: Tensor, params: SamplingParams, generator: torch.Generator, allowed: Tensor | None) -> int | None:
    """The token that a draw falls on among those allowed, None if there is none or the largest is not finite."""
    how = wanted(0, params, draw(params, generator))
    places: Tensor | None = None
    if allowed is not None:
        # numpy finds places in a fifth of torch's time.
        found = np.flatnonzero(allowed.numpy())
        if not len(found):
            return None
        if len(found) <= len(allowed) // 8:
            places = torch.from_numpy(found).to(logits.device)
            logits = logits[places]
        else:
            logits = torch.where(allowed.to(logits.device), logits, -torch.inf)
    [token] = sample_rows(logits.unsqueeze(0), [how])
    return token if token is None or places is None else int(places[token])


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
