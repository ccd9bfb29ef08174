"""Files: damage is one sentence, and a crash while writing leaves one whole set."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sambay import files
from sambay.errors import CheckpointError
from sambay.files import INDEX, SINGLE, atomic_write, open_weights, write_weights

ONE_FILE, SHARDS, MORE_SHARDS = 10**9, 1000, 600


def some_tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}.weight": torch.randn(3 + i, 20, generator=generator) for i in range(6)}


OLD, NEW = some_tensors(1), some_tensors(2)


def read(directory: Path) -> dict[str, torch.Tensor]:
    with contextlib.ExitStack() as stack:
        return {name: stored.read() for name, stored in open_weights(directory, stack).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    write_weights(NEW, tmp_path / "single", ONE_FILE)
    return tmp_path / "single"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_weights(NEW, tmp_path / "sharded", SHARDS)
    return tmp_path / "sharded"


# --- reading ---


def test_headers_then_tensors(sharded: Path) -> None:
    with contextlib.ExitStack() as stack:
        stored = open_weights(sharded, stack)
        assert {name: tensor.shape for name, tensor in stored.items()} == {n: tuple(t.shape) for n, t in NEW.items()}
        assert {tensor.dtype for tensor in stored.values()} == {"F32"}
    assert same(read(sharded), NEW)


def test_a_missing_shard(sharded: Path) -> None:
    min(sharded.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"model-00001-of-.*not there"):
        read(sharded)


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    first, second, *_ = sorted(sharded.glob("model-*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} is in both"):
        read(sharded)


def test_a_shard_that_lacks_its_tensor_or_has_another(sharded: Path) -> None:
    first = min(sharded.glob("model-*.safetensors"))
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file({"more": torch.zeros(1), **tensors}, first)
    with pytest.raises(CheckpointError, match="do not agree on more in"):
        read(sharded)
    del tensors[name]
    save_file(tensors, first)
    with pytest.raises(CheckpointError, match=f"do not agree on {re.escape(name)}"):
        read(sharded)


BAD_SHARDS = ["../x.safetensors", "/etc/passwd", "model.bin", "", None, 3, "a" * 3000 + ".safetensors", "\0"]


@pytest.mark.parametrize("shard", BAD_SHARDS)
def test_an_index_that_names_no_shard(sharded: Path, shard: object) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["layer.0.weight"] = shard
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=re.escape(INDEX)):
        read(sharded)


BAD_INDICES = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"weight_map": []}',
    b'{"weight_map": {}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", BAD_INDICES, ids=range(len(BAD_INDICES)))
def test_a_damaged_index(sharded: Path, content: bytes) -> None:
    (sharded / INDEX).write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(INDEX)):
        read(sharded)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds neither"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="is not a directory"):
        read(tmp_path / "absent")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pickle.*convert them to safetensors"):
        read(tmp_path)


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read(tmp_path)


def header_end(content: bytes) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


@settings(max_examples=60)
@given(data=st.data())
def test_truncation_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("cut")
    write_weights(NEW, directory, ONE_FILE)
    content = (directory / SINGLE).read_bytes()
    cut = data.draw(st.one_of(st.integers(0, header_end(content) + 8), st.integers(0, len(content) - 1)))
    (directory / SINGLE).write_bytes(content[:cut])
    with pytest.raises(CheckpointError, match=r"truncated or damaged.*again$") as caught:
        read(directory)
    assert str(directory / SINGLE) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(data=st.data())
def test_flipped_header_bits_never_escape(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("flip")
    write_weights(NEW, directory, ONE_FILE)
    content = bytearray((directory / SINGLE).read_bytes())
    end = header_end(content)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (directory / SINGLE).write_bytes(content)
    # A flip in a name, a shape or the metadata can be a valid file: that is for checkpoint.py.
    with contextlib.suppress(CheckpointError):
        read(directory)


BAD_HEADERS = [
    [],
    {"a": 1},
    {"a": {"dtype": "F6_E2M3", "shape": [0], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
]


@pytest.mark.parametrize("header", BAD_HEADERS, ids=range(len(BAD_HEADERS)))
def test_impossible_headers(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path)


def test_misaligned_data_is_copied_into_place(single: Path) -> None:
    content = (single / SINGLE).read_bytes()
    end = header_end(content)
    (single / SINGLE).write_bytes(struct.pack("<Q", end - 7) + content[8:end] + b" " + content[end:])
    found = read(single)
    assert same(found, NEW)
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in found.values())


# --- writing ---


@pytest.mark.parametrize("after", [ONE_FILE, SHARDS, MORE_SHARDS])
@pytest.mark.parametrize("before", [ONE_FILE, SHARDS])
def test_writing_over_leaves_no_stale_files(tmp_path: Path, before: int, after: int) -> None:
    write_weights(OLD, tmp_path, before)
    (tmp_path / ".model.safetensors.123-0123abcd.tmp").touch()  # of a save that was killed
    (tmp_path / "adapter_model.safetensors").touch()  # not ours to remove
    write_weights(NEW, tmp_path, after)
    assert same(read(tmp_path), NEW)
    expected = {"adapter_model.safetensors"}
    if after == ONE_FILE:
        expected |= {SINGLE}
    else:
        expected |= {INDEX, *json.loads((tmp_path / INDEX).read_text())["weight_map"].values()}
    assert names_in(tmp_path) == expected


@pytest.mark.parametrize("after", [ONE_FILE, SHARDS])
@pytest.mark.parametrize("before", [ONE_FILE, SHARDS])
def test_a_crash_anywhere_leaves_one_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    left = 0

    def crashing(function):
        def call(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return function(*args, **kwargs)

        return call

    # Everything that changes the directory, one step further each time, until a save runs through. Once it
    # has crashed nothing works any more, as after a kill: not the clean-up either.
    for step in range(100):
        directory = tmp_path / str(step)
        write_weights(OLD, directory, before)
        with monkeypatch.context() as patch:
            left = step
            # Not os.replace and os.unlink, which the Path of Python 3.10 does not look up when it is called.
            for home, name in ((Path, "replace"), (os, "fsync"), (Path, "unlink")):
                patch.setattr(home, name, crashing(getattr(home, name)))
            patch.setattr("safetensors.torch.save_file", crashing(save_file))
            try:
                write_weights(NEW, directory, after)
                break
            except KeyboardInterrupt:
                pass
        found = read(directory)
        assert same(found, OLD) or same(found, NEW)
        write_weights(NEW, directory, after)  # the next save succeeds and cleans up
        assert same(read(directory), NEW)
        assert not list(directory.glob(".*"))
    else:
        pytest.fail("the save never ran through")
    assert step >= 4


def test_a_failed_write_cleans_up_and_changes_nothing(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        if "00003" in str(args[1]):
            raise OSError(28, "No space left on device")
        save_file(*args, **kwargs)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_weights(OLD, single, MORE_SHARDS)
    assert names_in(single) == {SINGLE}
    assert same(read(single), NEW)


def test_writing_over_mapped_tensors(single: Path) -> None:
    found = read(single)  # views of the very file that is replaced now
    write_weights({name: found[name] for name in sorted(found)}, single, ONE_FILE)
    assert same(read(single), NEW)
    assert same(found, NEW)


@pytest.mark.skipif(os.name != "posix", reason="rights")
def test_files_have_the_rights_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_weights(NEW, tmp_path, SHARDS)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_atomic_write(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    atomic_write(path, b"one")
    atomic_write(str(path), lambda temporary: temporary.write_text("two"))
    assert path.read_bytes() == b"two"

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        atomic_write(path, fail)
    assert path.read_bytes() == b"two"
    assert names_in(tmp_path) == {"result.json"}
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "absent" / "x", b"")


def test_files_does_not_import_torch() -> None:
    script = "import sys, sambay.files; assert 'torch' not in sys.modules"
    source = str(Path(files.__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": source}, check=True)
