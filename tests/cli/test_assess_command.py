import csv
import json

import pytest

pytest.importorskip("math_verify", reason="needs math-verify: pip install 'sambay[tutor]'")

TABLE = "student,problem,answer,solution\nAnn,What is 3 + 4?,7,7\nBen,What is 3 + 4?,-7,\n@Cem,What is 3 + 4?,=7,\n"


@pytest.fixture
def files(tmp_path):
    file = tmp_path / "answers.csv"
    file.write_text(TABLE)
    return file, tmp_path / "graded.csv"


def read(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_class_is_graded_without_a_model(sambay, files, tmp_path):
    file, out = files
    pytest.importorskip("matplotlib")
    result = sambay("assess", file, "-o", out, "--model", "/nonexistent", "--plot", tmp_path / "sum.png")
    assert result.status == 0, result.err
    assert "graded.csv: 2 of 3 answers are right (67%)" in result.err
    assert [row["correct"] for row in read(out)] == ["yes", "no", "yes"]
    assert read(out)[2]["student"] == "'@Cem"
    assert (tmp_path / "sum.png").stat().st_size > 5000
    assert not out.with_name("graded.csv.part").exists()


def test_the_summary_as_json(sambay, files):
    file, out = files
    found = json.loads(sambay("assess", file, "-o", out, "--json").out)
    assert (found["output"], found["rows"], found["correct"]) == (str(out), 3, 2)


def test_the_model_solves_and_a_run_is_gone_on_with(sambay, checkpoint, files, monkeypatch):
    file, out = files
    file.write_text("problem,answer\nWhat is 3 + 4?,7\nWhat is 9 - 5?,4\n")
    from sambay.tutor.assess import Grader

    real, calls = Grader.grade, []

    def broken(self, row):
        calls.append(row.number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, row)

    monkeypatch.setattr(Grader, "grade", broken)
    monkeypatch.setattr("sambay.tutor.solving._MOST_TOKENS", 8)
    common = ("assess", file, "-o", out, "--votes", "0", "--memory", "64MB")
    assert sambay(*common, "--model", checkpoint).status == 130
    assert not out.exists()
    part = out.with_name("graded.csv.part")
    assert [sorted(json.loads(line))[-1] for line in part.read_text().splitlines()] == [
        "run",
        "reference",
        "reference",
        "row",
    ]
    # What was solved and graded is not done again: not even a model is loaded.
    monkeypatch.setattr("sambay.cli.options.open_model", None)
    result = sambay(*common, "--model", checkpoint)
    assert result.status == 0, result.err
    assert calls == [2, 3, 3]
    assert len(read(out)) == 2
    assert not part.exists()


def test_mistakes(sambay, files, tmp_path):
    file, out = files

    def check(message, *arguments):
        result = sambay("assess", *arguments)
        assert result.status in (1, 2)
        assert result.err.startswith("error: ")
        assert message in result.err
        assert result.err.count("\n") == 1

    check("No such file or directory", tmp_path / "none.csv", "-o", out)
    check("'-o'", file)
    check("no such directory", file, "-o", "/nonexistent/graded.csv")
    check("is the file of the answers: choose another output", file, "-o", file)
    check("ends in '.txt'", file, "-o", out, "--plot", tmp_path / "sum.txt")
    file.write_text("a,b\n1,2\n")
    check("name a column problem and one answer", file, "-o", out)
    file.write_text(TABLE)
    out.with_name("graded.csv.part").write_text('{"run": "another"}\n')
    check("is of another table, model or number of votes", file, "-o", out)
