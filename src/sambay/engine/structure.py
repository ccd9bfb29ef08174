"""Structured output: which tokens keep an answer within a JSON schema, a regular expression, a grammar or a choice.

llguidance does the parsing. It reads tokens as bytes, so that a character may be spelled by any tokens; where only one
text can come, it asks for that as the tokenizer spells it. Control tokens have no bytes, and only the end-of-sequence
tokens are let through, where the answer is complete.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sambay.engine.params import StructuredOutputsParams
from sambay.errors import MissingExtraError, SamplingError
from sambay.recent import Recent
from sambay.tokenizer import Tokenizer

__all__ = ["Matcher", "Structures", "check_structure", "whitespace_of"]

_WHITESPACE = r"( |\r?\n[ \t]{0,32})?"
"""What JSON may have between its parts: a space, or a new line and its indentation. Small models lose themselves in
more of it."""

_COMPILED, _COMPILED_TEXT = 32, 1 << 19
"""Structures that are kept compiled, for the next request that brings the same, and the characters of their grammars:
compiled, a character was seen to take 10 to 120 bytes."""


class Matcher:
    """Where one answer stands within its structure.

    Args:
        matcher: of llguidance.
        vocab: size of the vocabulary.
    """

    def __init__(self, matcher: Any, vocab: int) -> None:  # noqa: ANN401 - a class of an optional library
        self._matcher, self._vocab = matcher, vocab

    def allowed(self) -> Tensor:
        """The tokens that may come next: (vocab,) bool, on the CPU.

        Raises:
            SamplingError: the structure has become too complex.
        """
        words = np.empty(-(-self._vocab // 32), dtype=np.uint32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        bits = np.unpackbits(words.view(np.uint8), count=self._vocab, bitorder="little")
        return torch.from_numpy(bits).view(torch.bool)

    def accepts(self, token: int) -> bool:
        """Take the next token if it may come, and say whether it did.

        Raises:
            SamplingError: the structure has become too complex.
        """
        if self._matcher.try_consume_tokens([token]):
            return True
        self._check()
        return False

    @property
    def complete(self) -> bool:
        """Whether the answer is complete and nothing can be added to it.

        Raises:
            SamplingError: the structure has become too complex.
        """
        if not self._matcher.is_stopped():
            return False
        self._check()
        return True

    def copy(self) -> Matcher:
        """Another one that stands at the same place."""
        return Matcher(self._matcher.deep_copy(), self._vocab)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _sentence(self._matcher.get_error())
            raise SamplingError(f"the structured output cannot go on ({reason}): simplify its schema or grammar")


class Structures:
    """Compiles structures for one tokenizer; for any thread.

    Args:
        tokenizer: of the model.
        vocab: size of the model's vocabulary.
        end_ids: tokens that end a completion.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, end_ids: frozenset[int]) -> None:
        self._tokenizer, self._vocab, self._end_ids = tokenizer, vocab, end_ids
        self._lock = threading.Lock()
        self._backend: Any = None
        self._compiled: Recent[str, Matcher] = Recent(_COMPILED, _COMPILED_TEXT)

    def matcher(self, wanted: StructuredOutputsParams) -> Matcher:
        """A matcher at the beginning of an answer.

        Raises:
            SamplingError: the structure is not valid, or nothing can fulfil it.
            MissingExtraError: llguidance is not installed.
        """
        grammar = check_structure(wanted)
        with self._lock:
            found = self._compiled.find(grammar)
            if found is None:
                found = self._compile(wanted, grammar)
                self._compiled.keep(grammar, found, len(grammar))
            return found.copy()

    def _compile(self, wanted: StructuredOutputsParams, grammar: str) -> Matcher:
        compiled = _library().LLMatcher(self._of_library(), grammar, log_level=0)
        if not compiled.is_error():
            compiled.compute_bitmask()  # finds out whether there is any way to begin
        if compiled.is_error():
            raise _invalid(wanted, compiled.get_error())
        return Matcher(compiled, self._vocab)

    def _of_library(self) -> Any:  # noqa: ANN401 - a class of an optional library
        """The library's own reading of the tokenizer, made once: it takes a second for 200,000 tokens."""
        if self._backend is None:
            # A model without an end has none to be let through; the library wants one all the same.
            ends = sorted(self._end_ids) or None
            try:
                self._backend = _library().LLTokenizer(self._tokenizer.to_json(), n_vocab=self._vocab, eos_token=ends)
            except Exception as error:  # the binding raises nothing narrower
                raise SamplingError(
                    f"this tokenizer cannot be used for structured_outputs: {_sentence(str(error))}"
                ) from error
        return self._backend


def check_structure(wanted: StructuredOutputsParams) -> str:
    """The structure as the library's grammar, checked as far as it can be without a tokenizer.

    Raises:
        SamplingError: it is not valid.
        MissingExtraError: llguidance is not installed.
    """
    library = _library()
    try:
        grammar = _grammar(library, wanted)
        failed, messages = library.LLMatcher.validate_grammar_with_warnings(grammar)
    except ValueError as error:
        raise _invalid(wanted, str(error)) from error
    if failed:
        raise _invalid(wanted, messages[0])
    return grammar


def _grammar(library: ModuleType, wanted: StructuredOutputsParams) -> str:
    of_text = library.LLMatcher
    if wanted.kind in ("json", "json_object"):
        schema = {"type": "object"} if wanted.json is None else wanted.json
        if isinstance(schema, str):
            schema = json.loads(schema)
        if not isinstance(schema, Mapping):
            raise ValueError("a JSON schema is an object")
        return str(of_text.grammar_from_json_schema(json.dumps(schema), overrides=whitespace_of(wanted)))
    if wanted.regex is not None:
        return str(of_text.grammar_from_regex(wanted.regex))
    if wanted.choice is not None:
        texts = " | ".join(json.dumps(one, ensure_ascii=False) for one in wanted.choice)
        return str(of_text.grammar_from_lark(f"start: {texts}"))
    return str(library.grammar_from("grammar", wanted.grammar))


def whitespace_of(wanted: StructuredOutputsParams) -> dict[str, Any]:
    """What the library is told of the white space in JSON."""
    pattern = "" if wanted.disable_any_whitespace else wanted.whitespace_pattern or _WHITESPACE
    return {"whitespace_pattern": pattern} if pattern else {"whitespace_flexible": False}


def _invalid(wanted: StructuredOutputsParams, message: str) -> SamplingError:
    value = getattr(wanted, wanted.kind)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    shown = f"{shown[:100]}..." if len(shown) > 100 else shown
    return SamplingError(f"structured_outputs: {wanted.kind} {shown} cannot be used: {_sentence(message)}")


def _sentence(message: str) -> str:
    """What the library says, without its drawing of the place."""
    lines = [line.strip() for line in message.strip().splitlines()] or [""]
    if lines[0].startswith("NoExtension"):
        return "nothing can fulfil it"
    # What is wrong with a regular expression stands below a picture of it.
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])


def _library() -> ModuleType:
    try:
        return importlib.import_module("llguidance")
    except ImportError as error:
        raise MissingExtraError("llguidance", "constrain", "structured output") from error
