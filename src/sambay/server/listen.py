"""The server as a process: its socket, and its end, at which nothing that was accepted is lost."""

from __future__ import annotations

import ctypes
import socket
import ssl
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

__all__ = ["bind", "check_tls", "make_config", "run"]

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""

_LAST_S = 5
"""Seconds for what is left to be told that the server ends."""

_QUIET_TICKS = 5
"""Tenths of a second that the server still refuses when all requests have ended."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that will listen when the server runs; until then no one connects.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: it cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last run's connections may linger
        listener.bind((host, port))
        return listener
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"{host} port {port} cannot be listened on ({reason}): choose another") from error


def check_tls(cert: Path, key: Path | None) -> None:
    """Refuse files that HTTPS cannot be spoken with.

    Args:
        cert: a certificate with its chain, in PEM.
        key: its private key, None if it is in the same file.

    Raises:
        ConfigError: they cannot be read, or do not belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:  # ssl's errors are such, too
        reason = error.strerror or str(error)
        raise ConfigError(f"the certificate {cert} cannot be used ({reason}): give PEM files of a pair") from error


def make_config(app: FastAPI, *, tls_cert: Path | None = None, tls_key: Path | None = None) -> uvicorn.Config:
    """How uvicorn is to run an application.

    Args:
        app: from `create_app`.
        tls_cert: a certificate with its chain, for HTTPS; None for HTTP.
        tls_key: its private key, if it is not in the same file.
    """
    return uvicorn.Config(
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


def run(config: uvicorn.Config, listener: socket.socket, *, ready: Callable[[], object] = lambda: None) -> None:
    """Serve until a signal ends it, and then until what has been accepted is answered.

    Args:
        config: from `make_config`.
        listener: from `bind`.
        ready: called when requests are taken.
    """
    _allow_many_files()
    _share_heaps()
    assert isinstance(config.app, FastAPI)
    _Server(config, config.app, ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn's, which ends when its requests have: the first signal closes the doors, the second ends it at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready
        self._doors: Doors = app.state.doors
        self._models: Models = app.state.models
        self._settings: Settings = app.state.settings
        self._until, self._quiet = 0.0, 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

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
            # Not at once: who has just been answered may be asking again, and is to be told.
            self._quiet = 0 if self._doors.inside else self._quiet + 1
            self.should_exit = self.should_exit or overdue or self._quiet > _QUIET_TICKS
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
