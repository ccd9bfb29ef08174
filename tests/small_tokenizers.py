"""Small tokenizers of every kind that text is decoded by."""

import string

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import train_tokenizer

TEXTS = ["The answer is 42, häufig gefragt. 你好，世界 🙂🙂 the end of the story, user and assistant.\n"] * 3

byte_level = train_tokenizer(TEXTS, 400)


def sentencepiece_like(prepend: bool = True, signs: str = "") -> Tokenizer:
    """The layout of Llama's converted tokenizers: metaspace, byte tokens, a leading space to strip."""
    letters = [*string.ascii_lowercase, *signs, "▁", "é", "你", "\ufffd", "▁th", "▁the", "▁▁"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "▁")]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, "▁t"]))}
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(steps[0 if prepend else 1 :])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": {"content": "</s>"}})


def words(decoder: object) -> Tokenizer:
    """A vocabulary of a few whole words, to be joined by any decoder."""
    tokens = ["<unk>", "un", "##aff", "##able", "able", ".", "do", "▁", "▁▁", "▁a", "a▁", "b</w>", "b"]
    backend = Backend(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    if decoder is not None:
        backend.decoder = decoder
    backend.add_special_tokens(["<unk>", "<s>"])
    return Tokenizer(backend, {})


def spelled_tags() -> Tokenizer:
    """No tokens for the tags of thinking: they are spelled, and a token may end one and go on after it."""
    backend = Backend(models.BPE())
    pieces = Regex(r" ?\p{L}+|\d| ?[^\s\p{L}\d]+[\r\n]*|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["<think>\nso\n</think>\nthe end", "<think>\n\nx\n</think>\n\n", "a>{ b>{ c>1 >\n >\n\n"]
    backend.train_from_iterator([*TEXTS, *texts * 9], trainer)
    return Tokenizer(backend, {"eos_token": "<end>"})
