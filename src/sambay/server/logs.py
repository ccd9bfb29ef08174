"""The log: a line for each request, for people or as JSON, without what was said in it unless that is asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

__all__ = ["log", "setup"]

_logger = logging.getLogger("sambay.server")


def log(event: str, *, level: int = logging.INFO, **facts: object) -> None:
    """Write an event.

    Args:
        event: what happened, in a word or two.
        level: of `logging`.
        **facts: of JSON's types.
    """
    _logger.log(level, event, extra={"facts": facts})


def setup(*, as_json: bool) -> None:
    """Write the log of this process to the standard error.

    Args:
        as_json: an object a line, else lines for people.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _LineFormatter())
    _logger.setLevel(logging.INFO)
    for name, level in (("sambay.server", logging.INFO), ("uvicorn.error", logging.ERROR), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers, logger.propagate = [handler], False


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{_stamp(record.created)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII, so that no one's text ends a line or moves a cursor


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", {})
        said = " ".join(f"{name}={_shown(value)}" for name, value in facts.items())
        line = f"{_stamp(record.created)}Z {record.levelname.lower()} {record.getMessage()} {said}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    return str(value) if plain else json.dumps(value, default=str)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
