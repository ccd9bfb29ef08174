"""What learners type, as LaTeX."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sambay.tutor.reading import LONGEST, UnreadableError, markdown, read_answer, read_sides, shown


def parts(text, letters="", which=0):
    reading = read_answer(text, frozenset(letters))[which]
    return [(part.latex, part.form) for part in reading.parts]


@pytest.mark.parametrize(
    ("text", "latex", "form"),
    [
        ("12", "12", "integer"),
        (" 12. ", "12", "integer"),
        ("−12", "-12", "integer"),
        ("3/4", r"\frac{3}{4}", "fraction"),
        ("½", r"\frac{1}{2}", "fraction"),
        ("3½", r"\left(3 + \frac{1}{2}\right)", "mixed"),
        ("-1 1/2", r"-\left(1 + \frac{1}{2}\right)", "mixed"),
        (r"4\frac{4}{5}", r"\left(4 + \frac{4}{5}\right)", "mixed"),
        (r"\frac34", r"\frac{3}{4}", "fraction"),
        (r"\boxed{\dfrac{3}{4}}", r"\frac{3}{4}", "fraction"),
        ("2.50", r"\frac{250}{100}", "decimal"),
        (".5", r"\frac{5}{10}", "decimal"),
        ("0,875", r"\frac{875}{1000}", "decimal"),
        ("1,234", "1234", "integer"),
        ("1 234 567", "1234567", "integer"),
        ("1,234.5", r"\frac{12345}{10}", "decimal"),
        ("٣٤", "34", "integer"),
        ("１２", "12", "integer"),
        ("x²−1", "x^{(2)} - 1".replace("(2)", r"\left(2\right)"), "expression"),
        ("2√3", r"2 \cdot \sqrt{3}", "expression"),
        ("4(n - 8)", r"4 \cdot \left(n - 8\right)", "expression"),
        ("20% of 50", r"\frac{20}{100} \cdot 50", "expression"),
        ("seven", "7", "integer"),
        ("minus twenty-one", "-21", "integer"),
        ("The answer is 12", "12", "integer"),
        ("It's 12", "12", "integer"),
        ("= 5", "5", "integer"),
        ("x > 3", "x  >3", "relation"),
    ],
)
def test_values(text, latex, form):
    [(found, kind)] = parts(text)
    assert (found.replace(" ", ""), kind) == (latex.replace(" ", ""), form)


def test_units_percent_and_names():
    [part] = read_answer("$12.50")[0].parts
    assert (part.unit, part.places) == ("$", 2)
    [part] = read_answer("60 km/h")[0].parts
    assert (part.latex, part.unit) == ("60", "km/h")
    [part] = read_answer("5 cm²")[0].parts
    assert part.unit == "cm 2"
    for text in ("80%", "80 percent", r"80\%"):
        [part] = read_answer(text)[0].parts
        assert (part.latex, part.percent, part.unit) == ("80", True, "")
    [part] = read_answer("x = 5")[0].parts
    assert (part.latex, part.name) == ("5", "x")
    # 5m is five metres, or five times an unknown of the problem.
    assert read_answer("5m")[0].parts[0].unit == "m"
    assert parts("5m", "m") == [(r"5 \cdot m", "expression")]


def test_several_values():
    for text in ("3, -3", "3 and -3", "x = 3 or x = -3", "{3, -3}", "3; -3"):
        reading = read_answer(text)[0]
        assert ([part.latex for part in reading.parts], reading.ordered) == (["3", "-3"], False)
    assert [part.latex for part in read_answer("±3")[0].parts] == ["-3", "3"]
    assert read_answer("(1, 2)")[0].ordered
    reading = read_answer("5 rest 2")[0]
    assert ([part.latex for part in reading.parts], reading.ordered) == (["5", "2"], True)
    # One number with a decimal comma, or two: both are tried.
    assert [len(one.parts) for one in read_answer("3,5")] == [1, 2]


def test_words():
    assert read_answer("No solution.")[0].words == read_answer("there is none")[0].words != ""
    assert read_answer("undefined")[0].words != read_answer("no solution")[0].words


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "3 +",
        "((1)",
        "1..2",
        "1e400",
        "__import__('os')",
        "9**9**9",
        "9^99999999",
        "2^(2^70)",
        "99999!",
        "(" * 100 + "1" + ")" * 100,
        "1+" * 150 + "1",
        "9" * 60,
        "x" * (LONGEST + 1),
        ", ".join("1" * 20),
    ],
)
def test_what_cannot_be_read_is_said(text):
    with pytest.raises(UnreadableError) as error:
        read_answer(text)
    assert str(error.value)
    assert len(str(error.value)) < 250


def test_other_latex_goes_on_as_it_is():
    [part] = read_answer(r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}")[0].parts
    assert part.form == "latex"


@pytest.mark.parametrize(
    ("line", "sides"),
    [
        ("So 3x = 15", (r"3 \cdot x", "15")),
        ("Subtract 5: 3x = 15", (r"3 \cdot x", "15")),
        ("3x + 5 = 20 => 3x = 15", (r"3 \cdot x", "15")),
        ("2) 4 × 3 = 12 dollars", (r"4 \cdot 3", "12")),
        ("4*5 = 20 = 10 + 10", (r"4 \cdot 5", "20", "10 + 10")),
        ("13 ÷ 4 = 3 rest 1", ("13", r"\left(4\right) \cdot \left(3\right) + 1")),
        ("Now I add them", None),
        ("347 + 586", None),
        ("347 + 586 =", None),
        ("x > 3", None),
    ],
)
def test_lines(line, sides):
    assert read_sides(line, frozenset("x")) == sides


SIGNS = [*" 1.,;x%$()[]{}+-*/^=<≤√π±½²!|°'_٣:é\n\0"]
WORDS = [
    "12",
    "3.5",
    "ab",
    "cm",
    "sqrt",
    r"\frac",
    r"\sqrt",
    r"\boxed{",
    r"\text{a}",
    "of",
    "and",
    "rest",
    "seven",
    "=>",
]


@given(st.lists(st.sampled_from(SIGNS + WORDS), max_size=14).map("".join))
def test_whatever_is_typed_is_read_or_refused_with_a_sentence(text):
    markdown(text)
    for read in (read_answer, read_sides, shown):
        with contextlib.suppress(UnreadableError):
            read(text)
    with contextlib.suppress(UnreadableError):
        assert all(reading.words or reading.parts for reading in read_answer(text))


def test_mathematics_for_the_page():
    assert shown("2 1/4 × 3") == r"2\frac{1}{4} \times 3"
    assert markdown("5/8 + 1/8 = 6/8") == r"\(\dfrac{5}{8} + \dfrac{1}{8} = \dfrac{6}{8}\)"
    assert markdown("Give 4/8 in its simplest form.") == r"Give \(\dfrac{4}{8}\) in its simplest form."
    assert markdown("It costs $5 and $6.") == r"It costs \$5 and \$6."
    assert markdown("60 km/h") == "60 km/h"
    assert markdown(r"already \(x\)") == r"already \(x\)"
