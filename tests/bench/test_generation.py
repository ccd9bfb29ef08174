"""Long generations: what is integrated between sampled depths, and how many sequences a memory holds."""

import pytest

from sambay.bench import fill, generation
from sambay.bench.cost import step_traffic
from sambay.bench.decode import Decoding
from sambay.bench.generation import generation_bytes, measure_latency, measure_throughput, sequences_that_fit
from sambay.errors import ConfigError, ContextError


def pretended(model, cells, *, tokens, rounds, peer=None, progress=None):
    """A step costs a tenth of a second for each token before, and half a second for each sequence more."""
    found = []
    for place, (batch, depth, _) in enumerate(cells):
        traffic = step_traffic(model, batch, depth)
        seconds = depth / 10 + (batch - 1) / 2
        found.append(Decoding(batch, depth, (seconds, 2 * seconds, seconds), traffic, (1e9, 2e9, 1e9)))
        if progress is not None:
            progress((place + 1) * rounds, rounds * len(cells))
    return found


def test_latency_integrates_between_depths(tiny, monkeypatch):
    def steps(model, depths, batches, *, tokens, rounds, peer, progress):
        assert (batches, tokens, rounds, peer, progress) == ((1,), 2, 5, None, None)
        return [Decoding(1, depth, (depth / 10,), step_traffic(model, 1, 0), (1.0,)) for depth in depths]

    monkeypatch.setattr(generation, "measure_decode", steps)
    rows = measure_latency(tiny, 10, 100, points=3, tokens=2, rounds=5)
    assert [row["generated"] for row in rows] == [0, 50, 100]
    assert [row["depth"] for row in rows] == [10, 60, 110]
    # a token costs 1 second at first, 6 in the middle, 11 at the end
    assert [row["seconds_since_start"] for row in rows] == pytest.approx([0, 50 * 3.5, 50 * 3.5 + 50 * 8.5])
    rows = measure_latency(tiny, 4000, 96, points=2, tokens=2, rounds=5)
    assert [row["depth"] for row in rows] == [4000, 4094]  # the last steps end within the context
    assert [row["generated"] for row in measure_latency(tiny, 1, 2, points=8, tokens=2, rounds=5)] == [0, 1, 2]


def test_latency_measures(tiny, quick):
    rows = measure_latency(tiny, 4, 30, points=3, tokens=1, rounds=1)
    assert [row["generated"] for row in rows] == [0, 15, 30]
    seconds = [row["seconds_since_start"] for row in rows]
    assert seconds == sorted(seconds)
    assert all(row["seconds"]["median"] > 0 for row in rows)


def test_throughput_is_that_of_the_mean_step(tiny, monkeypatch):
    monkeypatch.setattr(generation, "measure_cells", pretended)
    told = []
    rows = measure_throughput(
        tiny, [1, 4], 10, 100, points=3, tokens=1, rounds=3, progress=lambda *done: told.append(done)
    )
    assert told == [(done, 18) for done in range(3, 19, 3)]
    assert [(row["engine"], row["batch"], row["budget"]) for row in rows] == [("sambay", 1, None), ("sambay", 4, None)]
    one, four = rows
    assert one["seconds"]["median"] == pytest.approx(6)  # 1, 6 and 11 seconds at the depths 10, 60 and 110
    assert four["seconds"]["median"] == pytest.approx(7.5)
    assert one["tokens_per_second"] == pytest.approx(1 / 6)
    assert four["tokens_per_second"] == pytest.approx(4 / 7.5)
    assert one["ratio_to_one"] == 1
    assert four["ratio_to_one"] == pytest.approx(4 * 6 / 7.5)
    assert [row["depth"] for row in four["depths"]] == [10, 60, 110]
    # half of the time at the mean of the first two depths, half at that of the others
    at = [step_traffic(tiny, 4, depth).total for depth in (10, 60, 110)]
    moved = (at[0] + 2 * at[1] + at[2]) / 4
    assert four["bytes"]["total"] == pytest.approx(moved)
    assert four["bytes_per_second"] == pytest.approx(moved / 7.5)
    assert four["share"] == pytest.approx(moved / 7.5 / 1e9)
    assert four["memory"] == generation_bytes(tiny, 4, 110)
    [alone] = measure_throughput(tiny, [4], 10, 100, points=3, tokens=1, rounds=3)
    assert alone["ratio_to_one"] is None


def test_as_many_sequences_as_a_memory_holds(tiny, monkeypatch):
    pool = tiny.new_state(3, tokens=3 * 128)
    states = sum(tensor.nbytes for state in pool.fixed for tensor in state.tensors)
    each = states // 3 + pool.shared.nbytes // 3
    weights = sum(parameter.nbytes for parameter in tiny.parameters())
    assert generation_bytes(tiny, 3, 128) == weights + 3 * each
    assert sequences_that_fit(tiny, 128, weights + each) == 1
    assert sequences_that_fit(tiny, 128, weights + 8 * each - 1) == 7
    assert sequences_that_fit(tiny, 128, weights + 8 * each) == 8
    with pytest.raises(ConfigError, match=r"a memory of 0\.001 GB is too small: .* one sequence of 128 tokens take"):
        sequences_that_fit(tiny, 128, 1_000_000)
    monkeypatch.setattr(generation, "measure_cells", pretended)
    told = []
    rows = measure_throughput(
        tiny, [1], 28, 100, points=2, tokens=1, rounds=3, memory=weights + 8 * each,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert told == [(3, 12), (6, 12), (9, 12), (12, 12)]
    assert [(row["batch"], row["budget"]) for row in rows] == [(1, None), (8, weights + 8 * each)]
    assert rows[1]["memory"] == weights + 8 * each
    assert rows[1]["ratio_to_one"] == pytest.approx(8 * 7.8 / 11.3)


def test_throughput_measures(packed, quick):
    rows = measure_throughput(packed, [1, 3], 4, 30, points=2, tokens=1, rounds=1, memory=2_000_000)
    assert [row["batch"] for row in rows[:2]] == [1, 3]
    assert rows[2]["batch"] == sequences_that_fit(packed, 34, 2_000_000) > 3
    assert all(row["seconds"]["median"] > 0 for row in rows)


def test_impossible_generations(tiny, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(generation, "measure_cells", lambda *_, **__: pytest.fail("too late"))
        patched.setattr(fill, "free_memory", lambda: 1000)
        with pytest.raises(ConfigError, match=r"sequences of 11 tokens take .* GB of memory are free"):
            measure_throughput(tiny, [1], 4, 6, points=2, tokens=1, rounds=1, memory=20_000_000)
    with pytest.raises(ContextError, match="a prompt of 4000 and 200 generated tokens make 4200"):
        measure_throughput(tiny, [1], 4000, 200, points=2, tokens=1, rounds=1)
    for batches, prompt, points in (([], 1, 2), ([0], 1, 2), ([1], 0, 2), ([1], 1, 1)):
        with pytest.raises(ConfigError, match="or more"):
            measure_throughput(tiny, batches, prompt, 1, points=points, tokens=1, rounds=1)
