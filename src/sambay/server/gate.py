"""Who may come in: keys, limits, and none at all once the server is to end. What it refuses costs next to nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sambay.server.failures import RefusedError, failed
from sambay.server.settings import Settings

__all__ = ["Doors", "Gate", "Rates"]

_OPERATION = {"/health", "/ready", "/metrics"}
"""Answered while the server drains, and without a limit to their rate."""

_WITHOUT_KEY = {"/", "/favicon.ico", "/health", "/ready"}
_PAGES = ("/static/", "/page/", "/tutor")
"""A browser gets pages without a key; what they send needs one."""

_FREE = ("/static/", "/page/")
"""Without a limit to their rate: a page is many files, and a reply that is shown is rendered ten times a second."""

_SPILL = 8
"""So many times the limit of a body is read and thrown away: a client hears the answer only when it has sent all."""


class Rates:
    """How many requests each caller may make: a bucket that fills evenly, and holds a minute's worth.

    Args:
        per_minute: requests.
    """

    def __init__(self, per_minute: int) -> None:
        self._most, self._per_second = per_minute, per_minute / 60
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, now: float) -> float:
        """Count a request.

        Args:
            caller: whose.
            now: in seconds of a clock that does not jump.

        Returns:
            0, or the seconds until there is room for it.
        """
        left, at = self._buckets.get(caller, (float(self._most), now))
        left = min(self._most, left + (now - at) * self._per_second)
        if left < 1:
            return (1 - left) / self._per_second
        if len(self._buckets) > 10_000:  # of callers who have been away long enough nothing need be known
            self._buckets = {one: (n, t) for one, (n, t) in self._buckets.items() if now - t < 60}
        self._buckets[caller] = (left - 1, now)
        return 0.0


class Doors:
    """Whether the server takes requests, and how many are inside.

    Attributes:
        closed: no one comes in any more.
        inside: requests that have been let in and not been answered to the end.
    """

    def __init__(self) -> None:
        self.closed = False
        self.inside = 0


class Gate:
    """The middleware that lets requests in, or answers them itself.

    Args:
        app: what it is before.
        settings: what is allowed.
        doors: shared with who ends the server.
    """

    def __init__(self, app: ASGIApp, settings: Settings, doors: Doors) -> None:
        self._app, self._settings, self._doors = app, settings, doors
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self._rates = None if settings.rate_limit is None else Rates(settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; ASGI's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._check(request)
        except RefusedError as error:
            await failed(request, error)(scope, receive, send)
            return
        counted = request.scope["path"] not in _OPERATION
        begun = False

        async def reply(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._doors.inside += counted
        try:
            await self._app(scope, _Body(receive, self._settings, request.headers), reply)
        except Exception as error:  # further out it would cost the client its connection
            if begun:
                raise
            await failed(request, error)(scope, receive, send)
        finally:
            self._doors.inside -= counted

    def _check(self, request: Request) -> None:
        path, headers = request.scope["path"], request.headers  # some versions' `url` fails on a strange Host
        self._check_host(headers)
        if self._doors.closed and path not in _OPERATION:
            # Without closing the connection, which the client would hear of before it has read why.
            raise RefusedError(503, "the server is about to end: try again later, or elsewhere", "draining", 10)
        caller = request.client.host if request.client else ""
        reads = request.method in ("GET", "HEAD", "OPTIONS")
        if self._keys and not (reads and (path in _WITHOUT_KEY or path.startswith(_PAGES))):
            caller = self._check_key(headers)
        elif not self._keys and not reads:
            self._check_origin(headers)
        if self._rates is not None and path not in _OPERATION and not path.startswith(_FREE):
            wait = self._rates.take(caller, time.monotonic())
            if wait:
                raise RefusedError(
                    429,
                    f"more than {self._settings.rate_limit} requests came within a minute: try again later",
                    "rate_limit_exceeded",
                    int(wait) + 1,
                )
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > _SPILL * self._settings.max_body:
            raise _too_large(self._settings.max_body)

    def _check_host(self, headers: Headers) -> None:
        """A page that gave its own name our address would otherwise pass for one of ours."""
        hosts = self._settings.hosts
        host = headers.get("host", "")
        name = (urlsplit(f"//{host}").hostname or "") if host.isprintable() and _splits(host) else host
        if hosts is not None and name not in hosts:
            raise RefusedError(
                403, f"this server is not called {host!r:.99}: start it with --allowed-host, or use its own name"
            )

    def _check_origin(self, headers: Headers) -> None:
        """Any page that is open in a browser can send us requests: only ours may, and those that are allowed."""
        origin, allowed = headers.get("origin"), self._settings.origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        # Programs with a browser inside, such as editors, have schemes of their own that no page can have.
        foreign = origin == "null" or origin.startswith(("http://", "https://"))
        if foreign and origin.partition("://")[2] != headers.get("host"):
            raise RefusedError(403, f"pages of {origin!r:.99} may not call this server: start it with --cors-origin")

    def _check_key(self, headers: Headers) -> str:
        """Look at all keys, so that the time that it takes says nothing of them; returns a name for this one."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(given.encode("utf-8", errors="replace")).digest()
        fits = [hmac.compare_digest(digest, key) for key in self._keys]
        if not any(fits):
            what = "the API key is not one of this server" if given else "this server wants an API key"
            raise RefusedError(
                401, f"{what}: send one as Authorization: Bearer KEY, or as x-api-key", "invalid_api_key"
            )
        return f"key {fits.index(True)}"


class _Body:
    """A request's body as it arrives: neither too much of it, nor too slowly.

    Args:
        receive: ASGI's.
        settings: the limits.
        headers: of the request.
    """

    def __init__(self, receive: Receive, settings: Settings, headers: Headers) -> None:
        self._receive, self._settings = receive, settings
        self._size, self._more = 0, True
        self._until = time.monotonic() + settings.body_timeout

    async def __call__(self) -> Message:
        """The next part; ASGI's.

        Raises:
            RefusedError: it is too large, or it took too long.
        """
        message = await self._next()
        most = self._settings.max_body
        if self._size > most:
            while self._more and self._size <= _SPILL * most:
                await self._next()
            raise _too_large(most)
        return message

    async def _next(self) -> Message:
        if not self._more:
            return await self._receive()  # waits for the client to go
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except asyncio.TimeoutError:
            self._more = False
            raise RefusedError(
                408, f"the body took more than {self._settings.body_timeout:g} s: send it faster", close=True
            ) from None
        self._more = bool(message.get("more_body"))
        self._size += len(message.get("body", b""))
        return message


def _splits(host: str) -> bool:
    try:
        urlsplit(f"//{host}")
    except ValueError:
        return False
    return True


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"the body is larger than {most} bytes, the most that this server takes", close=True)
