"""Reading final answers and comparing them as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.data.problems import boxed, same_answer


def in_tex(value: Fraction) -> str:
    return f"{'-' * (value < 0)}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


class TestAnswers:
    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ("\\frac{2}{4}", "1/2"),
            ("1/2", "0.5"),
            ("-\\frac{3}{4}", "-0.75"),
            ("\\frac{-3}{4}", "-3/4"),
            ("\\dfrac{3}{4}", "\\frac34"),
            ("1 1/2", "3/2"),
            ("4.25", "\\frac{17}{4}"),
            ("3\\frac{2}{5}", "\\frac{17}{5}"),
            ("1\\frac{1}{2}", "1.5"),
            ("-1 1/2", "-3/2"),
            ("$12", "12"),
            ("\\$12.50", "25/2"),
            ("15%", "15"),
            ("15\\%", "15"),
            ("1,234,567", "1234567"),
            ("1{,}234", "1{,}234"),
            ("12 cm", "12"),
            ("12 cm^2", "12"),
            ("60 km/h", "60"),
            ("12\\text{ apples}", "12"),
            ("12.", "12"),
            (" 12 ", "12"),
            ("12.0", "12"),
            ("x = 5", "5"),
            ("- 5", "-5"),
            ("+5", "5"),
            (".5", "1/2"),
            ("007", "7"),
            ("no solution", " no solution "),
            ("3/0", "3/0"),
        ],
    )
    def test_equal(self, a: str, b: str) -> None:
        assert same_answer(a, b)
        assert same_answer(b, a)

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ("12", "13"),
            ("1/2", "1/3"),
            ("-5", "5"),
            ("", "0"),
            ("12", ""),
            ("1,23", "123"),
            ("2 3", "23"),
            ("2+3", "5"),
            ("1/0", "0"),
            ("3x", "5x"),
            ("__import__('os')", "0"),
            ("9" * 5000, "9" * 4999),
            ("2^10", "1024"),
        ],
    )
    def test_different(self, a: str, b: str) -> None:
        assert not same_answer(a, b)

    @settings(max_examples=150, deadline=None)
    @given(st.fractions(max_denominator=10_000))
    def test_every_way_to_write_a_fraction(self, value: Fraction) -> None:
        assert same_answer(in_tex(value), f"{value.numerator}/{value.denominator}")
        assert same_answer(in_tex(value), f"{7 * value.numerator}/{7 * value.denominator}")
        assert not same_answer(in_tex(value), in_tex(value + 1))

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=60), st.text(max_size=60))
    def test_any_text_is_compared_without_an_error(self, a: str, b: str) -> None:
        assert same_answer(a, a)
        assert same_answer(a, b) == same_answer(b, a)

    @pytest.mark.parametrize(
        ("text", "content"),
        [
            ("The sum is \\boxed{933}.", "933"),
            ("\\boxed{1} and \\boxed{\\frac{3}{4}}", "\\frac{3}{4}"),
            ("\\boxed{ 5 }", "5"),
            ("\\boxed{}", ""),
            ("\\boxed{1} then \\boxed{2", "1"),
            ("nothing", None),
            ("\\boxed", None),
            ("boxed{3}", None),
        ],
    )
    def test_boxed(self, text: str, content: str | None) -> None:
        assert boxed(text) == content

    @given(st.text(max_size=80))
    def test_boxed_finds_balanced_contents(self, text: str) -> None:
        plain = re.sub(r"[{}\\]", "", text)
        assert boxed(f"{text} \\boxed{{{plain}}}") == plain.strip()
