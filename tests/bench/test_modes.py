"""What the modes measure and how their rows hang together; never how fast anything is."""

import pytest
import torch

from sambay.bench import machine, prefill, probes
from sambay.bench.cost import prompt_operations, step_traffic
from sambay.bench.decode import measure_decode
from sambay.bench.generation import measure_latency
from sambay.bench.machine import measure_machine
from sambay.bench.prefill import measure_prefill
from sambay.bench.probes import MatrixProbe, bandwidth, pool_latency, served_by
from sambay.bench.record import Spread
from sambay.errors import BackendError, ConfigError, ContextError
from sambay.ops import native
from sambay.ops.backend import using
from sambay.quant.formats import QuantFormat

needs_kernels = pytest.mark.skipif(not native.usable(), reason="of the compiled kernels")


def test_spread():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 3.0, 1)
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 1.0, 2.0, 4.0, 5)
    assert Spread.of([1.0, 2.0]).to_dict() == {"median": 1.5, "min": 1.0, "q1": 1.25, "q3": 1.75, "rounds": 2}


def test_decode(packed, quick, clock):
    told = []
    rows = measure_decode(packed, [0, 20], [1, 2], tokens=4, rounds=3, progress=lambda *x: told.append(x))
    assert [(row.batch, row.depth) for row in rows] == [(1, 0), (1, 20), (2, 0), (2, 20)]
    assert told == [(done, 12) for done in range(1, 13)]
    for row in rows:
        mean = sum(step_traffic(packed, row.batch, row.depth + i).total for i in range(4)) / 4
        assert row.traffic.total == pytest.approx(mean)
        assert row.times == (0.125,) * 3  # half a second for four steps
        [found] = row.rows()
        assert found == row.to_dict()
        assert found["engine"] == "sambay"
        assert found["seconds"] == Spread.of([0.125] * 3).to_dict()
        assert found["tokens_per_second"] == row.batch / 0.125
        assert found["bytes_per_second"] == pytest.approx(mean / 0.125)
        assert found["share"] == pytest.approx(mean / 0.125 / 1e9)
        assert found["bandwidth"]["median"] == 1e9


@pytest.mark.parametrize("name", ["tiny", "untied", "packed"])
def test_every_kind_of_model_decodes_on_torch_too(request, quick, name):
    with using("reference"):
        [row] = measure_decode(request.getfixturevalue(name), [30], [2], tokens=1, rounds=1)
    assert row.times[0] > 0


def test_impossible_measurements(tiny, quick):
    with pytest.raises(ContextError, match=r"a depth of 4096 and 1 steps make 4097 tokens.*context of 4096: choose 1"):
        measure_decode(tiny, [0, 4096], [1], tokens=1, rounds=1)
    with pytest.raises(ContextError, match="a prompt of 5000 make 5000 tokens"):
        measure_prefill(tiny, [5000], [0], rounds=1)
    with pytest.raises(ContextError, match="a prompt of 4000 and 200 generated tokens make 4200"):
        measure_latency(tiny, 4000, 200, points=2, tokens=1, rounds=1)
    for depths, batches, tokens in (([], [1], 1), ([0], [], 1), ([-1], [1], 1), ([0], [0], 1), ([0], [1], 0)):
        with pytest.raises(ConfigError, match="or more"):
            measure_decode(tiny, depths, batches, tokens=tokens, rounds=1)
    for lengths, chunks, rounds in (([0], [1], 1), ([1], [-1], 1), ([1], [1], 0), ([], [1], 1)):
        with pytest.raises(ConfigError, match="or more"):
            measure_prefill(tiny, lengths, chunks, rounds=rounds)
    with pytest.raises(ConfigError, match="points is 1: a curve needs 2 or more"):
        measure_latency(tiny, 1, 1, points=1, tokens=1, rounds=1)


def test_prefill(packed, quick, clock):
    told = []
    rows = measure_prefill(packed, [8, 20], [6, 12, 0], rounds=2, progress=lambda *x: told.append(x))
    assert [(row["length"], row["chunk"]) for row in rows] == [(8, 6), (8, 8), (20, 6), (20, 12), (20, 20)]
    assert told[-1] == (10, 10)
    for row in rows:
        assert row["operations"] == prompt_operations(packed.config, row["length"])
        assert row["seconds"]["median"] == 0.5
        assert row["tokens_per_second"] == 2 * row["length"]
        assert row["operations_per_second"] == 2 * row["operations"]
        assert row["share"] == pytest.approx(row["operations"] / 0.5 / 1e9)
        assert row["share_of_peak"] == pytest.approx(row["share"] / 4)
        assert row["matrix"]["rows"] == row["chunk"]
        assert row["engine"] == "sambay"


def test_a_prompt_in_chunks_is_that_prompt(tiny):
    ids = torch.arange(45) * 7 % 512
    expected = tiny(ids[None], logits="last")[0, -1]
    for chunk in (45, 20, 9):
        pool = tiny.new_state()
        found = prefill._run(tiny, pool, pool.open(), ids, chunk)
        assert found.shape == (1, 512)
        assert torch.allclose(found[0], expected, atol=1e-4)
        assert pool.lengths == [45]


@needs_kernels
def test_machine(monkeypatch):
    used = []
    monkeypatch.setattr(machine, "bandwidth", lambda: used.append(native.threads()) or 1.0)
    monkeypatch.setattr(MatrixProbe, "rate", lambda self: used.append((str(self), native.describe().isa)) or 2.0)
    monkeypatch.setattr(native, "multiply_rate", lambda: used.append(native.describe().isa) or 5.0)
    monkeypatch.setattr(machine, "pool_latency", lambda barrier: 3.0 + barrier)
    before, isa = native.threads(), native.describe().isa
    native.set_threads(3)
    try:
        rows = measure_machine(rounds=2)
        assert native.threads() == 3
    finally:
        native.set_threads(before)
    assert native.describe().isa == isa
    able = [name for name, obstacle in native.instruction_sets() if not obstacle]
    turn = [1, 2, 3, *able, *(("4 bits, group 32", name) for name in able), ("float32", isa)]
    assert used == 2 * turn
    assert [row["variant"] for row in rows] == [
        "1 thread", "2 threads", "3 threads", *able, *(f"4 bits, {name}" for name in able), "float32, torch", "empty",
        "with a barrier",
    ]  # fmt: skip
    assert [row["unit"] for row in rows] == ["B/s"] * 3 + ["op/s"] * (2 * len(able) + 1) + ["s"] * 2
    assert rows[-1]["median"] == 4.0
    assert all(row["rounds"] == 2 for row in rows)


@needs_kernels
def test_bytes_are_multiplied_right():
    for name, obstacle in native.instruction_sets():
        if not obstacle:
            with native.forced(name):
                assert native.multiply_rate(0.001) > 0


def without_kernels(monkeypatch):
    monkeypatch.setattr(native, "_missing", "there was no compiler")
    native._settle.cache_clear()


@pytest.fixture
def kernelless(monkeypatch):
    without_kernels(monkeypatch)
    yield
    monkeypatch.undo()
    native._settle.cache_clear()


def test_without_kernels(kernelless, tiny, monkeypatch):
    monkeypatch.setattr(probes, "_BUFFER", 1 << 20)
    rows = measure_machine(rounds=1)
    assert [(row["variant"], row["unit"]) for row in rows] == [("torch", "B/s"), ("float32, torch", "op/s")]
    assert all(row["median"] > 0 for row in rows)
    assert str(served_by(torch.float32)) == "torch (there was no compiler)"
    assert len(measure_decode(tiny, [3], [1], tokens=1, rounds=1)) == 1
    assert len(measure_prefill(tiny, [3], [0], rounds=1)) == 1
    with pytest.raises(BackendError, match="no compiler"):
        pool_latency(barrier=False)


@needs_kernels
def test_probes(packed, tiny, monkeypatch):
    monkeypatch.setattr(probes, "_BUFFER", 1 << 20)
    assert bandwidth(0.001) > 0
    assert 0 < pool_latency(barrier=True, seconds=0.001) < 10
    assert str(MatrixProbe.like(packed, 4)) == "4 bits, group 32"
    assert str(MatrixProbe.like(tiny, 4)) == "float32"
    with using("reference"):
        assert str(MatrixProbe.like(packed, 4)) == "float32"
        assert str(served_by(torch.float32)) == "torch (it is forced)"
    assert served_by(torch.float32).backend == "native"
    assert "try --dtype auto" in str(served_by(torch.bfloat16))
    assert "try --dtype float32" in str(served_by(torch.float16))
    probe = MatrixProbe(4, QuantFormat(8, 64))
    assert probe._product().shape == (4, 2560)
    assert probe.rate(0.001) > 0
    plain = MatrixProbe(4, None, torch.bfloat16)
    assert plain._product().dtype is torch.bfloat16
