"""The front door for asyncio: the engine's loop on a thread of its own, its events as async iterators."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from sambay.engine.llm import LLM, Messages, Prompt
from sambay.engine.outputs import RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams
from sambay.errors import SambaYError

__all__ = ["AsyncEngine", "AsyncEventStream"]


class _Mailbox:
    """What the engine's thread and the reader of a stream share; it does not keep a stream alive that was let go of."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self.output: RequestOutput | None = None
        self.error: BaseException | None = None

    def push(self, event: StreamEvent) -> None:
        """An event, from the engine's thread."""
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)

    def end(self, error: BaseException | None = None) -> None:
        """No further events come, from the engine's thread."""
        self.error = error or (None if self.output is None else self.output.error)
        with contextlib.suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self.events.put_nowait, None)


class AsyncEventStream(AsyncIterator[StreamEvent]):
    """The events of one request, as they come; made by `AsyncEngine.stream`.

    The request is aborted by `aclose`, by leaving an `async with` block, by letting go of the stream, and when the task
    that waits for an event is cancelled. What ended it as "error" is raised after the last event. One who reads slowly
    holds up nobody.
    """

    def __init__(self, engine: AsyncEngine, mailbox: _Mailbox) -> None:
        self._engine, self._mailbox = engine, mailbox
        self._closed = False

    @property
    def output(self) -> RequestOutput | None:
        """The request so far, live; None until the engine has taken it."""
        return self._mailbox.output

    async def __anext__(self) -> StreamEvent:
        if self._closed:
            raise StopAsyncIteration
        try:
            event = await self._mailbox.events.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if event is not None:
            return event
        self._closed = True
        if self._mailbox.error is not None:
            raise self._mailbox.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """Abort the request if it still runs; no further events come."""
        if not self._closed:
            self._closed = True
            self._engine.abort(self._mailbox)

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncEngine:
    """Serves a model to any number of tasks at once.

    >>> async with AsyncEngine(LLM()) as engine:  # doctest: +SKIP
    ...     async for event in engine.stream("3 + 4 ="):
    ...         print(event.text, end="")

    Args:
        llm: the model, which nobody else uses until this is closed.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._open: list[_Mailbox] = []
        self._orders: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sambay-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests can be given to it."""
        return self._thread.is_alive() and not self._closing

    def stream(
        self,
        prompt: Prompt | Messages,
        sampling_params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> AsyncEventStream:
        """Generate token by token; to be called where an event loop runs.

        Args:
            prompt: a prompt or a conversation, as `LLM.stream` takes it.
            sampling_params: how to generate; None takes the checkpoint's recommendation.
            enable_thinking: as `LLM.chat` has it, for a conversation.
            priority: requests of a lower number go first.
            deadline: seconds from now, after which it ends as "deadline".

        Raises:
            PromptError, ContextError, SamplingError: at the call, before anything is run.
            SambaYError: the engine is closed.
        """
        text, ids = self.llm.encode(prompt, enable_thinking)
        params = sampling_params or self.llm.get_default_sampling_params()
        self.llm.engine.check(ids, params, priority, deadline)
        mailbox = _Mailbox()

        def add() -> None:
            try:
                mailbox.output = self.llm.engine.add(
                    text, ids, params, on_event=mailbox.push, priority=priority, deadline=deadline
                )
            except Exception as error:  # what `check` did not see: the matter of this request, not of the thread
                mailbox.end(error)
                return
            self._open.append(mailbox)

        self._order(add)
        return AsyncEventStream(self, mailbox)

    async def generate(
        self,
        prompt: Prompt | Messages,
        sampling_params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        priority: int = 0,
        deadline: float | None = None,
    ) -> RequestOutput:
        """The whole answer, with the arguments of `stream`."""
        stream = self.stream(
            prompt, sampling_params, enable_thinking=enable_thinking, priority=priority, deadline=deadline
        )
        async with stream as events:
            async for _ in events:
                pass
            assert events.output is not None
            return events.output

    def abort(self, mailbox: _Mailbox) -> None:
        """End a request; `AsyncEventStream.aclose` calls it."""

        def abort() -> None:
            if mailbox in self._open and mailbox.output is not None:
                self._open.remove(mailbox)
                self.llm.engine.abort(mailbox.output.request_id)

        with contextlib.suppress(SambaYError):  # closed, and so is the request
            self._order(abort)

    async def aclose(self) -> None:
        """End all requests, with an error for those who wait, and the thread. The model can be used again."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            if self._closing:
                raise SambaYError("the engine is closed: make a new AsyncEngine")
            self._orders.append(order)
            self._wake.notify()

    def _run(self) -> None:
        """The thread: nothing else touches the engine."""
        engine = self.llm.engine
        while True:
            with self._wake:
                while not (self._orders or self._closing or engine.busy):
                    self._wake.wait()
                orders, self._orders = self._orders, []
            for order in orders:
                order()
            if self._closing:
                self._end_all(SambaYError("the engine was closed while the request ran"))
                return
            try:
                if engine.busy:
                    engine.step()
            except BaseException as error:  # the step's own failure: everyone who waits hears of it
                self._end_all(error)
            for mailbox in [one for one in self._open if one.output is not None and one.output.finished]:
                self._open.remove(mailbox)
                mailbox.end()

    def _end_all(self, error: BaseException) -> None:
        for mailbox in self._open:
            if mailbox.output is not None:
                self.llm.engine.abort(mailbox.output.request_id)
            mailbox.end(error)
        self._open = []
