"""The server as a process: its socket, and its end, at which nothing that was accepted is lost."""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sambay.errors import ConfigError
from sambay.server.gate import Doors
from sambay.server.logs import log
from sambay.server.models import Models
from sambay.server.settings import Settings
from sambay.server.wire import patient_protocol

__all__ = ["bind", "make_config", "run"]

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""

_LAST_S = 5
"""Seconds for what is left to be told that the server ends."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{host} port {port} cannot be listened on ({reason}): choose another") from error


def make_config(app: FastAPI, *, tls_cert: Path | None = None, tls_key: Path | None = None) -> uvicorn.Config:
    """How uvicorn is to run an application.

    Args:
        app: from `create_app`.
        tls_cert: a certificate with its chain, for HTTPS.
        tls_key: its private key, if it is not in the same file.

    Raises:
        ConfigError: the certificate or the key cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=patient_protocol(app.state.settings),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anyone on this machine could claim to be anyone
        server_header=False,
        timeout_graceful_shutdown=_LAST_S,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    try:
        config.load()
    except OSError as error:  # ssl's errors are such, too
        raise ConfigError(
            f"the certificate {tls_cert} cannot be used ({error.strerror or error}): give PEM files of a pair"
        ) from error
    return config


def run(config: uvicorn.Config, listener: socket.socket, *, ready: Callable[[], object] = lambda: None) -> None:
    """Serve until a signal ends it, and then until what has been accepted is answered.

    Args:
        config: from `make_config`.
        listener: from `bind`.
        ready: called before the first request is taken.
    """
    _allow_many_files()
    _share_heaps()
    assert isinstance(config.app, FastAPI)
    server = _Server(config, config.app)
    ready()
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn's, which ends when its requests have: the first signal closes the doors, the second ends it at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._doors: Doors = app.state.doors
        self._models: Models = app.state.models
        self._settings: Settings = app.state.settings
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._until = time.monotonic() + (0 if self._doors.closed else self._settings.drain_timeout)
        self._doors.closed = True

    async def on_tick(self, counter: int) -> bool:
        if self._until:
            overdue = time.monotonic() >= self._until
            if counter % 50 == 0 or overdue:
                log("draining", requests=self._doors.inside)
            if overdue:  # whoever still waits gets an error that says so
                await self._models.aclose()
            self.should_exit = self.should_exit or overdue or not self._doors.inside
        return await super().on_tick(counter)


def _allow_many_files() -> None:
    """A connection is a file, and by default a process may have 1,024."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _share_heaps() -> None:
    """Have glibc's threads share two heaps: each keeps what one long text needed once, and there would be 8 a core."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
