"""The engine's loop: admit, compute one batch, sample, report. Data flows one way through `step`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sambay.batch import Batch
from sambay.engine.budget import make_budget, make_pool
from sambay.engine.guide import Guides
from sambay.engine.invariant import check_deterministic, is_deterministic
from sambay.engine.keeper import Keeper
from sambay.engine.outputs import RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams
from sambay.engine.request import Completion, Request, new_output
from sambay.engine.sampler import sample_rows, top_logprobs
from sambay.engine.scheduler import Scheduler, Share
from sambay.engine.sessions import Sessions
from sambay.engine.speculation import Lookup, Speculation, Speculator
from sambay.engine.statefile import fingerprint
from sambay.errors import ContextError, PromptError, SambaYError, SamplingError
from sambay.model import SambaY
from sambay.tokenizer import Tokenizer

__all__ = ["Engine"]


_DISK = 4
"""Saved sessions may take so many times the memory of the states."""


_PLAIN = Speculation("off")


class Engine:
    """Runs many requests at once over one model: continuous batching with chunked prefill.

    All states live within one memory budget. When it is short, snapshots of prefixes are given up, then the last of the
    running sequences is parked in a file, and goes on later where it was. To be used from one thread.

    Args:
        model: the model, in eval mode.
        tokenizer: to make text with; None works on token ids alone.
        end_ids: tokens that end a completion.
        max_model_len: tokens of a sequence at most, prompt and completion; None for the model's context, or what the
            memory holds of it.
        max_num_seqs: sequences that run at once, if the memory holds so many.
        max_num_batched_tokens: tokens computed in one step; a longer prompt goes in chunks.
        seed: of the stream from which requests without a seed draw theirs.
        memory: bytes of all states together; None for half of what is free, see `make_budget`.
        enable_prefix_caching: keep snapshots, so that what is said again is not computed again.
        state_dir: a directory that sessions are saved in, and come back from after a restart.
        deterministic: refuse a model whose tokens could depend on what else is computed, or on how prompts are cut.
        speculation: whether texts that repeat themselves are drafted. "auto" leaves it where a token could depend on
            what else is computed.

    Attributes:
        model_seconds: spent in the model so far; the rest of the steps' time is the engine's own (on the CPU).
        drafted: tokens that were computed at a guess, of all requests.
        accepted: of these, how many came.

    Raises:
        ConfigError: the memory does not hold one sequence, or the directory cannot be used.
        BackendError: `deterministic`, and it could be so.
    """

    def __init__(
        self,
        model: SambaY,
        tokenizer: Tokenizer | None,
        *,
        end_ids: frozenset[int],
        max_model_len: int | None = None,
        max_num_seqs: int = 16,
        max_num_batched_tokens: int = 512,
        seed: int = 0,
        memory: int | None = None,
        enable_prefix_caching: bool = True,
        state_dir: Path | None = None,
        deterministic: bool = False,
        speculation: Speculation = _PLAIN,
    ) -> None:
        self.model, self.tokenizer, self.end_ids = model, tokenizer, end_ids
        if deterministic:
            check_deterministic(model)
        budget = make_budget(model, max_num_seqs, max_model_len, memory)
        self.max_model_len, self.memory = budget.max_model_len, budget.nbytes
        self.pool = make_pool(model, budget)
        sessions = None
        if state_dir is not None:
            sessions = Sessions(state_dir, self.pool, fingerprint(model, self.pool), _DISK * budget.nbytes)
        self.keeper = Keeper(self.pool, end_ids, enable_prefix_caching, sessions)
        self.scheduler: Scheduler[Completion] = Scheduler(budget.slots, max_num_batched_tokens, self.keeper)
        self._guides = Guides(tokenizer, model.config.vocab_size, end_ids, model.device)
        asked = speculation.mode == "on" or (speculation.mode == "auto" and is_deterministic(model))
        self._speculator = Speculator(speculation) if asked else None
        self._seeds = torch.Generator().manual_seed(seed % 2**64)
        self._names = itertools.count()
        self._requests: dict[str, Request] = {}
        self._stepping = False
        self._aborted: list[str] = []
        self.model_seconds = 0.0
        self.drafted = self.accepted = 0

    @property
    def busy(self) -> bool:
        """True while any request is unfinished."""
        return self.scheduler.busy

    def add(
        self,
        prompt: str | None,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        on_event: Callable[[StreamEvent], object] | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> RequestOutput:
        """Queue a request.

        Args:
            prompt: its text, if it was given as text.
            prompt_ids: its tokens.
            params: how to generate.
            on_event: called with each event of this request, whoever runs the step that brings it. What it raises
                ends this request, as its `error`.
            priority: a request of a lower number goes before all of a higher one, and may take a place from them.
            deadline: seconds from now, after which it ends as "deadline" with what it has.

        Returns:
            The output, which fills as steps are run.

        Raises:
            PromptError: an empty prompt, or ids outside the vocabulary.
            ContextError: the prompt leaves no room for a single token.
            SamplingError: parameters that need a tokenizer when there is none, unknown tokens, or a structure that is
                not valid; a priority or a deadline that is none.
            MissingExtraError: structured output without llguidance.
        """
        self.check(prompt_ids, params, priority, deadline)
        arrival = next(self._names)
        output = new_output(str(arrival), prompt, prompt_ids)
        room = self.max_model_len - len(prompt_ids)
        limit = room if params.max_tokens is None else min(params.max_tokens, room)
        request = Request(output, params, self.end_ids, limit, on_event, priority, arrival)
        if deadline is not None:
            request.deadline = output.metrics.arrival + deadline
        seed = params.seed
        if seed is None:
            seed = int(torch.randint(0, 2**62, (), generator=self._seeds))
        end, rules = self._prompt_end(prompt_ids), self._guides.rules(params)
        request.completions = [
            Completion(
                request,
                i,
                seed + i,
                self.tokenizer,
                device=self.model.device,
                thinking=end.rstrip("\n").endswith("<think>"),
                guide=self._guides.guide(params, end),
                rules=rules,
            )
            for i in range(params.n)
        ]
        output.outputs = [completion.output for completion in request.completions]
        self._requests[output.request_id] = request
        for completion in request.completions:
            self.scheduler.add(completion)
        return output

    def _prompt_end(self, ids: list[int]) -> str:
        """The end of a prompt as text, given as text or as ids: whether the model is inside `<think>` stands there."""
        if self.tokenizer is None:
            return ""
        # Sixteen tokens hold the tag, however it is spelled, and the newlines after it.
        return self.tokenizer.decode(ids[-16:], skip_special_tokens=False)

    def check(self, ids: list[int], params: SamplingParams, priority: int = 0, deadline: float | None = None) -> None:
        """Refuse a request that `add` would refuse; for any thread."""
        vocab = self.model.config.vocab_size
        if not ids:
            raise PromptError("the prompt is empty: give at least one token")
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab:
                raise PromptError(f"the prompt has token id {token!r}: ids are integers from 0 to {vocab - 1}")
        if len(ids) >= self.max_model_len:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, but the context holds {self.max_model_len} and one is needed "
                "for the answer: shorten the prompt"
            )
        self._guides.check(params)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise SamplingError(f"priority is {priority!r}: it must be an integer; the lowest goes first")
        if deadline is not None and (
            isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline < math.inf
        ):
            raise SamplingError(f"deadline is {deadline!r}: it must be a number of seconds above 0, or None")

    def abort(self, request_id: str) -> None:
        """End a request and give its slots back, in the middle of a step at its end; else at once.

        Unknown and finished ids are ignored.
        """
        if self._stepping:  # from `on_event`, or from the finaliser of a stream, at any place of the step
            self._aborted.append(request_id)
            return
        if request_id in self._requests:
            self._cut(self._requests[request_id], "abort")

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        """Compute one batch and return an event for every token that was sampled.

        What goes wrong with one request alone (logits that are not finite, an `on_event` that raises) ends that
        request as "error" and is kept in its output. Should the step itself raise, requests keep what they have
        and the next step goes on with them.

        Raises:
            SambaYError: this very engine is in a step.
        """
        if self._stepping:
            raise SambaYError(
                "the engine is in the middle of a step: generate when it has ended, not from on_event or another thread"
            )
        self._stepping = True
        try:
            return self._step()
        except BaseException:
            self._rewind()
            raise
        finally:
            self._stepping = False
            while self._aborted:
                self.abort(self._aborted.pop())

    def _step(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        now = time.perf_counter()
        for request in [one for one in self._requests.values() if one.deadline is not None and one.deadline <= now]:
            self._cut(request, "deadline")
        for completion in self.scheduler.admit():
            events += self._start(completion)
        if self._speculator is not None:
            self._draft(self._speculator)
        shares = self.scheduler.plan()
        if shares:
            events += self._compute(shares)
        return events

    def _start(self, completion: Completion) -> list[StreamEvent]:
        """Give a sequence its slot and state; one that begins with a sibling's has its first token at once."""
        request, new = completion.request, not completion.begun
        completion.begun = True
        self.keeper.start(completion)
        if request.output.cached_tokens is None:
            request.output.cached_tokens = completion.cached
        logits = request.logits
        if completion is request.completions[-1]:
            self._forget_fork(request)
        if not new or not completion.index or logits is None:
            return []
        return self._sample(completion, logits.unsqueeze(0), 0)

    def _forget_fork(self, request: Request) -> None:
        forked, request.forked, request.logits = request.forked, None, None
        if forked is not None:
            self.keeper.let_go(forked)

    def _rewind(self) -> None:
        """After a step that failed half-way no state can be trusted: compute all of them anew from their tokens."""
        for completion in list(self.scheduler.running):
            if completion.output.finish_reason:
                self._end(completion)
                continue
            if completion.slot is None:
                completion.slot = self.pool.open()
            self.keeper.discard(completion)
            self.pool.reset(completion.slot)
            completion.computed = 0

    def _draft(self, speculator: Speculator) -> None:
        """Set the drafts of those who have computed all of their tokens but the last, which they wrote themselves."""
        for completion in self.scheduler.running:
            completion.draft = []
        ready = [one for one in self.scheduler.running if one.computed + 1 == one.length and one.output.token_ids]
        for completion in ready:
            if completion.lookup is None:
                completion.lookup = Lookup(completion.all_ids(), speculator.settings, speculator.chances)
        speculator.propose(ready)

    def _compute(self, shares: list[Share[Completion]]) -> list[StreamEvent]:
        ids, lengths, slots, wanted = [], [], [], []
        for share in shares:
            completion = share.sequence
            assert completion.slot is not None
            ids += completion.next_ids(share.tokens) + completion.draft[: share.drafts]
            lengths.append(share.tokens + share.drafts)
            slots.append(completion.slot)
            wanted.append(share.drafts + int(completion.computed + share.tokens == completion.length))
        tokens = torch.tensor(ids, device=self.pool.device)
        batch = self.pool.batch(tokens, tuple(lengths), tuple(slots), tuple(wanted))
        if len(ids) > sum(share.tokens for share in shares):
            batch = replace(batch, drafts=tuple(share.drafts for share in shares))
        spent, before = self.model_seconds, time.perf_counter()
        logits = self.model.run(batch, self.pool)
        self.model_seconds += time.perf_counter() - before
        self.pool.advance(batch)
        ends = list(itertools.accumulate(wanted))
        last = [end - 1 if asks == 1 else None for end, asks in zip(ends, wanted, strict=True)]
        chosen = self._choose(logits, [(share.sequence, row) for share, row in zip(shares, last, strict=True)])
        events: list[StreamEvent] = []
        for place, (share, row, token) in enumerate(zip(shares, last, chosen, strict=True)):
            completion = share.sequence
            if completion.output.finish_reason:  # an earlier one of its request failed just now
                continue
            if share.drafts:
                events += self._verify(completion, logits[ends[place] - wanted[place] : ends[place]], batch, place)
                continue
            self.keeper.computed(completion, share.tokens)
            if row is None:
                continue
            request = completion.request
            if not completion.index and not request.completions[-1].begun and request.logits is None:
                assert completion.slot is not None
                request.forked, request.logits = self.keeper.set_aside(completion.slot), logits[row].clone()
            events += self._sample(completion, logits, row, token)
        if self._speculator is not None and all(share.tokens == 1 for share in shares):
            self._speculator.took(len(shares), len(ids), len(events), self.model_seconds - spent)
        return events

    @staticmethod
    def _choose(logits: Tensor, rows: Sequence[tuple[Completion, int | None]]) -> list[int | None]:
        """The next tokens of those whose logits need no change, by one call; None for the others."""
        free = [None if row is None else completion.wanted(row) for completion, row in rows]
        tokens = iter(sample_rows(logits, [one for one in free if one is not None]))
        return [None if one is None else next(tokens) for one in free]

    def _verify(self, completion: Completion, rows: Tensor, batch: Batch, place: int) -> list[StreamEvent]:
        """The events of a token and the drafts behind it, as far as these are what comes without them."""
        request, drafts = completion.request, completion.draft[: len(rows) - 1]
        events: list[StreamEvent] = []
        request.output.metrics.drafted += len(drafts)
        self.drafted += len(drafts)
        for row, draft in enumerate([*drafts, None]):
            settle = partial(self._settle, completion, batch, place, row + 1)
            event = self._sample(completion, rows, row, settle=settle)
            events += event
            if completion.output.finish_reason:
                break
            if event[0].token_id != draft or request.output.request_id in self._aborted:
                settle()
                break
            request.output.metrics.accepted += 1
            self.accepted += 1
        return events

    def _settle(self, completion: Completion, batch: Batch, place: int, count: int) -> None:
        """Bring a sequence with drafts to the end of those tokens that it computed and that hold."""
        begin = time.perf_counter()
        self.pool.settle(batch, place, count)
        self.model_seconds += time.perf_counter() - begin
        self.keeper.computed(completion, count)

    def _sample(
        self,
        completion: Completion,
        logits: Tensor,
        row: int,
        token: int | None = None,
        settle: Callable[[], None] | None = None,
    ) -> list[StreamEvent]:
        """The event of the next token, or none: what goes wrong here is the matter of this request alone.

        Args:
            completion: which draws it.
            logits: (R, vocab) of the model.
            row: its own of these.
            token: if it has been chosen.
            settle: to be called before its state is kept, if it ends.
        """
        request = completion.request
        try:
            event = self._next(completion, logits, row, token)
            if event.finish_reason:
                if settle is not None:
                    settle()
                try:
                    self.keeper.finished(completion)
                finally:
                    self._end(completion)
            if request.on_event is not None:
                request.on_event(event)
        except Exception as error:
            request.output.error = error
            self._cut(request, "error")
            return []
        return [event]

    def _next(self, completion: Completion, logits: Tensor, row: int, token: int | None) -> StreamEvent:
        params, output = completion.request.params, completion.output
        if token is None:
            token = completion.choose(logits[row])
        if output.logprobs is not None:
            entry = top_logprobs(logits[row], token, params.logprobs or 0)
            if self.tokenizer is not None:
                decode = self.tokenizer.decode
                entry = {
                    t: type(lp)(lp.logprob, lp.rank, decode([t], skip_special_tokens=False)) for t, lp in entry.items()
                }
            output.logprobs.append(entry)
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + entry[token].logprob
        return completion.append(token)

    def _cut(self, request: Request, reason: str) -> None:
        """End what still runs of a request."""
        for completion in request.completions:
            if not completion.output.finish_reason:
                completion.output.finish_reason = reason
                self._end(completion)

    def _end(self, completion: Completion) -> None:
        """Give back what a completion holds that has ended, and all of its request if it was the last."""
        self._release(completion)
        request = completion.request
        if request.finished and self._requests.pop(request.output.request_id, None) is not None:
            self._forget_fork(request)
            request.output.finished = True
            request.output.metrics.finished = time.perf_counter()

    def _release(self, completion: Completion) -> None:
        self.scheduler.drop(completion)
        self.keeper.discard(completion)
        self.keeper.close(completion)
