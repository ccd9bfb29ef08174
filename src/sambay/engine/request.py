"""A request and its completions while they run: tokens, text, and when to stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedRandom

import torch
from torch import Tensor

from sambay.engine.guide import Guide
from sambay.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams
from sambay.engine.sampler import Penalties, TokenRules, draw, sample, wanted
from sambay.engine.speculation import Lookup
from sambay.ops.backend import Wanted
from sambay.state import Held
from sambay.streaming import StopMatcher, ThinkingSplitter
from sambay.tokenizer import Tokenizer

__all__ = ["Completion", "Parked", "Request"]


@dataclass(eq=False)
class Parked:
    """The state of a sequence outside of its slot.

    Attributes:
        length: tokens that it has seen.
        held: the state in pages of the pool, or else
        file: open, that holds it; None if it is lost.
    """

    length: int
    held: Held | None = None
    file: BufferedRandom | None = None


@dataclass(eq=False)
class Request:
    """A prompt with its completions.

    Attributes:
        output: what the user gets, filled as completions run.
        params: how to generate.
        end_ids: tokens that end a completion as "stop".
        limit: tokens of a completion at most, context included.
        on_event: called with each event of its completions.
        priority: the lowest goes first.
        arrival: its number in the order of arrival.
        deadline: when it ends, finished or not, in seconds of `time.perf_counter`; None for never.
        forked: the state after the prompt, kept while further completions of it wait for a slot, so that the prompt is
            computed once.
        logits: the last ones of the prompt (vocab,), kept as long.
    """

    output: RequestOutput
    params: SamplingParams
    end_ids: frozenset[int]
    limit: int
    on_event: Callable[[StreamEvent], object] | None = None
    priority: int = 0
    arrival: int = 0
    deadline: float | None = None
    completions: list[Completion] = field(default_factory=list)
    forked: Parked | None = None
    logits: Tensor | None = None

    @property
    def finished(self) -> bool:
        """True when all completions have ended."""
        return all(completion.output.finish_reason for completion in self.completions)


class Completion:
    """One completion of a request: a sequence of the engine.

    Args:
        request: the request that it belongs to.
        index: which of the n completions.
        seed: of its generator.
        tokenizer: to make text with, or None.
        device: where its logits will be.
        thinking: the prompt already ends with `<think>`.
        guide: what leads it along; None without a tokenizer.
        rules: what its request says of single tokens; None for nothing.
    """

    def __init__(
        self,
        request: Request,
        index: int,
        seed: int,
        tokenizer: Tokenizer | None,
        *,
        device: torch.device,
        thinking: bool,
        guide: Guide | None = None,
        rules: TokenRules | None = None,
    ) -> None:
        params = request.params
        self.request, self.index, self.tokenizer = request, index, tokenizer
        self.output = CompletionOutput(index, cumulative_logprob=0.0 if params.logprobs is not None else None)
        self.output.logprobs = [] if params.logprobs is not None else None
        self.generator = torch.Generator().manual_seed(seed % 2**64)
        self.penalties = Penalties.of(params, self.prompt_ids, device)
        self.guide, self.rules = guide, rules
        self.slot: int | None = None
        self.computed = 0
        self.begun = False
        """Whether it ever had a slot."""
        self.parked: Parked | None = None
        """The state to go on from when there is a slot again."""
        self.cached = 0
        """Tokens of the prompt that were not computed for it."""
        self.pauses: list[int] = []
        """At so many computed tokens its state is to be kept for others, last first."""
        self.lookup: Lookup | None = None
        """Into its tokens, where its engine speculates."""
        self.draft: list[int] = []
        """What may follow the next token to compute."""
        self._drawn: float | None = (
            None  # for the next token; should the step fail before it comes, the next step takes it
        )
        self._decoder = None if tokenizer is None else tokenizer.stream(skip_special_tokens=params.skip_special_tokens)
        self._stops = StopMatcher(params.stop_strings, params.include_stop_str_in_output)
        self._splitter = ThinkingSplitter(started_open=thinking)

    @property
    def prompt_ids(self) -> list[int]:
        """Tokens of the prompt."""
        return self.request.output.prompt_token_ids

    @property
    def length(self) -> int:
        """Tokens so far, prompt and completion."""
        return len(self.prompt_ids) + len(self.output.token_ids)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Its place in the order of the scheduler."""
        return self.request.priority, self.request.arrival, self.index

    @property
    def ready(self) -> bool:
        """False while its prompt is computed for another completion, whose state it will begin with."""
        return not self.index or self.begun or self.request.logits is not None

    @property
    def pause(self) -> int:
        """How many tokens may be computed before its state is to be kept."""
        return self.pauses[-1] if self.pauses else sys.maxsize

    @property
    def drafts(self) -> int:
        """Tokens that it would compute behind the next, at a guess."""
        return len(self.draft)

    @property
    def most_drafts(self) -> int:
        """How many it has use for: each brings a token, and so does the one before it."""
        return self.request.limit - len(self.output.token_ids) - 1

    def all_ids(self) -> list[int]:
        """Tokens of the prompt and the completion."""
        return self.prompt_ids + self.output.token_ids

    def next_ids(self, most: int) -> list[int]:
        """The next tokens to compute, `most` at most."""
        ids, begin = self.prompt_ids[self.computed : self.computed + most], max(0, self.computed - len(self.prompt_ids))
        return ids + self.output.token_ids[begin : begin + most - len(ids)]

    def wanted(self, row: int) -> Wanted | None:
        """The next token, where a row of logits and the parameters decide it, to be chosen with others; else None."""
        guide, params = self.guide, self.request.params
        free = self.rules is None and self.penalties is None and (guide is None or guide.idle)
        if not free or len(self.output.token_ids) < params.min_tokens:
            return None
        if self._drawn is None:
            self._drawn = draw(params, self.generator)
        return wanted(row, params, self._drawn)

    def choose(self, logits: Tensor) -> int:
        """The next token, forced or drawn.

        Args:
            logits: (vocab,) of the model.

        Raises:
            SambaYError: none can be chosen.
        """
        guide, rules = self.guide, self.rules
        forced = None if guide is None else guide.forced()
        if forced is not None:
            return forced
        allowed = None if guide is None else guide.allowed()
        if rules is not None and rules.allowed is not None:
            allowed = rules.allowed if allowed is None else allowed & rules.allowed
        return sample(logits, self.request.params, self.generator, self.penalties, self.banned(), self.rules, allowed)

    def banned(self) -> list[int]:
        """Tokens that must not come: ends before `min_tokens` or an answer, bad words, what the guide rules out."""
        params, ids = self.request.params, self.output.token_ids
        early = len(ids) < params.min_tokens
        banned = [*(params.stop_token_ids or ())] if early else []
        if (early and not params.ignore_eos) or (self.guide is not None and self.guide.unanswered):
            banned += self.request.end_ids
        if self.rules is not None:
            banned += self.rules.banned(ids)
        if self.guide is not None:
            banned += self.guide.banned()
        return banned

    def append(self, token: int) -> StreamEvent:
        """Take the next token: decode it, and decide whether the completion ends here."""
        request, output, params = self.request, self.output, self.request.params
        if not request.output.metrics.first_token:
            request.output.metrics.first_token = time.perf_counter()
        output.token_ids.append(token)
        self._drawn = None
        if self.lookup is not None:
            self.lookup.push(token)
        if self.penalties is not None:
            self.penalties.add(token)
        if token in request.end_ids and not params.ignore_eos:
            output.finish_reason = "stop"
        elif token in (params.stop_token_ids or ()):
            output.finish_reason, output.stop_reason = "stop", token
        # The token that ends a completion is a control token or a stop token: it gives no text, unless asked to.
        text = ""
        if self._decoder is not None and (not output.finish_reason or params.include_stop_str_in_output):
            text = self._decoder.push(token)
        if self.guide is not None and not output.finish_reason:
            self._follow(self.guide, token, text)
        if not output.finish_reason and len(output.token_ids) >= request.limit:
            output.finish_reason = "length"
        if self._decoder is not None and output.finish_reason:
            text += self._decoder.flush()
        if len(output.token_ids) >= params.min_tokens:
            text, _ = self._stops.push(text)
            if output.finish_reason:
                text += self._stops.flush()
        if self._stops.matched is not None and output.stop_reason is None:
            output.finish_reason, output.stop_reason = "stop", self._stops.matched
        return self._event(token, text)

    def _follow(self, guide: Guide, token: int, text: str) -> None:
        guide.push(token, text)
        self.output.reasoning_tokens = guide.reasoning_tokens
        if guide.settled:
            self._splitter.settle()
        if guide.complete:
            self.output.finish_reason = "stop"

    def _event(self, token: int, text: str) -> StreamEvent:
        output = self.output
        pieces = self._splitter.push(text)
        if output.finish_reason:
            pieces += self._splitter.flush()
        output.text += text
        for piece in pieces:
            if piece.kind == "reasoning":
                output.reasoning += piece.text
            else:
                output.answer += piece.text
        return StreamEvent(self.index, token, text, tuple(pieces), output.finish_reason, self.request.output)


def new_output(request_id: str, prompt: str | None, ids: list[int]) -> RequestOutput:
    """An output with nothing generated yet, its arrival stamped."""
    return RequestOutput(request_id, prompt, ids, [], metrics=RequestMetrics(arrival=time.perf_counter()))
