"""Small tokenizers of every kind that text is decoded by."""

import string

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Backend

from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import train_tokenizer

TEXTS = ["The answer is 42, häufig gefragt. 你好，世界 🙂🙂 the end of the story, user and assistant.\n"] * 3

byte_level = train_tokenizer(TEXTS, 400)


def sentencepiece_like(prepend: bool = True) -> Tokenizer:
    """The layout of Llama's converted tokenizers: metaspace, byte tokens, a leading space to strip."""
    letters = [*string.ascii_lowercase, "▁", "é", "你", "\ufffd", "▁th", "▁the", "▁▁"]
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
