"""What the README promises: its commands are the ones that CI runs, and its examples run as they stand."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ANSWERS = {"347 + 586": "933", "3x + 5 = 20": "5", "60 km per hour": "180", "12 * 7": "84"}
HUB_NAME = "microsoft/Phi-4-mini-flash-reasoning"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def marked(name):
    match = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert match, f"the README has no command marked {name}"
    return match[1].strip()


def run(*command, stdin=None):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=280, cwd=ROOT, check=False, input=stdin
    )


def test_ci_runs_the_two_commands():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "command_of test" in ci
    assert "command_of run" in ci
    for name in ("run", "test"):
        assert marked(name).startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert marked("test").endswith(".venv/bin/python -m pytest")


def test_the_main_command_solves_its_problem():
    words = shlex.split(marked("run").split("&&")[-1])
    assert words[0] == ".venv/bin/sambay"
    result = run("-m", "sambay", *words[1:])
    assert result.returncode == 0, result.stderr
    assert "\\boxed{933}" in result.stdout


def test_the_shell_examples_run():
    lines = [line for block in blocks("sh") for line in block.splitlines() if "sambay generate" in line]
    assert len(lines) >= 3
    for line in lines:
        if "--regex" in line:
            pytest.importorskip("llguidance")
        before, _, command = line.rpartition("|") if line.startswith("echo") else ("", "", line)
        words = shlex.split(command.split("&&")[-1])
        stdin = " ".join(shlex.split(before)[1:]) + "\n" if before else None
        result = run("-m", "sambay", *words[1:], stdin=stdin)
        assert result.returncode == 0, result.stderr
        [answer] = [box for question, box in ANSWERS.items() if question in line]
        assert f"boxed{{{answer}}}" in result.stdout


def test_every_command_that_is_named_exists():
    named = set(re.findall(r"^sambay (\w+)", README, re.MULTILINE))
    assert named == {"chat", "generate", "batch", "serve", "assess", "info", "train", "eval", "quantize", "bench"}
    for name in named:
        assert run("-m", "sambay", name, "--help").returncode == 0


@pytest.mark.parametrize("index", range(4))
def test_the_python_examples_run(index, tmp_path):
    """With the bundled model in the place of the one on the hub."""
    code = blocks("python")[index]
    if "transformers" in code:
        pytest.importorskip("transformers")
    if "structured_outputs" in code:
        pytest.importorskip("llguidance")
    from sambay.hub import bundled_model

    path = tmp_path / "example.py"
    code = code.replace(f'"{HUB_NAME}"', repr(str(bundled_model())))
    path.write_text("import warnings\nwarnings.simplefilter('ignore')\n" + code, encoding="utf-8")
    result = run(str(path))
    assert result.returncode == 0, result.stderr
    if index == 1:
        assert len(json.loads(result.stdout)["sum"]) <= 9
    elif index != 2:
        assert "\\boxed{" in result.stdout


def test_there_are_four_python_examples():
    assert len(blocks("python")) == 4
