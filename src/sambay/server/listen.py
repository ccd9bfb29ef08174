"""The server as a process: its socket, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from sambay.errors import ConfigError

__all__ = ["bind", "run"]


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
        raise ConfigError(f"{host} port {port} cannot be listened on ({error.strerror}): choose another") from error


def run(app: FastAPI, listener: socket.socket, *, ready: Callable[[], object] = lambda: None) -> None:
    """Serve until a signal ends it.

    Args:
        app: the application.
        listener: from `bind`.
        ready: called before the first request is taken.
    """
    ready()
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
