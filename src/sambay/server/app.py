"""The server as an ASGI application: its routes, and what every request goes through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from sambay._version import __version__
from sambay.errors import SambaYError
from sambay.protocols.responses import Responses
from sambay.server import failures, page
from sambay.server.bodies import make_readers
from sambay.server.gate import Doors, Gate
from sambay.server.metrics import Metrics
from sambay.server.models import Models
from sambay.server.observe import Observe
from sambay.server.routes import anthropic, ollama, openai, operations, responses, tutor
from sambay.server.settings import Settings
from sambay.server.tutoring import Tutoring

__all__ = ["create_app"]

_GONE = 499
"""The status, seen in the log only, of a request whose client did not wait."""


def create_app(models: Models, settings: Settings | None = None) -> FastAPI:
    """The application; it ends the engines of the models when it is shut down.

    Args:
        models: what is served.
        settings: how; None for the defaults.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await app.state.tutoring.aclose()
            await models.aclose()
            app.state.readers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="sambay",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # pages that load their scripts from elsewhere
        redoc_url=None,
    )
    settings = settings or Settings()
    metrics, doors = Metrics(models), Doors()
    app.state.models, app.state.settings, app.state.metrics, app.state.doors = models, settings, metrics, doors
    app.state.responses, app.state.tutoring, app.state.readers = Responses(), Tutoring(), make_readers()
    for kind in (SambaYError, HTTPException):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    for module in (openai, responses, ollama, anthropic, operations, page, tutor):
        app.include_router(module.router)
    # What is added last comes first.
    app.add_middleware(Gate, settings=settings, doors=doors)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(Observe, metrics=metrics, shared=bool(settings.origins))
    return app


async def _failed(request: Request, error: Exception) -> Response:
    return failures.failed(request, error)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)
