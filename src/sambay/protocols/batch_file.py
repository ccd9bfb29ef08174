"""OpenAI's batch files: a request a line in, an answer a line out, in the order in which they are ready.

What is in the output counts as done: a run that was broken off, however, goes on where it was. A line is written in one
piece, and one that is torn all the same is dropped and computed again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from sambay.engine import LLM, RequestOutput
from sambay.errors import BodyError, MissingExtraError, PromptError
from sambay.protocols.body import ChatBody, Json
from sambay.protocols.openai import (
    CHAT,
    COMPLETIONS,
    CompletionBody,
    chat_response,
    completion_response,
    error_body,
    read_body,
    status_of,
)

__all__ = ["Answers", "Report", "read_ids", "run_batch"]

_SHOWN = 80


@dataclass
class Report:
    """What came of a batch.

    Attributes:
        total: lines of the input.
        already: those that the output had before.
        completed: those answered now.
        failed: those that an error was written for now.
        prompt_tokens: of the completed ones.
        completion_tokens: likewise.
    """

    total: int = 0
    already: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_ids(path: Path) -> list[str]:
    """The `custom_id` of every line of a batch file, before anything of it is run.

    Raises:
        PromptError: a line is no JSON object, or has no `custom_id` of its own; the message has its number.
        OSError: the file cannot be read.
    """
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        name = line.get("custom_id")
        if not isinstance(name, str) or not name:
            raise PromptError(f"{path} line {number}: custom_id is {name!r:.99}, it must be a string that is not empty")
        if name in seen:
            raise PromptError(f"{path} line {number}: custom_id {name!r:.99} is that of line {seen[name]}, too")
        seen[name] = number
    if not seen:
        raise PromptError(f"{path} is empty: give a request a line")
    return [*seen]


def _lines(path: Path) -> Iterator[tuple[int, Json]]:
    """The lines of a file that are not blank, each with its number."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise PromptError(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(line, dict):
                raise PromptError(f"{path} line {number} is not a JSON object: {line!r:.99}")
            yield number, line


class Answers:
    """The output of a batch: what is in it already, and room for more. One process writes it at a time.

    Args:
        path: the file; made if need be, and otherwise gone on with, without a last line that is torn.

    Raises:
        PromptError: it is no output of a batch, or another process is writing it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("ab+", buffering=0)
        try:
            self._lock()
            self.done = self._whole_lines()
            """The `custom_id` of every answer."""
        except BaseException:
            self._file.close()
            raise

    def write(self, line: Json) -> None:
        """Add an answer.

        Raises:
            OSError: the disk is full; what was torn is cut off again.
        """
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"
        before = self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(before)
            raise
        self.done.add(line["custom_id"])

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a pipe or a device has nothing to be brought to the disk
            os.fsync(self._file.fileno())
        self._file.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on this platform: then nobody checks
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PromptError(
                f"{self.path} is being written by another process: wait, or choose another output"
            ) from None

    def _whole_lines(self) -> set[str]:
        """Read what is there; cut off what a run that was killed left of its last line."""
        done: set[str] = set()
        whole = 0
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as reader:
            for number, raw in enumerate(reader, start=1):
                name = _answered(raw)
                if name is None:
                    if reader.read(1):
                        raise PromptError(
                            f"{self.path} line {number} is no answer of a batch, but {raw[:_SHOWN]!r}: choose another "
                            "output"
                        )
                    if not _torn(raw):
                        raise PromptError(f"{self.path} is no output of a batch ({raw[:_SHOWN]!r}): choose another")
                    break
                done.add(name)
                whole += len(raw)
        self._file.truncate(whole)
        return done


def _answered(raw: bytes) -> str | None:
    """The `custom_id` of a whole line of the output, else None."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not raw.endswith(b"\n") or not isinstance(line, dict) or "response" not in line:
        return None
    name = line.get("custom_id")
    return name if isinstance(name, str) else None


def _torn(raw: bytes) -> bool:
    """Whether a last line may be the beginning of one that we wrote: any other file is not ours to cut."""
    begin = b'{"id": "batch_req_'
    return raw.startswith(begin) if len(raw) > len(begin) else begin.startswith(raw)


@dataclass
class _Running:
    """A line under way: its requests to the engine, one for each prompt."""

    custom_id: str
    body: ChatBody | CompletionBody
    outputs: list[RequestOutput] = field(default_factory=list)


def run_batch(
    llm: LLM,
    path: Path,
    answers: Answers,
    *,
    most: int,
    model: str,
    on_done: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Answer the lines of a batch file that the output has no answer to.

    What goes wrong with a line is its answer: a response with a status of 400 or more.

    Args:
        llm: the model, with a tokenizer.
        path: the batch file, checked by `read_ids`.
        answers: where to.
        most: lines under way at once.
        model: the name to be given in the answers.
        on_done: called after each line.

    Returns:
        The report.

    Raises:
        PromptError: there is no tokenizer, or the file has changed for the worse.
        MissingExtraError: a line needs what is not installed.
        OSError: the file cannot be read, or the output not written.
    """
    llm.get_tokenizer()
    report, running = Report(), list[_Running]()
    lines = _lines(path)
    more = True
    try:
        while more or running:
            while more and len(running) < most:
                _, line = next(lines, (0, None))
                more = line is not None
                if line is None:
                    break
                report.total += 1
                if line["custom_id"] in answers.done:
                    report.already += 1
                    continue
                try:
                    running.append(_start(llm, line))
                except MissingExtraError:  # to be installed, and then the line can be answered
                    raise
                except Exception as error:  # whatever it is, it is the matter of this line alone
                    _fail(answers, line["custom_id"], error, report)
                    on_done(report)
            if running:
                llm.engine.step()
            for one in [one for one in running if all(output.finished for output in one.outputs)]:
                running.remove(one)
                _finish(llm, answers, one, model, report)
                on_done(report)
    finally:
        for one in running:
            _abort(llm, one.outputs)
    return report


def _start(llm: LLM, line: Json) -> _Running:
    """Give a line to the engine."""
    url, method = line.get("url"), line.get("method")
    if method != "POST":
        raise BodyError(f"method is {method!r:.99}: it must be POST", "method")
    if url not in (CHAT, COMPLETIONS):
        raise BodyError(f"url is {url!r:.99}: it must be {CHAT} or {COMPLETIONS}", "url")
    body = read_body(url, line.get("body"))
    if body.stream:
        raise BodyError("stream is true: the answers of a batch come whole", "stream")
    params = llm.get_default_sampling_params(**body.sampling)
    running = _Running(line["custom_id"], body)
    try:
        for text, ids in body.prompts(llm.get_tokenizer()):
            running.outputs.append(llm.engine.add(text, ids, params))
    except BaseException:
        _abort(llm, running.outputs)
        raise
    return running


def _finish(llm: LLM, answers: Answers, one: _Running, model: str, report: Report) -> None:
    """Write the answer to a line."""
    error = next((output.error for output in one.outputs if output.error is not None), None)
    if error is not None:
        _fail(answers, one.custom_id, error, report)
        return
    tokenizer, body = llm.get_tokenizer(), one.body
    if isinstance(body, ChatBody):
        top = body.sampling.get("logprobs") or 0
        response = chat_response(one.outputs[0], tokenizer, model, top_logprobs=top, tools=body.tools)
    else:
        response = completion_response(one.outputs, tokenizer, model, echo=body.echo)
    answers.write(_answer(one.custom_id, 200, response))
    report.completed += 1
    report.prompt_tokens += response["usage"]["prompt_tokens"]
    report.completion_tokens += response["usage"]["completion_tokens"]


def _fail(answers: Answers, custom_id: str, error: Exception, report: Report) -> None:
    """Write what went wrong as the answer to a line."""
    status = status_of(error)
    answers.write(_answer(custom_id, status, error_body(error, status)))
    report.failed += 1


def _answer(custom_id: str, status: int, body: dict[str, Any]) -> Json:
    response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": body}
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": custom_id, "response": response, "error": None}


def _abort(llm: LLM, outputs: list[RequestOutput]) -> None:
    for output in outputs:
        llm.engine.abort(output.request_id)
