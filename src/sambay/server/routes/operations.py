"""What those who run the server ask: whether it lives, and whether it takes requests."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from sambay._version import __version__
from sambay.server.failures import JsonResponse

__all__ = ["router"]

router = APIRouter(tags=["operation"])


@router.get("/health")
async def health() -> Response:
    """Whether the server lives."""
    return JsonResponse({"status": "ok", "version": __version__})
