"""Checkpoints: names, round trips, strictness, and the memory that a mapped model takes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sambay import checkpoint
from sambay.checkpoint import (
    NAMES,
    load_generation_config,
    load_weights,
    resolve_dtype,
    save_config,
    save_generation_config,
    save_weights,
    to_disk_name,
    to_memory_name,
)
from sambay.config import SambaYConfig, preset
from sambay.errors import CheckpointError, ConfigError
from sambay.files import INDEX, SINGLE
from sambay.model import SambaY
from sambay.ops.backend import using

VARIANTS = {
    **{name: preset(name) for name in ("tiny", "tiny-plain")},
    "head-bias": dataclasses.replace(preset("tiny"), lm_head_bias=True, mamba_proj_bias=True, mlp_bias=True),
}


def empty(config: SambaYConfig) -> SambaY:
    with torch.device("meta"):
        return SambaY(config)


def loaded(config: SambaYConfig, directory: Path, **options) -> SambaY:
    model = empty(config)
    load_weights(model, directory, **options)
    return model


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert torch.equal(tensor, right[name]), name


@pytest.fixture(scope="module")
def tiny() -> SambaY:
    return SambaY.random(preset("tiny"), seed=1)


@pytest.fixture
def tiny_directory(tiny: SambaY, tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    save_weights(tiny, directory)
    return directory


def rewrite(directory: Path, change) -> None:
    """Apply `change` to the dict of tensors in the single file of a directory."""
    tensors = load_file(directory / SINGLE)
    change(tensors)
    (directory / SINGLE).unlink()
    save_file(tensors, directory / SINGLE, metadata={"format": "pt"})


# --- names ---


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_inverses_for_every_parameter(variant: str) -> None:
    names = list(empty(VARIANTS[variant]).state_dict())
    disk = [to_disk_name(name) for name in names]
    assert len(set(disk)) == len(names)
    assert [to_memory_name(name) for name in disk] == names


def test_the_table_is_one_to_one() -> None:
    assert len({memory for memory, _ in NAMES}) == len({disk for _, disk in NAMES}) == len(NAMES)


@given(st.integers(0, 10**6), st.sampled_from(NAMES))
def test_any_layer_number_comes_back(layer: int, pair: tuple[str, str]) -> None:
    memory, disk = (name.replace("*", str(layer)) for name in pair)
    assert to_disk_name(memory) == disk
    assert to_memory_name(disk) == memory


@pytest.mark.parametrize(
    "name",
    ["", "layers.0.mixer.qkv", "layers.*.mixer.D", "layers.01.mixer.D", "layers..mixer.D",
     "layers.-1.mixer.D", "model.layers.0.attn.D", "layers.0.mixer.D ", "layers.0.mixer.layers.1.D",
     "embed_tokens.weight"],
)  # fmt: skip
def test_an_unknown_name_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(repr(name))):
        to_disk_name(name)


def test_golden_names_are_all_known(golden_dir: Path) -> None:
    names = load_file(golden_dir / SINGLE).keys()
    config = SambaYConfig.from_json(golden_dir / "config.json")
    assert {to_memory_name(name) for name in names} == empty(config).state_dict().keys()


# --- round trips ---


@pytest.mark.parametrize("most", [5_000_000_000, 100_000, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_is_bit_exact(variant: str, most: int, tmp_path: Path) -> None:
    config = VARIANTS[variant]
    model = SambaY.random(config, seed=2, dtype=torch.bfloat16)
    save_weights(model, tmp_path, max_shard_bytes=most)
    save_config(config, tmp_path)
    assert SambaYConfig.from_json(tmp_path / "config.json") == config
    assert (tmp_path / INDEX).exists() == (most < 5_000_000_000)
    assert_same(model, loaded(config, tmp_path))
    if most == 100_000:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in model.state_dict().values())
        for shard in set(index["weight_map"].values()):
            tensors = load_file(tmp_path / shard)
            assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= most


@pytest.mark.parametrize("most", [5_000_000_000, 200_000])
def test_golden_saves_the_same_tensors(golden_dir: Path, most: int, tmp_path: Path) -> None:
    config = SambaYConfig.from_json(golden_dir / "config.json")
    save_weights(loaded(config, golden_dir), tmp_path, max_shard_bytes=most)
    before, after = load_file(golden_dir / SINGLE), {}
    for path in tmp_path.glob("*.safetensors"):
        after |= load_file(path)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert tensor.numpy().tobytes() == after[name].numpy().tobytes()


def test_conversion_device_and_progress(tiny: SambaY, tiny_directory: Path) -> None:
    seen: list[tuple[int, int]] = []
    model = loaded(
        preset("tiny"), tiny_directory, dtype=torch.float16, device=torch.device("cpu"),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    total = sum(tensor.nbytes for tensor in tiny.state_dict().values())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.half())


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_by_its_name(tiny: SambaY, tmp_path: Path, dtype: str | torch.dtype) -> None:
    tiny.save_pretrained(tmp_path)
    model = SambaY.from_pretrained(tmp_path, dtype=dtype)
    assert model.dtype == resolve_dtype(dtype) == torch.bfloat16
    assert SambaY.from_pretrained(tmp_path, torch_dtype=dtype).dtype == torch.bfloat16
    assert SambaY.from_pretrained(tmp_path, dtype="auto").dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int4", "float", "", torch.int8, torch.float64, 16])
def test_a_dtype_that_weights_cannot_have(tiny_directory: Path, dtype: object) -> None:
    with pytest.raises(ConfigError, match=r"dtype is .*: it must be one of auto, float32, bfloat16, float16$"):
        loaded(preset("tiny"), tiny_directory, dtype=dtype)


@pytest.mark.parametrize("content", [{}, {"eos_token_id": [1, 2], "temperature": 0.5}])
def test_the_generation_config_comes_back(tmp_path: Path, content: dict[str, object]) -> None:
    assert load_generation_config(tmp_path) == {}
    save_generation_config(content, tmp_path / "new")
    assert load_generation_config(tmp_path / "new") == content


def test_mixed_dtypes_on_disk(tiny_directory: Path) -> None:
    def widen(tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(torch.float64 if name.endswith("A_log") else torch.bfloat16)

    rewrite(tiny_directory, widen)
    kept = loaded(preset("tiny"), tiny_directory)
    assert kept.state_dict()["layers.0.mixer.A_log"].dtype == torch.float64
    one = loaded(preset("tiny"), tiny_directory, dtype=torch.float32)
    assert {tensor.dtype for tensor in one.state_dict().values()} == {torch.float32}


def test_without_kernels_bfloat16_is_left_to_torch(tmp_path: Path) -> None:
    SambaY.random(preset("tiny"), seed=1, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    with using("reference"):
        model = SambaY.from_pretrained(tmp_path / "half", inference=True)
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
        assert (model.dtype, model.matrix_dtype, model.cache_dtype) == (torch.bfloat16,) * 3
        assert not model.on_kernels
        assert model(torch.arange(9)).dtype is torch.bfloat16


def test_not_contiguous_parameters_are_saved(tiny: SambaY, tmp_path: Path) -> None:
    model = SambaY.random(preset("tiny"), seed=1)
    weight = model.layers[0].mlp.fc2.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    save_weights(model, tmp_path)
    assert_same(tiny, loaded(preset("tiny"), tmp_path))


# --- strictness ---


def test_missing_surplus_misshapen_and_integer_tensors(tiny_directory: Path) -> None:
    def spoil(tensors) -> None:
        del tensors["model.final_layernorm.weight"]
        tensors["model.layers.0.attn.rotary"] = torch.zeros(3)
        tensors["model.layers.0.attn.D"] = torch.zeros(7)
        tensors["model.layers.0.attn.A_log"] = torch.zeros(128, 8, dtype=torch.int64)

    rewrite(tiny_directory, spoil)
    with pytest.raises(CheckpointError) as caught:
        loaded(preset("tiny"), tiny_directory)
    message = str(caught.value)
    assert "1 missing: model.final_layernorm.weight (expected [64])" in message
    assert "1 surplus: model.layers.0.attn.rotary (found [3])" in message
    assert "1 misshapen: model.layers.0.attn.D (expected [128], found [7])" in message
    assert "model.layers.0.attn.A_log (expected one of F64, F32, F16, BF16, found I64)" in message


def test_at_most_five_tensors_are_named(tiny_directory: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\d+ more") as caught:
        loaded(dataclasses.replace(preset("tiny"), intermediate_size=164), tiny_directory)
    assert str(caught.value).count("found [") == 5


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tiny_directory: Path, dtype: torch.dtype) -> None:
    rewrite(tiny_directory, lambda tensors: tensors.update({k: t.to(dtype) for k, t in tensors.items()}))
    with pytest.raises(CheckpointError, match="of a wrong dtype"):
        loaded(preset("tiny"), tiny_directory, dtype=torch.bfloat16)


def test_a_tied_head_in_the_file_must_be_the_embedding(tiny: SambaY, tiny_directory: Path) -> None:
    embedding = tiny.state_dict()["embedding.weight"].clone()
    rewrite(tiny_directory, lambda tensors: tensors.update({"lm_head.weight": embedding}))
    assert_same(tiny, loaded(preset("tiny"), tiny_directory))
    embedding[3, 3] += 1
    rewrite(tiny_directory, lambda tensors: tensors.update({"lm_head.weight": embedding}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        loaded(preset("tiny"), tiny_directory)
    rewrite(tiny_directory, lambda tensors: tensors.update({"lm_head.weight": embedding[:5].clone()}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        loaded(preset("tiny"), tiny_directory)


def test_a_missing_untied_head_is_an_error(tmp_path: Path) -> None:
    config = preset("tiny-plain")
    save_weights(SambaY.random(config), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        loaded(config, tmp_path)


# --- failing to save ---


def test_a_full_disk_is_one_sentence(tiny: SambaY, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left.*make room"):
        save_weights(tiny, tmp_path, max_shard_bytes=300_000)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_config(preset("tiny"), tmp_path / "file")


def test_a_shard_bound_must_be_positive(tiny: SambaY, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="max_shard_bytes is 0"):
        save_weights(tiny, tmp_path, max_shard_bytes=0)


# --- the mapping ---


def test_training_a_mapped_model_does_not_touch_the_file(tiny: SambaY, tiny_directory: Path) -> None:
    before = (tiny_directory / SINGLE).read_bytes()
    model = loaded(preset("tiny"), tiny_directory)
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in model.parameters())
    loss = sum(parameter.float().square().sum() for parameter in model.parameters())
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert torch.equal(model.embedding.weight, tiny.embedding.weight - 0.2 * tiny.embedding.weight)
    assert (tiny_directory / SINGLE).read_bytes() == before
    # Saving over the file that the parameters are mapped from: the mapping keeps the old content alive.
    save_weights(model, tiny_directory)
    assert_same(model, loaded(preset("tiny"), tiny_directory))


MEMORY = """
import sys, torch
from torch import nn
from sambay.checkpoint import load_weights

def rollup():
    with open("/proc/self/smaps_rollup") as file:
        return {words[0][:-1]: int(words[1]) / 1024 for words in map(str.split, file) if words[1].isdigit()}

model = nn.Module()
with torch.device("meta"):
    model.embedding = nn.Embedding(25_000, 2048)
before = rollup()
load_weights(model, sys.argv[1], dtype=getattr(torch, sys.argv[2]))
opened = rollup()
model.embedding.weight.sum()
read = rollup()
print(opened["Rss"] - before["Rss"], read["Rss"] - before["Rss"], read["Anonymous"] - before["Anonymous"])
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux only")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_does_not_double(tmp_path: Path, dtype: str) -> None:
    size = 25_000 * 2048 * 4 / 2**20  # 195 MiB
    save_file({"model.embed_tokens.weight": torch.ones(25_000, 2048)}, tmp_path / SINGLE)
    script = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), dtype],
        env={**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[1])},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    opened, read, anonymous = map(float, script.stdout.split())
    slack = 30
    if dtype == "float32":  # a view of the file: no page is touched before it is used, none becomes private
        assert opened < slack
        assert read < size + slack
        assert anonymous < slack
    else:  # the converted copy, half the size, and no more once the mapping is closed
        assert read < size / 2 + slack
