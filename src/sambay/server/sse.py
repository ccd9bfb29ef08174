"""Answers in pieces, and what becomes of a request whose client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["PieceResponse", "sse", "unless_gone"]

T = TypeVar("T")


def sse(data: object, event: str | None = None) -> bytes:
    """One server-sent event.

    Args:
        data: text as it is, anything else as JSON.
        event: its name, for protocols that name them.
    """
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = "" if event is None else f"event: {event}\n"
    return f"{head}data: {text}\n\n".encode("utf-8", errors="replace")


class PieceResponse(Response):
    """A body that is sent as it comes into being.

    The pieces are closed when the client goes, so that the engine computes nothing for nobody. What goes wrong after
    the first one has to be told in a piece: that is theirs to do.

    Args:
        pieces: of the body; an async generator, closed in any case.
        ping: a sign of life, sent where there was nothing else for a while; None for none.
        every: seconds of such a while.
        media_type: of the body.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        ping: bytes | None = b": still working\n\n",
        every: float = 15.0,
        media_type: str = "text/event-stream",
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces, self._ping, self._every = pieces, ping, every

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; ASGI's."""
        with suppress(ClientDisconnect):
            await _race(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        sent = 0

        async def pinging() -> None:
            while True:
                before = sent
                await asyncio.sleep(self._every)
                if sent == before:
                    await send({"type": "http.response.body", "body": self._ping, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pings = None if self._ping is None else asyncio.ensure_future(pinging())
        try:
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                sent += 1
        finally:
            if pings is not None:
                await _cancelled(pings)
            if isinstance(self._pieces, AsyncGenerator):
                await self._pieces.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is broken off when the client goes.

    Args:
        request: whose body has been read.
        work: what is to be done for it.

    Raises:
        ClientDisconnect: the client has gone.
    """
    return await _race(work, request.receive)


async def _race(work: Coroutine[Any, Any, T], receive: Callable[[], Awaitable[Any]]) -> T:
    """Do some work until the client goes."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _cancelled(working)
        await _cancelled(leaving)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait for its end."""
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
