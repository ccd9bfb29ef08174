"""Quantised checkpoints: what is in the file, where it lies, that it is whole or not there, and clear errors."""

import dataclasses
import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sambay.checkpoint import to_disk_name, to_memory_name
from sambay.config import preset
from sambay.errors import CheckpointError, ConfigError
from sambay.model import SambaY
from sambay.quant import convert, stored
from sambay.quant.calibrate import Calibration
from sambay.quant.convert import quantize, random_checkpoint
from sambay.quant.formats import HEAD_FORMAT, QuantFormat, dequantise, unpack
from sambay.quant.rounding import quantise as round_weights
from sambay.quant.rounding import weight_error


def header(path):
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return 8 + size, json.loads(file.read(size))


def documents(count=6, length=40, vocabulary=71):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, vocabulary, (count, length), generator=generator).tolist()


def mapped_files(tensor):
    """The files that the memory of a tensor is mapped from."""
    address = tensor.data_ptr()
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123 - not a file in the ordinary sense
        for line in maps:
            span, *_, name = line.split(maxsplit=5)
            low, high = (int(part, 16) for part in span.split("-"))
            if low <= address < high:
                return name.strip()
    return ""


@pytest.mark.parametrize("variant", ["differential", "plain, untied"])
def test_where_the_data_lies(directories, variant):
    path = directories(variant) / "model.safetensors"
    begin, entries = header(path)
    metadata = entries.pop("__metadata__")
    assert begin % 64 == 0
    packed = {name: entry for name, entry in entries.items() if entry["dtype"] == "U8"}
    assert packed
    for name, entry in entries.items():
        start, end = entry["data_offsets"]
        if (end - start) % 64 == 0:
            assert start % 64 == 0, name
        else:
            assert start % 4 == 0, name
    described = json.loads(metadata["sambay_quantisation"])
    assert described["version"] == 2
    assert set(described["tensors"]) == {name.removesuffix(".packed") for name in packed}
    for name, entry in packed.items():
        one = described["tensors"][name.removesuffix(".packed")]
        nested = (one["bits"], one["group"]) == (4, 32)
        width, nbytes = (256, 2176) if nested else (2 * one["group"], 64 + 4 * one["group"] * one["bits"])
        assert entry["shape"] == [-(-one["rows"] // 16), -(-one["columns"] // width), nbytes]
    with safe_open(path, framework="pt") as file:  # the library reads it
        assert set(file.keys()) == set(entries)


def test_every_matrix_is_the_rounded_original(random_model, directories):
    original = random_model().state_dict()
    with safe_open(directories() / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            memory = to_memory_name(name)
            if not name.endswith(".packed"):
                assert torch.equal(file.get_tensor(name), original[memory])
                continue
            weight = original[memory.removesuffix("packed") + "weight"]
            format = HEAD_FORMAT if memory == "embedding.packed" else QuantFormat(4, 32)
            expected = round_weights(weight, format, "mse").weights()
            assert torch.equal(dequantise(file.get_tensor(name), format, *weight.shape), expected)


def test_the_config_says_so(directories):
    values = json.loads((directories() / "config.json").read_text())
    assert values["quantization_config"] == {
        "quant_method": "sambay", "version": 2, "method": "mse", "bits": 4, "group": 32, "head_bits": 6,
        "head_group": 128,
    }  # fmt: skip
    assert values["torch_dtype"] == "float32"


def test_loading_is_a_map_of_the_file(directories):
    model = SambaY.from_pretrained(directories())
    for name in ("layers.0.mixer.in_proj", "layers.7.mlp.fc2", "embedding"):
        packed = model.get_submodule(name).packed
        assert packed.data_ptr() % 64 == 0
        assert mapped_files(packed) == str((directories() / "model.safetensors").resolve())


def test_from_a_directory_as_from_memory(random_model, tmp_path):
    model = random_model(dtype=torch.bfloat16, torch_dtype="bfloat16")
    model.save_pretrained(tmp_path / "plain")
    for name in ("tokenizer.json", "chat_template.jinja", "LICENSE", "weights.bin", "optimizer.safetensors"):
        (tmp_path / "plain" / name).write_text("x")
    told = []
    summary = quantize(tmp_path / "plain", tmp_path / "a", progress=lambda *numbers: told.append(numbers))
    quantize(model, tmp_path / "b")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert told[-1][0] == told[-1][1] == summary.nbytes
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "LICENSE", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert summary.source_nbytes == sum(one.nbytes for one in model.state_dict().values())
    assert 0.03 < summary.weight_error < 0.1
    assert summary.output_error is None
    loaded = SambaY.from_pretrained(tmp_path / "a")
    assert loaded.dtype is torch.float32  # activations; what is not packed was bfloat16
    assert loaded.layers[0].mixer.A_log.bfloat16().equal(model.layers[0].mixer.A_log)
    with safe_open(tmp_path / "a" / "model.safetensors", framework="pt") as file:
        assert file.get_tensor("model.layers.0.attn.A_log").dtype is torch.bfloat16


def test_gptq_computes_better_and_rounds_worse(random_model, tmp_path):
    model = random_model()
    found = {}
    for method in ("rtn", "mse", "gptq"):
        found[method] = quantize(model, tmp_path / method, method=method, calibration=documents())
    assert found["gptq"].output_error < 0.9 * found["mse"].output_error
    assert found["mse"].output_error < found["rtn"].output_error
    assert found["mse"].weight_error < found["rtn"].weight_error
    assert found["gptq"].errors["embedding"] == found["mse"].errors["embedding"] != found["rtn"].errors["embedding"]
    assert set(found["gptq"].errors) == set(stored.quantisable(model))
    json.dumps(found["gptq"].to_dict())


def test_calibration_by_hand(random_model):
    model = random_model().eval()
    texts = documents(3, 20)
    seen = {}

    def keep(name):
        return lambda _module, args: seen.setdefault(name, []).append(args[0].reshape(-1, args[0].shape[-1]))

    names = ["layers.0.mixer.in_proj", "layers.3.mlp.fc2", "layers.5.mixer.Wqkv", "layers.7.mixer.out_proj"]
    handles = [model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    with torch.no_grad():
        for ids in texts:
            model(torch.tensor(ids))
    for handle in handles:
        handle.remove()
    for memory in (1 << 30, 1):  # all layers at once, one by one
        passes = []
        statistics = Calibration(model, texts, memory=memory, on_pass=lambda passes=passes: passes.append(1))
        for name in names:
            x = torch.cat(seen[name])
            torch.testing.assert_close(statistics.hessian(name), x.T @ x / 60, rtol=1e-4, atol=1e-5)
        assert len(passes) == (1 if memory > 1 else 4)


def test_random_models(tmp_path):
    config = dataclasses.replace(preset("tiny"), hidden_size=72, num_attention_heads=4, head_dim=16, lm_head_bias=True)
    format = QuantFormat(4, 32)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_checkpoint(config, format, tmp_path / name, seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    model = SambaY.from_pretrained(tmp_path / "a")
    assert model(torch.arange(9)).isfinite().all()
    plain = SambaY.random(config)
    for name, module in model.named_modules():
        if hasattr(module, "dequantised"):
            weight = module.dequantised()
            expected = plain.get_submodule(name).weight.detach().std()
            assert weight.std() == pytest.approx(float(expected), rel=0.1), name
            assert abs(weight.mean()) < 0.1 * weight.std()
            rows, columns = weight.shape
            whole = dequantise(module.packed, module.format, -(-rows // 16) * 16, columns)
            assert whole[rows:].count_nonzero() == 0
            codes = unpack(module.packed, module.format, rows, columns).codes
            share = (codes.float().abs() <= module.format.highest / 2).float().mean()
            assert 0.6 < share < 0.95, name  # a bell: most codes are small
    for name, parameter in model.named_parameters():
        if name.endswith(("A_log", "D", "norm.weight", "norm.bias", "lm_head.bias", "Wqkv.bias")):
            assert torch.equal(parameter, plain.get_parameter(name)), name


def test_random_models_of_plain_weights(tmp_path):
    config = dataclasses.replace(preset("tiny"), lm_head_bias=True, torch_dtype="bfloat16")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_checkpoint(config, None, tmp_path / name, seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    assert "quantization_config" not in json.loads((tmp_path / "a" / "config.json").read_text())
    model, plain = SambaY.from_pretrained(tmp_path / "a"), SambaY.random(config)
    assert model.dtype is torch.bfloat16
    assert model(torch.arange(9)).isfinite().all()
    for name, parameter in model.named_parameters():
        expected = plain.get_parameter(name).detach()
        if parameter.ndim == 2 and len(parameter) > 40 and not name.endswith("A_log"):
            spread = float(parameter.detach().float().std())
            assert spread == pytest.approx(float(expected.float().std()), rel=0.1), name


def test_a_quantised_model_is_saved_and_loaded_again(directories, tmp_path):
    model = SambaY.from_pretrained(directories("biases"))
    model.save_pretrained(tmp_path / "again")
    again = SambaY.from_pretrained(tmp_path / "again")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    first, second = (
        json.loads((path / "config.json").read_text()) for path in (directories("biases"), tmp_path / "again")
    )
    assert first["quantization_config"] == second["quantization_config"]
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        model.save_pretrained(tmp_path / "again")


# ---- whole or not there


def test_a_failure_leaves_nothing(random_model, tmp_path, monkeypatch):
    calls = []

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return round_weights(*args, **kwargs)

    monkeypatch.setattr(convert, "round_weights", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        quantize(random_model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_what_was_there(random_model, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        quantize(random_model(), tmp_path / "out", progress=stop)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    quantize(random_model(), tmp_path / "out")  # an empty directory may be filled
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o077 == (
        (tmp_path / "out" / "config.json").stat().st_mode & 0o077
    )


def test_an_empty_directory_is_filled_and_not_replaced(random_model, tmp_path, monkeypatch):
    """It may be where a disk is mounted, or the only place that this user can write to."""
    out = tmp_path / "out"
    out.mkdir()
    before, order = out.stat().st_ino, []
    rename = Path.rename

    def watched(path, target):
        order.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    quantize(random_model(), out)
    assert out.stat().st_ino == before
    assert order == ["model.safetensors", "config.json"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "model.safetensors", "out"]
    SambaY.from_pretrained(out)


@pytest.mark.skipif(os.name != "posix", reason="processes are not asked for elsewhere")
@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_run_has_left_is_removed(random_model, tmp_path, there):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    out = tmp_path / "out"
    place = out if there else tmp_path
    place.mkdir(exist_ok=True)
    gone = place / f".out.{ended.pid}-01234567.tmp"
    kept = [tmp_path / f".out.{os.getpid()}-01234567.tmp", tmp_path / f".other.{ended.pid}-01234567.tmp"]
    for path in (gone, *kept):
        path.mkdir()
        (path / "model.safetensors").write_text("half of it")
    quantize(random_model(), out)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, out])
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


def test_a_full_directory_is_refused_before_the_work(random_model, tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(convert, "round_weights", None)
    with pytest.raises(CheckpointError, match="exists and is not empty: choose another directory"):
        quantize(random_model(), tmp_path)
    with pytest.raises(CheckpointError, match="is not a directory"):
        quantize(random_model(), tmp_path / "file")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(CheckpointError, match="GB are free: make room"):
        quantize(random_model(), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "precious"]


# ---- clear errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 5}, "bits is 5: it must be one of 4, 6, 8"),
        ({"group": 48}, "group is 48: it must be one of 32, 64, 128"),
        ({"head_bits": 2}, "bits is 2"),
        ({"method": "awq"}, "method is 'awq'"),
        ({"method": "gptq"}, "'gptq' needs activations"),
        ({"method": "gptq", "calibration": [[]]}, "calibration data is empty"),
        ({"method": "gptq", "calibration": [[71]]}, "token 71 is outside the vocabulary of 71"),
    ],
)
def test_impossible_options(random_model, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        quantize(random_model(), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_no_number(random_model, tmp_path):
    model = random_model()
    model.layers[3].mlp.fc1.weight.data[2, 5] = torch.nan
    with pytest.raises(CheckpointError, match=r"model\.layers\.3\.mlp\.fc1\.weight cannot be quantised.*NaN"):
        quantize(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_twice(directories, tmp_path):
    for model in (directories(), SambaY.from_pretrained(directories())):
        with pytest.raises(CheckpointError, match="quantised already"):
            quantize(model, tmp_path / "out")


@pytest.fixture
def copy(directories, tmp_path):
    return shutil.copytree(directories(), tmp_path / "copy")


def change_config(copy, change):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def change_metadata(copy, change):
    path = copy / "model.safetensors"
    begin, entries = header(path)
    data = path.read_bytes()[begin:]
    change(entries["__metadata__"])
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def describe(**changes):
    def change(metadata):
        values = json.loads(metadata["sambay_quantisation"])
        metadata["sambay_quantisation"] = json.dumps(values | changes)

    return change


def describe_one(**changes):
    def change(metadata):
        values = json.loads(metadata["sambay_quantisation"])
        values["tensors"]["model.layers.1.mlp.fc1"].update(changes)
        metadata["sambay_quantisation"] = json.dumps(values)

    return change


DAMAGES = {
    "foreign": (
        lambda copy: change_config(copy, lambda v: v.update(quantization_config={"quant_method": "awq", "bits": 4})),
        "quantization_config of other software",
    ),
    "nonsense": (
        lambda copy: change_config(copy, lambda v: v.update(quantization_config="yes")),
        "quantization_config of other software",
    ),
    "no weights": (lambda copy: (copy / "model.safetensors").unlink(), "holds neither model.safetensors"),
    "truncated": (
        lambda copy: (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-9]),
        "truncated or damaged",
    ),
    "other sizes": (
        lambda copy: change_config(copy, lambda v: v.update(intermediate_size=53)),
        "do not fit its config.json: layers.0.mlp.fc1",
    ),
    "no metadata": (
        lambda copy: change_metadata(copy, lambda m: m.pop("sambay_quantisation")),
        "does not say how it is quantised",
    ),
    "not JSON": (
        lambda copy: change_metadata(copy, lambda m: m.update(sambay_quantisation="{")),
        "does not say how it is quantised",
    ),
    "later version": (
        lambda copy: change_metadata(copy, describe(version=3)),
        "has version 3 of the quantised format, this sambay reads 2: update sambay",
    ),
    "nested without end": (
        lambda copy: change_metadata(copy, lambda m: m.update(sambay_quantisation="[" * 100_000)),
        "does not say how it is quantised",
    ),
    "bits": (lambda copy: change_metadata(copy, describe_one(bits=3)), "describes model.layers.1.mlp.fc1 wrongly"),
    "bits, a fraction": (lambda copy: change_metadata(copy, describe_one(bits=4.0)), "wrongly (bits is 4.0"),
    "group": (lambda copy: change_metadata(copy, describe_one(group=64)), "model.layers.1.mlp.fc1.packed"),
    "name": (
        lambda copy: change_metadata(copy, describe(tensors={"model.layers.1.mlp.fc9": {}})),
        "describes model.layers.1.mlp.fc9 wrongly",
    ),
    "not said": (
        lambda copy: change_config(copy, lambda v: v.pop("quantization_config")),
        "model.embed_tokens.weight",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoints(copy, name):
    damage, words = DAMAGES[name]
    damage(copy)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        SambaY.from_pretrained(copy)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_packed_weights():
    assert to_disk_name("layers.3.mlp.fc1.packed") == "model.layers.3.mlp.fc1.packed"
    assert to_memory_name("model.embed_tokens.packed") == "embedding.packed"
    with pytest.raises(CheckpointError):
        to_disk_name("layers.3.mixer.A_log.packed")


def test_weight_error_is_what_it_says():
    weight = torch.tensor([[3.0, 4.0]])
    assert weight_error(weight, torch.tensor([[3.0, 4.5]])) == pytest.approx(0.1)
    assert mmap.PAGESIZE % 64 == 0  # what is aligned in the file is aligned in memory
