"""Two hundred streams at once, each what it is alone."""

import asyncio
import json
import threading

import httpx
import pytest

from sambay.data.problems import problem_at
from sambay.engine import LLM, SamplingParams
from sambay.engine.invariant import is_deterministic

STREAMS, TOKENS = 200, 16


@pytest.mark.slow
def test_two_hundred_streams_each_as_alone(serve, wait_for):
    llm = LLM(device="cpu", memory="256MB")
    if not is_deterministic(llm.model):
        pytest.skip("without the compiled kernels a token may depend on its company")
    questions = [problem_at(7, index, "test").question for index in range(STREAMS)]
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    solo = LLM(device="cpu", memory="64MB", enable_prefix_caching=False)
    alone = [solo.chat([{"role": "user", "content": one}], params)[0].outputs[0] for one in questions]

    async def ask(client, question):
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
        body |= {"max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        parts = []
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                    parts.append(delta.get("reasoning_content") or delta.get("content") or "")
        return "".join(parts)

    async def ask_all(url):
        limits = httpx.Limits(max_connections=STREAMS)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as client:
            return await asyncio.gather(*(ask(client, one) for one in questions))

    with serve(("tutor", llm)) as client:
        # The engine begins when all of them are there.
        go, step = threading.Event(), llm.engine.step

        def gated():
            go.wait(120)
            return step()

        llm.engine.step = gated
        doors, found = client.app.state.doors, []
        asking = threading.Thread(target=lambda: found.extend(asyncio.run(ask_all(str(client.base_url)))))
        asking.start()
        try:
            wait_for(lambda: doors.inside == STREAMS)
        finally:
            go.set()
        asking.join(280)
        del llm.engine.step
    assert found == [one.reasoning + one.answer for one in alone]
