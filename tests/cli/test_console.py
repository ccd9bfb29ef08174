"""What reaches a terminal, and what a pipe."""

import io

import pytest

from sambay.cli.console import ReplyPrinter, Screen, neutralise
from sambay.cli.failures import explain, print_error
from sambay.engine import StreamEvent
from sambay.engine.outputs import RequestOutput
from sambay.streaming import Piece

OUTPUT = RequestOutput("0", None, [], [])


def event(text="", *, index=0, thinking=False, finish=None, token=7):
    pieces = (Piece("reasoning" if thinking else "answer", text),) if text else ()
    return StreamEvent(index, token, f"<{text}>" if text else "", pieces, finish, OUTPUT)


def test_control_characters_become_visible():
    assert neutralise("a\tb\nc") == "a\tb\nc"
    assert neutralise("\x1b[31m\r\x07\x7f\x9b0;") == "␛[31m␍␇␡\ufffd0;"
    assert neutralise("naïve ∑ 💡 שלום") == "naïve ∑ 💡 שלום"


def test_a_pipe_gets_the_text_as_it_is():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.write("\x1b[31m[bold]", dim=True)
    screen.end_line()
    screen.end_line()
    assert stream.getvalue() == "\x1b[31m[bold]\n"


def test_a_terminal_is_safe_and_styled(terminal, monkeypatch):
    Screen(terminal).write("\x1b]0;x\x07", dim=True)
    assert terminal.getvalue() == "\x1b[2m␛]0;x␇\x1b[22m"
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    terminal.seek(0)
    Screen(terminal).write("x\x1b", dim=True)
    assert terminal.getvalue() == "x␛"


def test_thinking_is_dim_on_a_terminal_and_apart_from_the_answer(terminal):
    printer = ReplyPrinter(Screen(terminal))
    for one in (event("hm", thinking=True), event("so", thinking=True), event("7", finish="stop")):
        printer.push(one)
    assert terminal.getvalue() == "\x1b[2mhm\x1b[22m\x1b[2mso\x1b[22m\n\n7"


def test_hidden_thinking_says_that_something_happens(terminal):
    printer = ReplyPrinter(Screen(terminal), hide_thinking=True)
    for one in (event("hm", thinking=True), event("so", thinking=True), event("7", finish="stop")):
        printer.push(one)
    assert terminal.getvalue() == "\x1b[2m(thinking ...)\x1b[22m\n\n7"


def test_in_a_pipe_the_text_is_verbatim_or_the_answer_alone():
    for hide, wanted in ((False, "<hm><7>"), (True, "7")):
        stream = io.StringIO()
        printer = ReplyPrinter(Screen(stream), hide_thinking=hide)
        printer.push(event("hm", thinking=True))
        printer.push(event("7", finish="stop"))
        assert stream.getvalue() == wanted


def test_completions_come_one_after_the_other():
    stream = io.StringIO()
    printer = ReplyPrinter(Screen(stream), count=3)
    for one in (
        event("a", index=0),
        event("x", index=1),
        event("p", index=2, finish="stop"),
        event("y", index=1, finish="stop"),
        event("b", index=0, finish="stop"),
    ):
        printer.push(one)
    assert stream.getvalue() == "--- 1 of 3 ---\n<a><b>\n--- 2 of 3 ---\n<x><y>\n--- 3 of 3 ---\n<p>"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.md"), "a.md: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (MemoryError("tried 1 TB"), "out of memory (tried 1 TB)"),
        (KeyError("k"), "unexpected KeyError: 'k' (our mistake"),
    ],
)
def test_what_went_wrong_in_a_sentence(error, sentence):
    message, status = explain(error)
    assert message.startswith(sentence)
    assert status == 1


def test_an_error_is_one_line_whatever_it_quotes(capsys):
    print_error("bad [red]\x1b[31m\nvalue")
    assert capsys.readouterr().err == "error: bad [red]␛[31m value\n"
