"""The program as a whole: help, version, start-up, interruption, a reader that goes away."""

import json
import subprocess
import sys

import pytest

from sambay._version import __version__
from sambay.cli import app as module
from sambay.cli.interrupt import deferred_interrupt
from sambay.errors import ConfigError

COMMANDS = ["generate", "chat", "info", "train", "eval", "bench"]


def test_help_lists_the_commands(sambay):
    for arguments in ([], ["--help"], ["-h"]):
        result = sambay(*arguments)
        assert result.status == 0
        assert all(command in result.out for command in COMMANDS)
        assert "completion" not in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(sambay, command):
    result = sambay(command, "--help")
    assert result.status == 0
    assert "Examples:" in result.out
    assert f"sambay {command}" in result.out.split("Examples:")[1]


def test_version(sambay):
    assert sambay("--version") == (0, f"sambay {__version__}\n", "")


def test_importing_the_command_line_imports_nothing_heavy():
    script = (
        "import sys, sambay.cli; print([m for m in ('torch', 'numpy', 'tokenizers', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "sambay", "--nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: No such option")
    assert done.stderr.endswith("(see 'sambay --help')\n")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(endless):
    command = [sys.executable, "-m", "sambay", "generate", str(endless), "-p", "x", "--max-tokens", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="of the shell")
@pytest.mark.parametrize(
    ("redirection", "status", "words"), [(">&-", 0, ""), ("<&-", 0, ""), ("> /dev/full", 1, "error: No space")]
)
def test_closed_and_full_streams(redirection, status, words):
    command = f"'{sys.executable}' -m sambay --version {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(words)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_and_our_own_mistakes(sambay, monkeypatch, error):
    def fail(*_):
        raise error("why\nnot")

    monkeypatch.setattr("sambay.cli.info.describe", fail)
    result = sambay("info")
    if error is KeyboardInterrupt:
        assert result.status == 130
        assert "Traceback" not in result.err
    else:
        assert result == (1, "", "error: unexpected RuntimeError: why (our mistake: SAMBAY_DEBUG=1 shows where)\n")
        monkeypatch.setenv("SAMBAY_DEBUG", "1")
        with pytest.raises(RuntimeError):
            module.run(["info"])


def test_the_first_interrupt_is_a_request_and_the_second_a_demand():
    import signal

    told = []
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupt(lambda: told.append(1)) as interrupt:
        assert not interrupt.requested
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert told == [1]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "command",
    [["generate", "-p", "3 + 4"], ["chat"], ["eval"], ["batch", "REQUESTS", "-o", "OUT"]],
    ids=lambda one: one[0],
)
def test_what_every_command_asks_of_a_model(sambay, checkpoint, tmp_path, monkeypatch, command):
    asked = {}

    def refuse(model, **options):
        asked.update(options, model=model)
        raise ConfigError("this is far enough")

    monkeypatch.setattr("sambay.engine.LLM", refuse)
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "3"}}
    (tmp_path / "requests").write_text(json.dumps(line) + "\n")
    places = {"REQUESTS": tmp_path / "requests", "OUT": tmp_path / "out"}
    typed = [places.get(word, word) for word in command]
    typed += ["--model", checkpoint] if command[0] == "batch" else [checkpoint]
    result = sambay(*typed, "--kv-cache-dtype", "int8", "--no-mmap", "--dtype", "float32")
    assert result.err == "error: this is far enough\n"
    assert str(asked["model"]) == str(checkpoint)
    assert (asked["kv_cache_dtype"], asked["mmap"], asked["dtype"]) == ("int8", False, "float32")
