"""One memory for all states: within its bounds, and with parking, forks and eviction, each gets what it gets alone."""

import contextlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.engine import Engine, SamplingParams, core, keeper
from sambay.engine.budget import Budget, make_budget, memory_bytes
from sambay.errors import ConfigError, SamplingError, StateError
from sambay.quant import resident
from sambay.state import PAGE_SIZE, state_bytes

KINDS = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.7, "top_p": 0.9},
    {"top_k": 20, "repetition_penalty": 1.3},
    {"presence_penalty": 0.5, "logprobs": 1},
    {"n": 3},
]


def bytes_of(model, slots, pages):
    sizes = state_bytes(model.config, model.dtype, model.cache_dtype)
    page = sizes.pop("shared KV per token") * PAGE_SIZE
    return slots * sum(sizes.values()) + pages * page


@pytest.fixture
def confined(make_engine, model, monkeypatch):
    """`confined(slots, pages, **options)` -> an engine with just so much memory."""

    def make(slots, pages, **options):
        budget = Budget(slots, pages, 256, bytes_of(model, slots, pages))
        monkeypatch.setattr(core, "make_budget", lambda *_: budget)
        return make_engine(**options)

    return make


def tokens(output):
    return [completion.token_ids for completion in output.outputs]


def allocated(engine):
    """Bytes of every tensor that holds states."""
    pool = engine.pool
    tensors = [tensor for state in pool.fixed for tensor in state.tensors]
    return sum(tensor.untyped_storage().nbytes() for tensor in (*tensors, *pool.shared.tiles.tensors))


def some_request(dice, lengths=(1, 2, 9, 40, 90)):
    """Some begin alike. The longest outgrow the pages that they are admitted with."""
    ids = ([5, 6, 7, 8] * 40)[: dice.choice([0, 0, 3, 70, 130])]
    ids += [dice.randrange(5, 318) for _ in range(dice.choice([1, 2, 9, 30]))]
    params = SamplingParams(
        seed=dice.randrange(1000), max_tokens=dice.choice(lengths), ignore_eos=dice.random() < 0.7, **dice.choice(KINDS)
    )
    return ids, params


def drain(engine):
    while engine.busy:
        engine.step()


@given(data=st.data())
@settings(max_examples=6)
def test_any_schedule_gives_each_request_what_it_gets_alone(confined, solo, assert_idle, tmp_path_factory, data):
    """Any interleaving, chunk size, budget, parking, fork, cache and eviction, restart, priority and cancellation."""
    run_any_schedule(confined, solo, assert_idle, tmp_path_factory, data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60, derandomize=False)
def test_many_schedules(confined, solo, assert_idle, tmp_path_factory, data):
    run_any_schedule(confined, solo, assert_idle, tmp_path_factory, data)


def run_any_schedule(confined, solo, assert_idle, tmp_path_factory, data):
    slots = data.draw(st.integers(1, 4), "slots")
    pages = data.draw(st.integers(4, 24), "pages")
    caching, chunk = data.draw(st.booleans(), "caching"), data.draw(st.integers(1, 90), "chunk")
    saved = tmp_path_factory.mktemp("states") if caching and data.draw(st.booleans(), "saved") else None

    def start():
        made = confined(slots, pages, max_num_batched_tokens=chunk, enable_prefix_caching=caching, state_dir=saved)
        made.keeper.least, made.keeper.every = snapshots
        return made

    snapshots = data.draw(st.sampled_from([(1, 7), (20, 64), (64, 512)]), "snapshots")
    engine = start()
    dice = random.Random(data.draw(st.integers(0, 10**6), "seed"))
    waiting = [some_request(dice) for _ in range(data.draw(st.integers(2, 7), "count"))]
    going = []
    while waiting or engine.busy:
        if waiting and dice.random() < 0.4:
            if not engine.busy and saved is not None:  # a restart
                assert_idle(engine)
                engine = start()
            ids, params = waiting.pop()
            if going and dice.random() < 0.3:  # a second turn
                before, *_ = dice.choice(going)
                ids = [*before.prompt_token_ids, *before.outputs[0].token_ids, *ids][:200]
            going.append((engine.add(None, ids, params, priority=dice.choice([0, 0, 1])), ids, params))
        if going and dice.random() < 0.01:
            engine.abort(dice.choice(going)[0].request_id)
        engine.step()
        assert allocated(engine) <= engine.memory + 100 * 64  # lines that tensors begin at
    for output, ids, params in going:
        alone = tokens(solo(ids, params))
        if any(one.finish_reason == "abort" for one in output.outputs):
            alone = [whole[: len(part)] for whole, part in zip(alone, tokens(output), strict=True)]
        assert tokens(output) == alone
        assert output.error is None
    assert_idle(engine)


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_many_requests_in_a_memory_that_is_short(confined, model, solo, assert_idle, count):
    memory = bytes_of(model, 8, 12)
    engine = confined(8, 12, max_num_batched_tokens=64)
    dice = random.Random(0)
    kinds = [some_request(dice, (9, 130, 160)) for _ in range(count // 8)]
    alone = [tokens(solo(ids, params)) for ids, params in kinds]
    chosen = [dice.randrange(len(kinds)) for _ in range(count)]
    outputs, running = [], []
    while engine.busy or len(outputs) < count:
        for i in chosen[len(outputs) :][: dice.choice([*[0] * 9, 2])]:
            outputs.append(engine.add(None, *kinds[i], priority=dice.choice([0, 1, 1])))
        engine.step()
        running.append(len(engine.scheduler.running))
        assert allocated(engine) <= memory + 100 * 64
    assert engine.scheduler.parkings >= count // 8
    assert max(running) > 4
    for i, output in zip(chosen, outputs, strict=True):
        assert tokens(output) == alone[i]
        assert all(one.finish_reason in ("stop", "length") for one in output.outputs)
    assert_idle(engine)


@pytest.mark.parametrize("fails", ["write", "read"])
def test_a_disk_that_fails_costs_time_only(confined, solo, assert_idle, monkeypatch, fails):
    engine = confined(4, 8)

    def full(*_):
        raise OSError(28, "No space left on device") if fails == "write" else StateError("gone")

    monkeypatch.setattr(keeper, f"{fails}_state", full)
    requests = [([20 + i] * 60, SamplingParams(seed=i, max_tokens=80, ignore_eos=True, n=1 + i % 2)) for i in range(5)]
    outputs = [engine.add(None, ids, params) for ids, params in requests]
    drain(engine)
    assert engine.scheduler.parkings
    assert [tokens(output) for output in outputs] == [tokens(solo(*request)) for request in requests]
    assert_idle(engine)


def test_parked_ones_compute_nothing_again(confined, model, assert_idle, monkeypatch):
    engine = confined(4, 8, enable_prefix_caching=False)
    computed, run = [], model.run

    def counting(batch, pool):
        computed.append(sum(batch.lengths))
        return run(batch, pool)

    monkeypatch.setattr(model, "run", counting)
    outputs = [engine.add(None, [20 + i] * 60, SamplingParams(max_tokens=90, ignore_eos=True)) for i in range(6)]
    drain(engine)
    assert engine.scheduler.parkings
    assert sum(computed) == sum(60 + len(output.outputs[0].token_ids) - 1 for output in outputs)
    assert_idle(engine)


@pytest.mark.parametrize("aborted", [False, True])
def test_what_is_parked_in_files_has_no_name(confined, solo, assert_idle, monkeypatch, tmp_path, aborted):
    """So that nothing is left on the disk, however the process ends; what is not needed any more is closed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    engine = confined(4, 8, enable_prefix_caching=False)
    requests = [([20 + i] * 60, SamplingParams(seed=i, max_tokens=80, ignore_eos=True)) for i in range(6)]
    outputs = [engine.add(None, *request) for request in requests]
    files = set()
    while engine.busy:
        engine.step()
        files |= {one.parked.file for one in engine.scheduler.waiting if one.parked is not None and one.parked.file}
        assert not list(tmp_path.iterdir())
        if aborted and files:
            for output in outputs[1:]:
                engine.abort(output.request_id)
    assert files
    assert all(file.closed for file in files)
    for output, request in zip(outputs[: 1 if aborted else 6], requests, strict=False):
        assert tokens(output) == tokens(solo(*request))
    assert_idle(engine)


@pytest.mark.parametrize("steps", range(0, 120, 17))
def test_abort_while_some_are_parked(confined, solo, assert_idle, steps):
    engine = confined(4, 7)
    params = SamplingParams(seed=1, max_tokens=60, ignore_eos=True, n=2)
    outputs = [engine.add(None, [20 + i] * 70, params) for i in range(4)]
    for _ in range(steps):
        engine.step()
    for output in outputs[1:]:
        engine.abort(output.request_id)
    drain(engine)
    assert tokens(outputs[0]) == tokens(solo([20] * 70, params))
    assert_idle(engine)


def test_a_torn_step_while_some_are_parked(confined, model, solo, assert_idle, monkeypatch):
    engine = confined(4, 7)
    requests = [([20 + i] * 70, SamplingParams(seed=i, max_tokens=60, ignore_eos=True, n=2)) for i in range(4)]
    outputs = [engine.add(None, *request) for request in requests]
    run, calls = model.run, 0

    def failing(batch, pool):
        nonlocal calls
        calls += 1
        out = run(batch, pool)
        if calls % 37 == 0:
            raise KeyboardInterrupt
        return out

    monkeypatch.setattr(model, "run", failing)
    while engine.busy:
        with contextlib.suppress(KeyboardInterrupt):
            engine.step()
    monkeypatch.undo()
    assert [tokens(output) for output in outputs] == [tokens(solo(*request)) for request in requests]
    assert_idle(engine)


# Priorities and deadlines


def test_a_higher_priority_goes_first(make_engine, model, solo, assert_idle):
    engine = make_engine(max_num_seqs=1)
    params = SamplingParams(seed=1, max_tokens=30, ignore_eos=True)
    low = engine.add(None, [9], params, priority=5)
    for _ in range(10):
        engine.step()
    high = engine.add(None, [8], params, priority=-1)
    middle = engine.add(None, [7], params, priority=4)
    while not high.finished:
        engine.step()
    assert not middle.outputs[0].token_ids
    assert len(low.outputs[0].token_ids) == 10
    while not middle.finished:
        engine.step()
    assert len(low.outputs[0].token_ids) == 10
    drain(engine)
    assert [tokens(output) for output in (low, high, middle)] == [tokens(solo([i], params)) for i in (9, 8, 7)]
    assert_idle(engine)


def test_deadlines(make_engine, solo, assert_idle, monkeypatch):
    ahead, clock = [0.0], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + ahead[0])
    engine = make_engine(max_num_seqs=2)
    params = SamplingParams(seed=1, max_tokens=40, ignore_eos=True)
    late = engine.add(None, [9], params, deadline=1000)
    fine = engine.add(None, [8], params, deadline=3000)
    queued = engine.add(None, [7], params, deadline=1000)
    for _ in range(3):
        engine.step()
    ahead[0] = 1500.0
    drain(engine)
    assert late.finished
    assert [late.outputs[0].finish_reason, queued.outputs[0].finish_reason] == ["deadline"] * 2
    assert tokens(late) == [tokens(solo([9], params))[0][:3]]
    assert tokens(queued) == [[]]
    assert late.error is None
    assert tokens(fine) == tokens(solo([8], params))
    assert fine.outputs[0].finish_reason == "length"
    assert_idle(engine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 1.5}, "priority is 1.5: it must be an integer; the lowest goes first"),
        ({"priority": True}, "priority is True"),
        ({"deadline": 0}, "deadline is 0: it must be a number of seconds above 0, or None"),
        ({"deadline": "soon"}, "deadline is 'soon'"),
        ({"deadline": float("inf")}, "deadline is inf"),
    ],
)
def test_bad_priorities_and_deadlines(make_engine, assert_idle, options, message):
    engine = make_engine()
    with pytest.raises(SamplingError, match=message):
        engine.add(None, [5], SamplingParams(), **options)
    assert_idle(engine)


# The budget


@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize("pages", [4, 5, 100])
def test_a_budget_is_used_and_kept(make_engine, model, slots, pages):
    memory = bytes_of(model, slots, pages) + 77
    engine = make_engine(max_num_seqs=slots, memory=memory)
    assert memory - bytes_of(model, 1, 0) < engine.memory <= memory
    assert engine.pool.nbytes == engine.memory
    assert 1 <= engine.pool.slots <= slots


def test_a_memory_for_a_part_of_the_context(make_engine, model):
    engine = make_engine(max_num_seqs=2, max_model_len=None, memory=bytes_of(model, 1, 2))
    assert (engine.max_model_len, engine.pool.slots) == (128, 1)


def test_a_memory_that_is_too_small(make_engine, model):
    with pytest.raises(ConfigError, match=r"a memory of .* is too small: one sequence of 256 tokens takes .* MB: give"):
        make_engine(memory=bytes_of(model, 1, 3))
    with pytest.raises(ConfigError, match=r"one sequence of 64 tokens takes"):
        make_engine(max_model_len=None, memory=1000)


def test_the_budget_by_default(model, monkeypatch):
    """Half of what is free beside the weights, and no more than twice of what the sequences need."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    whole = bytes_of(model, 4, 4 * 4)
    for free, expected in ((10**12, 2 * whole), (weights + whole, whole // 2), (None, 2 * whole)):
        monkeypatch.setattr("sambay.engine.budget.free_memory", lambda free=free: free)
        budget = make_budget(model, 4, 256)
        assert expected - bytes_of(model, 1, 1) < budget.nbytes <= expected
    assert resident.free_memory() is None or resident.free_memory() > 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("1.5 GiB", 3 << 29), (" 0.5TiB ", 1 << 39), ("1.5kB", 1500), (12345, 12345)],
)
def test_amounts_of_memory(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["20", "GB", "-3GB", "3 gb", "", 0, -5, True, 1.5, None])
def test_no_amounts_of_memory(text):
    with pytest.raises(ConfigError, match="is no amount of memory: give one such as 20GB or 512MiB"):
        memory_bytes(text)


def test_pages_take_memory_when_they_are_used(model):
    """The bound may be far above what is ever used."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no one tells")
    before = int(statm.read_text(encoding="ascii").split()[1])
    engine = Engine(model, None, end_ids=frozenset(), max_model_len=256, memory=3 << 30)
    taken = 4096 * (int(statm.read_text(encoding="ascii").split()[1]) - before)
    assert engine.pool.nbytes > 2.9 * 2**30
    assert taken < 1 << 29
