"""What generation gives back, in the shape that vLLM's users know."""

from __future__ import annotations

from dataclasses import dataclass, field

from sambay.streaming import Piece

__all__ = ["CompletionOutput", "Logprob", "RequestMetrics", "RequestOutput", "StreamEvent"]


@dataclass(frozen=True)
class Logprob:
    """Log-probability of one token under the model, before temperature and penalties.

    Attributes:
        logprob: natural logarithm.
        rank: 1 for the most probable token.
        decoded_token: its text, None without a tokenizer.
    """

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One completion of a prompt.

    Attributes:
        index: which of the n completions.
        text: decoded text without the stop string; "" without a tokenizer.
        token_ids: the tokens generated, a stop or end token included.
        cumulative_logprob: sum of the chosen tokens' log-probabilities, None unless logprobs were asked for.
        logprobs: for each token, the asked-for number of alternatives and the token itself, by id.
        finish_reason: "stop", "length", "abort", "deadline", "error", or None while it runs.
        stop_reason: the stop string or stop token that ended it, None for the end-of-sequence token.
        reasoning: the part of the text between `<think>` and `</think>`.
        answer: the rest.
        reasoning_tokens: how many of the tokens came inside the thinking, those of `</think>` included.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    reasoning: str = ""
    answer: str = ""
    reasoning_tokens: int = 0


@dataclass
class RequestMetrics:
    """Times of a request in seconds of `time.perf_counter`, 0 until they happen, and what was guessed.

    Attributes:
        arrival: when it was added.
        first_token: when its first token was known.
        finished: when its last completion ended.
        drafted: tokens that were computed at a guess.
        accepted: of these, how many came.
    """

    arrival: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0
    drafted: int = 0
    accepted: int = 0


@dataclass
class RequestOutput:
    """A prompt and its completions.

    Attributes:
        request_id: unique in the engine.
        prompt: its text, None when it was given as token ids.
        prompt_token_ids: its tokens.
        outputs: n completions.
        finished: whether all of them ended.
        metrics: when things happened.
        error: what ended it as "error", else None.
        cached_tokens: of the prompt, how many were not computed because the state after them was at hand; None until
            it begins.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    error: Exception | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True)
class StreamEvent:
    """One step of one completion.

    Attributes:
        index: which of the n completions.
        token_id: the new token.
        text: text that is now certain, often "" (half a character, or what may begin a stop string).
        pieces: the same text, thinking and answer apart.
        finish_reason: set in the last event of a completion.
        output: the request so far, live.
    """

    index: int
    token_id: int
    text: str
    pieces: tuple[Piece, ...]
    finish_reason: str | None
    output: RequestOutput
