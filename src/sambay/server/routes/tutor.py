"""The tutor: its pages, and what they ask. Nothing of a learner is kept here."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from sambay.errors import BodyError, PromptError, TutorError
from sambay.server import describe
from sambay.server.bodies import read
from sambay.server.failures import JsonResponse, error_body
from sambay.server.models import Models, ServedModel
from sambay.server.page import FILES
from sambay.server.sse import PieceResponse, unless_gone
from sambay.server.tutoring import Tutoring
from sambay.tutor.assess import Grade, Grader, Reference, graded_csv, summary
from sambay.tutor.classroom import Row, Table, decode, read_table
from sambay.tutor.feedback import Verdict, check_answer
from sambay.tutor.judge import Judge
from sambay.tutor.reading import UnreadableError, markdown
from sambay.tutor.skill import LEVELS, Skill, score_of
from sambay.tutor.solution import Step, folded, hints_of, idea_of
from sambay.tutor.solving import VOTES, Solved
from sambay.tutor.topics import TITLES, Exercise, draw, exercise
from sambay.tutor.working import Working, check_working

__all__ = ["router"]

router = APIRouter(tags=["tutor"])

_MOST_TRIES, _LONGEST_ANSWER, _LONGEST_WORKING, _MOST_ROWS = 1000, 400, 8000, 2000
_MOST_VOTES = 16
_OWN_IDEA = "Say in your own words what is asked, and which numbers or equations you have."


@router.api_route("/tutor", methods=["GET", "HEAD"], include_in_schema=False)
async def page(request: Request) -> Response:
    """The learner's page."""
    return FILES.response(request, "tutor.html")


@router.api_route("/tutor-class", methods=["GET", "HEAD"], include_in_schema=False)
async def class_page(request: Request) -> Response:
    """The teacher's page."""
    return FILES.response(request, "tutor-class.html")


_SKILL = {"type": ["object", "null"], "description": "What the answers of this server said of the learner last."}
_WHICH: dict[str, dict[str, Any]] = {
    "name": {"type": ["string", "null"], "description": "Of a problem from /tutor/api/problem."},
    "text": {"type": ["string", "null"], "description": "A problem of the learner's own, in place of a name."},
    "model": {"type": ["string", "null"], "description": "That solves it; by default the first."},
}
_TABLE = {
    "parameters": [
        {"name": "votes", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 16, "default": VOTES}},
        {"name": "model", "in": "query", "schema": {"type": "string"}},
    ],
    "requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}},
}


@router.get("/tutor/api/topics", responses=describe.answers("The topics."))
async def topics() -> Response:
    """The topics, and how many levels each has."""
    return JsonResponse(
        {"topics": [{"name": name, "title": title} for name, title in TITLES.items()], "levels": LEVELS}
    )


@dataclass(frozen=True)
class _Task:
    """What a learner works on: a generated problem, or one of their own."""

    own: str | None
    exercise: Exercise | None
    model: str | None

    @property
    def question(self) -> str:
        return self.exercise.question if self.exercise is not None else self.own or ""


@router.post(
    "/tutor/api/problem",
    openapi_extra=describe.of_body(
        {"topic": {"enum": list(TITLES)}}, {"level": {"type": ["integer", "null"]}, "skill": _SKILL}, closed=False
    ),
    responses=describe.answers("The problem."),
)
async def problem(request: Request) -> Response:
    """A problem: `{"topic": ..., "level": 1 to 5 or null, "skill": ...}`; without a level that which fits the skill."""

    def reader(body: dict[str, Any]) -> Exercise:
        topic = _text(body, "topic", 60)
        skill = _skill(body)
        level = _number(body, "level", 1, LEVELS) if body.get("level") is not None else skill.next_level()
        return draw(topic, level, secrets.randbelow(1 << 39))

    found = await read(request, reader)
    return JsonResponse(
        {
            "name": found.name,
            "topic": found.topic,
            "title": TITLES[found.topic],
            "level": found.level,
            "question": found.question,
            "markdown": markdown(found.question),
        }
    )


@router.post(
    "/tutor/api/own",
    openapi_extra=describe.of_body({"text": {"type": "string"}}, {"model": _WHICH["model"]}, closed=False),
    responses=describe.answers("How sure the model is."),
)
async def own(request: Request) -> Response:
    """Have the model solve a problem of the learner's own: `{"text": ..., "model": ...}`. The answer stays here."""
    task = await read(request, _task)
    if task.own is None:
        raise BodyError("text is missing: type a problem", "text")
    solved = await unless_gone(request, _solved(request, task))
    return JsonResponse(
        {
            "text": task.own,
            "markdown": markdown(task.own),
            "answered": solved.answer is not None,
            "sure": solved.sure,
            "note": solved.note,
            "attempts": solved.attempts,
            "agreement": solved.agreement,
        }
    )


@router.post(
    "/tutor/api/hint",
    openapi_extra=describe.of_body({}, {**_WHICH, "shown": {"type": "integer", "minimum": 0}}, closed=False),
    responses=describe.answers("The hint, or null."),
)
async def hint(request: Request) -> Response:
    """The next hint: `{"name" or "text": ..., "shown": how many there were}`."""

    def reader(body: dict[str, Any]) -> tuple[_Task, int]:
        return _task(body), _number(body, "shown", 0, _MOST_TRIES, otherwise=0)

    task, shown = await read(request, reader)
    steps, answer, _ = await unless_gone(request, _solution(request, task))
    idea = idea_of(task.exercise) if task.exercise is not None else _OWN_IDEA
    hints = hints_of(idea, steps, task.question, answer or "")
    if shown >= len(hints):
        return JsonResponse({"hint": None, "number": len(hints), "more": False})
    text = hints[shown]
    return JsonResponse({"hint": text, "markdown": markdown(text), "number": shown + 1, "more": shown + 1 < len(hints)})


@router.post(
    "/tutor/api/solution",
    openapi_extra=describe.of_body({}, {**_WHICH, "skill": _SKILL}, closed=False),
    responses=describe.answers("The steps."),
)
async def solution(request: Request) -> Response:
    """The worked solution, which gives the problem up: `{"name" or "text": ..., "skill": ...}`."""

    def reader(body: dict[str, Any]) -> tuple[_Task, Skill | None]:
        return _task(body), _skill(body) if body.get("skill") is not None else None

    task, skill = await read(request, reader)
    steps, answer, reply = await unless_gone(request, _solution(request, task))
    solved = await _solved(request, task) if task.exercise is None else None
    return JsonResponse(
        {
            "steps": [
                {"markdown": markdown(step.text), "detail": [markdown(line) for line in step.detail]} for step in steps
            ],
            "answer": answer,
            "reply": markdown(reply),
            "note": None if solved is None else solved.note,
            "sure": solved is None or solved.sure,
            "votes": [] if solved is None else [{"answer": one, "count": count} for one, count in solved.votes],
            "skill": _after(task, skill, False, 0, 0),
        }
    )


@router.post(
    "/tutor/api/check",
    openapi_extra=describe.of_body(
        {},
        {
            **_WHICH,
            **{name: {"type": "string"} for name in ("answer", "working")},
            **{name: {"type": "integer", "minimum": 0} for name in ("hints", "wrong")},
            "skill": _SKILL,
        },
        closed=False,
    ),
    responses=describe.answers("The verdict."),
)
async def check(request: Request) -> Response:
    """Check an answer, a working, or both.

    `{"name" or "text": ..., "answer": ..., "working": ..., "hints": taken, "wrong": tries before, "skill": ...}`
    """

    def reader(body: dict[str, Any]) -> tuple[_Task, str, str, int, int, Skill | None]:
        answer = _text(body, "answer", _LONGEST_ANSWER, otherwise="")
        working = _text(body, "working", _LONGEST_WORKING, otherwise="")
        if not answer.strip() and not working.strip():
            raise BodyError("there is no answer: type one, such as 12, 3/4 or 2.5", "answer")
        hints, wrong = (_number(body, name, 0, _MOST_TRIES, otherwise=0) for name in ("hints", "wrong"))
        return _task(body), answer, working, hints, wrong, _skill(body) if body.get("skill") is not None else None

    task, answer, working, hints, wrong, skill = await read(request, reader)
    steps, expected, _ = await unless_gone(request, _solution(request, task))
    lines = [line for step in steps for line in (step.text, *step.detail)]

    def judge(judge: Judge) -> tuple[Verdict | None, Working | None]:
        found = None
        if answer.strip():
            found = _verdict(judge, task.question, expected, answer, lines)
        return found, check_working(judge, task.question, working) if working.strip() else None

    verdict, checked = await _tutoring(request).judged(judge)
    correct = verdict is not None and verdict.correct
    solved = await _solved(request, task) if task.exercise is None else None
    return JsonResponse(
        {
            "correct": correct,
            "kind": None if verdict is None else verdict.kind,
            "message": None if verdict is None else verdict.message,
            "note": solved.note if solved is not None and not solved.sure else None,
            "working": None if checked is None else asdict(checked),
            "skill": _after(task, skill, True, hints, wrong) if correct else None,
        }
    )


def _verdict(judge: Judge, question: str, expected: str | None, answer: str, lines: list[str]) -> Verdict:
    if expected is None:
        return Verdict(False, "wrong", "The model came to no answer of its own, so this one cannot be checked.")
    try:
        return check_answer(judge, question, expected, answer, lines)
    except UnreadableError as error:
        words = str(error)
        return Verdict(False, "unreadable", f"{words[0].upper()}{words[1:]}.")


@router.post("/tutor/api/assess", openapi_extra=_TABLE, responses=describe.answers("The grades, a line each."))
async def assess(request: Request) -> Response:
    """Grade a class's answers: a CSV as the body, one JSON object a line as the answer, the graded CSV in the last."""
    models: Models = request.app.state.models
    served = models.get(request.query_params.get("model"))
    typed = request.query_params.get("votes", str(VOTES))
    if not re.fullmatch(r"[0-9]{1,2}", typed) or int(typed) > _MOST_VOTES:
        raise BodyError(f"votes is {typed!r:.60}: it must be a whole number from 0 to {_MOST_VOTES}", "votes")
    data = await request.body()
    table = await run_in_threadpool(lambda: read_table(decode(data)))
    if len(table.rows) > _MOST_ROWS:
        raise BodyError(
            f"the table has {len(table.rows)} rows: {_MOST_ROWS} are the most here, `sambay assess` takes more", None
        )
    pieces = _assessed(request, served, table, int(typed))
    return PieceResponse(pieces, ping=b"\n", media_type="application/x-ndjson")


async def _assessed(request: Request, served: ServedModel, table: Table, votes: int) -> AsyncIterator[bytes]:
    tutoring = _tutoring(request)
    try:
        grader = await tutoring.judged(lambda judge: Grader(judge, table))
        for done, one in enumerate(grader.open):
            yield _line({"state": "solving", "done": done, "total": len(grader.open)})
            try:
                grader.learn(one, Reference.of(await tutoring.solve(request, served, one, votes)))
            except PromptError:  # such as a problem that is longer than the context: its rows say so
                grader.learn(one, Reference(None, "model", 0.0))
        grades: list[Grade] = []
        for row in table.rows:
            grades.append(await tutoring.judged(partial(_grade, grader, row)))
            if len(grades) % 20 == 0:
                yield _line({"state": "grading", "done": len(grades), "total": len(table.rows)})
        csv = (await run_in_threadpool(graded_csv, table, grades)).decode("utf-8-sig")
        rows = [
            {"student": row.student, "problem": row.problem, "answer": row.answer, **asdict(one)}
            for row, one in zip(table.rows, grades, strict=True)
        ]
        yield _line({"state": "done", "csv": csv, "summary": summary(table, grades), "rows": rows})
    except Exception as error:  # the answer has begun: what went wrong is its last line
        yield _line({"state": "failed", **error_body(request.url.path, error)})


def _grade(grader: Grader, row: Row, judge: Judge) -> Grade:
    return grader.grade(row)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace") + b"\n"


def _tutoring(request: Request) -> Tutoring:
    found: Tutoring = request.app.state.tutoring
    return found


async def _solved(request: Request, task: _Task) -> Solved:
    models: Models = request.app.state.models
    return await _tutoring(request).solve(request, models.get(task.model), task.own or "")


async def _solution(request: Request, task: _Task) -> tuple[list[Step], str | None, str]:
    """The steps, the answer and the last words of the solution."""
    if task.exercise is not None:
        made = task.exercise.problem
        return folded(made.thinking.splitlines()), made.answer, made.reply
    solved = await _solved(request, task)
    return folded(solved.steps), solved.answer, solved.reply


def _after(task: _Task, skill: Skill | None, solved: bool, hints: int, wrong: int) -> dict[str, Any] | None:
    """What is known of the learner now; problems of their own say nothing about a topic."""
    if skill is None or task.exercise is None:
        return None
    after = skill.after(task.exercise.level, score_of(solved, hints, wrong))
    return {**after.to_dict(), "next_level": after.next_level()}


def _task(body: dict[str, Any]) -> _Task:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise BodyError(f"model is {model!r:.60}: it must be the name of a model", "model")
    if body.get("name") is not None:
        return _Task(None, exercise(_text(body, "name", 60)), model)
    return _Task(_text(body, "text", 4000), None, model)


def _text(body: dict[str, Any], name: str, most: int, otherwise: str | None = None) -> str:
    value = body.get(name, otherwise)
    if not isinstance(value, str):
        raise BodyError(f"{name} is {value!r:.60}: it must be text", name)
    if len(value) > most:
        raise BodyError(f"{name} has {len(value)} characters: {most} are the most", name)
    return value


def _number(body: dict[str, Any], name: str, least: int, most: int, otherwise: int | None = None) -> int:
    value = body.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BodyError(f"{name} is {value!r:.60}: it must be a whole number from {least} to {most}", name)
    return value


def _skill(body: dict[str, Any]) -> Skill:
    value = body.get("skill")
    if value is not None and not isinstance(value, dict):
        raise BodyError(f"skill is {value!r:.60}: it must be an object, or left out", "skill")
    try:
        return Skill.from_dict(value)
    except TutorError as error:
        raise BodyError(str(error), "skill") from None
