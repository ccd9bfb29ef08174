"""Connections that give up on clients that send or take nothing, which hold them for ever otherwise."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sambay.server.settings import Settings

__all__ = ["patient_protocol"]


def patient_protocol(settings: Settings) -> type[H11Protocol]:
    """Uvicorn's protocol, with an end to its patience.

    Args:
        settings: how long it waits.
    """

    class PatientProtocol(H11Protocol):
        # Timers: for the end of a request's head, and for a client to take what is written.
        _head: asyncio.TimerHandle | None = None
        _write: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._expect_head()
            else:
                _off(self._head)
                self._head = None

        def pause_writing(self) -> None:
            super().pause_writing()
            _off(self._write)
            self._write = self.loop.call_later(settings.write_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _off(self._write)

        def connection_lost(self, exc: Exception | None) -> None:
            _off(self._head)
            _off(self._write)
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            # Not put off by what arrives: a byte a second is what is to be ended.
            if self._head is None:
                self._head = self.loop.call_later(settings.head_timeout, self.transport.abort)

    return PatientProtocol


def _off(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
