"""What one HTTP request has the engine do, from its prompts to the last of their events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sambay.engine import RequestOutput, SamplingParams, StreamEvent
from sambay.server.failures import RefusedError
from sambay.server.metrics import ModelMetrics
from sambay.server.models import ServedModel
from sambay.server.settings import Settings

__all__ = ["Running", "start"]

_RETRY_S = 5
"""After so many seconds one who was refused may find a place."""


class Running:
    """The requests to the engine that one HTTP request brought, one for each prompt; made by `start`.

    To be left by `async with` or `aclose`, which aborts what still runs.

    Args:
        request: that brought them.
        served: the model, whose `load` counts the sequences already.
        prompts: token ids, with the text where there is one.
        params: how to generate, the same for all.

    Raises:
        SambaYError: the engine refuses one of them; nothing is run then.
    """

    def __init__(
        self,
        request: Request,
        served: ServedModel,
        prompts: Sequence[tuple[str | None, list[int]]],
        params: SamplingParams,
    ) -> None:
        self._served, self._sequences, self._closed = served, len(prompts) * params.n, False
        self._began: float = request.state.began
        self._facts: dict[str, object] = request.state.facts
        self._facts["model"] = served.name
        self._log_prompts: bool = request.app.state.settings.log_prompts
        self._metrics: ModelMetrics = request.app.state.metrics.of(served.name)
        self._begun: set[int] = set()
        self._last: dict[tuple[int, int], float] = {}  # when each completion had its last token
        self._streams = [
            served.engine.stream({"prompt": text, "prompt_token_ids": ids}, params) for text, ids in prompts
        ]

    @property
    def outputs(self) -> list[RequestOutput]:
        """The outputs so far, live, of the prompts that the engine has taken: all of them once there are events."""
        return [stream.output for stream in self._streams if stream.output is not None]

    async def events(self) -> AsyncIterator[tuple[int, StreamEvent]]:
        """The events of all prompts as they come, each with the number of its prompt.

        Raises:
            Exception: what ended a request as "error".
        """
        async for prompt, event in self._merged():
            self._count(prompt, event)
            yield prompt, event

    def _count(self, prompt: int, event: StreamEvent) -> None:
        now, before = time.perf_counter(), self._last.get((prompt, event.index))
        if prompt not in self._begun:
            self._begun.add(prompt)
            self._metrics.begin(event.output, now - self._began)
            self._facts.setdefault("first_token", round(now - self._began, 4))
        self._metrics.token(None if before is None else now - before)
        self._last[prompt, event.index] = now

    async def _merged(self) -> AsyncIterator[tuple[int, StreamEvent]]:
        if len(self._streams) == 1:
            async for event in self._streams[0]:
                yield 0, event
            return
        queue: asyncio.Queue[tuple[int, StreamEvent | Exception | None]] = asyncio.Queue()

        async def forward(index: int) -> None:
            try:
                async for event in self._streams[index]:
                    queue.put_nowait((index, event))
                queue.put_nowait((index, None))
            except Exception as error:
                queue.put_nowait((index, error))

        tasks = [asyncio.create_task(forward(index)) for index in range(len(self._streams))]
        try:
            left = len(tasks)
            while left:
                index, found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                if found is None:
                    left -= 1
                else:
                    yield index, found
        finally:
            for task in tasks:
                task.cancel()

    async def finish(self) -> list[RequestOutput]:
        """Wait for the end of all, and return the outputs in the order of the prompts.

        Raises:
            Exception: what ended a request as "error".
        """
        async for _ in self.events():
            pass
        return self.outputs

    async def aclose(self) -> None:
        """Abort what still runs."""
        self._release()

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._served.load -= self._sequences
            for stream in self._streams:
                stream.close()
            self._tell()

    def _tell(self) -> None:
        """What the log says of it."""
        outputs = self.outputs
        completions = [one for output in outputs for one in output.outputs]
        self._facts["prompt_tokens"] = sum(len(output.prompt_token_ids) for output in outputs)
        self._facts["cached_tokens"] = sum(output.cached_tokens or 0 for output in outputs)
        self._facts["completion_tokens"] = sum(len(one.token_ids) for one in completions)
        self._facts["finish"] = ",".join(sorted({one.finish_reason or "abort" for one in completions}))
        if self._log_prompts:
            self._facts["prompts"] = [
                output.prompt if output.prompt is not None else output.prompt_token_ids for output in outputs
            ]
            self._facts["completions"] = [one.text for one in completions]


async def start(
    request: Request, served: ServedModel, prompts: Sequence[tuple[str | None, list[int]]], params: SamplingParams
) -> Running:
    """Give prompts to the engine, if there is room in its queue.

    Args:
        request: that brought them.
        served: the model.
        prompts: token ids, with the text where there is one.
        params: how to generate, the same for all.

    Raises:
        RefusedError: too many wait already.
        SambaYError: the engine refuses one of them; nothing is run then.
    """
    settings: Settings = request.app.state.settings
    engine, wanted = served.llm.engine, len(prompts) * params.n
    most = engine.scheduler.max_sequences + settings.max_queue
    if wanted > most:
        raise RefusedError(400, f"the request asks for {wanted} completions: {most} are the most that can wait here")
    if served.load + wanted > most:
        raise RefusedError(
            429, f"{served.load} sequences run or wait, and {most} may: try again later", "queue_full", _RETRY_S
        )

    def check() -> None:
        for _, ids in prompts:
            engine.check(ids, params)

    served.load += wanted
    try:
        await run_in_threadpool(check)  # and not in the loop: a new JSON schema takes a moment to be compiled
        return Running(request, served, prompts, params)
    except BaseException:
        served.load -= wanted
        raise
