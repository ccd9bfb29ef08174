"""What an assessment has done so far, in a file beside its output, so that it can be gone on with."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from sambay.errors import TutorError
from sambay.tutor.assess import Grade, Reference

__all__ = ["Journal"]


class Journal:
    """One JSON object a line: which run it is of, the problems that the model has solved, the rows that are graded.

    Args:
        path: of the file; made if need be, and otherwise gone on with, without a last line that is torn.
        run: what the results depend on: another table or model is another run.

    Raises:
        TutorError: the file is of another run.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.solved: dict[str, Reference] = {}
        self.grades: dict[int, Grade] = {}
        whole = self._read(run) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(whole)
        if not whole:
            self._write({"run": run})

    def _read(self, run: str) -> int:
        """Take what is there, and return how many bytes of it are whole."""
        whole = 0
        for number, raw in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                line = json.loads(raw)
            except ValueError:
                break
            if not raw.endswith(b"\n"):
                break
            if number == 0 and line.get("run") != run:
                raise TutorError(
                    f"{self.path} is of another table, model or number of votes: remove it to begin anew, or choose "
                    "another output"
                )
            if "problem" in line:
                self.solved[line["problem"]] = Reference(**line["reference"])
            elif "row" in line:
                self.grades[line["row"]] = Grade(**line["grade"])
            whole += len(raw)
        return whole

    def add_solved(self, problem: str, reference: Reference) -> None:
        """A problem is solved."""
        self.solved[problem] = reference
        self._write({"problem": problem, "reference": asdict(reference)})

    def add_grade(self, row: int, grade: Grade) -> None:
        """A row is graded."""
        self.grades[row] = grade
        self._write({"row": row, "grade": asdict(grade)})

    def remove(self) -> None:
        """The output is complete, and nothing is to be gone on with."""
        self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()
