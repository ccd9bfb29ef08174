import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sambay.errors import ConfigError
from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import SPECIAL_TOKENS, THINK_TOKENS, train_tokenizer, write_tokenizer

TEXTS = [f"<think>Number {i * 37} and häufige Wörter, 你好 🙂.</think>\n<|user|>print({i})\n" for i in range(200)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 290)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary")
    write_tokenizer(TEXTS, 290, path)
    return path


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_represented(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= index < 290 for index in ids)


def test_sizes_and_ids(tokenizer):
    assert tokenizer.vocab_size == 290
    assert tokenizer.special_tokens == {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    assert [tokenizer.token_id(token) for token in THINK_TOKENS] == [288, 289]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0


def test_every_byte_has_a_token_even_without_texts():
    tokenizer = train_tokenizer([], 263)
    assert tokenizer.vocab_size == 263
    assert len(tokenizer.encode("é🙂\0")) == 7


def test_digits_stand_alone(tokenizer):
    for text in ("2024", "a 37 b", "0.125"):
        ids = tokenizer.encode(text)
        pieces = [tokenizer.decode([index]) for index in ids]
        assert [piece for piece in pieces if any(map(str.isdigit, piece))] == [c for c in text if c.isdigit()]


def test_think_tags_are_tokens_that_decoding_keeps(tokenizer):
    ids = tokenizer.encode("<think>a</think>b<|end|>")
    assert len(ids) == 5
    assert tokenizer.decode(ids) == "<think>a</think>b"


def test_no_merge_is_spent_on_tags(tokenizer):
    merged = [tokenizer.decode([index], skip_special_tokens=False) for index in range(261, 288)]
    assert not [piece for piece in merged if "think" in piece or "|" in piece]


def test_the_same_texts_give_the_same_files(directory, tmp_path):
    """In another process, with other hash seeds and one thread."""
    code = (
        "import sys; from tests_texts import TEXTS; from sambay.train.vocabulary import write_tokenizer;"
        "write_tokenizer(iter(TEXTS), 290, sys.argv[1])"
    )
    (tmp_path / "tests_texts.py").write_text(f"TEXTS = {TEXTS!r}\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "PYTHONHASHSEED": "7",
        "TOKENIZERS_PARALLELISM": "false",
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    names = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in directory.iterdir()} == names
    for name in names:
        assert (directory / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("texts", "size", "message"), [([], 262, "vocab_size is 262.* 263"), ("text", 300, "one string")]
)
def test_impossible_requests(texts, size, message):
    with pytest.raises(ConfigError, match=message):
        train_tokenizer(texts, size)


def test_transformers_opens_it_and_agrees(directory):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the hf extra brings it")
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    ours = Tokenizer.from_pretrained(directory)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 0)
    assert len(theirs) == ours.vocab_size
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What is 12 * 34?\n\n"},
        {"role": "assistant", "content": "<think>\n408</think>\n408 🙂"},
        {"role": "user", "content": "Danke schön"},
    ]
    for prompt in (True, False):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
        assert ours.encode_chat(messages, add_generation_prompt=prompt) == ids
        text = theirs.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
        assert ours.render_chat(messages, add_generation_prompt=prompt) == text
    text = "Hello , it 's <think> 2024 <|end|>\n"
    assert theirs.encode(text) == ours.encode(text)
    assert theirs.decode(ours.encode(text), skip_special_tokens=True) == ours.decode(ours.encode(text))
