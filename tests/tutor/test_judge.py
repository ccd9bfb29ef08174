"""The process that compares: equality of every form, and what strangers may do to it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sambay.errors import ConfigError, MissingExtraError
from sambay.tutor.judge import Judge, TooHardError
from sambay.tutor.reading import read_answer


def equal(judge, a, b):
    one, two = (read_answer(text)[0].parts[0].latex for text in (a, b))
    [found] = judge.compare([(one, two)])
    return found.equal


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("3/4", "0.75", True),
        ("3/4", "6/8", True),
        ("5/2", "2 1/2", True),
        ("sqrt(2)/2", "1/√2", True),
        ("x^2 - 1", "(x - 1)(x + 1)", True),
        ("2(x + 3)", "2x + 6", True),
        ("x > 3", "3 < x", True),
        ("5!", "120", True),
        ("1/3", "0.333", False),
        ("12", "13", False),
        ("x^2 + 1", "(x - 1)(x + 1)", False),
        ("1/0", "1/0", False),
    ],
)
def test_equality(judge, a, b, same):
    assert equal(judge, a, b) is same


def test_lines_and_solutions(judge):
    found = judge.statement((r"4 \cdot 5", "20", "21"))
    assert ([int(value) for value in found.values], found.broken) == ([20, 20, 21], 1)
    assert judge.statement((r"4 \cdot \left(n - 8\right)", r"4 \cdot n - 32")).broken is None
    assert judge.statement((r"3 \cdot x", "15")).unknowns == ("x",)
    assert judge.solutions(r"3 \cdot x", "15").found == ("5/1",)
    assert judge.solutions("x^{2}", "9").found == ("-3/1", "3/1")
    assert judge.solutions("x", "x + 1").found == ()
    assert judge.solutions("x", "x").everything


HOSTILE = [
    r"9^{9^{9^{9}}}",
    r"\sum_{n=1}^{10^{9}} n^{n}",
    r"\int_0^1 e^{e^{x^{x}}} dx",
    "(" * 2000,
]


def test_hostile_input_ends_the_process_and_not_us(tmp_path):
    mark = tmp_path / "mark"
    with Judge(seconds=1) as judge:
        for latex in HOSTILE[:1]:
            with pytest.raises(TooHardError, match="too long to check"):
                judge.compare([("12", latex)])
        assert judge.restarts == 1
        for latex in (
            rf"__import__('os').system('touch {mark}')",
            rf"\text{{__import__('os').system('touch {mark}')}}",
        ):
            [found] = judge.compare([("12", latex)])
            assert not found.equal
        assert equal(judge, "1/2", "0.5")
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("latex", HOSTILE[1:])
def test_more_hostile_input(latex):
    with Judge(seconds=1) as judge:
        try:
            [found] = judge.compare([("12", latex)])
            assert not found.equal
        except TooHardError:
            assert judge.restarts == 1
        assert equal(judge, "1/2", "0.5")


def test_threads_share_a_judge(judge):
    wrong = []

    def work(number):
        for other in range(4):
            if judge.compare([(str(number), str(other))])[0].equal != (number == other):
                wrong.append((number, other))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_secret_goes_along(monkeypatch):
    monkeypatch.setenv("SAMBAY_API_KEY", "secret")
    with Judge() as judge:
        assert equal(judge, "1", "1")
        if sys.platform == "linux":
            assert b"secret" not in Path(f"/proc/{judge._process.pid}/environ").read_bytes()
        pid = judge._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_limits_that_make_no_sense():
    with pytest.raises(ConfigError, match="seconds is 0: it must be 1 or more"):
        Judge(seconds=0)
    with pytest.raises(ConfigError, match="memory is 1 bytes"):
        Judge(memory=1)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sambay\[tutor\]'"):
        Judge()


def test_nothing_heavy_is_imported():
    names = ("sympy", "math_verify", "torch")
    code = f"import sambay.tutor.judge, sys; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
