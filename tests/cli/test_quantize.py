"""`sambay quantize`: the new checkpoint, the report, and one line for whatever is wrong."""

import json

import pytest
import torch

from sambay.errors import BackendError
from sambay.eval import problems
from sambay.model import SambaY
from sambay.ops import native
from sambay.quant import convert
from sambay.quant.calibrate import Calibration
from sambay.quant.formats import HEAD_FORMAT, QuantFormat
from sambay.quant.stored import is_quantised


def check(result, words, status=1):
    assert result.status == status
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert words in result.err


def test_a_checkpoint_that_every_command_takes(sambay, checkpoint, tmp_path):
    out = tmp_path / "small"
    result = sambay("quantize", checkpoint, "-o", out)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == str(out)
    assert "MB, was" in lines[1]
    assert lines[2].startswith("relative error of the weights ")
    generated = sambay("generate", out, "-p", "3 + 4", "--max-tokens", "3")
    assert generated.status == 0, generated.err
    assert sambay("info", out).status == 0
    assert sambay("eval", out, "--problems", "1", "--max-tokens", "2").status == 0


def test_gptq_and_the_report(sambay, checkpoint, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("What is 3 + 4? It is 7. " * 30)
    options = ("--bits", "8", "--group", "64", "--method", "gptq", "--calibration", text, "--calibration-tokens", "100")
    report = ("--report", "--problems", "2", "--max-tokens", "4", "--report-tokens", "600", "--json")
    result = sambay("quantize", checkpoint, "-o", tmp_path / "a", *options, *report)
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found["method"] == "gptq"
    assert found["weight_error"] < 0.02
    assert found["output_error"] < 0.02
    divergence = found["report"]["divergence"]
    assert divergence["tokens"] > 50
    assert 0 < divergence["kl_mean"] <= divergence["kl_p99"] <= divergence["kl_max"] < 0.01
    assert divergence["perplexity"] == pytest.approx(divergence["reference_perplexity"], rel=0.02)
    assert set(found["report"]["accuracy"]) == {"original", "quantised"}
    assert found["report"]["accuracy"]["quantised"]["count"] == 2


def test_the_report_is_of_both_models(sambay, checkpoint, tmp_path, monkeypatch):
    out, solved = tmp_path / "a", []
    plainly = problems.evaluate_problems

    def watched(llm, *rest, **options):
        solved.append((llm.directory, is_quantised(llm.model)))
        return plainly(llm, *rest, **options)

    monkeypatch.setattr(problems, "evaluate_problems", watched)
    options = ("--report", "--problems", "1", "--max-tokens", "2", "--report-tokens", "100")
    assert sambay("quantize", checkpoint, "-o", out, *options).status == 0
    assert solved == [(checkpoint, False), (out, True)]


def test_the_table(sambay, checkpoint, tmp_path):
    options = ("--method", "rtn", "--calibration", "problems", "--calibration-tokens", "60")
    result = sambay("quantize", checkpoint, "-o", tmp_path / "a", *options, "--report", "--problems", "1",
                    "--max-tokens", "4", "--report-tokens", "300")  # fmt: skip
    assert result.status == 0, result.err
    words = [line.split("  ")[0].strip() for line in result.out.splitlines()]
    assert words[-6:-1] == [
        "perplexity", "divergence, mean", "divergence, 99 % below", "same likeliest token", "problems solved",
    ]  # fmt: skip
    assert "of what the layers compute from them" in result.out


def test_random_weights(sambay, tmp_path):
    for name in "ab":
        result = sambay("quantize", "--random", "tiny", "--seed", "3", "-o", tmp_path / name, "--bits", "8")
        assert result.status == 0, result.err
    assert sambay("quantize", "--random", "tiny", "--seed", "4", "-o", tmp_path / "c", "--bits", "8").status == 0
    first, second, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == second != other
    assert SambaY.from_pretrained(tmp_path / "a")(torch.arange(5)).isfinite().all()


def test_the_usual_formats(sambay, checkpoint, tmp_path):
    assert sambay("quantize", checkpoint, "-o", tmp_path / "out").status == 0
    found = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert QuantFormat(found["head_bits"], found["head_group"]) == HEAD_FORMAT
    assert (found["bits"], found["group"]) == (4, 32)


@pytest.mark.parametrize("source", ["checkpoint", "random"])
def test_other_formats(sambay, checkpoint, tmp_path, source):
    model = (checkpoint,) if source == "checkpoint" else ("--random", "tiny")
    formats = ("--bits", "8", "--group", "64", "--head-bits", "4", "--head-group", "64", "--method", "rtn")
    assert sambay("quantize", *model, "-o", tmp_path / "out", *formats).status == 0
    found = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert {name: found[name] for name in ("bits", "group", "head_bits", "head_group")} == {
        "bits": 8, "group": 64, "head_bits": 4, "head_group": 64,
    }  # fmt: skip


def test_how_much_text_is_read(sambay, checkpoint, tmp_path, monkeypatch):
    text, read = tmp_path / "text.txt", []
    text.write_text("What is 3 + 4? It is 7. " * 100)

    class Watched(Calibration):
        def __init__(self, model, documents):
            read.append(sum(map(len, documents)))
            super().__init__(model, documents)

    monkeypatch.setattr(convert, "Calibration", Watched)
    for place, source in enumerate((text, "problems")):
        options = ("--method", "rtn", "--calibration", source, "--calibration-tokens", "150")
        assert sambay("quantize", checkpoint, "-o", tmp_path / str(place), *options).status == 0
    assert read == [150, 150]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bits", "3"], "bits is 3: it must be one of 4, 6, 8"),
        (["--group", "16"], "group is 16"),
        (["--method", "awq"], "method is 'awq': it must be one of rtn, mse, gptq"),
        (["--method", "gptq"], "give a file with --calibration"),
        (["--method", "gptq", "--calibration", "/no/such/file"], "/no/such/file: No such file"),
    ],
)
def test_impossible_options(sambay, checkpoint, tmp_path, arguments, words):
    check(sambay("quantize", checkpoint, "-o", tmp_path / "out", *arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_bad_calibration_text(sambay, checkpoint, tmp_path):
    for content, words in ((b"", "holds no text"), (b"caf\xe9", "is not UTF-8 text (byte 3)")):
        (tmp_path / "text").write_bytes(content)
        options = ("--method", "gptq", "--calibration", tmp_path / "text")
        check(sambay("quantize", checkpoint, "-o", tmp_path / "out", *options), words)


def test_what_cannot_go_together(sambay, checkpoint, tmp_path):
    check(sambay("quantize", checkpoint), "give one with -o")
    out = ("-o", tmp_path / "out")
    check(sambay("quantize", checkpoint, "--random", "tiny", *out), "leave out MODEL")
    check(sambay("quantize", "--random", "huge", *out), "there is no preset 'huge'")
    check(sambay("quantize", tmp_path / "nope", *out), "does not exist")
    check(sambay("quantize", checkpoint, "-o", tmp_path.parent), "exists and is not empty")


def test_what_the_report_needs_is_there_before_the_work(sambay, wordless, tmp_path):
    check(sambay("quantize", wordless, "-o", tmp_path / "out", "--report"), "tokenizer.json does not exist")
    assert not (tmp_path / "out").exists()


def test_an_instruction_set_that_is_not_there_is_refused_before_the_work(sambay, checkpoint, tmp_path, monkeypatch):
    def refuse():
        raise BackendError("SAMBAY_ISA=amx cannot run here")

    monkeypatch.setattr(native, "available", refuse)
    for options in ((), ("--threads", "1")):
        check(sambay("quantize", checkpoint, "-o", tmp_path / "out", *options), "SAMBAY_ISA=amx cannot run here")
    assert not (tmp_path / "out").exists()


def test_help_has_examples(sambay):
    result = sambay("quantize", "--help")
    assert result.status == 0
    assert "sambay quantize --random phi4-mini-flash" in result.out
