"""Tables of a class's answers: read whatever spreadsheets write, written so that they can open it without harm."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sambay.errors import TutorError

__all__ = ["MOST_ROWS", "Row", "Table", "decode", "guarded", "read_table", "write_table"]

MOST_ROWS: Final = 20_000
_MOST_CELL = 4000
_NAMES: Final = {
    "problem": ("problem", "question", "task", "exercise", "item", "prompt"),
    "answer": ("answer", "response", "given", "student answer", "given answer", "result"),
    "student": ("student", "name", "pupil", "learner", "student name", "student id", "id", "who"),
    "solution": ("solution", "reference", "expected", "correct answer", "right answer", "key", "answer key", "gold",
                 "target", "expected answer", "reference answer"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One answer of one student.

    Attributes:
        number: of the row in the file, the first after the header being 2.
        problem: what was asked.
        answer: as given.
        student: who gave it, "" if the file does not say.
        solution: the right answer, "" if the file has none.
        cells: all of the row, in the order of the columns.
        error: why it cannot be graded, "" if it can.
    """

    number: int
    problem: str
    answer: str
    student: str
    solution: str
    cells: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True)
class Table:
    """A class's answers.

    Attributes:
        header: names of the columns, as in the file.
        rows: in their order.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]


def decode(data: bytes) -> str:
    """The text of a file that a spreadsheet may have written.

    Raises:
        TutorError: it is no text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # what older spreadsheets write
    if "\0" in text:
        raise TutorError("the file is no CSV: it has zero bytes; save the table as CSV, in UTF-8")
    return text


def read_table(text: str) -> Table:
    """Read a table: columns of any order, named in one of the usual ways, between commas, semicolons or tabs.

    Args:
        text: of the file.

    Raises:
        TutorError: there are no rows, too many, or no columns for problem and answer. What is wrong with a single row
            is said in that row.
    """
    lines = text.lstrip("\ufeff").splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise TutorError("the file is empty: give it a header such as problem,answer,student and a row for each answer")
    if match := re.fullmatch(r"sep=(.)\s*", first):  # a line of Excel's own
        lines, delimiter = lines[lines.index(first) + 1 :], match[1]
    else:
        delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter)
    rows = []
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        columns = _columns(header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(reader.line_num, cells, columns, len(header)))
            if len(rows) > MOST_ROWS:
                raise TutorError(f"the file has more than {MOST_ROWS} rows: split it")
    except csv.Error as error:
        raise TutorError(f"the file is no CSV: line {reader.line_num}: {error}") from None
    if not rows:
        raise TutorError("the file has a header and no rows: give it a row for each answer")
    return Table(tuple(header), tuple(rows))


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Where the columns are."""
    names = [" ".join(re.sub(r"[^a-z]+", " ", name.lower()).split()) for name in header]
    found: dict[str, int] = {}
    for column, known in _NAMES.items():
        at = next(
            (names.index(name) for name in known if name in names and names.index(name) not in found.values()), None
        )
        if at is not None:
            found[column] = at
    missing = [column for column in ("problem", "answer") if column not in found]
    if missing:
        raise TutorError(
            f"the header is {', '.join(header)[:99]!r}: name a column {' and one '.join(missing)} "
            "(student and solution may be there, too)"
        )
    return found


def _row(number: int, cells: list[str], columns: dict[str, int], width: int) -> Row:
    values = {name: cells[at].strip() if at < len(cells) else "" for name, at in columns.items()}
    error = ""
    if not values["problem"]:
        error = "the row has no problem"
    elif max(map(len, cells)) > _MOST_CELL:
        error = f"a cell has {max(map(len, cells))} characters: {_MOST_CELL} are the most that are read"
    elif len(cells) > width and any(cell.strip() for cell in cells[width:]):
        error = f"the row has {len(cells)} cells and the header {width}: put cells with a separator in quotes"
    kept = tuple(cell[:_MOST_CELL] for cell in [*cells, *[""] * width][:width])
    return Row(
        number,
        values["problem"],
        _unguarded(values["answer"]),
        _unguarded(values.get("student", "")),
        _unguarded(values.get("solution", "")),
        kept,
        error,
    )


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if re.match(r"[=+\-@\t\r\n]|\s*[=@]", cell) and not re.fullmatch(r"[-+]?\d+(?:[.,]\d+)?%?", cell):
        return f"'{cell}"
    return cell


def _unguarded(cell: str) -> str:
    return cell[1:] if re.match(r"'\s*[=+\-@]", cell) else cell


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A table as UTF-8 with a mark that spreadsheets know it by, every cell guarded."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    for row in [header, *rows]:
        writer.writerow([guarded(cell) for cell in row])
    return out.getvalue().encode("utf-8-sig", errors="replace")
