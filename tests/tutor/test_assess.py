"""A class's answers: tables of any make, grades by row, and a run that is gone on with."""

import csv
import io
import json

import pytest

from sambay.errors import TutorError
from sambay.tutor.assess import COLUMNS, Grader, Reference, graded_csv, summary
from sambay.tutor.classroom import decode, guarded, read_table, write_table
from sambay.tutor.journal import Journal
from sambay.tutor.plot import draw_summary

TABLE = """Name;Question;Answer;Solution
Ann;What is 347 + 586?;933;933
Ben;What is 347 + 586?;833;
Cem;What is 347 + 586?;;
Ann;Solve 3x + 5 = 20;x = 5;
Ben;Solve 3x + 5 = 20;15/3;
Dee;;5;
Eve;What is it all about?;42;
"""


class TestTables:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_any_spreadsheet(self, delimiter, encoding):
        text = f"student,PROBLEM ,Student_Answer\nJürgen,1 + 1,2\n\nZoë,{'1' * 3},3\n".replace(",", delimiter)
        table = read_table(decode(text.encode(encoding)))
        assert [(row.student, row.problem, row.answer) for row in table.rows] == [
            ("Jürgen", "1 + 1", "2"),
            ("Zoë", "111", "3"),
        ]
        assert [row.number for row in table.rows] == [2, 4]

    def test_older_spreadsheets_and_excels_own_line(self):
        table = read_table(decode("sep=;\nproblem;answer;student\n1+1;2;Jürgen\n".encode("cp1252")))
        assert table.rows[0].student == "Jürgen"

    def test_quoted_cells_keep_what_is_in_them(self):
        [row] = read_table('problem,answer,note\n"A rope, 3 m\nlong","1,5","x"\n').rows
        assert (row.problem, row.answer, row.cells[2]) == ("A rope, 3 m\nlong", "1,5", "x")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the file is empty"),
            ("problem,answer\n", "no rows"),
            ("student,answer\na,b\n", "name a column problem"),
            ("a,b\n1,2\n", "name a column problem and one answer"),
            ('problem,answer\n"1,2\n' * 2, None),
        ],
    )
    def test_what_is_no_table(self, text, message):
        if message is None:
            read_table(text)  # quotes that are not closed: one long cell, for its row to say
        else:
            with pytest.raises(TutorError, match=message):
                read_table(text)
        with pytest.raises(TutorError, match="no CSV"):
            decode(b"PK\x03\x04\x00\x00")

    def test_a_bad_row_is_its_own_matter(self):
        rows = read_table(f"problem,answer\n,2\n1+1,2\n1+1,{'9' * 5000}\n1+1,2,3,4\n").rows
        assert [bool(row.error) for row in rows] == [True, False, True, True]
        assert "5000 characters" in rows[2].error

    @pytest.mark.parametrize(
        ("cell", "written"),
        [
            ("=1+1", "'=1+1"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            (" =1", "' =1"),
            ("-5", "-5"),
            ("+1.5", "+1.5"),
            ("-12,5%", "-12,5%"),
            ("plain", "plain"),
        ],
    )
    def test_no_cell_is_a_formula(self, cell, written):
        assert guarded(cell) == written
        [[header], [row]] = csv.reader(io.StringIO(write_table(["a"], [[cell]]).decode("utf-8-sig")))
        assert (header, row) == ("a", written)
        # What we have written is read as it was.
        again = read_table(write_table(["problem", "answer"], [["x", cell]]).decode("utf-8-sig"))
        assert again.rows[0].answer.strip() == cell.strip()


class TestGrades:
    @pytest.fixture
    def graded(self, judge):
        table = read_table(TABLE)
        grader = Grader(judge, table)
        assert grader.open == ["Solve 3x + 5 = 20", "What is it all about?"]
        grader.learn("Solve 3x + 5 = 20", Reference("5", "model", 0.8))
        grader.learn("What is it all about?", Reference(None, "model", 0.0))
        return table, [grader.grade(row) for row in table.rows]

    def test_each_row(self, graded):
        _, grades = graded
        assert [grade.correct for grade in grades] == [True, False, False, True, False, None, None]
        assert [grade.mistake for grade in grades] == ["right", "digit", "missing", "right", "unfinished", "", ""]
        assert (grades[1].source, grades[1].agreement, grades[1].reference) == ("file", None, "933")
        assert (grades[3].source, grades[3].agreement) == ("model", 0.8)
        assert "no problem" in grades[5].error
        assert "the model came to none" in grades[6].error

    def test_the_table_comes_back_with_more_columns(self, graded):
        table, grades = graded
        rows = list(csv.DictReader(io.StringIO(graded_csv(table, grades).decode("utf-8-sig"))))
        assert list(rows[0]) == [*table.header, *COLUMNS]
        assert [row["correct"] for row in rows] == ["yes", "no", "no", "yes", "no", "", ""]
        assert (rows[3]["reference_from"], rows[3]["agreement"]) == ("model", "0.80")
        assert rows[0]["Name"] == "Ann"

    def test_the_summary(self, graded, tmp_path):
        found = summary(*graded)
        assert (found["rows"], found["graded"], found["correct"], found["errors"]) == (7, 5, 2, 2)
        assert found["students"][0] == {"name": "Ann", "correct": 2, "count": 2, "share": 1.0}
        first = found["problems"][0]
        assert (first["correct"], first["count"], first["wrong_answers"]) == (1, 3, [{"answer": "833", "count": 1}])
        assert found["mistakes"] == {"digit": 1, "missing": 1, "unfinished": 1}
        json.dumps(found, allow_nan=False)
        pytest.importorskip("matplotlib")
        for name in ("summary.png", "summary.svg"):
            draw_summary(found, tmp_path / name)
            assert (tmp_path / name).stat().st_size > 5000

    def test_a_solution_that_cannot_be_read(self, judge):
        table = read_table("problem,answer,solution\n1+1,2,((((\n")
        grade = Grader(judge, table).grade(table.rows[0])
        assert grade.correct is None
        assert "the solution cannot be read" in grade.error


class TestJournal:
    def test_it_goes_on_without_a_torn_line(self, judge, tmp_path):
        path = tmp_path / "graded.csv.part"
        table = read_table(TABLE)
        grade = Grader(judge, table).grade(table.rows[0])
        with Journal(path, "one") as journal:
            journal.add_grade(2, grade)
            journal.add_solved("1 + 1", Reference("2", "model", 0.6))
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"row": 3, "gra')
        with Journal(path, "one") as journal:
            assert journal.grades == {2: grade}
            assert journal.solved == {"1 + 1": Reference("2", "model", 0.6)}
            journal.add_grade(3, grade)
        with Journal(path, "one") as journal:
            assert set(journal.grades) == {2, 3}
        with pytest.raises(TutorError, match="is of another table, model or number of votes"):
            Journal(path, "two")
