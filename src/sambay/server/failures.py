"""What went wrong, as an answer in the form of the protocol that was spoken to."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sambay.errors import SambaYError
from sambay.protocols import anthropic, ollama, openai

__all__ = ["FORMS", "JsonResponse", "RefusedError", "error_body", "failed", "status_of"]

_log = logging.getLogger("sambay.server")

_OURS = "the server failed at this request, which is a mistake of its own: its log says more"


class RefusedError(SambaYError):
    """A request that the server does not take, for a reason of its own.

    Args:
        status: of HTTP.
        message: one sentence.
        code: a word for it, as OpenAI's clients read it.
        retry_after: seconds after which another attempt makes sense.
        close: end the connection, on which the rest of a body may be under way.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        retry_after: int | None = None,
        *,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.headers |= {"Connection": "close"} if close else {}
        self.headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}


class JsonResponse(Response):
    """JSON in UTF-8; what a client sent and is no character comes back as "?"."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


FORMS: list[tuple[str, Callable[[Exception, int], Mapping[str, Any]]]] = [
    ("/api/", ollama.error_body),
    (anthropic.MESSAGES, anthropic.error_body),
]
"""Beginnings of paths, and how errors look there; elsewhere they are OpenAI's."""


def status_of(error: Exception) -> int:
    """The HTTP status that an error means."""
    if isinstance(error, RefusedError):
        return error.status
    return error.status_code if isinstance(error, HTTPException) else openai.status_of(error)


def error_body(path: str, error: Exception) -> Mapping[str, Any]:
    """The body that tells of an error, in the form of the protocol of that path."""
    status = status_of(error)
    if not isinstance(error, SambaYError | HTTPException):
        error = SambaYError(_OURS)  # whatever it says is for us, not for strangers
    for begin, form in FORMS:
        if path.startswith(begin):
            return form(error, status)
    return openai.error_body(error, status)


def failed(request: Request, error: Exception) -> JsonResponse:
    """The answer to a request at which something went wrong."""
    path, status = request.scope["path"], status_of(error)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, HTTPException):
        detail = {404: f"there is nothing at {path[:99]}", 405: f"{path[:99]} does not take {request.method}"}
        error = RefusedError(status, detail.get(status, str(error.detail)))
    if status >= 500 and not isinstance(error, RefusedError):
        _log.error("%s failed", path, exc_info=error)
    return JsonResponse(error_body(path, error), status, headers)
