"""What those who run the server ask: whether it lives, and whether it takes requests."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from sambay._version import __version__
from sambay.server.describe import answers
from sambay.server.failures import JsonResponse, RefusedError
from sambay.server.gate import Doors
from sambay.server.metrics import Metrics
from sambay.server.models import Models

__all__ = ["router"]

router = APIRouter(tags=["operation"])


@router.get("/health", responses=answers("It lives."))
async def health(request: Request) -> Response:
    """Whether the server lives: if not, it is to be started anew."""
    models: Models = request.app.state.models
    dead = [one.name for one in models if not one.engine.alive]
    if dead:
        raise RefusedError(503, f"the engine of {', '.join(dead)} has ended: start the server anew", "engine_dead")
    return JsonResponse({"status": "ok", "version": __version__})


@router.get("/ready", responses=answers("It does."))
async def ready(request: Request) -> Response:
    """Whether the server takes requests."""
    doors: Doors = request.app.state.doors
    if doors.closed:
        raise RefusedError(503, f"the server is about to end, when {doors.inside} requests have", "draining")
    models: Models = request.app.state.models
    return JsonResponse({"status": "ready", "models": [one.name for one in models]})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters and gauges, in Prometheus' text format."""
    found: Metrics = request.app.state.metrics
    content, media_type = found.exposition(request.headers.get("accept", ""))
    return Response(content, media_type=media_type)
