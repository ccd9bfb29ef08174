"""A server from outside: conversations at a given concurrency or rate, and how long their tokens take to arrive.

Any server of OpenAI's chats will do. Its tokenizer is not known here: prompts are measured in words, and what they are
in tokens is the server's own account.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sambay.bench.decode import check_positive
from sambay.bench.record import quantiles
from sambay.data.problems import problem_at
from sambay.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import httpx

__all__ = ["Level", "Load", "Target", "find_model", "measure_serving"]

Mix = Sequence[tuple[int, int]]
"""Ranges of a length, of which each is as likely as the others; within one all lengths are."""


@dataclass(frozen=True)
class Target:
    """A server.

    Attributes:
        url: where it is, with or without the `/v1` at the end.
        model: what requests call it; None for the first that it lists.
        key: that it asks for.
        timeout: seconds that it may be silent.
    """

    url: str
    model: str | None = None
    key: str | None = None
    timeout: float = 600.0

    @property
    def base(self) -> str:
        """The beginning of all addresses."""
        url = self.url.rstrip("/")
        return url if url.endswith("/v1") else f"{url}/v1"


@dataclass(frozen=True)
class Load:
    """What is asked.

    Attributes:
        prompt: words of a question.
        generate: tokens of an answer at most.
        turns: of each conversation.
        prefix: words that all conversations of a level begin with, as a system message; 0 for none.
        ignore_eos: let all answers be as long as they may be, where the server knows the word.
        seed: of what is asked; the same seed asks the same.
    """

    prompt: Mix
    generate: Mix
    turns: int = 1
    prefix: int = 0
    ignore_eos: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """How hard.

    Attributes:
        conversations: in all.
        concurrency: conversations at once; None for as many as come.
        rate: conversations that begin in a second, at random; None for the next as soon as one has ended.
    """

    conversations: int
    concurrency: int | None = None
    rate: float | None = None


@dataclass
class _Turn:
    """One request: when it was sent, when text came, and what the server says of it; times of `time.perf_counter`."""

    begin: float
    chunks: list[float] = field(default_factory=list)
    end: float = 0.0
    text: str = ""
    finished: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str = ""

    @property
    def tokens(self) -> int:
        """As the server counts them, else pieces of text."""
        return int(self.usage.get("completion_tokens") or len(self.chunks))

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were not computed."""
        details = self.usage.get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens") or 0)


def find_model(target: Target) -> str:
    """The name of the model that is to be asked, once a short request to it has been answered.

    Raises:
        ConfigError: there is no server, or it does not answer.
        MissingExtraError: httpx is not installed.
    """
    _httpx()
    return asyncio.run(_find_model(target))


def measure_serving(
    target: Target,
    model: str,
    load: Load,
    levels: Sequence[Level],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Drive a server, level by level.

    Args:
        target: the server.
        model: from `find_model`.
        load: what is asked; each level asks something else, so that nothing is known from the one before.
        levels: how hard.
        progress: called with (requests done, requests in all).

    Returns:
        A row for each level: `requests`, of which `errors` failed, by kind, and `failure` is what the first of them
        was told; `seconds` from the first request to the last answer, `tokens` in them and `tokens_per_second`; in
        seconds, as `quantiles` of the requests that did not fail, `first_token`, `inter_token` between two pieces of
        text, `per_token` after the first, and `whole`.

    Raises:
        ConfigError: nothing to measure.
        MissingExtraError: httpx is not installed.
    """
    check_positive(conversations=min((one.conversations for one in levels), default=0), turns=load.turns)
    total, done = sum(one.conversations for one in levels) * load.turns, 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    async def measure() -> list[dict[str, Any]]:
        return [await _level(target, model, load, number, level, tell) for number, level in enumerate(levels)]

    _httpx()
    return asyncio.run(measure())


def _httpx() -> Any:  # noqa: ANN401 - the module
    try:
        import httpx
    except ImportError:
        raise MissingExtraError("httpx", "bench", "sambay bench serve") from None
    return httpx


@contextlib.asynccontextmanager
async def _client(target: Target) -> AsyncIterator[httpx.AsyncClient]:
    httpx = _httpx()
    headers = {} if target.key is None else {"Authorization": f"Bearer {target.key}"}
    try:
        client = httpx.AsyncClient(
            base_url=target.base,
            headers=headers,
            timeout=httpx.Timeout(target.timeout, connect=min(10.0, target.timeout)),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,  # a proxy would be measured with the server
        )
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ConfigError(f"{target.url!r} is no address of a server ({error}): give one such as {_EXAMPLE}") from None
    async with client:
        yield client


_EXAMPLE = "http://127.0.0.1:8000"


async def _find_model(target: Target) -> str:
    httpx = _httpx()
    async with _client(target) as client:
        name = target.model
        if name is None:
            try:
                response = await client.get("/models")
            except (httpx.HTTPError, httpx.UnsupportedProtocol) as error:
                raise ConfigError(
                    f"{target.url} does not answer ({_reason(error)}): is a server running there, such as sambay serve?"
                ) from None
            try:
                name = str(response.json()["data"][0]["id"]) if response.is_success else None
            except (ValueError, LookupError, TypeError):
                name = None
            if name is None:
                raise ConfigError(
                    f"{target.base}/models answers {response.status_code} and names no model: give --model and, where "
                    "the server asks for one, --api-key"
                )
        turn = await _ask(client, name, [{"role": "user", "content": "What is 1 + 1?"}], 1, False)
        if turn.error is not None:
            why = ": ".join(filter(None, (turn.error, turn.message)))
            raise ConfigError(f"{target.url} does not answer a short question to {name!r:.99} ({why})")
        return name


async def _level(
    target: Target, model: str, load: Load, number: int, level: Level, tell: Callable[[], None]
) -> dict[str, Any]:
    dice = random.Random(f"{load.seed}/{number}")
    prefix = _words(dice, load.prefix) if load.prefix else None
    scripts = [
        [(_words(dice, _length(dice, load.prompt)), _length(dice, load.generate)) for _ in range(load.turns)]
        for _ in range(level.conversations)
    ]
    waits, places = [0.0] * len(scripts), asyncio.Semaphore(level.concurrency or len(scripts))
    if level.rate is not None:  # a Poisson process
        for place in range(1, len(waits)):
            waits[place] = waits[place - 1] + dice.expovariate(level.rate)
    turns: list[_Turn] = []

    async def hold(script: Sequence[tuple[str, int]], wait: float) -> None:
        await asyncio.sleep(wait)
        messages = [] if prefix is None else [{"role": "system", "content": prefix}]
        async with places:
            for question, most in script:
                messages.append({"role": "user", "content": question})
                turn = await _ask(client, model, messages, most, load.ignore_eos)
                turns.append(turn)
                tell()
                if turn.error is not None:
                    return  # there is nothing to go on from
                messages.append({"role": "assistant", "content": turn.text})

    async with _client(target) as client:
        begin = time.perf_counter()
        await asyncio.gather(*(hold(*pair) for pair in zip(scripts, waits, strict=True)))
        seconds = time.perf_counter() - begin
    return _row(level, turns, seconds)


async def _ask(
    client: httpx.AsyncClient, model: str, messages: Sequence[dict[str, str]], most: int, ignore_eos: bool
) -> _Turn:
    """Send a request and take in its stream, whatever comes of it."""
    httpx = _httpx()
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": most,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ignore_eos:
        body["ignore_eos"] = True
    turn = _Turn(time.perf_counter())
    try:
        async with client.stream("POST", "/chat/completions", json=body) as response:
            if response.is_success:
                await _take(response, turn)
            else:
                turn.error, turn.message = f"HTTP {response.status_code}", _message(await response.aread())
    except httpx.TimeoutException:
        turn.error = "timeout"
    except httpx.HTTPError as error:
        turn.error, turn.message = "connection", _reason(error)
    turn.end = time.perf_counter()
    if turn.error is None and not turn.finished:
        turn.error = "stream ended early"
    return turn


async def _take(response: httpx.Response, turn: _Turn) -> None:
    """Read server-sent events to their end."""
    async for line in response.aiter_lines():
        field, _, data = line.partition(":")
        data = data.strip()
        if field != "data" or not data or data == "[DONE]":
            continue
        now = time.perf_counter()
        try:
            event = json.loads(data)
            if event.get("error"):
                turn.error, turn.message = "error in the stream", _message(data.encode())
                return
            turn.usage = event.get("usage") or turn.usage
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                said = delta.get("content") or ""
                turn.text += said
                if said or delta.get("reasoning_content") or delta.get("reasoning"):
                    turn.chunks.append(now)
                turn.finished |= choice.get("finish_reason") is not None
        except (ValueError, AttributeError, TypeError):
            turn.error, turn.message = "no event of a chat", data[:99]
            return


def _row(level: Level, turns: Sequence[_Turn], seconds: float) -> dict[str, Any]:
    good = [one for one in turns if one.error is None]
    heard = [one for one in good if one.chunks]
    failed = [one for one in turns if one.error is not None]
    tokens = sum(one.tokens for one in good)
    return {
        "concurrency": level.concurrency,
        "rate": level.rate,
        "conversations": level.conversations,
        "requests": len(turns),
        "errors": dict(Counter(one.error for one in failed)),
        "failure": next((one.message for one in failed if one.message), None),
        "seconds": seconds,
        "prompt_tokens": sum(int(one.usage.get("prompt_tokens") or 0) for one in good),
        "cached_tokens": sum(one.cached for one in good),
        "tokens": tokens,
        "counted": all("completion_tokens" in one.usage for one in good),
        "tokens_per_second": tokens / seconds,
        "requests_per_second": len(good) / seconds,
        "first_token": quantiles([one.chunks[0] - one.begin for one in heard]),
        "inter_token": quantiles([b - a for one in heard for a, b in zip(one.chunks, one.chunks[1:], strict=False)]),
        "per_token": quantiles(
            [(one.chunks[-1] - one.chunks[0]) / (one.tokens - 1) for one in heard if one.tokens > 1]
        ),
        "whole": quantiles([one.end - one.begin for one in good]),
    }


def _length(dice: random.Random, mix: Mix) -> int:
    return dice.randint(*dice.choice(mix))


def _words(dice: random.Random, count: int) -> str:
    """School problems, one after another, cut after so many words."""
    found: list[str] = []
    while len(found) < count:
        found += problem_at(dice.randrange(1 << 30), 0, "test").question.split()
    return " ".join(found[:count])


def _message(body: bytes) -> str:
    """What the body of an error says, at most a line of it."""
    text = body.decode(errors="replace").strip()
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        error = json.loads(text).get("error")
        text = str(error.get("message") if isinstance(error, dict) else error)
    return " ".join(text.split())[:200]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
