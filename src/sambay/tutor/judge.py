"""Whether answers are equal: math-verify in a process of its own, with limits of time and memory.

`sympy` evaluates what it reads, and what it reads was typed by strangers: nothing of it runs in the process that
serves. The worker is started with the first question, has no secrets in its environment, and is replaced when a
question was too much for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Final

from sambay.errors import ConfigError, MissingExtraError, SambaYError, TutorError

__all__ = ["Comparison", "Judge", "Solutions", "Statement", "TooHardError"]

_HAS_LIMITS: Final = importlib.util.find_spec("resource") is not None
# The clock on the wall is for a machine that does not keep the limits, or that stands still.
_WALL: Final = 120.0 if _HAS_LIMITS else 10.0
_START: Final = 300.0


class TooHardError(TutorError):
    """A comparison that took more time or memory than it may; the message is for the learner."""


@dataclass(frozen=True)
class Comparison:
    """One value beside another.

    Attributes:
        equal: whether they are equal, numerically or symbolically.
        expected: the value that is right, where it is a rational number.
        given: likewise.
        read: whether what was given is mathematics.
    """

    equal: bool
    expected: Fraction | None
    given: Fraction | None
    read: bool


@dataclass(frozen=True)
class Statement:
    """A line "a = b = c".

    Attributes:
        values: of the sides, where they are rational numbers.
        broken: the first sign of equality that does not hold for all values of the unknowns; None where all do.
        unknowns: that the differences of the sides depend on.
    """

    values: tuple[Fraction | None, ...]
    broken: int | None
    unknowns: tuple[str, ...]


@dataclass(frozen=True)
class Solutions:
    """The real solutions of an equation.

    Attributes:
        everything: whether every number is one.
        found: they, as text, sorted.
    """

    everything: bool
    found: tuple[str, ...]


class Judge:
    """Compares what learners typed. Threads may share one; it answers one question at a time.

    Args:
        seconds: of processor time for one question.
        memory: bytes that the process may have.

    Raises:
        MissingExtraError: math-verify is not installed.
        ConfigError: an impossible limit.
    """

    def __init__(self, seconds: int = 4, memory: int = 512 << 20) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError("math-verify", "tutor", "checking answers")
        if seconds < 1:
            raise ConfigError(f"seconds is {seconds}: it must be 1 or more")
        if memory < 128 << 20:
            raise ConfigError(f"memory is {memory} bytes: checking answers needs {128 << 20} or more")
        self._limits = (str(seconds), str(memory))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[bytes] = queue.Queue()
        self.restarts = 0

    def compare(self, pairs: list[tuple[str, str]]) -> list[Comparison]:
        """Compare values, each that is right with the one that was given, both as the LaTeX of `reading`.

        Raises:
            TooHardError: it takes too long.
        """
        replies = self._ask({"compare": pairs})
        return [
            Comparison(one["equal"], _fraction(one["expected"]), _fraction(one["given"]), one["read"])
            for one in replies or [{"equal": False, "expected": None, "given": None, "read": False}] * len(pairs)
        ]

    def statement(self, sides: tuple[str, ...]) -> Statement | None:
        """Look at a line "a = b = c"; None where math-verify cannot read it.

        Raises:
            TooHardError: it takes too long.
        """
        reply = self._ask({"statement": list(sides)})
        if not reply or not reply["read"]:
            return None
        return Statement(tuple(_fraction(one) for one in reply["values"]), reply["broken"], tuple(reply["unknowns"]))

    def solutions(self, left: str, right: str) -> Solutions | None:
        """Solve an equation in one unknown; None where that cannot be done.

        Raises:
            TooHardError: it takes too long.
        """
        reply = self._ask({"solutions": [left, right]})
        if not reply or reply.get("unsolved"):
            return None
        return Solutions(reply["all"], tuple(reply["solutions"]))

    def close(self) -> None:
        """End the process; a further question starts another."""
        with self._lock:
            self._end()

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """The reply, None where the request could not be computed."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except OSError:
                line = b""
            else:
                line = self._line(_WALL)
            if not line:
                self._end()
                self.restarts += 1
                raise TooHardError("this would take too long to check: write it in a simpler form")
            return json.loads(line).get("reply")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        kept = ("PATH", "SYSTEMROOT", "TEMP", "TMPDIR", "HOME", "LANG")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "sambay.tutor.worker", *self._limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us
        )
        replies: queue.Queue[bytes] = queue.Queue()
        self._replies = replies

        def read() -> None:
            assert process.stdout is not None
            with contextlib.suppress(ValueError, OSError):  # closed by `_end`
                for line in process.stdout:
                    replies.put(line)
            replies.put(b"")

        threading.Thread(target=read, name="sambay-judge", daemon=True).start()
        if not self._line(_START):
            self._end()
            raise SambaYError("the process that checks answers could not be started: is there memory for it?")
        return process

    def _line(self, seconds: float) -> bytes:
        """The next line of the process, b"" where it ended or the time has passed."""
        try:
            return self._replies.get(timeout=seconds)
        except queue.Empty:
            return b""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _fraction(value: object) -> Fraction | None:
    return Fraction(value) if isinstance(value, str) and value != "undefined" else None
