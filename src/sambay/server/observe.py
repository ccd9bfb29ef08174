"""Around every request: its number, its line in the log, what is counted of it, the headers that all answers have."""

from __future__ import annotations

import logging
import re
import time
import uuid

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sambay.server.logs import log
from sambay.server.metrics import Metrics

__all__ = ["Observe"]

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_QUIET = {"/health", "/ready", "/metrics"}
"""Asked every few seconds by machines: in the log only when something is wrong."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OF_PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_OF_ALL_ELSE = "default-src 'none'; frame-ancestors 'none'"


class Observe:
    """The outermost middleware.

    Args:
        app: what it is around.
        metrics: that count.
        shared: whether pages of other servers may read answers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, shared: bool) -> None:
        self._app, self._metrics = app, metrics
        self._headers = {name: value for name, value in _HEADERS.items() if not (shared and "Resource" in name)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; ASGI's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _ID.fullmatch(given) else uuid.uuid4().hex
        facts: dict[str, object] = {}
        scope.setdefault("state", {}).update(request_id=name, began=began, facts=facts)
        status = 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(MutableHeaders(scope=message), name)
            await send(message)

        try:
            await self._app(scope, receive, reply)
        except h11.LocalProtocolError:
            # A body that is no HTTP was answered by uvicorn while we answered its head: the connection has ended.
            status = 400
        finally:
            self._tell(scope, status, time.perf_counter() - began, name, facts)

    def _dress(self, headers: MutableHeaders, name: str) -> None:
        headers["X-Request-Id"] = headers["Request-Id"] = name  # as Anthropic's clients look for it
        for header, value in self._headers.items():
            headers.setdefault(header, value)
        page = headers.get("content-type", "").startswith("text/html")
        headers.setdefault("Content-Security-Policy", _OF_PAGES if page else _OF_ALL_ELSE)

    def _tell(self, scope: Scope, status: int, seconds: float, name: str, facts: dict[str, object]) -> None:
        # The route as it is written in the code: what strangers make up must not become a label.
        endpoint = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(endpoint, method, str(status or "broken")).inc()
        self._metrics.seconds.labels(endpoint).observe(seconds)
        if endpoint in _QUIET and status < 400:
            return
        client = scope.get("client")
        log(
            "request",
            level=logging.ERROR if status >= 500 and status != 503 else logging.INFO,
            method=scope["method"],
            path=scope["raw_path"].decode("ascii", errors="replace")[:200],
            status=status,
            seconds=round(seconds, 4),
            client=client[0] if client else None,
            request_id=name,
            **facts,
        )
