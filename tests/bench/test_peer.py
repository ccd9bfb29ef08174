"""The peer: its model, the shortcut to a depth, and how turns with it are reported. Never how fast anything is."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sambay.bench import fill, generation
from sambay.bench import peer as peers
from sambay.bench.decode import Cell, measure_cells, measure_decode, measure_later
from sambay.bench.generation import generation_bytes, measure_latency, measure_throughput
from sambay.bench.peer import Peer, Turns, check_peer, peer_traffic, take_turns
from sambay.bench.peer_llama import LlamaCaches, LlamaModel, cache_bytes
from sambay.bench.peer_model import PHI4_MINI, PeerShape, locate_peer, peer_operations, write_peer
from sambay.bench.prefill import measure_prefill
from sambay.errors import BackendError, CheckpointError, ConfigError, MissingExtraError

TINY = PeerShape(
    "tiny", layers=2, hidden=256, heads=4, kv_heads=2, ffn=512, vocab=1024, rotary=48, context=4096
)  # fmt: skip

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec("gguf") is None, reason="gguf is not installed: pip install 'sambay[peer]'"
)
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None or importlib.util.find_spec("gguf") is None,
    reason="llama-cpp-python is not installed: pip install 'sambay[peer]'",
)


# Its model


def test_the_shape_of_phi4_mini():
    layer = 3072 * (3072 + 2 * 1024) + 3072 * 3072 + 3 * 3072 * 8192 + 2 * 3072
    assert PHI4_MINI.parameters == 32 * layer + 200_064 * 3072 + 3072 == 3_836_021_760
    assert PHI4_MINI.token_bytes == 131_072
    quantised = 32 * (layer - 2 * 3072) // 32 * 18 + 200_064 * 3072 // 256 * 210
    assert PHI4_MINI.nbytes == quantised + 4 * (65 * 3072 + 96)
    assert cache_bytes(PHI4_MINI, 3, 257) == 3 * 512 * 131_072
    one = peer_traffic(PHI4_MINI, 2, 100, 3)  # steps that see 101, 102 and 103 tokens, each with a new one
    assert one.to_dict() == {"weights": PHI4_MINI.nbytes, "cache": 2 * 103 * 131_072, "total": one.total}


def test_operations_of_the_peers_prompt_by_hand():
    attention, mlp = 256 * (256 + 2 * 128) + 256 * 256, 3 * 256 * 512
    scores = 2 * 2 * 256 * (1 + 2 + 3)  # layers, queries with keys and weights with values
    assert peer_operations(TINY, 3) == 2 * (3 * (2 * attention + mlp) + mlp + 256 * 1024 + scores)


def test_random_blocks_have_the_spread_of_an_initialised_model():
    tensors = {tensor.name: tensor for tensor in TINY.tensors()}
    four = tensors["blk.1.ffn_down.weight"]
    assert four.shape == (256, 512)
    content = four.make()
    assert np.array_equal(content, four.make())
    assert content.shape == (256, 512 // 32 * 18)
    blocks = content.reshape(-1, 18)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1) - 8.0
    weights = codes * blocks[:, :2].copy().view(np.float16).astype(np.float32)
    assert weights.std() == pytest.approx(1 / np.sqrt(3 * 512), rel=0.02)
    six = tensors["token_embd.weight"]
    blocks = six.make().reshape(-1, 210)
    low = np.concatenate([blocks[:, :128] & 15, blocks[:, :128] >> 4], axis=1).astype(np.int16)
    scales = np.repeat(blocks[:, 192:208].view(np.int8), 16, axis=1)
    assert scales.min() == 8
    assert scales.max() == 23
    high = np.random.default_rng(0).integers(0, 4, low.shape)  # any two bits: they are even, too
    weights = (low + 16 * high - 32.0) * scales * blocks[:, 208:].copy().view(np.float16).astype(np.float32)
    assert weights.std() == pytest.approx(0.02, rel=0.05)
    assert np.array_equal(tensors["blk.0.attn_norm.weight"].make(), np.ones(256, np.float32))


@needs_gguf
def test_the_file(tmp_path, monkeypatch):
    import gguf

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = []
    path = locate_peer(TINY, lambda *done: told.append(done))
    assert path.parent == tmp_path / "sambay" / "peer"
    assert told[-1] == (TINY.nbytes, TINY.nbytes)
    told.clear()
    assert locate_peer(TINY, lambda *done: told.append(done)) == path
    assert told == []
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert list(found) == [tensor.name for tensor in TINY.tensors()]
    for tensor in TINY.tensors():
        its = found[tensor.name]
        assert its.shape.tolist() == list(tensor.shape[::-1])
        assert its.tensor_type.name == tensor.type
        assert np.array_equal(its.data, tensor.make())
        if tensor.type != "F32":
            weights = gguf.quants.dequantize(its.data, its.tensor_type)
            assert weights.std() == pytest.approx(tensor.spread, rel=0.05)
    del its, reader, found


@needs_gguf
def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"the peer's model of 0.00 GB cannot be written"):
        write_peer(TINY, tmp_path / "file" / "peer.gguf")


# Whether it is there


def test_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"there is no peer 'vllm': choose llama.cpp"):
        check_peer("vllm", "on")
    with pytest.raises(ConfigError, match="--peer-flash maybe is no setting: choose better or on or off"):
        check_peer("llama.cpp", "maybe")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtraError, match=r"needs llama-cpp-python, which .*: pip install 'sambay\[peer\]'"):
        check_peer("llama.cpp", "on")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"needs gguf, which is not installed: pip install 'sambay\[peer\]'"):
        write_peer(TINY, tmp_path / "peer.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_does_not_load_or_is_too_old(tmp_path, monkeypatch):
    package = tmp_path / "llama_cpp"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('Failed to load\\nshared library')")
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"its library cannot be loaded: Failed to load shared library$"):
        check_peer("llama.cpp", "on")
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(__version__="0.2.0"))
    with pytest.raises(BackendError, match=r"llama-cpp-python 0.2.0 is too old for --peer: pip install -U"):
        check_peer("llama.cpp", "on")


# Turns with it


class Pretended:
    """Caches whose steps take 2 seconds, with flash attention 3."""

    def __init__(self, clock, flash, calls):
        self._clock, self._seconds, self._calls = clock, 3 if flash else 2, calls

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._calls.append("close")

    def seek(self, sequences, depth):
        self._calls.append(("seek", sequences, depth))

    def step(self, sequences):
        self._clock[0] += self._seconds

    def prompt(self, length):
        self._clock[0] += self._seconds * length


@pytest.fixture
def other(clock, quick, monkeypatch):
    """A peer of pretended caches, and what is done with them."""
    calls = []

    def opened(self, *arguments):
        calls.append(("open", *arguments))
        return Pretended(clock, arguments[-1], calls)

    monkeypatch.setattr(Peer, "at_depth", opened)
    monkeypatch.setattr(Peer, "for_prompt", opened)
    monkeypatch.setattr(peers, "free_memory", lambda: None)
    model = SimpleNamespace(shape=TINY, most=256, close=lambda: None, load=lambda: None)
    return SimpleNamespace(peer=Peer(model, (False, True)), calls=calls)


def test_turns_are_taken_and_the_better_setting_counts(other):
    seen = []
    turns = take_turns(
        other.peer,
        lambda flash: Pretended([0.0], flash, seen),
        lambda: seen.append("probe") or 1.0,
        lambda: seen.append("ours") or 4.0,
        lambda caches: seen.append("theirs") or float(caches._seconds),
        rounds=2,
        work=3.0,
        tick=lambda: seen.append("tick"),
    )
    assert seen == (["probe", "ours", "theirs", "tick"] * 2 + ["close"]) * 2
    assert not turns.flash
    assert turns.theirs == (2.0, 2.0)
    assert turns.ratio == 1.5
    assert [(one.flash, one.ratio) for one in turns.others] == [(True, 2.25)]
    assert Turns(True, (), (1.0, 1.0, 1.0), (2.0, 3.0, 9.0)).ratio == 3.0


def test_decode(packed, other):
    told = []
    rows = measure_decode(
        packed, [0, 20], [2], tokens=4, rounds=3, peer=other.peer, progress=lambda *done: told.append(done)
    )
    assert told == [(done, 12) for done in range(1, 13)]
    assert [call for call in other.calls if call[0] == "open"] == [
        ("open", 2, depth, 4, flash) for depth in (0, 20) for flash in (False, True)
    ]
    assert other.calls.count("close") == 4
    assert other.calls.count(("seek", 2, 20)) == 6
    ours, its = rows[1].rows()
    assert (ours["engine"], ours["depth"]) == ("sambay", 20)
    assert ours["seconds"]["median"] == 0.125
    assert (its["engine"], its["batch"], its["depth"]) == ("llama.cpp", 2, 20)
    assert its["seconds"]["median"] == (0.5 + 4 * 2) / 4
    assert its["ratio"] == 2.125 / 0.125
    assert not its["flash"]
    assert its["in_turns"]
    [worse] = its["other_settings"]
    assert (worse["flash"], worse["ratio"]) == (True, 3.125 / 0.125)
    moved = TINY.nbytes + 2 * (20 + 2.5 + 1) * TINY.token_bytes
    assert its["bytes"]["total"] == moved
    assert its["share"] == pytest.approx(moved / 2.125 / 1e9)
    json.dumps(its)


def test_what_the_peer_cannot_hold(packed, other, monkeypatch):
    assert other.peer.obstacle(1, 4096) is None
    assert other.peer.obstacle(1, 4097) == "4,097 tokens are more than its context of 4,096"
    assert other.peer.obstacle(300, 1) == "300 sequences are more than the 256 that it can hold"
    monkeypatch.setattr(peers, "free_memory", lambda: 0)
    [row] = measure_decode(packed, [20], [2], tokens=1, rounds=1, peer=other.peer)
    ours, its = row.rows()
    assert ours["seconds"]["median"] == 0.5
    assert its == {
        "engine": "llama.cpp", "batch": 2, "depth": 20,
        "obstacle": "its caches of 21 tokens take 0.0 GB, and 0.0 GB are free",
    }  # fmt: skip
    assert other.calls == []
    for row in measure_prefill(packed, [20], [0], rounds=1, peer=other.peer)[1::2]:
        assert row["obstacle"].endswith("0.0 GB are free")
    ours, its = measure_latency(packed, 4, 30, points=2, tokens=1, rounds=1, peer=other.peer)[2:]
    assert "seconds" in ours
    assert "obstacle" in its


def test_the_peer_afterwards_when_both_do_not_fit(packed, other, monkeypatch):
    [found] = measure_cells(packed, [Cell(6, 20, 2)], tokens=1, rounds=3)
    later = measure_later(found, other.peer, 2, tokens=1, rounds=3)
    assert later.times == found.times == (0.5,) * 3
    its = later.peer.to_dict()
    assert its["ratio"] == pytest.approx(6 / 2 * 2.5 / 0.5)
    assert its["other_settings"][0]["ratio"] == pytest.approx(6 / 2 * 3.5 / 0.5)
    assert not its["in_turns"]
    monkeypatch.setattr(peers, "free_memory", lambda: 0)
    assert measure_later(found, other.peer, 2, tokens=1, rounds=3).peer.obstacle.endswith("0.0 GB are free")


@pytest.mark.parametrize("free", [0, 10**12])
def test_its_model_is_not_loaded_while_ours_needs_the_memory(packed, other, monkeypatch, free):
    monkeypatch.setattr(generation, "free_memory", lambda: free)
    monkeypatch.setattr(generation, "check_memory", lambda *_: None)
    monkeypatch.setattr(fill, "check_memory", lambda *_: None)
    events = []
    other.peer.model.close, other.peer.model.load = lambda: events.append("closed"), lambda: events.append("loaded")
    monkeypatch.setattr(
        generation, "measure_cells", lambda *at, **of: events.append("measured") or measure_cells(*at, **of)
    )
    monkeypatch.setattr(generation, "_peer_fit", lambda *_: 2)
    budget = generation_bytes(packed, 4, 34) + 10
    ours, its = measure_throughput(
        packed, [1], 4, 30, points=2, tokens=1, rounds=1, memory=budget, peer=other.peer
    )[2:]  # fmt: skip
    assert (ours["batch"], its["batch"]) == (4, 2)
    together = free > 0
    assert its["in_turns"] == together
    apart = ["measured"] if together else ["closed", "measured", "loaded"]
    assert events == ["closed", "loaded", "measured", *apart, *apart]


def test_prefill(packed, other):
    rows = measure_prefill(packed, [8, 20], [6], rounds=2, peer=other.peer)
    assert [(row["engine"], row["length"], row["chunk"]) for row in rows] == [
        ("sambay", 8, 6), ("llama.cpp", 8, 8), ("sambay", 20, 6), ("llama.cpp", 20, 20)
    ]  # fmt: skip
    ours, its = rows[2:]
    assert ours["seconds"]["median"] == 0.5
    assert its["seconds"]["median"] == 40.5
    assert its["ratio"] == 81
    assert its["operations"] == peer_operations(TINY, 20)
    assert its["share"] == pytest.approx(its["operations"] / 40.5 / 1e9)


def test_latency(packed, other):
    rows = measure_latency(packed, 4, 30, points=3, tokens=1, rounds=2, peer=other.peer)
    assert [(row["engine"], row["generated"]) for row in rows[::2]] == [("sambay", 0), ("sambay", 15), ("sambay", 30)]
    theirs = rows[1::2]
    assert [row["generated"] for row in theirs] == [0, 15, 30]
    assert [row["seconds_since_start"] for row in theirs] == [0, 15 * 2.5, 30 * 2.5]
    assert [row["ratio_since_start"] for row in theirs] == [None, 5, 5]


def test_throughput(packed, other):
    end = 104
    room = TINY.nbytes + 2 * cache_bytes(TINY, 1, end)
    rows = measure_throughput(packed, [1], 4, 100, points=2, tokens=1, rounds=2, memory=room, peer=other.peer)
    each = generation_bytes(packed, 1, end) - generation_bytes(packed, 0, end)
    fit = (room - generation_bytes(packed, 0, end)) // each
    assert [(row["engine"], row["batch"], row["budget"]) for row in rows] == [
        ("sambay", 1, None), ("llama.cpp", 1, None), ("sambay", fit, room), ("llama.cpp", 2, room)
    ]  # fmt: skip
    ours, its = rows[2:]
    assert its["memory"] == room
    assert its["ratio_to_one"] == 2  # a step takes as long
    assert its["ratio"] == pytest.approx(ours["tokens_per_second"] / its["tokens_per_second"])
    assert len(its["depths"]) == 2
    small = generation_bytes(packed, 1, end)
    rows = measure_throughput(packed, [1], 4, 100, points=2, tokens=1, rounds=2, memory=small, peer=other.peer)
    assert rows[-1]["obstacle"] == "its weights and one sequence of 104 tokens need more"


# llama.cpp itself


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("peer") / "tiny.gguf"
    write_peer(TINY, path)
    model = LlamaModel(path, TINY, 1)
    yield model
    model.close()


@needs_llama
@pytest.mark.slow
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("depth", [1, 37, 300])
def test_a_made_up_state_is_laid_out_as_a_real_one(llama, flash, depth):
    with LlamaCaches(llama, 3, 320, flash=flash, prompt=320) as caches:
        logits = caches.prompt(depth)
        assert np.isfinite(logits).all()
        assert logits.std() > 0.01
        real, made = caches.real_state(0), caches.made_up_state(0, depth)
        assert real.shape == made.shape
        start, part = 4 * (4 + 3 * depth + 2), 12 + 2 * depth * TINY.kv
        assert np.array_equal(real[:start], made[:start])
        for place in range(2 * TINY.layers):
            at = start + place * part
            assert np.array_equal(real[at : at + 12], made[at : at + 12])
            assert not np.array_equal(real[at + 12 : at + part], made[at + 12 : at + part])
            values = made[at + 12 : at + part].view(np.float16)
            assert ((np.abs(values) >= 0.5) & (np.abs(values) < 1)).all()
        assert np.array_equal(real[start + 2 * TINY.layers * part :], made[start + 2 * TINY.layers * part :])
        caches.fill(depth)
        for sequence in range(3):
            found = caches.real_state(sequence)
            assert np.array_equal(found, caches.made_up_state(sequence, depth))


@needs_llama
@pytest.mark.slow
@pytest.mark.parametrize("flash", [False, True])
def test_what_is_restored_is_what_was_computed(llama, monkeypatch, flash):
    """The way of the shortcut, with the numbers of a real prompt."""
    with LlamaCaches(llama, 1, 320, flash=flash, prompt=320) as caches:
        caches.prompt(300)
        real, at = caches.real_state(0), caches._at
        expected = caches.step(1).copy()
    monkeypatch.setattr(LlamaCaches, "made_up_state", lambda self, sequence, depth: real)
    with LlamaCaches(llama, 1, 320, flash=flash, prompt=320) as caches:
        caches.fill(300)
        caches._at = at
        assert np.array_equal(caches.step(1), expected)


@needs_llama
@pytest.mark.slow
@pytest.mark.parametrize("flash", [False, True])
def test_seeking_and_stepping(llama, flash):
    with LlamaCaches(llama, 2, 64, flash=flash) as caches:
        caches.fill(40)
        before = caches.real_state(1)
        for _ in range(2):
            for _ in range(5):
                assert np.isfinite(caches.step(2)).all()
            assert caches.real_state(1).size > before.size
            caches.seek(2, 40)
            assert np.array_equal(caches.real_state(1), before)


@needs_llama
@pytest.mark.slow
def test_what_llama_refuses(llama, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nonsense")
    with pytest.raises(BackendError, match=r"llama.cpp cannot load .*broken.gguf: .+"):
        LlamaModel(tmp_path / "broken.gguf", TINY, 1)
    with LlamaCaches(llama, 1, 256, flash=False) as caches, pytest.raises(BackendError, match="does not take a state"):
        caches.fill(1000)


@needs_llama
@pytest.mark.slow
@pytest.mark.parametrize("flash", [False, True])
def test_everything_beside_llama(llama, packed, quick, flash):
    peer = Peer(llama, (flash,))
    [row] = measure_decode(packed, [20], [2], tokens=2, rounds=2, peer=peer)
    assert row.rows()[1]["ratio"] > 0
    [_, its] = measure_prefill(packed, [40], [0], rounds=1, peer=peer)
    assert its["tokens_per_second"] > 0
    rows = measure_latency(packed, 4, 30, points=2, tokens=1, rounds=1, peer=peer)
    assert rows[3]["ratio_since_start"] > 0
    rows = measure_throughput(packed, [1, 2], 4, 30, points=2, tokens=1, rounds=1, memory=2_000_000, peer=peer)
    assert [row["engine"] for row in rows] == ["sambay", "llama.cpp"] * 3
    assert rows[3]["ratio_to_one"] > 0
    assert rows[5]["batch"] == (2_000_000 - TINY.nbytes) // cache_bytes(TINY, 1, 34)
