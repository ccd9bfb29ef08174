"""OpenAI's protocol: `/v1/chat/completions`, `/v1/completions`, and `/v1/models`, which is Anthropic's, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sambay.engine import StreamEvent
from sambay.protocols.body import ChatBody, Json
from sambay.protocols.openai import (
    CHAT,
    COMPLETIONS,
    CompletionBody,
    chat_response,
    completion_response,
    read_body,
)
from sambay.protocols.openai_chunks import ChatChunks, CompletionChunks
from sambay.server import describe
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse, error_body
from sambay.server.models import Models, ServedModel
from sambay.server.running import Running, start
from sambay.server.sse import PieceResponse, sse, unless_gone

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", responses=describe.answers("The models."))
async def list_models(request: Request) -> Response:
    """The models that are served."""
    models: Models = request.app.state.models
    data = [_model(one) for one in models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"], "has_more": False}
    return JsonResponse({"object": "list", "data": data, **ends})


@router.get("/v1/models/{name:path}", responses=describe.answers("The model."))
async def show_model(request: Request, name: str) -> Response:
    """One of the models."""
    models: Models = request.app.state.models
    return JsonResponse(_model(models.get(name)))


def _model(served: ServedModel) -> Json:
    """A model with the fields of OpenAI's lists and those of Anthropic's, whose clients ask at the same path."""
    return {
        "type": "model",
        "display_name": served.name,
        "created_at": datetime.fromtimestamp(served.created, timezone.utc).isoformat(),
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "sambay",
        "max_model_len": served.llm.max_model_len,
    }


@router.post(CHAT, openapi_extra=describe.CHAT, responses=describe.answers("The answer.", stream=True))
async def chat(request: Request) -> Response:
    """Answer a conversation."""
    return await _answer(request, CHAT)


@router.post(COMPLETIONS, openapi_extra=describe.COMPLETION, responses=describe.answers("The text.", stream=True))
async def complete(request: Request) -> Response:
    """Continue a text."""
    return await _answer(request, COMPLETIONS)


async def _answer(request: Request, url: str) -> Response:
    models: Models = request.app.state.models

    def reader(raw: dict[str, Any]) -> tuple[ChatBody | CompletionBody, ServedModel, Any]:
        body = read_body(url, raw)
        served = models.get(body.model)
        return body, served, body.prompts(served.llm.get_tokenizer())

    body, served, prompts = await read(request, reader)
    params = served.llm.get_default_sampling_params(**body.sampling)
    running = await start(request, served, prompts, params)
    if body.stream:
        pieces = _pieces(request, running, body, served, params.n)
        return PieceResponse(pieces, every=request.app.state.settings.ping)
    async with running:
        outputs = await unless_gone(request, running.finish())
    tokenizer = served.llm.get_tokenizer()
    if isinstance(body, ChatBody):
        top = body.sampling.get("logprobs") or 0
        return JsonResponse(chat_response(outputs[0], tokenizer, served.name, top_logprobs=top, tools=body.tools))
    return JsonResponse(completion_response(outputs, tokenizer, served.name, echo=body.echo))


async def _pieces(
    request: Request, running: Running, body: ChatBody | CompletionBody, served: ServedModel, n: int
) -> AsyncIterator[bytes]:
    tokenizer = served.llm.get_tokenizer()
    chunks: ChatChunks | CompletionChunks
    push: Callable[[int, StreamEvent], list[Json]]
    if isinstance(body, ChatBody):
        top = body.sampling.get("logprobs") or 0
        chunks = of_chat = ChatChunks(
            tokenizer, served.name, top_logprobs=top, include_usage=body.include_usage, tools=body.tools
        )

        def push(prompt: int, event: StreamEvent) -> list[Json]:
            return of_chat.push(event)
    else:
        chunks = CompletionChunks(tokenizer, served.name, n=n, echo=body.echo, include_usage=body.include_usage)
        push = chunks.push
    async with running:
        try:
            async for prompt, event in running.events():
                found = push(prompt, event)
                if found:
                    yield b"".join(map(sse, found))
            yield b"".join(map(sse, chunks.end(running.outputs)))
        except Exception as error:  # the status is out already: the error is a piece of its own
            yield sse(error_body(request.url.path, error))
        yield sse("[DONE]")
