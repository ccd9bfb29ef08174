"""Sessions on disk: there after a restart, whole or not at all, and refused when anything about them is wrong."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sambay.engine import LLM, SamplingParams, sessions, statefile
from sambay.engine.statefile import fingerprint
from sambay.errors import ConfigError, StateWarning
from sambay.model import SambaY

PROMPT = [20 + i % 50 for i in range(70)]
PARAMS = SamplingParams(seed=1, max_tokens=9, ignore_eos=True)


def ask(engine, ids, params=PARAMS):
    output = engine.add(None, ids, params)
    while engine.busy:
        engine.step()
    return output


def files(directory):
    return sorted(directory.glob("*.session"))


@pytest.fixture
def saved(make_engine, tmp_path):
    """A directory with one session, and the text that goes on from it."""
    answer = ask(make_engine(state_dir=tmp_path), PROMPT).outputs[0].token_ids
    assert len(files(tmp_path)) == 1
    return tmp_path, [*PROMPT, *answer, 7, 8]


@pytest.mark.parametrize("caching", ["float32", "bfloat16", "int8"])
def test_a_conversation_goes_on_after_a_restart(model, make_engine, solo, tmp_path, assert_idle, caching):
    model.cache_dtype = caching
    try:
        ids = list(PROMPT)
        for turn in range(4):
            engine = make_engine(state_dir=tmp_path)
            output = ask(engine, ids)
            assert output.cached_tokens == (0 if turn == 0 else len(ids) - 3)
            assert output.outputs[0].token_ids == solo(ids, PARAMS).outputs[0].token_ids
            assert_idle(engine)
            assert len(files(tmp_path)) == 1  # a longer session replaces the one that it continues
            ids += [*output.outputs[0].token_ids, 7, 8]
    finally:
        model.cache_dtype = None


def test_a_turn_that_is_told_otherwise(make_engine, tmp_path):
    end = {"end_ids": frozenset({4})}
    before = [*range(20, 90), *range(20, 60), 4, 9]
    ask(make_engine(state_dir=tmp_path, **end), before)
    assert ask(make_engine(state_dir=tmp_path, **end), [*before[:-1], 10, 30, 4, 9]).cached_tokens == 111
    assert len(files(tmp_path)) == 2


def test_sessions_are_read_when_they_are_needed(saved, make_engine, monkeypatch, assert_idle):
    directory, later = saved
    engine = make_engine(state_dir=directory)
    assert len(engine.keeper.prefix) == 0
    assert engine.pool.shared.idle == 0
    assert ask(engine, [5, 6]).cached_tokens == 0
    assert ask(engine, later).cached_tokens == len(later) - 3
    assert_idle(engine)  # gives up what is in the pool
    assert ask(engine, later).cached_tokens == len(later) - 3  # and takes it from the disk again
    assert_idle(engine)


@pytest.mark.parametrize("place", [0, 5, 13, 15, 40, 300, 600, 5000, -40, -5])
def test_flipped_bytes(saved, make_engine, solo, assert_idle, place):
    directory, later = saved
    [path] = files(directory)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)

    def go_on():
        engine = make_engine(state_dir=directory)
        return engine, ask(engine, later)

    with pytest.warns(StateWarning, match=re.escape(str(path))) as caught:
        engine, output = go_on()
    assert len(caught) == 1
    assert "remove it" in str(caught[0].message)
    assert output.cached_tokens == 0
    assert output.outputs[0].token_ids == solo(later, PARAMS).outputs[0].token_ids
    assert_idle(engine)


@pytest.mark.parametrize("size", [0, 3, 13, 17, 200, 600, 10_000, -1])
def test_files_that_end_too_early(saved, make_engine, assert_idle, size):
    directory, later = saved
    [path] = files(directory)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.warns(StateWarning, match="is no saved session|is damaged"):
        engine = make_engine(state_dir=directory)
    assert ask(engine, later).cached_tokens == 0
    assert_idle(engine)


def rewrite(path, **changes):
    data = path.read_bytes()
    at = len(b"sambay state\n")
    size = int.from_bytes(data[at : at + 4], "little")
    header = json.loads(data[at + 4 : at + 4 + size]) | changes
    text = json.dumps(header).encode()
    path.write_bytes(data[:at] + len(text).to_bytes(4, "little") + text + data[at + 4 + size :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2 and this sambay reads 1: remove it"),
        ({"fingerprint": "x"}, "was made by another model, or with another dtype or kv_cache_dtype: use another"),
        ({"fixed": 1}, "and should have"),
        ({"page_tokens": 0}, "unreadable header"),
        ({"lengths": []}, "unreadable header"),
        ({"tokens": -1}, "unreadable header"),
        ({"tokens": "x"}, "unreadable header"),
    ],
)
def test_headers_that_do_not_fit(saved, make_engine, assert_idle, changes, message):
    directory, later = saved
    [path] = files(directory)
    rewrite(path, **changes)
    with pytest.warns(StateWarning, match=message):
        engine = make_engine(state_dir=directory)
    assert ask(engine, later).cached_tokens == 0
    assert path.exists()  # it may be another's
    assert_idle(engine)


def test_another_model_and_another_cache(saved, model, make_engine, tokenizer, assert_idle):
    directory, later = saved
    other = SambaY.random(model.config, seed=9).eval()
    with pytest.warns(StateWarning, match="was made by another model"):
        engine = type(make_engine())(other, tokenizer, end_ids=frozenset(), state_dir=directory)
    assert ask(engine, later).cached_tokens == 0
    model.cache_dtype = "int8"
    try:
        with pytest.warns(StateWarning, match="or with another dtype or kv_cache_dtype"):
            make_engine(state_dir=directory)
    finally:
        model.cache_dtype = None


def test_the_fingerprint(model):
    pool = model.new_state()
    mark = fingerprint(model, pool)
    assert mark == fingerprint(model, model.new_state(5))
    assert mark != fingerprint(model, model.new_state(cache_dtype="bfloat16"))
    for name, tensor in model.state_dict().items():
        with torch.no_grad():
            kept = tensor.clone()
            tensor.mul_(1.01).add_(1e-3)
            assert fingerprint(model, pool) != mark, name
            tensor.copy_(kept)
    assert mark == fingerprint(model, pool)


def test_a_full_disk(make_engine, tmp_path, monkeypatch, solo, assert_idle):
    engine = make_engine(state_dir=tmp_path)

    def full(path, *_):
        path.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sessions, "write_state", full)
    with pytest.warns(StateWarning, match=r"could not be saved in .*No space left on device.*: make room there"):
        output = ask(engine, PROMPT)
    assert output.outputs[0].token_ids == solo(PROMPT, PARAMS).outputs[0].token_ids
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    ask(engine, [*PROMPT, 9])
    assert len(files(tmp_path)) == 1
    assert_idle(engine)


def test_a_warning_that_is_an_error_ends_only_its_request(make_engine, tmp_path, monkeypatch, assert_idle):
    engine = make_engine(state_dir=tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sessions, "write_state", full)
    output = ask(engine, PROMPT)  # pytest makes errors of warnings
    assert isinstance(output.error, StateWarning)
    assert output.outputs[0].finish_reason == "length"
    assert_idle(engine)


def test_the_least_recently_used_are_removed(make_engine, tmp_path, assert_idle):
    engine = make_engine(state_dir=tmp_path)
    ask(engine, PROMPT)
    [first] = files(tmp_path)
    engine.keeper._sessions._limit = 5 * first.stat().st_size // 2
    os.utime(first, (1, 1))
    for i in range(4):
        before = {*files(tmp_path)}
        ask(engine, [100 + i, *PROMPT])
        [new] = {*files(tmp_path)} - before
        os.utime(new, (2 + i, 2 + i))  # clocks of file systems may be coarse
    assert len(files(tmp_path)) == 2
    assert not first.exists()
    assert ask(engine, [103, *PROMPT, 5]).cached_tokens == 0
    assert_idle(engine)


def test_a_directory_that_cannot_be_used(make_engine, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"the state directory .*file cannot be used"):
        make_engine(state_dir=tmp_path / "file")


def test_leftovers_of_a_killed_save_are_removed(make_engine, tmp_path):
    old, new = tmp_path / ".a.session.1-2.tmp", tmp_path / ".b.session.1-2.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    make_engine(state_dir=tmp_path)
    assert not old.exists()
    assert new.exists()  # another process may be writing it


CHILD = """
import sys
from pathlib import Path
from sambay import LLM, SamplingParams
llm = LLM(sys.argv[1], device="cpu", state_dir=sys.argv[2])
ids = list(range(20, 90))
while True:
    print("turn", flush=True)
    [output] = llm.generate([ids], SamplingParams(seed=1, max_tokens=3, ignore_eos=True))
    ids = [*ids, *output.outputs[0].token_ids, 7]
    if len(ids) > 250:
        ids = ids[:70]
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="of systems that kill so")
def test_killed_in_the_midst_of_saving(checkpoint, make_engine, solo, tmp_path, assert_idle):
    """The old session is there or the new one, whole."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, checkpoint, tmp_path]
    for wait in (0.0, 0.011, 0.023):
        child = subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE)
        for _ in range(8):
            assert child.stdout.readline() == b"turn\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        engine = make_engine(state_dir=tmp_path)  # warnings are errors here
        found = files(tmp_path)
        assert found
        for path in found:
            header, ids = statefile.read_header(path)
            output = ask(engine, [*ids, 9])
            assert output.cached_tokens == header.lengths[-1] == len(ids)
            if len(ids) < 100:
                assert output.outputs[0].token_ids == solo([*ids, 9], PARAMS).outputs[0].token_ids
        assert_idle(engine)
        for path in files(tmp_path):
            path.unlink()


def test_the_front_door(checkpoint, tmp_path):
    params = SamplingParams(seed=1, max_tokens=4, ignore_eos=True)
    first = LLM(checkpoint, device="cpu", state_dir=str(tmp_path)).generate([PROMPT], params)[0]
    later = [*PROMPT, *first.outputs[0].token_ids, 9]
    assert LLM(checkpoint, device="cpu", state_dir=tmp_path).generate([later], params)[0].cached_tokens == 73
    assert LLM(checkpoint, device="cpu").generate([later], params)[0].cached_tokens == 0
    with pytest.raises(ConfigError, match="state_dir saves what the prefix cache holds: leave out"):
        LLM(checkpoint, state_dir=tmp_path, enable_prefix_caching=False)
    assert all(Path(path).suffix == ".session" for path in tmp_path.iterdir())
    with contextlib.suppress(FileNotFoundError):
        assert not list(tmp_path.glob(".*"))
