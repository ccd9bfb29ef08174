"""What clients send, read strictly: whatever it is, it is a JSON object of sane size, or one sentence says why not."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sambay.errors import BodyError

__all__ = ["make_readers", "parse_json", "read"]

T = TypeVar("T")

_DEPTH = 64
"""Levels of lists and objects; the deepest that anyone means is a JSON schema."""

_LONG = 1 << 16
"""Bytes from which a body waits for one of few threads; shorter ones do not wait for it."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BodyError: it is none: no UTF-8, no JSON, NaN or a number that is out of all bounds, a name that is there twice,
            half a character, too many levels.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise BodyError(
            f"the body is not UTF-8: byte {error.start} is 0x{byte:02x}, send JSON in UTF-8", None
        ) from None
    if not text.strip():
        raise BodyError("the body is empty: it must be a JSON object", None)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except BodyError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BodyError(f"the body is not JSON: {error}", None) from None
    _check_depth(value)
    if not isinstance(value, dict):
        raise BodyError(f"the body must be a JSON object, not {value!r:.99}", None)
    if _SURROGATE.search(raw):
        _check_characters(value)
    return value


async def read(request: Request, reader: Callable[[dict[str, Any]], T]) -> T:
    """The body of a request, read beside the event loop, which long ones would hold up.

    Args:
        request: whose body has not been read.
        reader: makes what is wanted of the JSON object.

    Raises:
        BodyError: it is no JSON object, or what `reader` raises.
    """
    raw = await request.body()

    def parsed() -> T:
        return reader(parse_json(raw))

    if len(raw) < _LONG:
        return await run_in_threadpool(parsed)
    return await asyncio.get_running_loop().run_in_executor(request.app.state.readers, parsed)


def make_readers() -> ThreadPoolExecutor:
    """The threads that long bodies are read by: a text takes a hundred times its size while it is made tokens of."""
    return ThreadPoolExecutor(2, "sambay-reader")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise BodyError(f"the body has {twice!r:.99} twice in one object: give it once", None)
    return found


def _integer(text: str) -> int:
    # Python reads thousands of digits, and then fails at making a float of them.
    value = int(text) if len(text) < 25 else 2**64
    if not -(2**63) <= value < 2**64:
        raise BodyError(f"the body has the number {text[:40]}{'...' * (len(text) > 40)}: it must be of 64 bits", None)
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BodyError(f"the body has the number {text[:40]}: it is beyond what a double holds", None)
    return value


def _constant(text: str) -> float:
    raise BodyError(f"the body has {text}, which is no number in JSON: give a number, or null", None)


def _check_depth(value: object) -> None:
    """Refuse what recursion elsewhere would fail at."""
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BodyError:
    return BodyError(f"the body has lists and objects in more than {_DEPTH} levels: make it flatter", None)


def _check_characters(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise BodyError(f"the body has \\u{code:04x} alone, which is half a character: send whole ones", None) from None
