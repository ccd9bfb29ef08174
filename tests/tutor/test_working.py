"""The learner's own steps: which hold, and the first that does not."""

import pytest

from sambay.errors import TutorError
from sambay.tutor.working import MOST_LINES, check_working


def states(judge, question, text):
    found = check_working(judge, question, text)
    return [line.state for line in found.lines], found.first_wrong


@pytest.mark.parametrize(
    ("question", "text", "expected", "wrong"),
    [
        ("Solve 3x + 5 = 20", "3x + 5 = 20\nSubtract 5\n3x = 15\nx = 15/3 = 5", ["true", "note", "true", "true"], None),
        # What follows from a wrong line is not wrong again.
        ("Solve 3x + 5 = 20", "3x = 25\nx = 25/3", ["false", "true"], 0),
        ("Given 4(n - 8) = n + 25, find n.", "4(n-8) = 4n - 32\n4n - 32 = n + 25\n3n = 57\nn = 19", ["true"] * 4, None),
        ("Given 4(n - 8) = n + 25, find n.", "4n - 8 = n + 25", ["false"], 0),
        ("Solve 8m + 18 = 8m + 19", "18 = 19", ["true"], None),
        ("What is 347 × 6?", "7*6 = 42\n40*6=240\n300*6=1700", ["true", "true", "false"], 2),
        ("What is 3/4 + 1/6?", "3/4 + 1/6 = 9/12 + 2/12 = 11/12", ["true"], None),
        ("How many?", "Cost: 4 × 3 = 12\nChange: 20 - 12 = 9", ["true", "false"], 1),
        ("How many?", "p = 4*3 = 12\nq = 20 - 12 = 8", ["start", "start"], None),
        ("13 : 4", "13 : 4 = 3 rest 1\n13 : 4 = 3 rest 2", ["true", "false"], 1),
        ("Solve x^2 = 9", "x = 3", ["false"], 0),
        ("A hostile one", "9**9**9 = 3\n2^(2^70) = 1\nfoo = bar", ["unread"] * 3, None),
    ],
)
def test_lines(judge, question, text, expected, wrong):
    assert states(judge, question, text) == (expected, wrong)


def test_words_fit_the_mistake(judge):
    def said(question, text):
        found = check_working(judge, question, text)
        return found.lines[found.first_wrong].message

    assert said("What is 347 × 6?", "300*6 = 1700") == "300*6 is 1800, not 1700."
    assert "sign" in said("Solve 3x + 5 = 20", "3x = -15")
    assert "decimal point" in said("x", "1.5 × 4 = 60")
    assert "lost" in said("Solve x^2 = 9", "x = 3")
    assert "both sides" in said("Solve 3x + 5 = 20", "3x = 20")


def test_a_summary_of_the_whole(judge):
    assert check_working(judge, "x", "2 + 2 = 4").message == "Every line holds."
    assert check_working(judge, "x", "first\n2 + 2 = 5").message == "Look at line 2. The line before it holds."
    assert "no line yet" in check_working(judge, "x", "I add them").message


def test_too_many_lines(judge):
    with pytest.raises(TutorError, match=f"{MOST_LINES} are the most"):
        check_working(judge, "x", "1 = 1\n" * (MOST_LINES + 1))
