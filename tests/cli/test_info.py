"""`sambay info`: of a directory, of a preset, and without reading weights."""

import dataclasses
import json

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
@pytest.mark.parametrize("quantised", [False, True])
def test_sizes_of_states_are_those_of_a_pool(sambay, checkpoint, tmp_path, kept, quantised):
    directory = checkpoint
    if quantised:
        directory = tmp_path / "small"
        quantize(checkpoint, directory, method="rtn")
    found = report(sambay("info", directory, "--kv-cache-dtype", kept, "--json"))["state"]
    pool = SambaY.from_pretrained(directory).new_state(tokens=4096, cache_dtype=None if kept == "auto" else kept)
    assert found["total by context"]["4096"] == pool.nbytes
    assert found["cache dtype"] == str(pool.cache_dtype).removeprefix("torch.")
    if kept == "auto":
        assert found["cache dtype"] == ("bfloat16" if quantised else "float32")


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
