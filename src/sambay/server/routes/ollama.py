"""Ollama's protocol: `/api/chat`, `/api/generate`, and what it says of models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from sambay._version import __version__
from sambay.engine import LLM
from sambay.errors import BodyError, ModelNotFoundError
from sambay.protocols.body import Json
from sambay.protocols.ollama import (
    CHAT,
    GENERATE,
    Lines,
    OllamaBody,
    describe_fully,
    describe_listed,
    describe_running,
    load_line,
    read_chat,
    read_generate,
)
from sambay.server import describe
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse, RefusedError, error_body
from sambay.server.models import Models, ServedModel
from sambay.server.running import Running, start
from sambay.server.sse import PieceResponse, unless_gone

__all__ = ["router"]

router = APIRouter(tags=["Ollama"])

_LATEST = ":latest"
"""What Ollama's clients put behind a name that has no tag."""

_SHOW = describe.of_body({"model": {"type": "string"}}, {}, closed=False)


def _answers(success: str) -> dict[int | str, dict[str, Any]]:
    found = describe.answers(success, error=describe.OF_OLLAMA)
    found[200]["content"]["application/x-ndjson"] = {"schema": {"type": "string"}}
    return found


@router.post(CHAT, openapi_extra=describe.OLLAMA_CHAT, responses=_answers("The answer."))
async def chat(request: Request) -> Response:
    """Answer a conversation."""
    return await _answer(request, read_chat)


@router.post(GENERATE, openapi_extra=describe.GENERATE, responses=_answers("The text."))
async def generate(request: Request) -> Response:
    """Continue a text, or answer one message."""
    return await _answer(request, read_generate)


async def _answer(request: Request, read_body: Callable[[object], OllamaBody]) -> Response:
    models: Models = request.app.state.models

    def reader(raw: dict[str, Any]) -> tuple[OllamaBody, ServedModel, Any]:
        body = read_body(raw)
        served = _served(models, body.model)
        return body, served, [] if body.empty else body.prompts(served.llm.get_tokenizer())

    body, served, prompts = await read(request, reader)
    if body.empty:
        return JsonResponse(load_line(body, served.name))
    params = served.llm.get_default_sampling_params(**body.sampling)
    running = await start(request, served, prompts, params)
    lines = Lines(body, served.name, served.llm.get_tokenizer())
    if body.stream:
        pieces = _pieces(request, running, lines)
        return PieceResponse(pieces, ping=None, media_type="application/x-ndjson")

    async def finish() -> Json:
        said = [line async for _, event in running.events() for line in lines.push(event)]
        return lines.whole(said, running.outputs[0])

    async with running:
        return JsonResponse(await unless_gone(request, finish()))


async def _pieces(request: Request, running: Running, lines: Lines) -> AsyncIterator[bytes]:
    async with running:
        try:
            async for _, event in running.events():
                if found := lines.push(event):
                    yield b"".join(map(_line, found))
            last = lines.end(running.outputs[0])
        except Exception as error:  # the status is out already: the error is a line of its own
            last = dict(error_body(request.url.path, error))
        yield _line(last)


def _line(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace") + b"\n"


def _served(models: Models, name: str | None) -> ServedModel:
    try:
        return models.get(name)
    except ModelNotFoundError:
        if name is None or not name.endswith(_LATEST):
            raise
        return models.get(name.removesuffix(_LATEST))


@router.get("/api/tags", responses=_answers("The models."))
async def tags(request: Request) -> Response:
    """The models that are served."""
    return await _listed(request, describe_listed)


@router.get("/api/ps", responses=_answers("The models."))
async def running_models(request: Request) -> Response:
    """The models in memory: all that are served."""
    return await _listed(request, describe_running)


async def _listed(request: Request, described: Callable[[LLM, str, float], Json]) -> Response:
    models: Models = request.app.state.models
    found = await run_in_threadpool(lambda: [described(one.llm, one.name, one.created) for one in models])
    return JsonResponse({"models": found})


@router.post("/api/show", openapi_extra=_SHOW, responses=_answers("The model."))
async def show(request: Request) -> Response:
    """All about one model."""
    models: Models = request.app.state.models

    def reader(raw: dict[str, Any]) -> Json:
        name = raw.get("model", raw.get("name"))
        if not isinstance(name, str):
            raise BodyError(f"model is {name!r:.99}: it must be the name of a model", "model")
        one = _served(models, name)
        return describe_fully(one.llm, one.name, one.created)

    return JsonResponse(await read(request, reader))


@router.get("/api/version", responses=_answers("The version."))
async def version() -> Response:
    """Our version."""
    return JsonResponse({"version": __version__})


@router.head("/", include_in_schema=False)
@router.head("/api/version", include_in_schema=False)
@router.head("/api/tags", include_in_schema=False)
async def alive() -> Response:
    """That there is a server, as Ollama's command asks."""
    return Response()


@router.post("/api/embed", include_in_schema=False)
@router.post("/api/embeddings", include_in_schema=False)
async def embed() -> Response:
    """Refused."""
    raise RefusedError(400, "the models here write text: none of them makes embeddings")


@router.post("/api/pull", include_in_schema=False)
@router.post("/api/push", include_in_schema=False)
@router.post("/api/create", include_in_schema=False)
@router.post("/api/copy", include_in_schema=False)
@router.delete("/api/delete", include_in_schema=False)
async def manage(request: Request) -> Response:
    """Refused."""
    path = request.url.path
    raise RefusedError(403, f"{path} is not done here: the models are those that `sambay serve` was started with")
