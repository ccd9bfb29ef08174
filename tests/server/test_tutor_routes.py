"""The tutor over HTTP, on a real port, with the bundled model where one is needed."""

import csv
import io
import json

import pytest

pytest.importorskip("math_verify", reason="needs math-verify: pip install 'sambay[tutor]'")

from sambay.server.tutoring import Tutoring
from sambay.tutor.solving import Solved

NAME = "fractions-385"  # 6/11 - 2/7


def post(client, path, **body):
    return client.post(f"/tutor/api/{path}", json=body)


def test_a_problem_from_the_first_hint_to_the_answer(bundled):
    topics = bundled.get("/tutor/api/topics").json()
    assert topics["levels"] == 5
    assert {"name": "fractions", "title": "Fractions"} in topics["topics"]
    found = post(bundled, "problem", topic="fractions", skill={}).json()
    assert (found["topic"], found["level"]) == ("fractions", 2)
    assert set(found) == {"name", "topic", "title", "level", "question", "markdown"}  # and no answer

    shown = 0
    while (hint := post(bundled, "hint", name=NAME, shown=shown).json())["hint"] is not None:
        shown += 1
        assert hint["number"] == shown
        assert "20/77" not in hint["hint"]
    assert shown > 3
    wrong = post(bundled, "check", name=NAME, answer="21/77", skill={}).json()
    assert (wrong["correct"], wrong["kind"], wrong["skill"]) == (False, "numerator", None)
    right = post(bundled, "check", name=NAME, answer="20/77", hints=2, wrong=1, skill={"rating": 1100}).json()
    assert right["correct"]
    assert right["skill"]["rating"] > 1100
    assert (right["skill"]["answered"], right["skill"]["right"], right["skill"]["level"]) == (1, 1, 5)
    assert right["skill"]["next_level"] in (3, 4)
    alone = post(bundled, "check", name=NAME, answer="20/77", skill={"rating": 1100}).json()
    assert alone["skill"]["rating"] > right["skill"]["rating"]
    given_up = post(bundled, "solution", name=NAME, skill={"rating": 1100}).json()
    assert given_up["answer"] == r"\frac{20}{77}"
    assert given_up["skill"]["rating"] < 1100
    assert any("77" in step["markdown"] for step in given_up["steps"])


def test_the_level_follows_the_skill(bundled):
    def level(**skill):
        return post(bundled, "problem", topic="decimals", skill=skill).json()["level"]

    assert (level(rating=500), level(rating=2100)) == (1, 5)
    assert level(rating=2100, answered=1, level=2) == 3
    assert post(bundled, "problem", topic="decimals", level=4).json()["level"] == 4


def test_steps_are_checked_too(bundled):
    name = next(
        found["name"]
        for found in (post(bundled, "problem", topic="equations", level=3).json() for _ in range(50))
        if "x" in found["question"]
    )
    found = post(bundled, "check", name=name, working="x + 1 = x + 2\n2 + 2 = 5").json()
    assert found["message"] is None
    assert [line["state"] for line in found["working"]["lines"]][-1] in ("false", "true")
    found = post(bundled, "check", name="arithmetic-5", working="2 + 2 = 4\n2 + 3 = 6").json()
    assert found["working"]["first_wrong"] == 1
    assert found["working"]["lines"][1]["message"] == "2 + 3 is 5, not 6."


def test_a_problem_of_ones_own(bundled):
    text = "Solve 3x + 5 = 20"
    found = post(bundled, "own", text=text).json()
    assert found["answered"]
    assert found["attempts"] == 5
    assert "attempts" in found["note"]
    assert post(bundled, "check", text=text, answer="x = 5").json()["correct"]
    assert post(bundled, "check", text=text, answer="-5").json()["kind"] == "sign"
    solution = post(bundled, "solution", text=text).json()
    assert (solution["answer"], solution["skill"]) == ("5", None)
    assert sum(one["count"] for one in solution["votes"]) <= 5
    assert post(bundled, "hint", text=text, shown=0).json()["more"]


def test_a_model_whose_attempts_differ_says_so_with_every_verdict(bundled, monkeypatch):
    async def solve(self, request, served, question, votes=4):
        return Solved("5", ("2 + 3 = 5",), "", (("5", 2), ("6", 2), ("7", 1)), 5)

    monkeypatch.setattr(Tutoring, "solve", solve)
    found = post(bundled, "own", text="What is 2 + 3?").json()
    assert not found["sure"]
    assert found["note"].startswith("The model is not sure: 2 of its 5 attempts agree.")
    assert post(bundled, "check", text="What is 2 + 3?", answer="5").json()["note"] == found["note"]
    solution = post(bundled, "solution", text="What is 2 + 3?").json()
    assert [one["count"] for one in solution["votes"]] == [2, 2, 1]


def test_a_model_that_knows_nothing_says_so(tiny, monkeypatch):
    monkeypatch.setattr("sambay.tutor.solving._MOST_TOKENS", 16)
    found = post(tiny, "own", text="What is 2 + 3?").json()
    if not found["answered"]:  # a random model could say anything
        assert "None of the model's 5 attempts" in found["note"]
        checked = post(tiny, "check", text="What is 2 + 3?", answer="5").json()
        assert "cannot be checked" in checked["message"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("problem", {"topic": "algebra"}, "there is no topic 'algebra'"),
        ("problem", {"topic": "fractions", "level": 9}, "level is 9"),
        ("problem", {"topic": 3}, "topic is 3: it must be text"),
        ("problem", {"topic": "fractions", "skill": 5}, "skill is 5"),
        ("problem", {"topic": "fractions", "skill": {"rating": "high"}}, "rating is 'high'"),
        ("hint", {"name": "nothing-1"}, "there is no problem 'nothing-1'"),
        ("hint", {"name": NAME, "shown": -1}, "shown is -1"),
        ("check", {"name": NAME}, "there is no answer"),
        ("check", {"name": NAME, "answer": "1" * 999}, "answer has 999 characters"),
        ("check", {"name": NAME, "working": "1 = 1\n" * 99}, "99 lines"),
        ("own", {"text": ""}, "the problem is empty"),
        ("own", {"text": "x" * 3000}, "3000 characters"),
        ("own", {"text": "1 + 1", "model": "absent"}, "there is no model 'absent'"),
        ("own", {"text": "1 + 1", "model": 4}, "model is 4"),
    ],
)
def test_mistakes(bundled, path, body, message):
    response = post(bundled, path, **body)
    assert response.status_code in (400, 404)
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "answer", ["9**9**9", "__import__('os').system('true')", "((((", "9" * 300, "\\frac{1}{", "\x00"]
)
def test_hostile_answers_are_answers(bundled, answer):
    found = post(bundled, "check", name=NAME, answer=answer)
    assert found.status_code == 200
    assert not found.json()["correct"]


def lines(response):
    return [json.loads(line) for line in response.text.splitlines() if line.strip()]


def test_a_class(bundled):
    table = "Name;Question;Answer;Solution\nAnn;What is 347 + 586?;933;933\n=Bob;What is 347 + 586?;=833;\nCem;;1;\n"
    response = bundled.post("/tutor/api/assess?votes=0", content=table.encode())
    assert response.headers["content-type"].startswith("application/x-ndjson")
    last = lines(response)[-1]
    assert last["state"] == "done"
    assert (last["summary"]["graded"], last["summary"]["correct"], last["summary"]["errors"]) == (2, 1, 1)
    rows = list(csv.DictReader(io.StringIO(last["csv"])))
    assert [row["correct"] for row in rows] == ["yes", "no", ""]
    assert (rows[1]["Name"], rows[1]["Answer"]) == ("'=Bob", "'=833")
    assert rows[2]["error"] == "the row has no problem"


def test_the_model_solves_what_has_no_solution(bundled):
    table = "problem,answer\nSolve 3x + 5 = 20,x = 5\n"
    found = lines(bundled.post("/tutor/api/assess?votes=2", content=table.encode()))
    assert found[0] == {"state": "solving", "done": 0, "total": 1}
    [row] = found[-1]["rows"]
    assert row["source"] == "model"
    assert 0 < row["agreement"] <= 1


@pytest.mark.parametrize(
    ("content", "query", "message"),
    [
        (b"", "", "the file is empty"),
        (b"a,b\n1,2\n", "", "name a column problem"),
        (b"problem,answer\n", "", "a header and no rows"),
        (b"problem,answer\n1,1\n", "?votes=99", "votes is '99'"),
        (b"problem,answer\n1,1\n", "?votes=x", "votes is 'x'"),
        (b"problem,answer\n1,1\n", "?model=absent", "there is no model 'absent'"),
        (b"problem,answer\n" + b"1,1\n" * 2001, "", "2001 rows: 2000 are the most here"),
        (b"\x00\x01\x02", "", "no CSV"),
    ],
)
def test_tables_that_are_none(bundled, content, query, message):
    response = bundled.post(f"/tutor/api/assess{query}", content=content)
    assert response.status_code in (400, 404)
    assert message in response.json()["error"]["message"]


def test_the_pages_are_served_under_the_strict_policy(bundled):
    for path in ("/tutor", "/tutor-class"):
        response = bundled.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "http://" not in response.text.replace("http://www.w3.org", "")
        assert "style=" not in response.text
        assert "onclick" not in response.text


def test_pages_need_no_key_and_what_they_ask_does(serve, tiny_llm):
    with serve(("tiny", tiny_llm), keys=("secret",)) as client:
        assert client.get("/tutor").status_code == client.get("/tutor-class").status_code == 200
        assert client.get("/static/tutor.js").status_code == 200
        assert post(client, "problem", topic="fractions").status_code == 401
        response = client.post(
            "/tutor/api/problem", json={"topic": "fractions"}, headers={"Authorization": "Bearer secret"}
        )
        assert response.status_code == 200
