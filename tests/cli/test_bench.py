"""`sambay bench`: tables, lines of JSON, plots, and one sentence for whatever is wrong."""

import json
import mmap
import os
import sys

import pytest

from sambay.bench import decode, machine
from sambay.bench.probes import MatrixProbe
from sambay.cli.bench import COMMANDS
from sambay.ops import native
from standin import standing_in

SMALL = {
    "decode": ("--depth", "0,20", "--batch", "1,2", "--tokens", "2", "--rounds", "2"),
    "prefill": ("--length", "8,20", "--chunk", "8", "--rounds", "2"),
    "latency": ("--prompt", "4", "--generate", "40", "--points", "3", "--tokens", "1", "--rounds", "2"),
    "throughput": ("--batch", "1,2", "--prompt", "4", "--generate", "40", "--points", "2", "--memory", "5MB",
                   "--tokens", "1", "--rounds", "2"),
}  # fmt: skip
ROWS = {"decode": 4, "prefill": 2, "latency": 3, "throughput": 3}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(decode, "bandwidth", lambda: 1e10)
    monkeypatch.setattr(machine, "bandwidth", lambda: 1e10)
    monkeypatch.setattr(machine, "pool_latency", lambda barrier: 1e-6)
    monkeypatch.setattr(MatrixProbe, "rate", lambda self: 1e12)


def check(result, words, status=1):
    assert result.status == status
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert words in result.err


@pytest.mark.parametrize("mode", SMALL)
def test_a_record(sambay, checkpoint, tmp_path, mode):
    saved, plot = tmp_path / "results.jsonl", tmp_path / "plot.png"
    typed = ("bench", mode, checkpoint, *SMALL[mode], "--json", "--save", saved, "--plot", plot)
    result = sambay(*typed)
    assert result.status == 0, result.err
    assert result.err == ""
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert json.loads(saved.read_text(encoding="utf-8")) == found
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert found["mode"] == mode
    assert found["command"].split() == ["sambay", *map(str, typed)]
    assert found["model"]["name"] == str(checkpoint)
    assert not found["model"]["random"]
    assert len(found["results"]) == ROWS[mode]
    for row in found["results"]:
        assert {"median", "min", "q1", "q3", "rounds"} == set(row["seconds"])
        assert row["tokens_per_second"] > 0
        assert row["share"] > 0
    assert found["shapes"]["rounds"] == 2
    assert found["peak_rss"] is None or found["peak_rss"] > 0
    assert found["backend"].startswith("compiled kernels (" if native.usable() else "torch (")
    assert sambay(*typed).status == 0
    assert saved.read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("mode", SMALL)
def test_a_table(sambay, checkpoint, mode):
    result = sambay("bench", mode, checkpoint, *SMALL[mode])
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == str(checkpoint)
    assert " parameters, " in lines[1]
    assert lines[3].split()[-1] == "share"
    assert all(line.endswith("%") for line in lines[4 : 4 + ROWS[mode]])
    assert not lines[4 + ROWS[mode]].endswith("%")
    assert "…" not in result.out
    assert ("not of one long run" in " ".join(lines)) == (mode == "latency")
    assert (" in 0.005 GB " in result.out) == (mode == "throughput")
    assert "ours/its" not in result.out


def test_a_narrow_terminal_cuts_no_figure(sambay, checkpoint, monkeypatch, terminal):
    from sambay.cli import console

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(console.sys, "stdout", terminal)
    sambay("bench", "decode", checkpoint, *SMALL["decode"])
    assert "share" in terminal.getvalue()
    assert "…" not in terminal.getvalue()


def test_random_weights_are_said_to_measure_speed_only(sambay, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = sambay("bench", "decode", "random:tiny:8", *SMALL["decode"])
    assert result.status == 0, result.err
    assert "random weights: they measure speed, never quality" in result.out
    assert len(list((tmp_path / "sambay" / "random").iterdir())) == 1


def test_the_bundled_model_and_another_dtype(sambay):
    result = sambay("bench", "decode", *SMALL["decode"], "--dtype", "bfloat16")
    assert result.status == 0, result.err
    assert result.out.startswith("the bundled model\n")
    assert "; on torch (" in result.out


def test_what_keys_and_values_are_kept_in(sambay, checkpoint):
    moved = {}
    for kept in ("auto", "int8"):
        options = (*SMALL["decode"], "--kv-cache-dtype", kept, "--json")
        found = json.loads(sambay("bench", "decode", checkpoint, *options).out)
        moved[found["model"]["kv_cache_dtype"]] = found["results"][1]["bytes"]["shared"]
    # a key and a value of two heads of 16, and a scale of two bytes for each head's key and each pair's value
    assert moved["int8"] * 4 * 64 == moved["float32"] * (64 + 2 * 2 + 2 * 1)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")
@pytest.mark.parametrize(("option", "copied"), [("--mmap", False), ("--no-mmap", True)])
def test_weights_in_large_pages(sambay, tmp_path, monkeypatch, option, copied):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = json.loads(sambay("bench", "decode", "random:tiny:4", *SMALL["decode"], option, "--json").out)
    assert found["model"]["large_pages"] is copied


def test_what_is_measured_by_default_fits_the_context(sambay, checkpoint, monkeypatch):
    few = ("--tokens", "1", "--rounds", "1", "--json")
    found = json.loads(sambay("bench", "decode", checkpoint, "--batch", "1", *few).out)
    assert found["shapes"]["depth"] == [0, 512, 2048]
    found = json.loads(sambay("bench", "latency", checkpoint, "--points", "2", *few).out)
    assert found["shapes"]["prompt"] == found["shapes"]["generate"] == 2048


def test_speculation(sambay, checkpoint, tmp_path):
    few = ("--prompt", "30", "--generate", "20", "--rounds", "1", "--text", "repeats,new", "--speculation", "on")
    plot = tmp_path / "speculation.svg"
    result = sambay("bench", "speculation", checkpoint, *few, "--plot", plot)
    assert result.status == 0, result.err
    rows = [line.split() for line in result.out.splitlines() if line.startswith(("repeats ", "new "))]
    assert [row[:3] for row in rows] == [[text, "1", mode] for text in ("repeats", "new") for mode in ("off", "on")]
    assert [row[-2:] for row in rows[::2]] == [["0", "0"], ["0", "0"]]
    assert "<svg" in plot.read_text(encoding="utf-8")
    found = json.loads(sambay("bench", "speculation", checkpoint, *few, "--json").out)
    assert found["shapes"]["speculation"] == ["off", "on"]
    check(
        sambay("bench", "speculation", checkpoint, "--text", "poems"), "there is no text 'poems': choose from repeats"
    )


def test_machine(sambay, tmp_path):
    plot = tmp_path / "machine.svg"
    result = sambay("bench", "machine", "--rounds", "1", "--plot", plot)
    assert result.status == 0, result.err
    assert "reading memory" in result.out
    assert "256 rows x 2560 x 2560" in result.out
    assert "1,000.00" in result.out
    assert "<svg" in plot.read_text(encoding="utf-8")
    found = json.loads(sambay("bench", "machine", "--rounds", "3", "--json").out)
    assert found["shapes"] == {"rounds": 3}
    assert "model" not in found
    assert all(row["rounds"] == 3 for row in found["results"])


def test_threads(sambay, checkpoint):
    before = native.threads() if native.usable() else None
    try:
        found = json.loads(sambay("bench", "decode", checkpoint, *SMALL["decode"], "--threads", "1", "--json").out)
        assert found["threads"] == {"kernels": before and 1, "torch": 1}
    finally:
        if before is not None:
            native.set_threads(before)


@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_a_file_that_cannot_be_changed_is_found_out_before_the_work(sambay, tmp_path, monkeypatch, option):
    path = tmp_path / "locked.png"
    path.write_text("{}")
    able = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda one, mode: (one, mode) != (path, os.W_OK) and able(one, mode))
    monkeypatch.setattr("sambay.bench.models.locate", lambda *_: pytest.fail("too late"))
    result = sambay("bench", "decode", option, path)
    assert (result.status, result.out, result.err) == (1, "", f"error: {path}: not writable\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["decode", "--depth", "0,x"], "--depth '0,x' has 'x': give whole numbers of 0 or more"),
        (["decode", "--depth", "-1"], "has '-1'"),
        (["decode", "--batch", "0"], "--batch '0' has '0': give whole numbers of 1 or more"),
        (["decode", "--depth", "9999999"], "more than the model's context of 4096"),
        (["decode", "--batch", "9999999", "--depth", "0"], "of memory are free: choose fewer sequences"),
        (["prefill", "--length", "512,,"], "has ''"),
        (["prefill", "--length", "5000"], "a prompt of 5000 make 5000 tokens, more than the model's context of 4096"),
        (["latency", "--generate", "32768"], "a prompt of 2048 and 32768 generated tokens make 34816 tokens, more"),
        (["decode", "--plot", "a.txt"], "choose a name that ends in .png"),
        (["decode", "--plot", "/no/such/place/a.png"], "/no/such/place: no such directory"),
        (["decode", "--save", "/no/such/place/a.jsonl"], "/no/such/place: no such directory"),
        (["decode", "--dtype", "int8"], "int8"),
        (
            ["throughput", "--batch", "1", "--memory", "much"],
            "--memory 'much' is no amount of memory: give one such as 20GB or 512MiB",
        ),
        (
            ["throughput", "--batch", "1", "--memory", "1kB", "--generate", "1"],
            "a memory of 1e-06 GB is too small: the weights and",
        ),
        (["throughput", "--memory", "1GB"], "--memory goes with --batch only"),
        (["throughput", "--points", "3"], "--points goes with --batch only"),
        (["throughput", "--peer", "llama.cpp"], "--peer goes with --batch only"),
        (["throughput", "--batch", "1", "--requests", "3"], "--requests does not go with --batch"),
        (["throughput", "--requests", "3"], "3 requests cannot be 32 at once: ask for more requests"),
        (
            ["throughput", "--batch", "1", "--generate", "32768"],
            "a prompt of 2048 and 32768 generated tokens make 34816 tokens, more",
        ),
        (["decode", "--peer", "vllm"], "there is no peer 'vllm': choose llama.cpp"),
        (["decode", "--peer", "llama.cpp", "--peer-flash", "x"], "--peer-flash x is no setting: choose better or on"),
    ],
)
def test_impossible_options(sambay, checkpoint, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sambay.bench.fill.free_memory", lambda: 10**9)
    mode, *rest = arguments
    check(sambay("bench", mode, checkpoint, *rest), words)
    assert list(tmp_path.iterdir()) == []


def test_prefix(sambay, checkpoint, tmp_path):
    plot = tmp_path / "plot.svg"
    typed = ("bench", "prefix", checkpoint, "--prompt", 80, "--turns", 2, "--new", 3, "--generate", 2, "--rounds", 1)
    result = sambay(*typed, "--plot", plot)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[3].split() == [
        *["turn", "prompt", "cache", "not", "computed", "ms,", "median", "quartiles", "min", "share"]
    ]
    assert [line.split()[:4] for line in lines[4:8]] == [
        ["1", "80", "off", "0"], ["1", "80", "on", "0"], ["2", "85", "off", "0"], ["2", "85", "on", "81"]
    ]  # fmt: skip
    assert plot.exists()
    found = json.loads(sambay(*typed, "--json").out)
    assert found["mode"] == "prefix"
    assert found["shapes"] == {"prompt": 80, "turns": 2, "new": 3, "generate": 2, "rounds": 1}


def test_requests_at_once(sambay, checkpoint, tmp_path):
    plot = tmp_path / "plot.svg"
    typed = ("bench", "throughput", checkpoint, "--concurrency", "1,2", "--generate", 3, "--rounds", 1)
    result = sambay(*typed, "--plot", plot)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[3].split()[:3] == ["at", "once", "requests"]
    assert [line.split()[:2] for line in lines[4:6]] == [["1", "2"], ["2", "2"]]
    assert "requests at once" in plot.read_text(encoding="utf-8")
    found = json.loads(sambay(*typed, "--json", "--prompt", "5").out)
    assert found["mode"] == "concurrency"
    assert found["shapes"] == {"concurrency": [1, 2], "requests": 2, "prompt": 5, "generate": 3, "rounds": 1}
    assert [row["prompt_tokens"] for row in found["results"]] == [10, 10]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with standing_in() as server:
        yield server


def test_a_server(sambay, server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    plot, saved = tmp_path / "plot.svg", tmp_path / "results.jsonl"
    typed = ("bench", "serve", server.url, "--concurrency", "1,2", "--conversations", 3, "--prompt", "2-3,5")
    result = sambay(*typed, "--plot", plot, "--save", saved)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == f"first at {server.url}"
    assert [line.split()[:3] for line in lines[2:4]] == [["1", "3", "0"], ["2", "3", "0"]]
    assert "tokens/s together" in plot.read_text(encoding="utf-8")
    assert server.headers[-1]["Authorization"] == "Bearer a-secret"
    text = saved.read_text(encoding="utf-8")
    assert "a-secret" not in text
    found = json.loads(text)
    assert found["mode"] == "serve"
    assert found["server"] == {"url": server.url, "model": "first"}
    assert found["shapes"]["prompt"] == [[2, 3], [5, 5]]
    assert [row["tokens"] for row in found["results"]] == [21, 21]
    found = json.loads(sambay("bench", "serve", server.url, "--rate", "50,100", "--conversations", 2, "--json").out)
    assert [(row["rate"], row["concurrency"]) for row in found["results"]] == [(50, None), (100, None)]


def test_a_server_that_refuses(sambay, server):
    good = server.behave
    full = {"error": {"message": "the queue is full"}}
    server.behave = lambda handler, body: handler.answer(429, full) if len(server.bodies) > 1 else good(handler, body)
    result = sambay("bench", "serve", server.url, "--concurrency", "1", "--conversations", 2)
    assert result.status == 0, result.err
    assert "failed: HTTP 429 (2); the queue is full" in result.out
    check(sambay("bench", "serve", server.url), f"{server.url} does not answer a short question to 'first' (HTTP 429")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "9-3"], "--prompt '9-3' has '9-3': a range begins with its smaller number"),
        (["--generate", "a"], "--generate 'a' has 'a': give whole numbers of 1 or more"),
        (["--rate", "fast"], "--rate 'fast': give numbers from 0.001 to 1000000"),
        (["--rate", "nan"], "--rate 'nan': give numbers"),
        (["--rate", "1", "--concurrency", "1,2"], "with --rate is the most at once: give one number"),
        ([], "http://127.0.0.1:1 does not answer ("),
    ],
)
def test_no_load_for_a_server(sambay, arguments, words):
    check(sambay("bench", "serve", "http://127.0.0.1:1", *arguments), words)


def test_a_server_without_httpx(sambay, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    check(sambay("bench", "serve", "http://127.0.0.1:1"), "sambay bench serve needs httpx, which is not installed")


def test_unknown_models_and_modes(sambay, tmp_path):
    check(sambay("bench", "decode", tmp_path / "nope"), "does not exist")
    check(sambay("bench", "decode", "random:huge"), "there is no preset 'huge'")
    check(sambay("bench", "decode", "tiny"), "tiny is a preset, which has no weights: random:tiny makes random ones")
    check(sambay("bench", "cook"), "No such command 'cook'", status=2)


def test_without_matplotlib(sambay, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = sambay("bench", "decode", checkpoint, "--plot", tmp_path / "a.png")
    check(result, "--plot needs matplotlib, which is not installed: pip install 'sambay[bench]'")


@pytest.mark.parametrize("mode", SMALL)
def test_without_the_peer(sambay, checkpoint, monkeypatch, mode):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    result = sambay("bench", mode, checkpoint, *SMALL[mode], "--peer", "llama.cpp")
    check(result, "--peer llama.cpp needs llama-cpp-python, which is not installed: pip install 'sambay[peer]'")


@pytest.mark.slow
@pytest.mark.parametrize("mode", SMALL)
def test_beside_llama_cpp(sambay, checkpoint, monkeypatch, tmp_path, mode):
    """A table and a record with a small model of the peer, which is written into the cache."""
    for module in ("llama_cpp", "gguf"):
        pytest.importorskip(module, reason="llama-cpp-python is not installed: pip install 'sambay[peer]'")
    from sambay.bench import peer
    from sambay.bench.peer_model import PeerShape

    small = PeerShape("small", layers=1, hidden=256, heads=4, kv_heads=2, ffn=256, vocab=512, rotary=48, context=8192)
    monkeypatch.setitem(peer.PEERS, "llama.cpp", small)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plot, saved = tmp_path / "plot.svg", tmp_path / "results.jsonl"
    before = native.threads() if native.usable() else None
    try:
        typed = ("bench", mode, checkpoint, *SMALL[mode], "--peer", "llama.cpp", "--threads", "1", "--rounds", "1")
        result = sambay(*typed, "--plot", plot, "--save", saved)
    finally:
        if before is not None:
            native.set_threads(before)
    assert result.status == 0, result.err
    assert result.out.count("\nllama.cpp") == ROWS[mode]
    assert "; threads: 1): random small, " in result.out
    assert "ours/its: our tokens a second over the peer's" in " ".join(result.out.split())
    assert "llama.cpp" in plot.read_text(encoding="utf-8")
    found = json.loads(saved.read_text(encoding="utf-8"))
    assert found["peer"]["model"]["shape"] == "small"
    ours, its = found["results"][::2], found["results"][1::2]
    assert {row["engine"] for row in ours} == {"sambay"}
    assert {row["engine"] for row in its} == {"llama.cpp"}
    assert all(row["ratio"] > 0 and len(row["other_settings"]) == 1 for row in its if "depths" not in row)
    assert all(row["ratio"] > 0 for row in its)
    assert len(list((tmp_path / "sambay" / "peer").iterdir())) == 1


def test_help_names_the_modes_and_gives_examples(sambay):
    for arguments in ((), ("--help",)):
        result = sambay("bench", *arguments)
        assert result.status == 0
        assert all(mode in result.out for mode in COMMANDS)
        assert "sambay bench machine" in result.out
    for mode in COMMANDS:
        result = sambay("bench", mode, "--help")
        assert result.status == 0
        assert f"sambay bench {mode}" in result.out.split("Examples:")[1]
