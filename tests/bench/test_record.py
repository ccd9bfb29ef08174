"""What is kept of a run, the models with random weights, and the plots."""

import json
import shutil
import subprocess

import pytest
import torch

from sambay.bench import models, record, views
from sambay.bench.models import locate, open_model
from sambay.bench.probes import MatrixProbe
from sambay.errors import CheckpointError, ConfigError
from sambay.hub import bundled_model
from sambay.ops import native


def test_the_fields_of_a_record(tmp_path):
    made = record.new_record("decode", "sambay bench decode")
    assert set(made) == {"mode", "time", "commit", "command", "machine", "versions", "threads"}
    assert set(made["machine"]) == {"cpu", "cores", "isa", "system"}
    assert {"sambay", "python", "torch", "numpy"} <= set(made["versions"])
    assert set(made["threads"]) == {"kernels", "torch"}
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        record.append(made, path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [made, made]


def test_peak_memory():
    peak = record.peak_rss()
    assert peak is None or 50e6 < peak < 1e12


def test_the_commit_is_that_of_our_own_clone_only(tmp_path, monkeypatch):
    package = tmp_path / "src" / "sambay" / "bench"
    package.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    assert record.commit() is None
    file = tmp_path / "file"
    file.write_text("one")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    clean = record.commit()
    assert len(clean) == 12
    file.write_text("two")
    assert record.commit() == clean + "+"
    elsewhere = tmp_path / "site-packages" / "sambay" / "bench" / "record.py"  # installed, below someone's clone
    monkeypatch.setattr(record, "__file__", str(elsewhere))
    assert record.commit() is None


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache_directory() == tmp_path / "sambay"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(models.Path, "home", lambda: tmp_path)
    for platform, place in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(models.sys, "platform", platform)
        assert models.cache_directory() == tmp_path / place / "sambay"


def test_random_models_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = []
    first = locate("random:tiny", lambda *x: told.append(x))
    assert told
    told.clear()
    assert locate("random:tiny:4", lambda *x: told.append(x)) == first
    assert told == []
    assert first.parent == tmp_path / "sambay" / "random"
    assert locate("random:tiny:4:32") == first
    assert len({first, locate("random:tiny:4:64"), locate("random:tiny:4:128")}) == 3
    other = locate("random:tiny:8")
    assert other != first
    found = open_model("random:tiny", first, "auto")
    assert found.random
    about = found.to_dict()
    assert about["quantised"]
    assert about["random"]
    assert about["dtype"] == "float32"
    assert about["bytes"] < 4 * about["parameters"] / 2  # rows of 64 weights are padded to 256


def test_random_models_of_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = locate("random:tiny:16")
    found = open_model("random:tiny:16", directory, "auto")
    about = found.to_dict()
    assert (about["random"], about["quantised"], about["kv_cache_dtype"]) == (True, False, "bfloat16")
    assert found.model.matrix_dtype is torch.bfloat16
    assert about["dtype"] == ("float32" if native.usable() else "bfloat16")
    assert 2 * about["parameters"] <= about["bytes"] < 2.1 * about["parameters"]
    probe = MatrixProbe.like(found.model, 3)  # beside which a prompt is measured: its own products
    assert str(probe) == "bfloat16"
    with torch.inference_mode():
        assert probe._product().dtype is found.model.dtype
    assert open_model("random:tiny:16", directory, "bfloat16").to_dict()["dtype"] == "bfloat16"


def test_random_models_that_two_make_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    made = locate("random:tiny")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    came = []

    def another(*_):
        if not came:
            came.append(shutil.copytree(made, tmp_path / "b" / made.relative_to(tmp_path / "a")))

    found = locate("random:tiny", another)
    assert [found] == came
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_the_bundled_model():
    assert locate(None) == bundled_model()
    found = open_model(None, locate(None), "auto")
    assert (found.name, found.random, found.to_dict()["quantised"]) == ("the bundled model", False, False)


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("random:huge", ConfigError, "there is no preset 'huge'"),
        ("random:tiny:3", ConfigError, "random:tiny:3 asks for weights of '3' bits: choose 4, 6, 8 or 16"),
        ("random:tiny:4:16", ConfigError, "asks for groups of '16' weights: choose 32, 64 or 128"),
        ("random:tiny:16:32", ConfigError, "asks for groups of weights of 16 bits, which have none: leave '32' out"),
        ("phi4-mini-flash", CheckpointError, "is a preset, which has no weights: random:phi4-mini-flash makes"),
        ("./nowhere", CheckpointError, "does not exist"),
    ],
)
def test_no_such_model(model, kind, words):
    with pytest.raises(kind, match=words):
        locate(model)


def test_every_mode_has_a_view_of_columns_that_differ():
    modes = ["machine", "decode", "prefill", "latency", "throughput", "concurrency", "serve", "prefix", "speculation"]
    assert list(views.VIEWS) == modes
    for view in views.VIEWS.values():
        titles = [column.title for column in view.columns if column.title]
        assert len(set(titles)) == len(titles)


def test_plots_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in '\.gif': choose a name that ends in \.png, \.svg, \.pdf"):
        views.check_plot(tmp_path / "a.gif")


def test_columns_and_ratios_of_a_peer():
    view = views.VIEWS["throughput"]
    titles = [column.title for column in view.shown({})]
    assert "ours/its" not in titles
    shown = view.shown({"peer": {}})
    assert [column.title for column in shown] == ["", *titles, "ours/its"]
    ratio, engine = shown[-1], shown[0]
    assert ratio.cell({"engine": "sambay"}) == ""
    assert ratio.cell({"engine": "llama.cpp", "ratio": 2.5, "in_turns": True}) == "2.50x"
    assert ratio.cell({"engine": "llama.cpp", "ratio": 12.5, "in_turns": False}) == "~12.50x"
    nothing = {"engine": "llama.cpp", "batch": 4, "budget": 2 * 10**10, "obstacle": "it is too large"}
    assert [column.cell(nothing) for column in shown if column.cell(nothing)] == ["llama.cpp", "4 in 20 GB"]
    assert engine.cell({"engine": "llama.cpp", "flash": True}) == "llama.cpp, flash"
