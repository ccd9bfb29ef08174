"""Solutions: every answer is computed again, and every line is checked."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from answered import (
    ANSWERS,
    IN_WORDS,
    content_of,
    evaluate,
    expected,
    letters_of,
    numbers_of,
    plain,
    relations,
    sample,
    test_set,
    train,
    value_of,
)
from sambay.data.problems import boxed, same_answer
from sambay.data.problems.work import Work


class TestSolutions:
    def test_answers(self) -> None:
        for problem in [*train(), *test_set()]:
            assert problem.answer == content_of(problem), problem
            assert same_answer(problem.answer, str(expected(problem))), problem
            assert boxed(problem.reply) == problem.answer, problem

    def test_every_kind_occurs(self) -> None:
        kinds = {p.key.partition(":")[0] for p in train()}
        assert kinds == {*ANSWERS, "order_of_operations/value"}
        assert sum(kind.startswith("word_problems/") for kind in kinds) >= 25

    def test_every_line_is_true(self) -> None:
        checked = 0
        for problem in sample():
            if problem.key.startswith(IN_WORDS):
                continue
            letters, result = letters_of(problem), value_of(problem)
            reply = re.sub(r"\\boxed\{(.*)\}", r"\1", problem.reply).rstrip(".")
            reply = re.sub(r"^(So|The solution is) ", "", reply)
            for line in [*problem.thinking.split("\n"), reply]:
                # A rewritten expression has the value of the whole.
                true = [evaluate(line[2:]) == result] if line.startswith("= ") else list(relations(line, letters))
                assert all(true), (line, problem)
                assert true or "=" not in line, (line, problem)
                checked += len(true)
        assert checked > 30_000

    def test_running_results_are_parts_of_the_result(self) -> None:
        checked = 0
        for problem in sample():
            columns: list[str] = []
            quotients: list[str] = []
            for line in problem.thinking.split("\n"):
                if match := re.search(r" = \d+( rest \d+)?: (\d+)(, carry \d)?$", line):
                    (quotients if match[1] else columns).append(match[2])
                    continue
                final = re.search(r" = (\d+)( rest \d+)?$", line)
                if final and columns:
                    whole = final[1].zfill(len(columns[-1]))
                    assert whole == columns[-1], problem
                    assert all(whole.endswith(done) for done in columns), problem
                    checked += len(columns)
                    columns = []
                elif final and quotients and "÷" in line:
                    assert final[1] == quotients[-1], problem
                    assert all(final[1].startswith(done) for done in quotients), problem
                    checked += len(quotients)
                    quotients = []
            assert not columns
            assert not quotients
        assert checked > 10_000

    def test_steps_end_in_the_answer(self) -> None:
        for problem in sample():
            last = problem.thinking.split("\n")[-1]
            if problem.key.startswith(
                (
                    "fractions/compare",
                    "decimals/compare",
                    "arithmetic/remainder",
                    "arithmetic/quotient",
                    "arithmetic/root",
                    *IN_WORDS,
                )
            ):
                continue
            if problem.key.startswith("word_problems/share_rest"):
                rest = re.search(r" rest (\d+)$", last)
                assert (rest[1] if rest else "0") == problem.answer
                continue
            end = re.sub(r" rest \d+$", "", last).rpartition(" = ")[2].rpartition(": ")[2]
            assert evaluate(end) == expected(problem), problem

    def test_multiples(self) -> None:
        rows = 0
        for problem in sample():
            for base, row in re.findall(r"Multiples of (\d+): ([\d, ]+)", problem.thinking):
                assert [int(n) for n in row.split(", ")] == [int(base) * k for k in range(1, row.count(",") + 2)]
            for large, small, row in re.findall(r"Multiples of (\d+) ÷ (\d+): (.+)", problem.thinking):
                entries = [[int(n) for n in entry.split(" rest ")] for entry in row.split(", ")]
                assert entries == [[int(large) * k, int(large) * k % int(small)] for k in range(1, len(entries) + 1)]
                assert [rest for _, rest in entries].index(0) == len(entries) - 1
                rows += 1
        assert rows > 100

    def test_fractions_end_in_lowest_terms(self) -> None:
        stated = 0
        for problem in sample():
            for end in re.findall(r"Lowest terms: -?(\d+/\d+)", problem.thinking):
                assert str(Fraction(end)) == end, problem
                stated += 1
        assert stated > 300

    def test_a_key_names_its_decimals_in_one_way(self) -> None:
        for problem in [*train(), *test_set()]:
            kind = problem.key.partition(":")[0]
            if kind not in ("decimals/add", "decimals/mul", "decimals/compare", "decimals/compare_less"):
                continue
            x, p, y, q = numbers_of(problem.key)
            assert p == 0 or x % 10, problem
            assert q == 0 or y % 10, problem
            assert p or q, problem
            whole = kind == "decimals/mul" and q == 0
            assert whole or Fraction(x, 10**p) <= Fraction(y, 10**q), problem
            assert kind != "decimals/mul" or p, problem

    def test_typed_decimals_are_those_of_the_key(self) -> None:
        for problem in [*train(), *test_set()]:
            if problem.family != "decimals" or problem.key.startswith(("decimals/to_decimal", "decimals/round")):
                continue
            numbers = numbers_of(problem.key)
            needed = Counter(Fraction(x, 10**p) for x, p in zip(numbers[::2], numbers[1::2], strict=True))
            asked = Counter(Fraction(n) for n in re.findall(r"\d*\.?\d+", plain(problem.question)))
            assert needed <= asked, problem


class TestWork:
    @settings(max_examples=150, deadline=None)
    @given(st.integers(-9999, 9999), st.integers(-9999, 9999), st.sampled_from("+-×"))
    def test_operations(self, a: int, b: int, sign: str) -> None:
        work = Work()
        result = {"+": work.add, "-": work.sub, "×": work.mul}[sign](a, b)
        assert result == {"+": a + b, "-": a - b, "×": a * b}[sign]
        for line in work.lines:
            assert all(relations(line, {}))
        assert str(abs(result)) in work.lines[-1]

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 99_999), st.integers(1, 99))
    def test_division(self, a: int, b: int) -> None:
        work = Work()
        assert work.divide(a, b) == divmod(a, b)
        for line in work.lines:
            assert all(relations(line, {}))

    @settings(max_examples=100, deadline=None)
    @given(st.integers(-500, 500), st.integers(1, 500))
    def test_reduction(self, top: int, bottom: int) -> None:
        work = Work()
        assert Fraction(*work.reduce(top, bottom)) == Fraction(top, bottom)
        for line in work.lines:
            assert all(relations(line, {}))
        end = Fraction(top, bottom)
        shown = f"Lowest terms: {end}" if end.denominator > 1 else f" = {end}"
        assert work.lines[-1].endswith(shown)

    def test_no_step_needs_more_than_a_table(self) -> None:
        """In a column the operands are digits, but for the first, which a borrow may raise."""
        for problem in sample():
            for line in problem.thinking.split("\n"):
                if match := re.fullmatch(r"(.*) = \d+: \d+(, carry \d)?", line):
                    operands = [int(n) for n in re.findall(r"\d+", match[1].split(" = ")[0].split(", ")[-1])]
                    assert all(n < 10 for n in operands[1:]), line
                    assert operands[0] < 20, line
