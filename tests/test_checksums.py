"""Checksums of weights: every kind of damage is found and named, whole files are whole, others are told apart."""

import json
import os
import random
import re
import shutil
import time
import weakref
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sambay import checksums
from sambay.checksums import KEY, checksum, verify, with_checksums
from sambay.config import SambaYConfig
from sambay.errors import CheckpointError
from sambay.files import INDEX, write_weights
from sambay.model import SambaY
from sambay.quant import stored
from sambay.quant.convert import quantize, random_checkpoint
from sambay.quant.formats import QuantFormat
from sambay.quant.stored import Quantisation, tensor_entry, write_checkpoint

BEFORE = Path(__file__).parent / "golden" / "quantised-before-checksums"
"""Written when there were no checksums yet: random weights of that configuration, 4 bits in groups of 32, seed 0."""

CONFIG = SambaYConfig.from_json(BEFORE / "config.json")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A quantised checkpoint; do not change it."""
    directory = tmp_path_factory.mktemp("checksums") / "model"
    random_checkpoint(CONFIG, QuantFormat(4, 32), directory)
    return directory


@pytest.fixture
def copy(pristine, tmp_path):
    """One to be damaged."""
    return shutil.copytree(pristine, tmp_path / "copy")


def parts(path):
    """Header and data of a file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def put(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def weights(directory):
    return directory / "model.safetensors"


def offsets(directory, name):
    """Where the data of a tensor begins and ends in the file."""
    header, data = parts(weights(directory))
    begin = weights(directory).stat().st_size - len(data)
    return [begin + one for one in header[name]["data_offsets"]]


def flip(directory, at, bit=0):
    with weights(directory).open("rb+") as file:
        file.seek(at)
        [old] = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ 1 << bit]))


def change_sums(directory, change):
    """Do something to what the metadata says of the checksums."""
    header, data = parts(weights(directory))
    values = json.loads(header["__metadata__"][KEY])
    change(values)
    header["__metadata__"][KEY] = json.dumps(values)
    put(weights(directory), header, data)


# ---- what is written


def test_a_random_a_converted_and_a_saved_model_are_as_they_were_written(pristine, tmp_path):
    quantize(SambaY.random(CONFIG), tmp_path / "converted", bits=8, group=64)
    SambaY.from_pretrained(tmp_path / "converted").save_pretrained(tmp_path / "saved")
    for directory in (pristine, tmp_path / "converted", tmp_path / "saved"):
        told = []
        found = verify(directory, lambda *numbers, told=told: told.append(numbers))
        header, data = parts(weights(directory))
        assert found.intact is True
        assert found.problem() is None
        assert (found.tensors, found.nbytes) == (len(header) - 1, len(data))
        assert told == sorted(told)
        assert told[-1] == (len(data), len(data))


def test_what_the_file_says(pristine):
    """As docs/quantised-format.md has it, and the library of the format still reads it."""
    header, data = parts(weights(pristine))
    assert all(isinstance(value, str) for value in header["__metadata__"].values())
    values = json.loads(header["__metadata__"].pop(KEY))
    assert values["algorithm"] == "crc32"
    names = [name for name in header if name != "__metadata__"]
    assert {name: f"{zlib.crc32(data[slice(*header[name]['data_offsets'])]):08x}" for name in names} == values[
        "tensors"
    ]
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    assert values["header"] == f"{zlib.crc32(canonical):08x}"
    assert (weights(pristine).stat().st_size - len(data)) % 64 == 0
    assert load_file(weights(pristine)).keys() == set(names)
    with safe_open(weights(pristine), framework="pt") as file:
        assert set(file.metadata()) == {"format", "sambay_quantisation", KEY}


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    made = []

    def entry(number):
        def make():
            assert all(one() is None for one in made), "an earlier tensor is still there"
            tensor = torch.full((3, 5), float(number))
            made.append(weakref.ref(tensor))
            return tensor

        return stored.Entry(f"t{number}", (3, 5), torch.float32, make)

    write_checkpoint(tmp_path, [entry(number) for number in range(6)], Quantisation({}, "rtn"), {}, {})
    assert len(made) == 6
    assert verify(tmp_path).intact


def test_tensors_of_every_kind(tmp_path):
    """Empty ones, single values, odd widths, transposed ones, each dtype that is written."""
    tensors = {
        "empty": torch.zeros(0, 7), "one": torch.tensor(3.0, dtype=torch.float64), "odd": torch.ones(33).bfloat16(),
        "turned": torch.arange(12.0).view(3, 4).T.half(), "bytes": torch.arange(200, dtype=torch.uint8),
    }  # fmt: skip
    write_checkpoint(tmp_path, [tensor_entry(*one) for one in tensors.items()], Quantisation({}, "rtn"), {}, {})
    assert verify(tmp_path).intact
    for name, tensor in load_file(weights(tmp_path)).items():
        assert torch.equal(tensor, tensors[name])


# ---- damage


def test_a_byte_of_codes_of_scales_and_of_a_plain_tensor(copy):
    """Each is named, and nothing else."""
    packed, plain = "model.layers.1.mlp.fc2.packed", "model.layers.0.attn.A_log"
    start, end = offsets(copy, packed)
    header_nbytes = QuantFormat(4, 32).header_nbytes
    for at, name in (
        (start, packed),
        (start + header_nbytes, packed),
        (end - 1, packed),
        (offsets(copy, plain)[0], plain),
    ):
        flip(copy, at)
        found = verify(copy)
        assert found.intact is False
        assert found.files[0].damaged == (name,)
        assert found.files[0].header
        flip(copy, at)
    assert verify(copy).intact


def test_no_flipped_bit_goes_unnoticed(copy):
    """Of the length, the header, its padding and the data; that of the key leaves a file without checksums."""
    size, dice = weights(copy).stat().st_size, random.Random(0)
    begin = size - len(parts(weights(copy))[1])
    key = weights(copy).read_bytes().index(KEY.encode())
    places = [*range(8), key, *(dice.randrange(8, begin) for _ in range(120)), begin - 1, begin]
    for at in [*places, *(dice.randrange(begin, size) for _ in range(30)), size - 1]:
        bit = dice.randrange(8)
        flip(copy, at, bit)
        try:
            problem = verify(copy).problem()
        except CheckpointError as error:
            problem = str(error)
        assert problem, (at, bit)
        assert "\n" not in problem
        flip(copy, at, bit)
    assert verify(copy).intact


def test_two_tensors_swapped(copy):
    """The data of one for that of another, or what the header says of where they are: the same names."""
    names = ["model.layers.0.mlp.fc2.packed", "model.layers.1.mlp.fc2.packed"]
    (a, end), (b, _) = (offsets(copy, name) for name in names)
    content = bytearray(weights(copy).read_bytes())
    size = end - a
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
    weights(copy).write_bytes(content)
    assert sorted(verify(copy).files[0].damaged) == names

    header, data = parts(weights(copy))
    one, other = (header[name] for name in names)
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    put(weights(copy), header, data)
    found = verify(copy)  # the data is where it is said to be now, but that was not said
    assert found.files[0].damaged == ()
    assert found.files[0].header is False
    assert "has changed since it was written, in the header of model.safetensors: copy it again" in found.problem()


def test_the_metadata_changed(copy):
    header, data = parts(weights(copy))
    values = json.loads(header["__metadata__"]["sambay_quantisation"])
    values["tensors"]["model.layers.1.mlp.fc2"]["rows"] += 1
    header["__metadata__"]["sambay_quantisation"] = json.dumps(values)
    put(weights(copy), header, data)
    assert (verify(copy).intact, verify(copy).files[0].header) == (False, False)


def test_a_header_written_otherwise_says_the_same(copy):
    header, data = parts(weights(copy))
    put(weights(copy), dict(reversed(header.items())), data)
    assert verify(copy).intact


def test_cut_short(copy):
    size = weights(copy).stat().st_size
    for left in (size - 1, size // 2, 100, 8, 0):
        os.truncate(weights(copy), left)
        with pytest.raises(CheckpointError, match=r"is truncated or damaged .*: download or copy it again"):
            verify(copy)


def test_cut_short_while_it_is_read(copy, monkeypatch):
    """And not the end of the process, as it would be of a mapped file."""
    monkeypatch.setattr(checksums, "_PIECE", 256)
    half = weights(copy).stat().st_size // 2
    with pytest.raises(CheckpointError, match="has become shorter"):
        verify(copy, lambda done, total: os.truncate(weights(copy), half))


def test_a_disk_that_fails(pristine, monkeypatch):
    class Failing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def readinto(self, room):
            raise OSError(5, "Input/output error")

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **options: Failing(opened(path, *rest, **options)))
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read \(.*Input/output error\)"):
        verify(pristine)


def test_stopped_in_the_middle(tmp_path, monkeypatch):
    """By Ctrl-C, say: the tensor that is being read then is not read to its end."""
    tensors = {name: torch.zeros(500, dtype=torch.uint8) for name in "ab"}
    write_checkpoint(tmp_path, [tensor_entry(*one) for one in tensors.items()], Quantisation({}, "rtn"), {}, {})
    monkeypatch.setattr(checksums, "_PIECE", 1)
    monkeypatch.setattr(checksums, "_threads", lambda: 1)
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == 1:
            raise KeyboardInterrupt
        time.sleep(0.01)  # so that the thread that waits has its turn

    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, stop)
    assert len(seen) < 500


# ---- checksums that are none


def test_checksums_of_too_few_and_of_too_many(copy):
    def change(values):
        values["tensors"]["more"] = values["tensors"].pop("model.layers.0.mlp.fc1.packed")

    change_sums(copy, change)
    found = verify(copy)
    assert found.intact is False
    assert found.files[0].damaged == ("model.layers.0.mlp.fc1.packed", "more")


@pytest.mark.parametrize("value", [None, 7, "", "ffffffff", "FFFFFFFF", ["00000000"], {}])
def test_a_checksum_of_the_wrong_kind(copy, value):
    change_sums(copy, lambda values: values["tensors"].update({"model.final_layernorm.weight": value}))
    assert verify(copy).files[0].damaged == ("model.final_layernorm.weight",)
    change_sums(copy, lambda values: values.update(header=value))
    assert verify(copy).files[0].header is False


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", '"crc32"', "{}", '{"algorithm": "crc32"}', "[" * 100_000]
    + [f'{{"algorithm": "crc32", "header": "", "tensors": {one}}}' for one in ("null", "[]", "[[1, 2]]", '"x"')],
)  # fmt: skip
def test_checksums_that_cannot_be_read(copy, text):
    header, data = parts(weights(copy))
    header["__metadata__"][KEY] = text
    put(weights(copy), header, data)
    with pytest.raises(CheckpointError, match=r"has checksums that cannot be read \(.*copy it again") as caught:
        verify(copy)
    assert "\n" not in str(caught.value)
    SambaY.from_pretrained(copy)  # which needs none


def test_checksums_of_a_later_kind(copy):
    change_sums(copy, lambda values: values.update(algorithm="xxh3"))
    with pytest.raises(CheckpointError, match="of the kind 'xxh3', this sambay knows crc32: update sambay"):
        verify(copy)


# ---- files without


def test_a_file_from_before(pristine):
    """It loads, and holds what the same seed gives today; nobody can tell whether it is as it was written."""
    old, new = SambaY.from_pretrained(BEFORE), SambaY.from_pretrained(pristine)
    for name, tensor in old.state_dict().items():
        assert torch.equal(tensor, new.state_dict()[name]), name
    ids = torch.arange(9)
    with torch.no_grad():
        assert torch.equal(old(ids), new(ids))
    assert parts(weights(BEFORE))[1] == parts(weights(pristine))[1]
    found = verify(BEFORE)
    assert found.intact is None
    assert found.files[0].algorithm is None
    assert re.search(
        r"cannot be verified, as there are no checksums in model\.safetensors: .*came from", found.problem()
    )


def test_shards(tmp_path):
    """Plain ones have no checksums; where some have, those are compared."""
    generator = torch.Generator().manual_seed(0)
    write_weights({f"t{i}": torch.randn(9, 9, generator=generator) for i in range(6)}, tmp_path, 700)
    paths = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(paths) == 3
    assert verify(tmp_path).intact is None
    assert [one.algorithm for one in verify(tmp_path).files] == [None] * 3

    def add_sums(path):
        header, data = parts(path)
        names = header.keys() - {"__metadata__"}
        sums = {name: checksum(memoryview(data)[slice(*header[name]["data_offsets"])]) for name in names}
        put(path, with_checksums(header, sums), data)

    add_sums(paths[0])
    found = verify(tmp_path)
    assert found.intact is None
    assert "no checksums in model-00002-of-00003.safetensors, model-00003-of-00003.safetensors: " in found.problem()
    for path in paths[1:]:
        add_sums(path)
    found = verify(tmp_path)
    assert found.intact is True
    assert (found.tensors, found.nbytes) == (6, 6 * 324)
    for path in paths[1:]:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    found = verify(tmp_path)
    assert found.intact is False
    assert [one.damaged for one in found.files] == [(), ("t3",), ("t5",)]
    assert "in 2 of 6 tensors (t3, t5): copy it again" in found.problem()
    paths[2].unlink()
    with pytest.raises(CheckpointError, match=f"{INDEX} names model-00003-of-00003.safetensors, not there"):
        verify(tmp_path)


def test_headers_without_metadata(tmp_path):
    """As other writers have them."""
    save_file({"a": torch.ones(3)}, weights(tmp_path))
    assert verify(tmp_path).intact is None
    header, data = parts(weights(tmp_path))
    assert "__metadata__" not in header
    put(weights(tmp_path), with_checksums(header, {"a": checksum(memoryview(data))}), data)
    assert verify(tmp_path).intact
    save_file({}, weights(tmp_path))
    assert verify(tmp_path).intact is None
    assert "no checksums" in verify(tmp_path).problem()


# ---- memory


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which only Linux has")
def test_large_tensors_take_little_memory(tmp_path):
    """256 MB of zeros, of which the disk holds none."""
    size, chunk = 1 << 28, bytes(1 << 20)
    found = 0
    for _ in range(size >> 20):
        found = zlib.crc32(chunk, found)
    header = {"zeros": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    put(weights(tmp_path), with_checksums(header, {"zeros": f"{found:08x}"}), b"")
    os.truncate(weights(tmp_path), weights(tmp_path).stat().st_size + size)

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before, most = held(), 0

    def look(done, total):
        nonlocal most
        most = max(most, held())

    assert verify(tmp_path, look).intact
    assert 0 < most < before + (64 << 20)
