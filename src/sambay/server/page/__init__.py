"""The chat page: its files, and Markdown for it.

The page is a client of `/v1/chat/completions` like any other, and asks here for the HTML of what it got: of the open
block only, ten times a second at most. So a reply costs the engine what it costs any client, nothing is kept here for a
reply that runs, and a rendering that is late delays no token.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sambay.errors import BodyError
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse
from sambay.server.render import render
from sambay.server.static import StaticFiles

__all__ = ["FILES", "router"]

_MOST = 400_000  # characters to be rendered in one request; a second of one core, at most
FILES = StaticFiles(Path(__file__).parent / "static")
"""Of all pages."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return FILES.response(request, "index.html")


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    """For those who ask for it unseen."""
    return FILES.response(request, "icon.svg")


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> Response:
    """A file of it."""
    return FILES.response(request, name)


@router.post("/page/render")
async def rendered(request: Request) -> Response:
    """Texts as HTML: `{"parts": [{"text": ..., "growing": false}]}`, answered in the same order."""
    return JsonResponse({"parts": await read(request, _render)})


def _render(body: dict[str, Any]) -> list[dict[str, Any]]:
    parts = body.get("parts")
    if not isinstance(parts, list) or not all(isinstance(one, dict) for one in parts):
        raise BodyError("parts must be a list of objects, each with a text", "parts")
    length = 0
    for one in parts:
        if not isinstance(one.get("text"), str) or not isinstance(one.get("growing", False), bool):
            raise BodyError(f"a part is {one!r:.99}: it must have a text, and growing may be true or false", "parts")
        length += len(one["text"])
    if length > _MOST:
        raise BodyError(f"the parts have {length} characters: send at most {_MOST} at once", "parts")
    return [asdict(render(one["text"], one.get("growing", False))) for one in parts]
