"""Make a tokenizer for a model of our own, in the chat format of Phi-4-mini-flash-reasoning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from sambay.errors import ConfigError
from sambay.tokenizer import Tokenizer

__all__ = ["PHI_CHAT_TEMPLATE", "SPECIAL_TOKENS", "THINK_TOKENS", "train_tokenizer", "write_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The control tokens; they have the first ids, in this order."""
THINK_TOKENS = ("<think>", "</think>")
"""Tokens, but not special: what the model thinks is text that decoding keeps. They have the last ids."""

# Where no token may cross a border: a digit stands alone; a word or a sign takes the space before it, and the one
# after it where a digit follows, so that " + " and ": " in a calculation are one token each.
_PIECES = r"\d| ?\p{L}+(?: (?=\d))?| ?[^\s\p{L}\d]+(?: (?=\d))?|\s"

# The role is checked because it becomes part of a control token: a role named "end" would forge one.
PHI_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception("a message's role must be system, user or assistant, not " ~ message['role']) -}}
{%- endif -%}
{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, model_max_length: int = 262_144) -> Tokenizer:
    """Learn a byte-level BPE vocabulary, in which every digit is a token of its own.

    Any Unicode text can be encoded. The same texts in the same order give the same tokenizer.

    Args:
        texts: what to learn from. Control and think tags in them are left out: no merge is spent on them.
        vocab_size: how many tokens, counting 256 bytes and the seven added ones. Texts too few for so many
            merges give fewer.
        model_max_length: recorded for transformers, which warns beyond it.

    Raises:
        ConfigError: `vocab_size` is too small, or `texts` is one string.
    """
    least = 256 + len(SPECIAL_TOKENS) + len(THINK_TOKENS)
    if vocab_size < least:
        raise ConfigError(f"vocab_size is {vocab_size}, but bytes and added tokens need {least}: raise it")
    if isinstance(texts, str):
        raise ConfigError("texts is one string, which would be read letter by letter: give a list of texts")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(THINK_TOKENS),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        # All bytes, seen or not: without them unseen characters could not be encoded.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_without_tags(texts), trainer)
    # Only now, because the trainer makes every token that it is given a special one.
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK_TOKENS])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(backend, config, template=PHI_CHAT_TEMPLATE)


def write_tokenizer(
    texts: Iterable[str], vocab_size: int, directory: str | Path, *, model_max_length: int = 262_144
) -> Tokenizer:
    """Learn a tokenizer and write it to a directory that `transformers.AutoTokenizer` opens, too.

    Args:
        texts: what to learn from.
        vocab_size: how many tokens.
        directory: where to; created if need be.
        model_max_length: recorded for transformers.

    Returns:
        The tokenizer that was written.

    Raises:
        ConfigError: as `train_tokenizer`.
    """
    tokenizer = train_tokenizer(texts, vocab_size, model_max_length=model_max_length)
    tokenizer.save_pretrained(directory)
    return tokenizer


def _without_tags(texts: Iterable[str]) -> Iterator[str]:
    tags = re.compile("|".join(map(re.escape, SPECIAL_TOKENS + THINK_TOKENS)))
    for text in texts:
        yield from filter(None, tags.split(text))
