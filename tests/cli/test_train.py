"""`sambay train`: a tiny run, its log and plot, stopped and resumed."""

import json
import signal

import pytest

from sambay.cli import train as module


def test_a_run_from_end_to_end(sambay, recipe, tmp_path):
    run = tmp_path / "run"
    result = sambay("train", recipe, "-o", run)
    assert result.status == 0, result.err
    assert result.out == f"6 of 6 steps done\n{run / 'checkpoint-6'}\n"
    lines = [line for line in result.err.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["2/6", "4/6", "6/6"]
    assert all("loss " in line and "lr " in line and "tokens/s" in line and "left" in line for line in lines)
    assert (run / "checkpoint-6" / "model.safetensors").exists()
    generated = sambay("generate", run / "checkpoint-6", "-p", "3 + 4", "--max-tokens", "3")
    assert generated.status == 0, generated.err

    again = sambay("train", recipe, "-o", run)
    assert again.status == 1
    assert again.err.endswith("holds a run already: resume it (--resume) or choose another directory\n")


def test_control_c_saves_and_says_how_to_go_on(sambay, recipe, tmp_path, monkeypatch):
    run = tmp_path / "a run"
    add = module._Tally.add

    def add_and_interrupt(tally, report):
        add(tally, report)
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(module._Tally, "add", add_and_interrupt)
        result = sambay("train", recipe, "-o", run)
    assert result.status == 130
    assert "stopping after this step" in result.err
    assert result.out.splitlines() == [
        "3 of 6 steps done",
        str(run / "checkpoint-3"),
        f"go on with: sambay train {recipe} -o '{run}' --resume",
    ]

    result = sambay("train", recipe, "-o", run, "--resume", "--json")
    assert result.status == 0, result.err
    summary = json.loads(result.out)
    assert (summary["step"], summary["finished"], summary["interrupted"]) == (6, True, False)
    assert summary["checkpoint"] == str(run / "checkpoint-6")
    assert summary["tokens"] > 0
    assert summary["loss"] > 0
    assert summary["eval"]["all"] > 0


def test_control_c_during_the_last_step_stops_nothing(sambay, recipe, tmp_path, monkeypatch):
    add = module._Tally.add

    def add_and_interrupt(tally, report):
        add(tally, report)
        if report.step == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module._Tally, "add", add_and_interrupt)
    result = sambay("train", recipe, "-o", tmp_path / "run")
    assert result.status == 0, result.err
    assert result.out == f"6 of 6 steps done\n{tmp_path / 'run' / 'checkpoint-6'}\n"


def test_minutes(sambay, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("steps = 6", "steps = 100000"))
    result = sambay("train", recipe, "-o", tmp_path / "run", "--minutes", "0.01", "--json")
    summary = json.loads(result.out)
    assert result.status == 0
    assert not summary["finished"]
    assert 0 < summary["step"] < 100_000


def test_resuming_nothing(sambay, recipe, tmp_path):
    result = sambay("train", recipe, "-o", tmp_path / "run", "--resume")
    assert result.status == 1
    assert "error: " in result.err
    assert "holds no checkpoint to resume" in result.err


def test_the_log_survives_a_kill_and_a_resume(tmp_path):
    entries = [
        '{"step": 2, "loss": 9}',
        '{"step": 4, "loss": 8}',
        '{"step": 4, "loss": 7}',
        '{"step": 4, "eval": {"all": 6}}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*entries, '{"step": 6, "lo']))
    assert module._read_log(tmp_path) == {2: {"step": 2, "loss": 9}, 4: {"step": 4, "loss": 7, "eval": {"all": 6}}}
    assert module._read_log(tmp_path / "nowhere") == {}


def test_the_plot(tmp_path, monkeypatch):
    log = {2: {"step": 2, "loss": 3.0}, 4: {"step": 4, "loss": 2.0, "eval": {"all": 2.5}}}
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        module._plot(log, tmp_path)
    assert list(tmp_path.iterdir()) == []
    pytest.importorskip("matplotlib")
    module._plot(log, tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
