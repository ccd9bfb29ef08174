"""Text that streams: whole characters, stop strings and thinking, however the stream is cut."""

import codecs
import itertools
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers

from sambay.errors import CheckpointError, SamplingError
from sambay.streaming import Piece, StopMatcher, ThinkingSplitter, split_thinking
from sambay.tokenizer import Tokenizer
from small_tokenizers import byte_level, sentencepiece_like, words

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

TOKENIZERS = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece_like(),
    "metaspace": words(decoders.Metaspace()),
    "wordpiece": words(decoders.WordPiece()),
    "suffix": words(decoders.BPEDecoder()),
    "none": words(None),
}


def streamed(tokenizer: Tokenizer, ids: list[int], **options: bool) -> str:
    stream = tokenizer.stream(**options)
    return "".join(map(stream.push, ids)) + stream.flush()


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


def complete(tokenizer: Tokenizer, ids: list[int], skip: bool) -> list[int]:
    """The ids without byte tokens that begin a character at the very end and do not complete it."""
    special = set(tokenizer.special_tokens.values())
    names = {index: name for name, index in tokenizer._backend.get_vocab().items()}
    visible = [i for i in ids if i in names and not (skip and i in special)]
    run: list[int] = []
    for index in reversed(visible):
        if not re.fullmatch("<0x..>", names[index]):
            break
        run.insert(0, int(names[index][3:5], 16))
    utf8 = codecs.getincrementaldecoder("utf-8")()
    try:
        utf8.decode(bytes(run))
    except UnicodeDecodeError:
        return visible
    pending = len(utf8.getstate()[0])
    return visible[: len(visible) - pending]


# --- Streaming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece"])
@given(text=any_text | st.text("\ufffd a 🙂é", max_size=12))
def test_streamed_text_is_the_whole_text(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert streamed(tokenizer, ids, skip_special_tokens=False) == tokenizer.decode(ids, skip_special_tokens=False)


@given(st.lists(st.integers(0, byte_level.vocab_size + 5), max_size=40), st.booleans())
def test_streamed_bytes_are_the_whole_bytes(ids, skip):
    """Random ids are mostly invalid UTF-8; a character that is incomplete at the end is dropped."""
    whole = byte_level.decode(ids, skip_special_tokens=skip)
    text = streamed(byte_level, ids, skip_special_tokens=skip)
    assert text == whole or (text + "\ufffd" == whole)
    closed = [*ids, byte_level.token_id("<think>")]
    assert streamed(byte_level, closed, skip_special_tokens=skip) == byte_level.decode(closed, skip_special_tokens=skip)


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"byte-level"}))
@given(data=st.data(), skip=st.booleans())
def test_streamed_ids_are_the_whole_text(name, data, skip):
    tokenizer = TOKENIZERS[name]
    frequent = st.sampled_from([0, 1, 2, *range(len(tokenizer._backend.get_vocab()) - 12, tokenizer.vocab_size + 2)])
    byte = st.sampled_from([3 + value for value in "é🙂".encode()] + [3 + 0xE2, 3 + 0x20, 3 + 0xFF])
    ids = data.draw(st.lists(frequent | byte if name == "sentencepiece" else frequent, max_size=25))
    expected = tokenizer.decode(complete(tokenizer, ids, skip), skip_special_tokens=False)
    assert streamed(tokenizer, ids, skip_special_tokens=skip) == expected


@given(st.text("🙂é你a ", max_size=20))
def test_no_piece_has_half_a_character(text):
    for tokenizer in (byte_level, TOKENIZERS["sentencepiece"]):
        stream = tokenizer.stream()
        for byte in text.encode():
            token = spelled(byte) if tokenizer is byte_level else f"<0x{byte:02X}>"
            assert "\ufffd" not in stream.push(tokenizer.token_id(token))
        assert "\ufffd" not in stream.flush()


def spelled(byte: int) -> str:
    """How a byte-level vocabulary spells one byte, from the library itself."""
    if byte >= 0xC0:
        return chr(byte)
    # Below, chr(byte) is the byte itself, or 0xC2 and the byte.
    return pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(chr(byte))[0][0][-1]


def test_every_character_comes_as_soon_as_it_is_complete():
    stream = byte_level.stream()
    ids = [byte_level.token_id(spelled(byte)) for byte in "aé🙂".encode()]
    assert [stream.push(index) for index in ids] == ["a", "", "é", "", "", "", "🙂"]
    stream = TOKENIZERS["sentencepiece"].stream()
    pieces = [stream.push(TOKENIZERS["sentencepiece"].token_id(t)) for t in ["▁the", "▁the", "<0xC3>", "<0xA9>", "x"]]
    assert pieces == ["the", " the", "", "", "éx"]


def test_incomplete_last_characters_are_dropped():
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = [tokenizer.token_id(token) for token in ["a", "<0xC3>", "<0xA9>", "<0xE2>", "<0x82>"]]
    assert streamed(tokenizer, ids) == "aé"
    ids = [byte_level.token_id(spelled(byte)) for byte in "a🙂".encode()]
    assert streamed(byte_level, ids[:-1]) == "a"
    # Half a surrogate can never become a character: it is not incomplete but invalid.
    surrogate = [byte_level.token_id(spelled(byte)) for byte in b"\xed\xa0"]
    assert streamed(byte_level, surrogate) == byte_level.decode(surrogate) == "\ufffd\ufffd"


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_a_push_costs_the_same_in_a_long_text(name):
    tokenizer = TOKENIZERS[name]
    stream = tokenizer.stream()
    dice = random.Random(0)
    ids = [dice.randrange(len(tokenizer._backend.get_vocab())) for _ in range(6000)]
    if name == "sentencepiece":
        ids = [index for index in ids if not 3 <= index < 259]
    times = []
    for part in (ids[:2000], ids[2000:4000], ids[-2000:]):
        start = time.thread_time()  # and not that of others on the machine
        for index in part:
            stream.push(index)
        times.append(time.thread_time() - start)
    assert len(getattr(stream, "_before", [])) <= 4
    assert times[2] < 20 * times[0] + 0.05


def test_mixed_byte_level_decoders_are_refused():
    backend = Backend.from_str(byte_level._backend.to_str())
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    with pytest.raises(CheckpointError, match="ByteLevel"):
        Tokenizer(backend, {}).stream()


# --- Stop strings ----------------------------------------------------------------------------------------


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.text("ab\n", max_size=20),
    st.lists(st.integers(0, 20), max_size=20),
    st.booleans(),
)
def test_stop_strings_cut_anywhere(stops, text, places, include):
    matcher = StopMatcher(stops, include)
    emitted = ""
    for part in cut(text, places):
        piece, stop = matcher.push(part)
        emitted += piece
        assert stop == matcher.matched
    emitted += matcher.flush()
    found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if found:
        start, _, stop = min(found)
        assert matcher.matched == stop
        assert emitted == text[:start] + (stop if include else "")
        assert matcher.push("more") == ("", stop)
    else:
        assert (emitted, matcher.matched) == (text, None)


def test_only_a_possible_beginning_is_held_back():
    matcher = StopMatcher(["</s>", "STOP"])
    assert matcher.push("one <") == ("one ", None)
    assert matcher.push("b> two S") == ("<b> two ", None)
    assert matcher.push("T") == ("", None)
    assert matcher.push("OP three") == ("", "STOP")


def test_a_match_waits_only_for_one_that_would_win():
    matcher = StopMatcher(["abcd", "bc"])
    assert matcher.push("xabc") == ("x", None)
    assert matcher.push("e") == ("a", "bc")
    matcher = StopMatcher(["a", "ab"])
    assert matcher.push("a") == ("", None)
    assert matcher.flush() == ""
    assert matcher.matched == "a"


@pytest.mark.parametrize("stops", ["stop", [""], [3], ["a", None]])
def test_bad_stop_strings(stops):
    with pytest.raises(SamplingError, match="stop strings must be"):
        StopMatcher(stops)


# --- Thinking --------------------------------------------------------------------------------------------

tagged = st.lists(st.sampled_from(["<think>", "</think>", "\n", "<", "a", "think>", "</", "b c"]), max_size=10)


@given(tagged.map("".join), st.lists(st.integers(0, 60), max_size=30), st.booleans())
def test_thinking_cut_anywhere(text, places, started_open):
    splitter = ThinkingSplitter(started_open)
    pieces = [piece for part in cut(text, places) for piece in splitter.push(part)] + splitter.flush()
    assert all(piece.text for piece in pieces)
    joined = {kind: "".join(p.text for p in pieces if p.kind == kind) for kind in ("reasoning", "answer")}
    assert (joined["reasoning"], joined["answer"]) == split_thinking(text, started_open)
    match = re.fullmatch(r"(.*?)<think>\n?(.*)", text, re.DOTALL)
    if started_open:
        before, rest = "", text.removeprefix("\n")
    elif match:
        before, rest = match.groups()
    else:
        assert split_thinking(text) == ("", text)
        return
    reasoning, closed, after = rest.partition("</think>")
    answer = before + (after.removeprefix("\n") if closed else "")
    assert split_thinking(text, started_open) == (reasoning, answer)


@pytest.mark.parametrize(
    ("text", "started_open", "expected"),
    [
        ("<think>\nhm\n</think>\n\n42", False, ("hm\n", "\n42")),
        ("\nhm</think>42", True, ("hm", "42")),
        ("no tags < here", False, ("", "no tags < here")),
        ("<think>a</think>b <think>c</think>", False, ("a", "b <think>c</think>")),
        ("a</think>b", False, ("", "a</think>b")),
        ("<think>never closed </thi", False, ("never closed </thi", "")),
        ("", True, ("", "")),
    ],
)
def test_split_thinking(text, started_open, expected):
    assert split_thinking(text, started_open) == expected


def test_thinking_is_emitted_at_once():
    splitter = ThinkingSplitter()
    assert splitter.push("<think>\nI see</") == [Piece("reasoning", "I see")]
    assert splitter.push("b> and</think>") == [Piece("reasoning", "</b> and")]
    assert splitter.push("\nyes") == [Piece("answer", "yes")]
