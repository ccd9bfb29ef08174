"""Which answers count, and what is said of those that do not."""

import pytest

from sambay.tutor.feedback import check_answer, letters_of, required_form, same_value
from sambay.tutor.reading import UnreadableError

SUM = "What is 347 + 586?"
FRACTIONS = "What is 3/4 + 1/6?"
EQUATION = "Solve 3x + 5 = 20"


@pytest.mark.parametrize(
    ("question", "expected", "given", "correct", "kind"),
    [
        (SUM, "933", "933", True, "right"),
        (SUM, "933", "The answer is 933.", True, "right"),
        (SUM, "933", "933.0", True, "right"),
        (SUM, "933", "-933", False, "sign"),
        (SUM, "933", "9330", False, "point"),
        (SUM, "933", "93.3", False, "point"),
        (SUM, "933", "833", False, "digit"),
        (SUM, "933", "393", False, "swapped"),
        (SUM, "933", "239", False, "operation"),
        (SUM, "933", "990", False, "close"),
        (SUM, "933", "5", False, "wrong"),
        (SUM, "933", "347 + 586", False, "unfinished"),
        (SUM, "933", "no solution", False, "words"),
        (SUM, "933", "933, 5", False, "surplus"),
        (FRACTIONS, r"\frac{11}{12}", "11/12", True, "right"),
        (FRACTIONS, r"\frac{11}{12}", "22/24", True, "unreduced"),
        (FRACTIONS, r"\frac{11}{12}", "0.9167", True, "rounded"),
        (FRACTIONS, r"\frac{11}{12}", "0.9", False, "rounded"),
        (FRACTIONS, r"\frac{11}{12}", "12/11", False, "inverted"),
        (FRACTIONS, r"\frac{11}{12}", "10/12", False, "numerator"),
        (FRACTIONS, r"\frac{11}{12}", "11/24", False, "denominator"),
        (FRACTIONS, r"\frac{11}{12}", "9/12 + 2/12", False, "unfinished"),
        ("Simplify 18/48.", r"\frac{3}{8}", "6/16", False, "unreduced"),
        ("Simplify 18/48.", r"\frac{3}{8}", "0.375", False, "form"),
        ("Write 24/5 as a mixed number.", r"4\frac{4}{5}", "4 4/5", True, "right"),
        ("Write 24/5 as a mixed number.", r"4\frac{4}{5}", "24/5", False, "form"),
        ("express 7/8 as a decimal.", "0.875", "7/8", False, "form"),
        ("express 7/8 as a decimal.", "0.875", "0,875", True, "right"),
        ("18 out of 90 in percent", "20", "20%", True, "right"),
        ("18 out of 90 in percent", "20", "0.2", False, "percent"),
        (EQUATION, "5", "x = 5", True, "right"),
        (EQUATION, "5", "y = 5", False, "wrong"),
        (EQUATION, "5", "15/3", False, "unfinished"),
        (EQUATION, "5", "15", False, "intermediate"),
        ("Solve x^2 = 9", "x = 3 or x = -3", "±3", True, "right"),
        ("Solve x^2 = 9", "x = 3 or x = -3", "3", False, "incomplete"),
        ("Solve x^2 = 9", "x = 3 or x = -3", "3 or 4", False, "wrong"),
        ("Where do they meet?", "(1, 2)", "(1, 2)", True, "right"),
        ("Where do they meet?", "(1, 2)", "(2, 1)", False, "wrong"),
        ("How far is it?", "300 cm", "3 m", True, "right"),
        ("How far is it?", "300 cm", "300", True, "right"),
        ("How far is it?", "300 cm", "3 cm", False, "point"),
        ("How far is it?", "300 cm", "3 kg", False, "unit"),
        ("Expand (x-1)(x+1)", "x^2-1", "-1 + x²", True, "right"),
        ("Solve 0x = 3", "no solution", "none", True, "right"),
        ("Solve 0x = 3", "no solution", "5", False, "words"),
        ("17 : 3", "5 r 2", "5 remainder 2", True, "right"),
        ("What is 2 ÷ 0?", "undefined", "impossible", True, "right"),
    ],
)
def test_verdicts(judge, question, expected, given, correct, kind):
    found = check_answer(judge, question, expected, given, ["20 - 5 = 15", "3x = 15"])
    assert (found.correct, found.kind) == (correct, kind)
    assert found.message.endswith((".", "?"))
    if not correct and kind not in ("unfinished",) and len(expected) > 2:
        assert expected not in found.message  # the answer is not told


def test_unreadable_answers_say_why(judge):
    with pytest.raises(UnreadableError, match="there is no answer"):
        check_answer(judge, SUM, "933", " ")
    with pytest.raises(UnreadableError, match="too large to be checked"):
        check_answer(judge, SUM, "933", "9^99999")


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("Simplify 18/48.", "reduced"),
        ("Write 4/8 in lowest terms", "reduced"),
        ("Simplify 3 + 4", None),
        ("express 9/2 as a mixed number", "mixed"),
        ("express 6 6/7 as an improper fraction.", "fraction"),
        ("turn 111 percent into a decimal.", "decimal"),
        ("Find 3/4 + 1/2.", None),
    ],
)
def test_forms(question, form):
    assert required_form(question) == form


def test_letters():
    assert letters_of("Solve 3x + 5 = 20 for x") == {"x"}
    assert letters_of("Given 4(n - 8) = n + 25, find n.") == {"n"}
    assert letters_of("A car drives 3 km. How far is it?") == frozenset()
    assert letters_of("8a + 6a = 84") == {"a"}


def test_votes_are_the_same_in_any_form(judge):
    assert same_value(judge, r"\frac{1}{2}", "0.5")
    assert same_value(judge, "x = 3", "3")
    assert same_value(judge, r"2\sqrt{3}", r"\sqrt{12}")
    assert not same_value(judge, "12", "13")
    assert not same_value(judge, "3", "no solution")
    assert not same_value(judge, "9^99999", "3")
