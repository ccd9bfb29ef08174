"""`sambay info`: of a directory, of a preset, and without reading weights."""

import dataclasses
import json
import re

import pytest

from sambay.cli import info as module
from sambay.config import PRESETS, preset
from sambay.model import SambaY
from sambay.quant.convert import quantize


def report(result):
    assert result.status == 0, result.err
    return json.loads(result.out)


def test_a_checkpoint(sambay, checkpoint):
    found = report(sambay("info", checkpoint, "--json"))
    config = preset("tiny")
    assert found["model"] == str(checkpoint)
    assert found["parameters"] == config.num_parameters()
    assert found["layers"] == [role.value for role in config.layer_plan()]
    count = config.num_parameters()
    assert found["weights"] == [{"dtype": "F32", "parameters": count, "bytes": 4 * count}]
    assert found["tokenizer"]["vocabulary"] == 400
    assert found["tokenizer"]["special tokens"]["<|end|>"] == 4
    assert found["tokenizer"]["chat template"] is True
    assert found["state"]["total by context"]["4096"] == found["state"]["fixed"] + 4096 * 256
    assert found["versions"]["sambay"]
    assert all(choice["reason"] for choice in found["backends"])


def test_the_released_model_by_its_known_numbers(sambay):
    found = report(sambay("info", "phi4-mini-flash", "--json"))
    assert found["parameters"] == 3_852_562_944
    assert found["weights"] == [{"dtype": "bfloat16", "parameters": 3_852_562_944, "bytes": 7_705_125_888}]
    assert found["state"]["bytes"]["shared KV per token"] == 5120
    assert list(found["state"]["total by context"]) == ["4096", "32768", "65536", "262144"]
    assert found["tokenizer"] is None
    text = sambay("info", "phi4-mini-flash").out
    assert "8 x (mamba, sliding attention)" in text
    assert "7 x (gated memory unit, cross-attention to the shared KV cache)" in text
    assert "7.176 GiB" in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(sambay, name):
    result = sambay("info", name)
    assert result.status == 0
    assert f"{PRESETS[name].num_parameters():,} parameters" in result.out


def test_the_page_of_a_checkpoint(sambay, checkpoint, wordless):
    text = sambay("info", checkpoint).out
    for title in ("Architecture", "Layers", "Weights", "State of a sequence", "Tokenizer", "Machine", "Backends"):
        assert f"\n{title}" in text
    assert "<|endoftext|> 0" in text
    assert "prompts are token ids" in sambay("info", wordless).out


@pytest.mark.parametrize("kept", ["auto", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "quantised"])
def test_sizes_of_states_are_those_of_a_pool(sambay, checkpoint, tmp_path, kept, weights):
    directory = checkpoint
    if weights == "quantised":
        directory = tmp_path / "small"
        quantize(checkpoint, directory, method="rtn")
    elif weights == "bfloat16":
        directory = tmp_path / "half"
        SambaY.from_pretrained(checkpoint, dtype=weights).save_pretrained(directory)
    found = report(sambay("info", directory, "--kv-cache-dtype", kept, "--json"))["state"]
    model = SambaY.from_pretrained(directory, inference=True)
    pool = model.new_state(tokens=4096, cache_dtype=None if kept == "auto" else kept)
    assert found["total by context"]["4096"] == pool.nbytes
    assert found["cache dtype"] == str(pool.cache_dtype).removeprefix("torch.")
    if kept == "auto":
        assert found["cache dtype"] == ("float32" if weights == "float32" else "bfloat16")


def test_sizes_of_a_cache_that_cannot_be_are_not_told(sambay, checkpoint, tmp_path):
    odd = dataclasses.replace(preset("tiny"), head_dim=18)
    SambaY.random(odd).save_pretrained(tmp_path / "odd")
    result = sambay("info", tmp_path / "odd", "--kv-cache-dtype", "int8")
    assert result.status == 1
    assert result.err == "error: a cache of int8 needs heads of a width that 4 divides, not 18: take bfloat16\n"


def test_no_weight_is_read(sambay, checkpoint, monkeypatch):
    def refuse(self):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("sambay.files.StoredTensor.read", refuse)
    assert sambay("info", checkpoint).status == 0


def test_a_directory_goes_before_a_preset(sambay, copy, monkeypatch):
    copy.rename(copy.parent / "tiny")
    monkeypatch.chdir(copy.parent)
    assert report(sambay("info", "tiny", "--json"))["tokenizer"] is not None


def test_sizes_for_people():
    sizes = {0: "0 B", 1000: "1000 B", 1024: "1 KiB", 1536: "1.5 KiB", 2**20: "1 MiB", 7_705_125_888: "7.176 GiB"}
    assert {count: module._size(count) for count in sizes} == sizes


@pytest.mark.parametrize(("dtype", "bits"), [("F32", 32), ("BF16", 16), ("F8_E4M3", 8), ("BOOL", 8), ("I64", 64)])
def test_bits(dtype, bits):
    assert module._bits(dtype) == bits


# ---- --verify


@pytest.fixture
def small(checkpoint, tmp_path):
    """A quantised checkpoint."""
    quantize(checkpoint, tmp_path / "small", method="rtn")
    return tmp_path / "small"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_weights_as_they_were_written(sambay, small):
    found = report(sambay("info", small, "--verify", "--json"))["verification"]
    assert found["intact"] is True
    assert found["bytes"] == sum(one["bytes"] for one in report(sambay("info", small, "--json"))["weights"])
    assert found["files"] == [
        {
            "file": "model.safetensors", "tensors": found["tensors"], "bytes": found["bytes"], "algorithm": "crc32",
            "header": True, "damaged": [],
        }
    ]  # fmt: skip
    result = sambay("info", small, "--verify")
    assert (result.status, result.err) == (0, "")
    assert re.search(
        rf"\nChecksums\n  as they were written  {found['tensors']} tensors, [0-9.]+ KiB  \(crc32\)", result.out
    )
    assert "Checksums" not in sambay("info", small).out
    assert report(sambay("info", small, "--json"))["verification"] is None


def test_weights_that_have_changed(sambay, small):
    path = small / "model.safetensors"
    flip(path, path.stat().st_size - 1)
    result = sambay("info", small, "--verify")
    assert (result.status, result.out) == (1, "")
    assert re.fullmatch(
        r"error: \S+small has changed since it was written, in 1 of \d+ tensors \(model\.\S+\): copy it again from "
        "where it is whole, or quantise the original again\n",
        result.err,
    )
    result = sambay("info", small, "--verify", "--json")
    found = json.loads(result.out)["verification"]
    assert result.status == 1
    assert result.err.startswith("error: ")
    assert found["intact"] is False
    assert len(found["files"][0]["damaged"]) == 1
    assert sambay("info", small).status == 0  # which reads none
    path.write_bytes(path.read_bytes()[:-5])
    result = sambay("info", small, "--verify")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert "truncated or damaged" in result.err


def test_weights_that_cannot_be_verified(sambay, checkpoint):
    result = sambay("info", checkpoint, "--verify")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert "model cannot be verified, as there are no checksums in model.safetensors: " in result.err
    result = sambay("info", checkpoint, "--verify", "--json")
    assert result.status == 1
    assert json.loads(result.out)["verification"]["intact"] is None


def test_a_preset_has_no_weights(sambay):
    result = sambay("info", "phi4-mini-flash", "--verify")
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert "phi4-mini-flash is a preset, which has no weights to --verify: give a directory" in result.err


def test_the_bar_of_verifying(sambay, small, terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal)
    assert sambay("info", small, "--verify").status == 0
    assert "Verifying" in terminal.getvalue()
