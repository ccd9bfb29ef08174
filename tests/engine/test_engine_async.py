"""The engine for asyncio: the same tokens, whoever reads, cancels, lags behind or fails."""

import asyncio
import gc
import threading

import pytest

from helpers import dictate
from sambay.engine import AsyncEngine, SamplingParams
from sambay.errors import PromptError, SambaYError, SamplingError

LONG = SamplingParams(seed=1, max_tokens=200, ignore_eos=True)


def run(llm, main):
    """Run `main(engine)` in an event loop of its own."""

    async def within():
        async with AsyncEngine(llm) as engine:
            return await asyncio.wait_for(main(engine), 120)

    return asyncio.run(within())


async def settled(engine):
    """Wait until the thread has done what it was told."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine._order(lambda: loop.call_soon_threadsafe(done.set))
    await done.wait()


def test_many_tasks_each_get_what_they_get_alone(llm, solo):
    requests = [([9 + i, 5], SamplingParams(seed=i, max_tokens=5 + i, n=1 + i % 2)) for i in range(9)]

    async def one(engine, ids, params):
        stream = engine.stream(ids, params)
        events = [event async for event in stream]
        assert stream.output.finished
        for completion in stream.output.outputs:
            mine = [event.token_id for event in events if event.index == completion.index]
            assert mine == completion.token_ids
        return [completion.token_ids for completion in stream.output.outputs]

    async def main(engine):
        return await asyncio.gather(*(one(engine, *request) for request in requests))

    alone = [[one.token_ids for one in solo(*request).outputs] for request in requests]
    assert run(llm, main) == alone


def test_generate_and_conversations(llm):
    messages = [{"role": "user", "content": "the cat"}]
    params = SamplingParams(seed=3, max_tokens=7)

    async def main(engine):
        straight = await engine.generate(messages, params, enable_thinking=False)
        return await engine.generate(messages, params), straight, await engine.generate("the cat", params)

    chats = [llm.chat(messages, params, enable_thinking=thinking)[0] for thinking in (None, False)]
    expected = [one.outputs[0].token_ids for one in (*chats, llm.generate("the cat", params)[0])]
    assert [one.outputs[0].token_ids for one in run(llm, main)] == expected


def test_one_who_reads_slowly_holds_up_nobody(llm, solo):
    async def main(engine):
        slow = engine.stream([9], LONG)
        await anext(slow)
        quick = await engine.generate([8], LONG)
        assert quick.outputs[0].finish_reason == "length"
        await settled(engine)
        rest = [event.token_id async for event in slow]
        return [slow.output.outputs[0].token_ids[0], *rest]

    assert run(llm, main) == solo([9], LONG).outputs[0].token_ids


@pytest.mark.parametrize("way", ["aclose", "with", "let go", "cancel", "timeout"])
def test_cancellation_frees_everything_at_once(llm, way):
    async def main(engine):
        stream = engine.stream([9], LONG)
        await anext(stream)
        output = stream.output
        if way == "aclose":
            await stream.aclose()
            assert [event async for event in stream] == []
        elif way == "with":
            async with stream:
                pass
        elif way == "let go":
            del stream
            gc.collect()
        else:

            async def read():
                async for _ in stream:
                    pass

            task = asyncio.create_task(read())
            await asyncio.sleep(0)
            if way == "cancel":
                task.cancel()
            with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
                await asyncio.wait_for(task, None if way == "cancel" else 0.01)
        await settled(engine)
        assert output.outputs[0].finish_reason == "abort"
        assert not llm.engine.busy
        assert not engine._open

    run(llm, main)


def test_what_is_bad_is_refused_at_the_call(llm):
    async def main(engine):
        with pytest.raises(PromptError, match="token id 320"):
            engine.stream([320])
        with pytest.raises(PromptError, match="the prompt is empty"):
            engine.stream("")
        with pytest.raises(SamplingError, match="deadline is 0"):
            engine.stream([5], deadline=0)

    run(llm, main)


def test_a_deadline(llm):
    async def main(engine):
        output = await engine.generate([9], LONG, deadline=0.02)
        assert output.outputs[0].finish_reason == "deadline"

    run(llm, main)


def test_a_step_that_fails_is_told_to_all_who_wait(llm, monkeypatch, solo):
    params = SamplingParams(seed=1, max_tokens=5)

    async def main(engine):
        streams = [engine.stream([9 + i], LONG) for i in range(2)]
        for stream in streams:
            await anext(stream)
        monkeypatch.setattr(llm.engine.model, "run", lambda *_: 1 / 0)
        for stream in streams:
            with pytest.raises(ZeroDivisionError):
                async for _ in stream:
                    pass
        monkeypatch.undo()
        return await engine.generate([7], params)

    assert run(llm, main).outputs[0].token_ids == solo([7], params).outputs[0].token_ids


def test_a_request_that_fails_by_itself(llm, monkeypatch, solo):
    from sambay.engine import request as holder

    choose = holder.sample

    def failing(logits, params, *rest):
        if params.seed == 666:
            raise SambaYError("no token")
        return choose(logits, params, *rest)

    dictate(monkeypatch, failing)
    good = SamplingParams(seed=1, max_tokens=5)

    async def main(engine):
        bad = engine.stream([9], SamplingParams(seed=666))
        other = await engine.generate([9], good)
        with pytest.raises(SambaYError, match="no token"):
            await anext(bad)
        with pytest.raises(StopAsyncIteration):
            await anext(bad)
        return other

    assert run(llm, main).outputs[0].token_ids == solo([9], good).outputs[0].token_ids


def test_closing_ends_what_runs(llm):
    async def main():
        engine = AsyncEngine(llm)
        stream = engine.stream([9], LONG)
        await anext(stream)
        await engine.aclose()
        with pytest.raises(SambaYError, match="closed while the request ran"):
            async for _ in stream:
                pass
        with pytest.raises(SambaYError, match="the engine is closed: make a new AsyncEngine"):
            engine.stream([9])

    before = threading.active_count()
    asyncio.run(main())
    assert not llm.engine.busy
    assert threading.active_count() <= before + 1  # asyncio's own helper may linger
    assert len(llm.generate([9], SamplingParams(max_tokens=2, ignore_eos=True))[0].outputs[0].token_ids) == 2
