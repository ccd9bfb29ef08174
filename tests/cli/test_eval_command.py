"""`sambay eval`: the table, the JSON and the file of attempts."""

import json

from sambay.data.problems import problem_at


def test_the_table(sambay, checkpoint):
    result = sambay("eval", checkpoint, "--problems", "6", "--max-tokens", "4")
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["family", "problems", "correct", "accuracy", "95", "%", "interval"]
    assert lines[-2].split()[:4] == ["all", "6", "0", "0.0%"]
    assert lines[-1] == "4 tokens a solution; 0.0% ended by themselves"


def test_json_and_the_file_of_attempts(sambay, checkpoint, tmp_path):
    out = tmp_path / "attempts.jsonl"
    options = ("--families", "fractions,equations", "--families", "percentages", "--batch", "2", "--seed", "3")
    result = sambay("eval", checkpoint, "--problems", "5", "--max-tokens", "3", *options, "--json", "--output", out)
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found["model"] == str(checkpoint)
    assert found["total"]["count"] == 5
    assert set(found["families"]) <= {"fractions", "equations", "percentages"}
    attempts = [json.loads(line) for line in out.read_text().splitlines()]
    shares = {"fractions": 1, "equations": 1, "percentages": 1}
    assert [attempt["question"] for attempt in attempts] == [
        problem_at(3, index, "test", shares).question for index in range(5)
    ]
    assert all({"question", "expected", "got", "correct", "text"} <= set(attempt) for attempt in attempts)
