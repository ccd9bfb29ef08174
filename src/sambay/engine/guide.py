"""What leads a completion along: a budget for its thinking, a structure for its answer, and what it may not say."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from sambay.engine.params import SamplingParams
from sambay.engine.sampler import TokenRules
from sambay.engine.spelling import CLOSE, OPEN, Tags, bad_word_ids
from sambay.engine.structure import Matcher, Structures
from sambay.errors import SambaYError, SamplingError
from sambay.streaming import ThinkingSplitter
from sambay.tokenizer import Tokenizer

__all__ = ["Guide", "Guides"]

_GRACE = 64
"""Tokens at the end of a budget, at most, in which the end of a line closes the thinking."""


class Guide:
    """Follows one completion, and says which token must come next, or which may.

    While the model thinks, its tokens are free until the budget is spent: then those of a closing are forced. An
    answer with a structure begins after the thinking and one newline (forced, where it does not come by itself, so
    that it is no part of the answer), or at once. A model that is not thinking yet may begin to with its first
    tokens, unless the prompt ends with a closed thinking or the budget is 0.

    Args:
        tags: the tags as tokens.
        budget: tokens of thinking at most, None for no bound.
        matcher: at the beginning of the answer, None for a free one.
        prompt: the end of the prompt's text.
    """

    def __init__(self, tags: Tags, budget: int | None, matcher: Matcher | None, prompt: str) -> None:
        end = prompt.rstrip("\n")
        self._tags, self._budget = tags, budget
        self._splitter = ThinkingSplitter(started_open=end.endswith(OPEN))
        self._line_ended = prompt.endswith("\n")
        self._spent = 0
        self._forced: deque[int] = deque()
        self._structured, self._matcher = matcher is not None, matcher
        self._may_open = self._structured and not self._splitter.thinking and budget != 0 and not end.endswith(CLOSE)
        self._text = ""  # all of it, while it may yet become the opening tag
        self._after_thinking = matcher.copy() if matcher is not None and self._may_open else matcher
        self.reasoning_tokens = 0
        """Tokens that came inside the thinking, those of the closing tag included."""
        self.settled = False
        """Whether the answer has begun without a thinking, so that tags within its structure are plain text."""
        if self._structured and not self._may_open and not self._splitter.thinking:
            self._settle()
        self._close_if_spent()

    def forced(self) -> int | None:
        """The token that must come next, None if there is none."""
        return self._forced[0] if self._forced else None

    def allowed(self) -> Tensor | None:
        """The tokens that may come next: (vocab,) bool, on the CPU; None for all.

        Raises:
            SamplingError: the structure has become too complex.
        """
        if not self._answering:
            return None
        assert self._matcher is not None or self._may_open
        allowed = None if self._matcher is None else self._matcher.allowed()
        if self._may_open:
            ways = [*self._tags.opening(self._text)]
            allowed = self._tags.none() if allowed is None else allowed
            allowed[ways] = True
        return allowed

    def banned(self) -> tuple[int, ...]:
        """Tokens that must not come: in one with the closing tag they would begin an answer outside its structure."""
        if not self._structured or not self._splitter.thinking:
            return ()
        return self._tags.beyond(self._splitter.held)

    @property
    def idle(self) -> bool:
        """Whether nothing that it could forbid or force is to be expected of the next token."""
        return not self._structured and not self._forced

    @property
    def unanswered(self) -> bool:
        """Whether the answer's structure has not begun, so that the completion may not end."""
        return self._structured and not self._answering

    @property
    def complete(self) -> bool:
        """Whether the answer's structure is complete and nothing can be added.

        Raises:
            SamplingError: the structure has become too complex.
        """
        return self._answering and self._matcher is not None and self._matcher.complete

    def push(self, token: int, text: str) -> None:
        """Take the next token, one that ends the completion excepted.

        Args:
            token: its id.
            text: what the decoder gives for it.
        """
        thinking = self._splitter.thinking
        self.reasoning_tokens += thinking
        self._line_ended = text.endswith("\n") if text else self._line_ended
        if self._forced:
            self._forced.popleft()
        elif thinking:
            self._spent += 1
        elif self._structured:
            self._follow(token, text)
        self._splitter.push(text)
        if self._splitter.thinking and not thinking:
            self._may_open, self._matcher = False, self._after_thinking
        if self._structured and thinking and not self._splitter.thinking and not self._forced:
            self._forced.extend(self._tags.newline if self._splitter.before_text else ())
        self._close_if_spent()

    @property
    def _answering(self) -> bool:
        return self._structured and not self._splitter.thinking and not self._forced

    def _follow(self, token: int, text: str) -> None:
        """Take a token of the answer, or one that may yet lead into the thinking."""
        opening = self._may_open and token in self._tags.opening(self._text)
        if self._matcher is not None and not self._matcher.accepts(token):
            self._matcher = None
        if opening:
            self._text += text
            return
        if self._matcher is None:
            raise SambaYError(f"token {token} is not in the structure of the answer, and was chosen all the same")
        if self._may_open:
            self._may_open = False
            self._settle()

    def _settle(self) -> None:
        self.settled = True
        self._splitter.settle()

    def _close_if_spent(self) -> None:
        """Force the closing where the budget is spent, or at the end of a line shortly before."""
        if self._budget is None or self._forced or not self._splitter.thinking:
            return
        soon = self._budget - min(_GRACE, self._budget // 8)
        if self._spent >= self._budget or (self._line_ended and self._spent >= soon):
            self._forced.extend(self._tags.closing(self._line_ended))


class Guides:
    """Makes the guides and the token rules of requests, for one model.

    Args:
        tokenizer: of the model, None if there is none.
        vocab: size of the model's vocabulary.
        end_ids: tokens that end a completion.
        device: where the logits will be.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab: int, end_ids: frozenset[int], device: torch.device) -> None:
        self._tokenizer, self._vocab, self._device = tokenizer, vocab, device
        self._tags = None if tokenizer is None else Tags(tokenizer, vocab)
        self._structures = None if tokenizer is None else Structures(tokenizer, vocab, end_ids)

    def check(self, params: SamplingParams) -> None:
        """Refuse what this model cannot do, so that `guide` and `rules` do not fail; for any thread.

        Raises:
            SamplingError: parameters that need a tokenizer when there is none, tokens that do not exist, a structure
                that is not valid, or a tokenizer that cannot spell what closes the thinking.
            MissingExtraError: structured output without llguidance.
            PromptError: a bad word is not valid Unicode.
        """
        if self._tokenizer is None:
            for given, needs, remedy in (
                (params.stop_strings, "stop strings need", "use stop_token_ids"),
                (params.bad_words, "bad_words need", "use logit_bias"),
                (params.structured_outputs, "structured_outputs need", "leave them out"),
                (params.max_thinking_tokens is not None, "max_thinking_tokens needs", "leave it out"),
            ):
                if given:
                    raise SamplingError(f"{needs} a tokenizer, and this checkpoint has none: {remedy}")
        for name in ("stop_token_ids", "logit_bias", "allowed_token_ids"):
            for token in getattr(params, name) or ():
                if token >= self._vocab:
                    raise SamplingError(f"{name} has {token}: the vocabulary ends at {self._vocab - 1}")
        if self._tokenizer is not None:
            bad_word_ids(self._tokenizer, tuple(params.bad_words or ()))
        wanted = params.structured_outputs
        if self._tags is not None and (wanted is not None or params.max_thinking_tokens is not None):
            self._tags.check()
        if self._structures is not None and wanted is not None:
            self._structures.matcher(wanted)  # kept compiled for the guide

    def guide(self, params: SamplingParams, prompt_end: str) -> Guide | None:
        """The guide of one completion, None without a tokenizer.

        Args:
            params: of its request, checked.
            prompt_end: the end of the prompt's text, long enough for a tag and newlines.
        """
        if self._tags is None or self._structures is None:
            return None
        wanted = params.structured_outputs
        matcher = None if wanted is None else self._structures.matcher(wanted)
        return Guide(self._tags, params.max_thinking_tokens, matcher, prompt_end)

    def rules(self, params: SamplingParams) -> TokenRules | None:
        """What the parameters say of single tokens, for all completions of a request; None for nothing."""
        if not params.logit_bias and params.allowed_token_ids is None and not params.bad_words:
            return None
        words = tuple(params.bad_words or ())
        bad = [] if self._tokenizer is None else bad_word_ids(self._tokenizer, words)
        return TokenRules(params, bad, self._vocab, self._device)
