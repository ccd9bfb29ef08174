"""Anthropic's protocol: `/v1/messages` and its counting of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sambay.protocols.anthropic import (
    COUNT_TOKENS,
    MESSAGES,
    MessageEvents,
    message_response,
    read_count,
    read_messages,
)
from sambay.protocols.body import ChatBody, Json
from sambay.server import describe
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse, error_body
from sambay.server.models import Models, ServedModel
from sambay.server.running import Running, start
from sambay.server.sse import PieceResponse, sse, unless_gone

__all__ = ["router"]

router = APIRouter(tags=["Anthropic"])


@router.post(
    MESSAGES,
    openapi_extra=describe.MESSAGE,
    responses=describe.answers("The message.", stream=True, error=describe.OF_ANTHROPIC),
)
async def answer(request: Request) -> Response:
    """Answer a conversation."""
    models: Models = request.app.state.models

    def reader(raw: dict[str, Any]) -> tuple[ChatBody, ServedModel, Any]:
        body = read_messages(raw)
        served = models.get(body.model)
        return body, served, body.prompts(served.llm.get_tokenizer())

    body, served, prompts = await read(request, reader)
    params = served.llm.get_default_sampling_params(**body.sampling)
    running = await start(request, served, prompts, params)
    if body.stream:
        [(_, ids)] = prompts
        events = MessageEvents(served.name, len(ids), body.tools)
        ping = _sse([{"type": "ping"}])
        return PieceResponse(_pieces(request, running, events), ping=ping, every=request.app.state.settings.ping)
    async with running:
        [output] = await unless_gone(request, running.finish())
    return JsonResponse(message_response(output, served.name, body.tools))


async def _pieces(request: Request, running: Running, events: MessageEvents) -> AsyncIterator[bytes]:
    async with running:
        yield _sse(events.begin())
        try:
            async for _, event in running.events():
                if found := events.push(event):
                    yield _sse(found)
            last = events.end(running.outputs[0])
        except Exception as error:  # the status is out already: the error is an event of its own
            last = [dict(error_body(request.url.path, error))]
        yield _sse(last)


def _sse(events: list[Json]) -> bytes:
    return b"".join(sse(event, event["type"]) for event in events)


@router.post(
    COUNT_TOKENS,
    openapi_extra=describe.COUNT,
    responses=describe.answers("The number.", error=describe.OF_ANTHROPIC),
)
async def count(request: Request) -> Response:
    """Say how many tokens a prompt has."""
    models: Models = request.app.state.models

    def reader(raw: dict[str, Any]) -> int:
        body = read_count(raw)
        [(_, ids)] = body.prompts(models.get(body.model).llm.get_tokenizer())
        return len(ids)

    return JsonResponse({"input_tokens": await read(request, reader)})
