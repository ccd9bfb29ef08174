"""OpenAI's responses: `/v1/responses`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sambay.protocols.body import Json
from sambay.protocols.responses import RESPONSES, ResponseBody, ResponseEvents, Responses, read_response
from sambay.server import describe
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse, error_body
from sambay.server.models import Models, ServedModel
from sambay.server.running import Running, start
from sambay.server.sse import PieceResponse, sse, unless_gone

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


@router.post(RESPONSES, openapi_extra=describe.RESPONSE, responses=describe.answers("The response.", stream=True))
async def respond(request: Request) -> Response:
    """Give a response."""
    models: Models = request.app.state.models
    kept: Responses = request.app.state.responses

    def reader(raw: dict[str, Any]) -> tuple[ResponseBody, ServedModel, Any]:
        body = read_response(raw, kept.conversation)
        served = models.get(body.model)
        return body, served, body.prompts(served.llm.get_tokenizer())

    body, served, prompts = await read(request, reader)
    params = served.llm.get_default_sampling_params(**body.sampling)
    running = await start(request, served, prompts, params)
    events = ResponseEvents(body, served.name, params, served.llm.get_tokenizer())
    if body.stream:
        return PieceResponse(_pieces(request, running, body, events), every=request.app.state.settings.ping)

    async def finish() -> Json:
        async for _, event in running.events():
            events.push(event)
        events.end(running.outputs[0])
        return events.response

    async with running:
        response = await unless_gone(request, finish())
    kept.keep(body, response)
    return JsonResponse(response)


async def _pieces(
    request: Request, running: Running, body: ResponseBody, events: ResponseEvents
) -> AsyncIterator[bytes]:
    async with running:
        yield _sse(events.begin())
        try:
            async for _, event in running.events():
                if found := events.push(event):
                    yield _sse(found)
            last = events.end(running.outputs[0])
            request.app.state.responses.keep(body, events.response)
        except Exception as error:  # the status is out already: the error is an event of its own
            last = events.fail(error_body(request.url.path, error)["error"]["message"])
        yield _sse(last)


def _sse(events: list[Json]) -> bytes:
    return b"".join(sse(event, event["type"]) for event in events)


@router.get(f"{RESPONSES}/{{id_}}", responses=describe.answers("The response."))
async def show(request: Request, id_: str) -> Response:
    """A response that was kept."""
    return JsonResponse(request.app.state.responses.response(id_))


@router.get(f"{RESPONSES}/{{id_}}/input_items", responses=describe.answers("Its input."))
async def show_input(request: Request, id_: str) -> Response:
    """The input of a response that was kept."""
    items = [{"id": f"item_{index}", **item} for index, item in enumerate(request.app.state.responses.items(id_))]
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
    return JsonResponse({"object": "list", "data": items, "has_more": False, **ends})


@router.delete(f"{RESPONSES}/{{id_}}", responses=describe.answers("It is forgotten."))
async def forget(request: Request, id_: str) -> Response:
    """Forget a response."""
    request.app.state.responses.delete(id_)
    return JsonResponse({"id": id_, "object": "response", "deleted": True})
