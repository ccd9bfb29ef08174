"""`sambay chat`: turns in a pipe, commands, the full context, and Ctrl-C in a real terminal."""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time

import pytest


@pytest.fixture
def chat(sambay, endless):
    """`chat(line, ...)` -> what a chat of these lines prints."""

    def talk(*lines, options=()):
        result = sambay("chat", endless, "--max-tokens", "5", *options, stdin="".join(f"{line}\n" for line in lines))
        assert result.status == 0, result.err
        assert "Traceback" not in result.err
        return result

    return talk


def saved(path):
    return [(m["role"], m["content"]) for m in json.loads(path.read_text())["messages"]]


def test_each_line_is_a_turn(chat, tmp_path):
    options = ["--system", "be brief", "--hide-thinking"]
    result = chat("What is 3 + 4?", "", "And halved?", f"/save {tmp_path / 'x.json'}", options=options)
    messages = saved(tmp_path / "x.json")
    assert [role for role, _ in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [text for role, text in messages if role == "assistant"] == ["aaaaa", "aaaaa"]
    assert result.out == "aaaaa\naaaaa\n"
    assert len(re.findall(r"\[5 tokens, [0-9.]+ tokens/s, first after [0-9.]+ s, cut at max_tokens\]", result.err)) == 2


def test_lines_can_be_joined(chat, tmp_path):
    chat("one \\", "two", '"""three', 'four"""', '"""', "five", '"""', "six\\", options=[])
    chat("one \\", "two", '"""three', 'four"""', '"""', "five", '"""', f"/save {tmp_path / 'x.json'}")
    questions = [text for role, text in saved(tmp_path / "x.json") if role == "user"]
    assert questions == ["one \ntwo", "three\nfour", "five"]


def test_help_lists_every_command(chat):
    result = chat("/help")
    for command in (
        "/help",
        "/clear",
        "/new",
        "/system",
        "/set",
        "/think",
        "/save",
        "/retry",
        "/undo",
        "/tokens",
        "/exit",
    ):
        assert command in result.err
    assert result.out == ""


def test_exit_ends_it(chat):
    for word in ("/exit", "/quit", "/QUIT"):
        assert chat(word, "hello").out == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/hlep", "there is no command /hlep: did you mean /help?"),
        ("/xyzzy", "there is no command /xyzzy: /help lists them"),
        ("/set temperature hot", "temperature is 'hot': it must be a number"),
        ("/set temperature -1", "temperature is -1.0: it must be a number 0 or more"),
        ("/set top_k 1.5", "top_k is '1.5': it must be a whole number"),
        ("/set max_tokens many", "max_tokens is 'many': it must be a whole number or none"),
        ("/set temprature 1", "did you mean temperature?"),
        ("/set n 2", "there is no setting 'n'"),
        ("/think maybe", "/think maybe: say on or off"),
        ("/save", "/save needs a file name"),
        ("/save /nonexistent/x.md", "/nonexistent: no such directory"),
        ("/undo", "there is nothing to undo"),
        ("/retry", "there is nothing to answer again"),
        ("word " * 5000, "shorten the prompt"),
    ],
)
def test_a_mistake_is_told_and_the_chat_goes_on(sambay, endless, line, words):
    result = sambay("chat", endless, "--max-tokens", "3", stdin=f"{line}\nhello\n")
    assert result.status == 0
    assert result.err.count("error: ") == 1
    assert words in result.err
    assert "[3 tokens" in result.err


def test_settings(chat):
    result = chat(
        "/set top-p 0.5", "/set max_tokens=2", "/set seed 4", "/set seed none", "/set stop a = b", "/set", "hi"
    )
    for line in ("top_p = 0.5", "max_tokens = 2", "seed = 4", "seed = none", "stop = 'a = b'", "temperature = 1.0"):
        assert line in result.err
    assert "[2 tokens" in result.err


def test_system_and_think(chat, tmp_path):
    path = tmp_path / "x.json"
    result = chat(
        "/system", "/system be kind", "/think off", "/think", "hi", f"/save {path}", "/system off", "/think on"
    )
    assert "system message: (none)" in result.err
    assert "system message: be kind" in result.err
    assert result.err.count("(thinking is hidden)") == 2
    assert result.err.endswith("system message: (none)\n(thinking is shown)\n")
    assert saved(path)[0] == ("system", "be kind")


def test_thinking_bounded_and_left_out(chat, sambay, endless):
    result = chat(
        "/set max_thinking_tokens", "/set max_thinking_tokens none", "hi", options=["--max-thinking-tokens", "7"]
    )
    assert "max_thinking_tokens = 7" in result.err
    assert "max_thinking_tokens = none" in result.err
    with_it, without = (
        re.search(r"conversation: (\d+) of", chat("/tokens", options=[*more, "--system", "be"]).err)[1]
        for more in ([], ["--no-thinking"])
    )
    assert int(without) == int(with_it) + 5  # <think>, two newlines, </think>, a newline


def test_undo_retry_and_clear(chat, tmp_path):
    first, second, third = (tmp_path / f"{name}.json" for name in "abc")
    options = ["--temperature", "0"]
    result = chat(
        "one", "two", "/undo", f"/save {first}", "/retry", f"/save {second}", "/new", f"/save {third}", options=options
    )
    assert [text for role, text in saved(first) if role == "user"] == ["one"]
    assert saved(second) == saved(first)  # greedy
    assert "the answer will be the same" in result.err
    assert "(removed: two)" in result.err
    assert saved(third) == []


def test_retry_draws_anew(sambay, checkpoint, tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    lines = ("one", f"/save {first}", "/retry", f"/save {second}")
    result = sambay("chat", checkpoint, "--max-tokens", "60", stdin="".join(f"{line}\n" for line in lines))
    assert result.status == 0, result.err
    assert saved(first)[0] == saved(second)[0]
    assert saved(first)[1] != saved(second)[1]


def test_a_file_is_not_replaced_unless_it_is_ours(chat, tmp_path):
    path = tmp_path / "x.md"
    path.write_text("mine")
    assert "exists already: choose another name" in chat("hi", f"/save {path}").err
    assert path.read_text() == "mine"
    other = tmp_path / "y.md"
    assert chat("hi", f"/save {other}", "ho", f"/save {other}").err.count("(saved to") == 2


def test_tokens(chat):
    result = chat("/tokens", "hi", "/tokens")
    assert "conversation: 0 of 4096 tokens" in result.err
    assert re.search(r"conversation: [1-9][0-9]* of 4096 tokens\ngenerated: 5 tokens in 1 replies, ", result.err)


def test_the_oldest_turns_are_dropped_with_a_notice(chat, tmp_path):
    path = tmp_path / "x.json"
    result = chat(*["tell me a number"] * 6, "/tokens", f"/save {path}", options=["--max-model-len", "60"])
    assert "the conversation no longer fits the context" in result.err
    assert "oldest turn(s) left out" in result.err
    assert len(saved(path)) == 12  # the file has them all
    assert "error" not in result.err


def test_a_turn_too_long_drops_nothing(chat, tmp_path):
    path = tmp_path / "x.json"
    result = chat("hi", "word " * 100, "/tokens", f"/save {path}", options=["--max-model-len", "60"])
    assert "shorten the prompt" in result.err
    assert "dropped" not in result.err
    assert [text for role, text in saved(path) if role == "user"] == ["hi"]


def test_a_full_context_is_told(chat):
    result = chat("hi", "/set max_tokens none", "ho", options=["--max-model-len", "40"])
    assert "cut: the context is full" in result.err


# --- a real terminal ---

CONTROLLING = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job ignores it
os.execv(sys.executable, [sys.executable, "-m", "sambay", *sys.argv[1:]])
"""


class Session:
    """A program in a pseudo-terminal."""

    def __init__(self, *arguments):
        import pty

        self.master, slave = pty.openpty()
        command = [sys.executable, "-c", CONTROLLING, *arguments]
        environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment
        )
        os.close(slave)
        self.seen = ""

    def expect(self, pattern, seconds=240.0):
        """Wait until the output since the last match has the pattern."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def send(self, text):
        os.write(self.master, text.encode())

    def interrupt(self, pattern):
        """Press Ctrl-C until the output has the pattern: Python loses one that comes just before readline waits."""
        for _ in range(10):
            self.send("\x03")
            with contextlib.suppress(AssertionError):
                self.expect(pattern, 20)
                return
        raise AssertionError(f"no {pattern!r} in {self.seen!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_control_c_stops_the_reply_and_not_the_program(endless, tmp_path):
    session = Session("chat", str(endless), "--max-tokens", "4000")
    try:
        session.expect("> ")
        session.send("hello [bold]\n")
        session.expect(r"hello \[bold\]\r\n(?s:.{20}.*)")
        session.send("\x03")
        text = session.expect(r"stopped; what was said is kept\]")
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1a]", text)  # of the model's; ESC is our dimming
        session.expect("> ")
        session.send(f"/save {tmp_path / 'x.json'}\n")
        session.expect("saved to")
        session.expect("> ")
        session.send("half a line")
        session.expect("half a line")
        session.interrupt("Ctrl-D or /exit leaves")
        session.expect("> ")
        session.send("/set max_tokens 3\n")
        session.expect("> ")
        session.send("again\n")
        session.expect(r"\[3 tokens")
        session.expect("> ")
        session.send("\x04")
        assert session.process.wait(120) == 0
    finally:
        session.close()
    messages = saved(tmp_path / "x.json")
    assert messages[0] == ("user", "hello [bold]")
    assert len(messages[1][1]) > 5
