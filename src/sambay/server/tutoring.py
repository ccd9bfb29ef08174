"""What the tutor's routes share: the judge, and what the model made of problems that learners brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sambay.recent import Recent
from sambay.server.failures import RefusedError
from sambay.server.models import ServedModel
from sambay.server.running import start
from sambay.tutor.judge import Judge
from sambay.tutor.solving import VOTES, Solved, prompts_for, vote

__all__ = ["Tutoring"]

T = TypeVar("T")

_KEPT, _KEPT_TEXT = 256, 1_000_000
"""Problems that are not solved again, and the characters of their questions."""

_WAITING, _RETRY_S = 64, 3


class Tutoring:
    """One for each server. Learners' progress is not here: it comes with each request."""

    def __init__(self) -> None:
        self._judge: Judge | None = None
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        self._solved: Recent[tuple[str, str, int], Solved] = Recent(_KEPT, _KEPT_TEXT)

    async def judged(self, work: Callable[[Judge], T]) -> T:
        """The result of work with the judge, which one has at a time.

        Args:
            work: done beside the event loop.

        Raises:
            RefusedError: too many wait already.
            MissingExtraError: math-verify is not installed.
        """
        if self._waiting >= _WAITING:
            raise RefusedError(
                429, f"{self._waiting} answers wait to be checked: try again later", "queue_full", _RETRY_S
            )
        self._waiting += 1
        try:
            async with self._turn:
                judge = self._judge = self._judge or Judge()
                return await run_in_threadpool(work, judge)
        finally:
            self._waiting -= 1

    async def solve(self, request: Request, served: ServedModel, question: str, votes: int = VOTES) -> Solved:
        """What the model makes of a problem; asked again, the same as before.

        Args:
            request: that needs it.
            served: the model.
            question: as typed.
            votes: attempts beside the likeliest one.

        Raises:
            RefusedError: too many wait already.
            SambaYError: the problem cannot be asked.
        """
        key = (served.name, question.strip(), votes)
        if (known := self._solved.find(key)) is not None:
            return known
        completions = []
        for prompt, params in await run_in_threadpool(prompts_for, served.llm, question, votes):
            async with await start(request, served, [prompt], params) as running:
                completions += [one for output in await running.finish() for one in output.outputs]
        solved = await self.judged(lambda judge: vote(judge, completions))
        self._solved.keep(key, solved, len(key[1]))
        return solved

    async def aclose(self) -> None:
        """End the judge's process."""
        if self._judge is not None:
            await run_in_threadpool(self._judge.close)
