"""The generator of problems: every answer is computed again here, and every line of a solution is checked."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.data.problems import (
    ALPHABET,
    FAMILIES,
    INSTRUCTION,
    Problem,
    boxed,
    problem_at,
    same_answer,
    smalltalk_at,
    split_of,
    stories_measures,
    stories_money,
    stories_puzzles,
    stories_steps,
    stories_things,
)
from sambay.data.problems.base import Dice
from sambay.data.problems.stories import cast, told
from sambay.data.problems.wording import as_typed
from sambay.data.problems.work import Work

SEED = 2024
# It changes only when the data changes: a new value is a new data set.
DIGEST = "f36209ceb750d8f3"


@cache
def train() -> Sequence[Problem]:
    return [problem_at(SEED, index, "train") for index in range(20_000)]


@cache
def test_set() -> Sequence[Problem]:
    return [problem_at(SEED, index, "test") for index in range(6_000)]


test_set.__test__ = False  # type: ignore[attr-defined]


def sample() -> Sequence[Problem]:
    """Enough of both splits for the checks that read every line."""
    return [*train()[:4_000], *test_set()[:1_000]]


# A calculator of its own, which shares nothing with the generator.

_TOKEN = re.compile(
    r"\s*(?:(?P<mixed>\d+ \d+/\d+)|(?P<tex>\\frac\{\d+\}\{\d+\})|(?P<number>\d+/\d+|\d+(?:\.\d+)?)"
    r"|(?P<sign>[-+×÷/()^])|(?P<letter>[a-z]))"
)


class NotMathematicsError(Exception):
    """The text is not an expression."""


def tokens_of(text: str) -> list[tuple[str, str]]:
    text, at, out = text.rstrip(), 0, []
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match or match.lastgroup is None:
            raise NotMathematicsError(text)
        out.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return out


def evaluate(text: str, letters: dict[str, Fraction] | None = None) -> Fraction:
    tokens = tokens_of(text)[::-1]

    def peek(*signs: str) -> bool:
        return bool(tokens) and tokens[-1][0] == "sign" and tokens[-1][1] in signs

    def atom() -> Fraction:
        if not tokens:
            raise NotMathematicsError(text)
        group, token = tokens.pop()
        if group == "number":
            return Fraction(token)
        if group == "mixed":
            whole, part = token.split()
            return int(whole) + Fraction(part)
        if group == "tex":
            top, bottom = re.findall(r"\d+", token)
            return Fraction(int(top), int(bottom))
        if group == "letter" and letters and token in letters:
            return letters[token]
        if token == "-":
            return -power()
        if token == "(":
            inner = total()
            if not peek(")"):
                raise NotMathematicsError(text)
            tokens.pop()
            return inner
        raise NotMathematicsError(text)

    def power() -> Fraction:
        base = atom()
        if peek("^"):
            tokens.pop()
            base = base ** int(atom())
        # 3x, 2(x + 1): a factor without a sign.
        if tokens and (tokens[-1][0] == "letter" or peek("(")):
            base *= power()
        return base

    def product() -> Fraction:
        result = power()
        while peek("×", "÷", "/"):
            sign, right = tokens.pop()[1], power()
            result = result * right if sign == "×" else result / right
        return result

    def total() -> Fraction:
        result = product()
        while peek("+", "-"):
            sign, right = tokens.pop()[1], product()
            result = result + right if sign == "+" else result - right
        return result

    result = total()
    if tokens:
        raise NotMathematicsError(text)
    return result


def relations(line: str, letters: dict[str, Fraction]) -> Iterator[bool]:
    """Judge every part of a line that states an equation or a comparison."""
    for part in re.split(r": |, (?!carry)|; ", line.rstrip(":.")):
        part = part.removesuffix(" digits").strip()
        if rest := re.fullmatch(r"(\d+) ÷ (\d+) = (\d+) rest (\d+)", part):
            a, b, quotient, remainder = map(int, rest.groups())
            yield divmod(a, b) == (quotient, remainder)
            continue
        pieces = re.split(r" ([=<>]) ", part)
        if len(pieces) == 1:
            continue
        values = [evaluate(piece, letters) for piece in pieces[::2]]
        for sign, left, right in zip(pieces[1::2], values, values[1:], strict=False):
            yield left == right if sign == "=" else left < right if sign == "<" else left > right


F = Fraction
# The answer of every kind from the numbers of its key, written without a look at the solutions.
ANSWERS: dict[str, Callable[..., Fraction | int | str]] = {
    "arithmetic/add": lambda a, b: a + b,
    "arithmetic/add_3": lambda a, b, c: a + b + c,
    "arithmetic/sub": lambda a, b: a - b,
    "arithmetic/mul": lambda a, b: a * b,
    "arithmetic/div": F,
    "arithmetic/remainder": lambda a, b: a % b,
    "arithmetic/quotient": lambda a, b: a // b,
    "arithmetic/power": lambda a, b: a**b,
    "arithmetic/root": lambda a: next(n for n in range(200) if n * n == a),
    "arithmetic/by_zero": lambda a: "undefined",
    "fractions/add": lambda a, b, c, d: F(a, b) + F(c, d),
    "fractions/sub": lambda a, b, c, d: F(a, b) - F(c, d),
    "fractions/mul": lambda a, b, c, d: F(a, b) * F(c, d),
    "fractions/div": lambda a, b, c, d: F(a, b) / F(c, d),
    "fractions/simplify": F,
    "fractions/mixed": lambda n, a, b: n + F(a, b),
    "fractions/of": lambda a, b, n: F(a, b) * n,
    "fractions/compare": lambda a, b, c, d: max(F(a, b), F(c, d)),
    "fractions/whole_add": lambda n, a, b: n + F(a, b),
    "fractions/whole_sub": lambda n, a, b: n - F(a, b),
    "fractions/compare_less": lambda a, b, c, d: min(F(a, b), F(c, d)),
    "fractions/to_mixed": F,
    "fractions/whole_div": lambda n, a, b: n / F(a, b),
    "fractions/div_whole": lambda n, a, b: F(a, b) / n,
    "fractions/mixed_add": lambda u, a, b, v, c, d: u + F(a, b) + v + F(c, d),
    "fractions/mixed_sub": lambda u, a, b, v, c, d: u + F(a, b) - v - F(c, d),
    "fractions/mixed_mul": lambda u, a, b, v, c, d: (u + F(a, b)) * (v + F(c, d)),
    "fractions/mixed_div": lambda u, a, b, v, c, d: (u + F(a, b)) / (v + F(c, d)),
    "decimals/add": lambda x, p, y, q: F(x, 10**p) + F(y, 10**q),
    "decimals/sub": lambda x, p, y, q: F(x, 10**p) - F(y, 10**q),
    "decimals/mul": lambda x, p, y, q: F(x, 10**p) * F(y, 10**q),
    "decimals/by_power": lambda x, p, y, q: F(x, 10**p) / y,
    "decimals/div": lambda x, p, y, q: F(x, 10**p) / y,
    "decimals/by_decimal": lambda x, p, y, q: F(x, 10**p) / F(y, 10**q),
    "decimals/to_decimal": F,
    "decimals/to_fraction": lambda x, p: F(x, 10**p),
    "decimals/to_percent": lambda x, p: 100 * F(x, 10**p),
    "decimals/from_percent": lambda x, p: F(x, 10**p) / 100,
    "decimals/round": lambda x, p, t: F((2 * x * 10**t + 10**p) // (2 * 10**p), 10**t),
    "decimals/compare": lambda x, p, y, q: max(F(x, 10**p), F(y, 10**q)),
    "decimals/compare_less": lambda x, p, y, q: min(F(x, 10**p), F(y, 10**q)),
    "equations/plus": lambda a, b: b - a,
    "equations/times": lambda a, b: F(b, a),
    "equations/linear": lambda a, b, c: F(c - b, a),
    "equations/both": lambda a, b, c, d: F(d - b, a - c),
    "equations/brackets": lambda a, b, c: F(c, a) - b,
    "equations/quotient": lambda a, b, c: (c - b) * a,
    "equations/minus": lambda a, b: a - b,
    "equations/collect": lambda a, c, b, d: F(d - b, a + c),
    "equations/expand": lambda a, b, e, c, d: F(d - e - a * b, a - c),
    "equations/never": lambda a, b, d: "all numbers" if b == d else "no solution",
    "equations/zero": lambda b: "no solution" if b else "all numbers",
    "percentages/of": lambda p, n: F(p, 100) * n,
    "percentages/increase": lambda p, n: n * (1 + F(p, 100)),
    "percentages/decrease": lambda p, n: n * (1 - F(p, 100)),
    "percentages/what": lambda a, b: 100 * F(a, b),
    "percentages/before_down": lambda p, f: f / (1 - F(p, 100)),
    "percentages/before_up": lambda p, f: f / (1 + F(p, 100)),
    "percentages/rise": lambda a, b: 100 * F(b, a) - 100,
    "percentages/fall": lambda a, b: 100 - 100 * F(b, a),
    "percentages/interest": lambda n, p, t: n * F(p, 100) * t,
    "percentages/balance": lambda n, p, t: n * (1 + F(p, 100) * t),
    "word_problems/together": lambda a, b: a + b,
    "word_problems/left": lambda a, b: a - b,
    "word_problems/gain_loss": lambda a, b, c: a + b - c,
    "word_problems/more_together": lambda a, b: 2 * a + b,
    "word_problems/difference": lambda a, b: a - b,
    "word_problems/multiple": lambda a, b: a * (1 + b),
    "word_problems/cost": lambda a, b: a * b,
    "word_problems/change": lambda a, b, c: c - a * b,
    "word_problems/two_kinds": lambda a, b, c, d: a * b + c * d,
    "word_problems/tickets": lambda a, b, c, d: a * b + c * d,
    "word_problems/share": F,
    "word_problems/share_rest": lambda a, b: a % b,
    "word_problems/packing": lambda a, b: -(-a // b),
    "word_problems/full_boxes": lambda a, b: a // b,
    "word_problems/boxes": lambda a, b, c: a * b + c,
    "word_problems/unit_price": lambda a, b, c: F(b, a) * c,
    "word_problems/stock": lambda a, b, c, d: a + b * c - d,
    "word_problems/bus": lambda a, b, c: a - b + c,
    "word_problems/seats": lambda a, b, c: a * b - c,
    "word_problems/legs": lambda a, b: 4 * a + 2 * b,
    "word_problems/goal": lambda a, b, c: F(a - b, c),
    "word_problems/saved": lambda a, b, c: a * b + c,
    "word_problems/pages_left": lambda a, b, c: a - b * c,
    "word_problems/pages_days": F,
    "word_problems/pages_rest": lambda a, b, c: F(a - b, c),
    "word_problems/coins": lambda a, b: 5 * a + 10 * b,
    "word_problems/fraction_gone": lambda a, b: a - F(a, b),
    "word_problems/distance": lambda a, b: a * b,
    "word_problems/speed": F,
    "word_problems/time": F,
    "word_problems/two_rides": lambda a, b, c, d: a * b + c * d,
    "word_problems/meeting": lambda a, b, c: F(c, a + b),
    "word_problems/area": lambda a, b: a * b,
    "word_problems/perimeter": lambda a, b: 2 * (a + b),
    "word_problems/square_perimeter": lambda a: 4 * a,
    "word_problems/square_area": lambda a: a * a,
    "word_problems/area_side": F,
    "word_problems/width": lambda a, b: F(b, 2) - a,
    "word_problems/triangle": lambda a, b: F(a * b, 2),
    "word_problems/angles": lambda a, b: 180 - a - b,
    "word_problems/volume": lambda a, b, c: a * b * c,
    "word_problems/posts": lambda a, b: F(a, b) + 1,
    "word_problems/hours_minutes": lambda a, b: 60 * a + b,
    "word_problems/minutes_seconds": lambda a, b: 60 * a + b,
    "word_problems/clock": lambda a, b, c, d: 60 * (c - a) + d - b,
    "word_problems/warmer": lambda a, b: a + b,
    "word_problems/colder": lambda a, b: a - b,
    "word_problems/meters_and_cm": lambda a, b: 100 * a + b,
    "word_problems/stairs": lambda a, b: 2 * a * b,
    "word_problems/ages": lambda a, b, c: a + b + c,
    "word_problems/parent": lambda a, b, c: a * b + c,
    "word_problems/consecutive_low": lambda a: F(a, 3) - 1,
    "word_problems/consecutive_high": lambda a: F(a, 3) + 1,
    "word_problems/average_2": lambda a, b: F(a + b, 2),
    "word_problems/average_3": lambda a, b, c: F(a + b + c, 3),
    "word_problems/average_4": lambda a, b, c, d: F(a + b + c + d, 4),
    "word_problems/average_missing": lambda a, b, c: 3 * a - b - c,
    "word_problems/ratio": lambda a, b, c: F(c * a, a + b),
    "word_problems/think_plus": lambda a, b, c: F(c - b, a),
    "word_problems/think_minus": lambda a, b, c: F(c + b, a),
    "word_problems/larger": lambda a, b: F(a + b, 2),
    "word_problems/smaller": lambda a, b: F(a - b, 2),
    "word_problems/rabbits": lambda a, b: F(b, 2) - a,
    "word_problems/workers": lambda a, b, c: F(a * b, c),
    "word_problems/rate": lambda a, b, c: F(a, b) * c,
    "word_problems/recipe": lambda a, b, c: F(a, b) * c,
    "word_problems/wages": lambda a, b, c: a * b * c,
    "word_problems/fuel": lambda a, b: F(a * b, 100),
    "word_problems/number_and_multiple": lambda a, b: F(b, a + 1),
    "word_problems/each_total": lambda a, b: a * b,
    "word_problems/both": lambda a, b: a + b,
    "word_problems/money_left": lambda a, b: a - b,
    "word_problems/change_one": lambda a, b: b - a,
    "word_problems/spent_twice": lambda a, b, c: a - b - c,
    "word_problems/share_eat": lambda a, b, c: F(a, b) - c,
    "word_problems/pool": lambda a, b, c: F(a + b, c),
    "word_problems/more": lambda a, b: a + b,
    "word_problems/fewer": lambda a, b: a - b,
    "word_problems/fewer_together": lambda a, b: 2 * a - b,
    "word_problems/as_many": lambda a, b: a * b,
    "word_problems/half_as_many": lambda a: F(a, 2),
    "word_problems/half_together": lambda a: F(3 * a, 2),
    "word_problems/older": lambda a, b: a + b,
    "word_problems/younger": lambda a, b: a - b,
    "word_problems/age_times": lambda a, b: a * b,
    "word_problems/a_week": lambda a: 7 * a,
    "word_problems/daily": lambda a, b: a * b,
    "word_problems/opening": lambda a, b: 12 + b - a,
    "word_problems/average_5": lambda *numbers: F(sum(numbers), 5),
    "word_problems/legs_2": lambda a: 2 * a,
    "word_problems/legs_4": lambda a: 4 * a,
    "word_problems/legs_6": lambda a: 6 * a,
    "word_problems/legs_8": lambda a: 8 * a,
    "word_problems/wheels_4": lambda a: 4 * a,
    "word_problems/weeks_days": lambda a, b: 7 * a + b,
    "word_problems/feet_inches": lambda a, b: 12 * a + b,
    "word_problems/years_months": lambda a, b: 12 * a + b,
    "word_problems/days_hours": lambda a, b: 24 * a + b,
    "word_problems/kg_and_g": lambda a, b: 1000 * a + b,
    "word_problems/km_and_m": lambda a, b: 1000 * a + b,
}
# How a story may write a number that is asked for.
HIDDEN_NUMBERS = {"twice": 2, "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "dozen": 12}
UNITS = {
    "meters_cm": 100, "km_m": 1000, "kg_g": 1000, "hours": 60, "minutes": 60, "weeks": 7, "days": 24,
    "years": 12, "feet": 12, "cm_mm": 10, "liters": 1000, "dollars": 100, "yards": 3, "dozens": 12,
    "tons": 1000, "pounds": 16,
}  # fmt: skip
for _unit, _factor in UNITS.items():
    ANSWERS[f"word_problems/{_unit}_down"] = lambda a, factor=_factor: a * factor
    ANSWERS[f"word_problems/{_unit}_up"] = lambda a, factor=_factor: F(a, factor)


def numbers_of(key: str) -> list[int]:
    return [int(number) for number in key.partition(":")[2].split(",")]


def expected(problem: Problem) -> Fraction | str:
    kind, _, rest = problem.key.partition(":")
    if kind == "order_of_operations/value":
        return evaluate(rest)
    answer = ANSWERS[kind](*numbers_of(problem.key))
    return answer if isinstance(answer, str) else Fraction(answer)


def value_of(problem: Problem) -> Fraction:
    """The answer of a problem that has a number for an answer."""
    value = expected(problem)
    assert isinstance(value, Fraction)
    return value


def in_tex(value: Fraction | str) -> str:
    if isinstance(value, str):
        return value
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' * (value < 0)}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def content_of(problem: Problem) -> str:
    """The one way in which the answer may be written in the box."""
    value = expected(problem)
    kind = problem.key.partition(":")[0]
    if kind == "fractions/to_mixed":
        whole, rest = divmod(value, 1)
        return f"{whole}{in_tex(rest)}"
    if problem.family == "decimals" and kind != "decimals/to_fraction" and value.denominator > 1:
        return str(Decimal(value.numerator) / Decimal(value.denominator))
    return in_tex(value)


def letters_of(problem: Problem) -> dict[str, Fraction]:
    """The variable of an equation stands for the solution in every line."""
    if problem.family != "equations" or problem.key.startswith(IN_WORDS):
        return {}
    letter = re.search(r"([a-z]) = \\boxed", problem.reply)
    assert letter, problem
    return {letter[1]: value_of(problem)}


SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = {word: str(n) for n, word in enumerate(SMALL)} | {word: str(10 * n) for n, word in enumerate(TENS, 2)}


def plain(question: str) -> str:
    """Undo the habits of typing: the question in small letters, in digits and in our own signs."""
    text = question.removeprefix(INSTRUCTION).lower()
    for typed, sign in (("−", "-"), ("·", "×"), ("\\times", "×"), ("\\cdot", "×"), ("²", "^2"), ("³", "^3")):
        text = text.replace(typed, sign)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<=[\d)]) ?(?=\()", "×", text)
    text = re.sub(rf"\b({'|'.join(TENS)})-([a-z]+)\b", lambda m: str(int(WORDS[m[1]]) + int(WORDS[m[2]])), text)
    return re.sub(r"\b[a-z]+\b", lambda m: WORDS.get(m[0], m[0]), text)


IN_WORDS = ("equations/never", "equations/zero", "arithmetic/by_zero")


class TestSequence:
    def test_problems_are_the_same_everywhere(self) -> None:
        rows = [problem_at(7, index, "train") for index in range(150)]
        rows += [problem_at(7, index, "test") for index in range(50)]
        rows += [smalltalk_at(7, index) for index in range(20)]
        text = "\n".join(f"{p.key}\n{p.question}\n{p.thinking}\n{p.reply}" for p in rows)
        digest = hashlib.blake2b(text.encode(), digest_size=8)
        assert digest.hexdigest() == DIGEST

    def test_hash_randomisation_changes_nothing(self) -> None:
        code = "from sambay.data.problems import problem_at; print(problem_at(3, 5, 'test'))"
        out = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(out) == 1

    def test_any_place_can_be_asked_for_alone(self) -> None:
        for index in (0, 17, 4_999):
            assert problem_at(SEED, index, "train") == train()[index]
        assert problem_at(SEED + 1, 0, "train") != train()[0]

    def test_splits_share_no_key(self) -> None:
        assert not {p.key for p in train()} & {p.key for p in test_set()}
        assert all(split_of(p.key) == "train" for p in train())
        assert all(split_of(p.key) == "test" for p in test_set())

    def test_one_key_in_sixteen_is_held_out(self) -> None:
        held = sum(split_of(f"arithmetic/add:{a},{b}") == "test" for a in range(100) for b in range(100))
        assert 500 < held < 750

    def test_same_key_same_answer(self) -> None:
        answers: dict[str, str] = {}
        for problem in [*train(), *test_set()]:
            assert answers.setdefault(problem.key, problem.answer) == problem.answer

    def test_families_follow_their_shares(self) -> None:
        counts = Counter(p.family for p in train())
        assert set(counts) == set(FAMILIES)
        assert 0.24 < counts["arithmetic"] / len(train()) < 0.28
        only = {problem_at(1, index, "test", {"equations": 2.0, "fractions": 1}).family for index in range(60)}
        assert only == {"equations", "fractions"}

    @pytest.mark.parametrize(
        ("split", "families"),
        [
            ("valid", None),
            ("train", {"geometry": 1.0}),
            ("train", {"fractions": -1.0}),
            ("train", {"fractions": float("nan")}),
            ("train", {"fractions": 0.0}),
            ("train", {}),
        ],
    )
    def test_impossible_requests_are_refused(self, split: str, families: dict[str, float] | None) -> None:
        with pytest.raises(ValueError, match=r"choose|give"):
            problem_at(1, 1, split, families)

    def test_small_spaces_are_covered(self) -> None:
        sums = {p.key for p in train() if p.key.startswith("arithmetic/add:")}
        digits = [key for a in range(10) for b in range(a, 10) if split_of(key := f"arithmetic/add:{a},{b}") == "train"]
        assert sum(key in sums for key in digits) > 0.9 * len(digits)


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


class TestWording:
    def test_alphabet(self) -> None:
        texts = [*train(), *test_set(), *(smalltalk_at(SEED, index) for index in range(500))]
        used = {c for p in texts for c in p.question + p.thinking + p.reply + p.answer}
        assert used <= ALPHABET

    def test_no_slot_is_left_open(self) -> None:
        for problem in train():
            question = problem.question.removeprefix(INSTRUCTION)
            assert not re.search(r"[{}]", re.sub(r"\\frac\{\d+\}\{\d+\}", "", question)), problem
            assert not re.search(r"  |\bNone\b|\ba (apple|egg|eraser|onion|orange)\b", question.lower()), problem
            assert question == question.strip()

    def test_the_question_holds_the_numbers_of_the_key(self) -> None:
        for problem in [*train(), *test_set()]:
            if problem.family in ("order_of_operations", "decimals"):
                continue
            asked = Counter(int(n) for n in re.findall(r"\d+", plain(problem.question)))
            if problem.family == "word_problems":
                words = re.findall(r"[a-z]+", problem.question.lower())
                asked.update(HIDDEN_NUMBERS[word] for word in words if word in HIDDEN_NUMBERS)
            # Of an equation 1x and + 0 are not written.
            needed = Counter(abs(n) for n in numbers_of(problem.key) if problem.family != "equations" or abs(n) > 1)
            # A power may say "cubed" for its exponent.
            if problem.key.startswith("arithmetic/power"):
                needed = Counter(numbers_of(problem.key)[:1])
            if problem.key.startswith("fractions/mixed"):
                # 0 wholes are not written.
                del needed[0]
            # A square names its number once.
            if problem.key.startswith("arithmetic/mul") and len(needed) == 1:
                needed = Counter(set(needed))
            assert needed <= asked, problem

    def test_every_template_of_a_story_can_be_told(self) -> None:
        dice = Dice("templates")
        for part in (stories_things, stories_money, stories_measures, stories_puzzles, stories_steps):
            for story in part.STORIES:
                numbers = dict(zip("abcde", story.draw(dice, 1), strict=False))
                for text in story.texts:
                    for _ in range(3):
                        question = told(dice, text, cast(dice) | numbers)
                        assert set(question) <= ALPHABET - set("[]{}\\"), (question, story.name)
                        low = question.lower()
                        assert not re.search(r"\b(i|we|they|you) (has|is|does|was|[a-z]+(ys|ves|ets))\b", low) or (
                            re.search(r"\bi was\b", low)
                        ), question
                        assert not re.search(r"  |\b(a [aeio]|an [bcdfgjklmnpqrstvwxyz]|1 [a-z]+s\b)", low), question

    def test_persons_and_prices_vary(self) -> None:
        questions = [p.question for p in train() if p.family == "word_problems"]
        for part in (r"\bI have\b", r"\bdoes she\b", r"\bthey\b", r"€\d", r"\d€", r"£", r"\$", r"\btwice\b",
                     r"\bdozen\b",
                     r"\bhalf\b", r"\bthree [a-z]+s\b", r"^A farmer\b", r"^If\b", r"; ", r"\bmph\b"):  # fmt: skip
            assert any(re.search(part, question) for question in questions), part

    def test_typed_expressions_mean_what_is_asked(self) -> None:
        seen = 0
        for problem in train():
            if problem.family != "order_of_operations":
                continue
            typed = max(re.findall(r"[0-9(][0-9+\-*x×÷/^() ]*[0-9)]", plain(problem.question)), key=len)
            typed = re.sub("[*x]", "×", typed).replace("/", " ÷ ")
            assert evaluate(typed) == expected(problem), problem
            seen += 1
        assert seen > 1_500

    def test_typed_equations_have_the_solution(self) -> None:
        for problem in train():
            if problem.family != "equations" or problem.key.startswith(IN_WORDS):
                continue
            ((letter, solution),) = letters_of(problem).items()
            v = rf"(?<![a-z]){letter}(?![a-z])"
            any_ = rf"(?:[-+*×/(). 0-9]|{v})"
            found = re.search(rf"(?:[-(0-9]|{v}){any_}*=(?!\s*\?){any_}*(?:[0-9)]|{v})", plain(problem.question))
            assert found, problem
            left, right = found[0].replace("*", "×").split("=")
            # "3t = 9 t": a word of one letter behind the equation is no factor.
            right = re.sub(rf"(?<=\d) +{letter}$", "", right)
            assert evaluate(left, {letter: solution}) == evaluate(right, {letter: solution}), problem

    def test_variety(self) -> None:
        assert len({re.sub(r"\d", "", p.question) for p in train()}) >= 400
        # Names and things aside, there still are many ways to ask.
        bare = {re.sub(r"\d+", "#", p.question) for p in train() if p.family != "word_problems"}
        assert len(bare) >= 400
        questions = Counter(p.question for p in train())
        assert len(questions) > 0.8 * len(train())

    def test_the_instruction_precedes_six_percent(self) -> None:
        share = sum(p.question.startswith(INSTRUCTION) for p in train()) / len(train())
        assert 0.05 < share < 0.07
        assert INSTRUCTION == "Please reason step by step, and put your final answer within \\boxed{}. "

    def test_replies(self) -> None:
        for problem in train():
            assert re.search(r"\\boxed\{.+\}\.?$", problem.reply), problem
            assert "\n" not in problem.reply
            assert len(problem.reply) < 80

    def test_lengths(self) -> None:
        counts = sorted(
            len(re.findall(r"[0-9]|[A-Za-z]+|\n|\S", f"{p.question}\n{p.thinking}\n{p.reply}")) for p in train()
        )
        assert sum(counts) / len(counts) < 130
        assert counts[int(0.99 * len(counts))] < 400
        assert counts[-1] < 600


class TestSmalltalk:
    def test_small_talk(self) -> None:
        talks = [smalltalk_at(SEED, index) for index in range(500)]
        assert talks[3] == smalltalk_at(SEED, 3)
        assert "smalltalk" not in FAMILIES
        for talk in talks:
            assert talk.family == "smalltalk"
            assert (talk.answer, boxed(talk.reply)) == ("", None)
            assert talk.question
            assert talk.thinking
        assert len({talk.key for talk in talks}) >= 6
        assert len({talk.question for talk in talks}) > 150

    def test_what_is_declined_is_drawn(self) -> None:
        talks = [smalltalk_at(SEED, index) for index in range(8_000)]
        declined = {talk.question for talk in talks if re.search(r"other|too_", talk.key)}
        assert len(declined) > 2_500
        # What arithmetic can do is not declined.
        for question in declined:
            if root := re.search(r"(?:root of |sqrt\(?)[ ]?(\d+)", question):
                assert round(int(root[1]) ** 0.5) ** 2 != int(root[1]), question
        large = [talk for talk in talks if talk.key.endswith("too_large")]
        assert len({talk.question for talk in large}) > 0.9 * len(large) > 500
        for talk in large:
            assert sum(map(len, re.findall(r"\d+", talk.question))) >= 5, talk
            assert "too large" in talk.reply


class TestTyping:
    """The habits of typing change how a question looks, never what it says."""

    @pytest.mark.parametrize(
        "question",
        [
            "12345 - 1204 = ?",
            "What is 72?",
            "Solve 3(x - 4) = 2x + 1300",
            "6 × (5 - 2) × 3^2 + 2^3",
            "Add 14 and 5.",
            INSTRUCTION + "Ann has 7 pens and buys 15 more. How many pens has Ann now?",
            "Take 20% of 15 and 3/4 of 1.5 away",
        ],
    )
    def test_meaning_stays(self, question: str) -> None:
        seen = set()
        for index in range(600):
            typed = as_typed(Dice(index), question)
            seen.add(typed)
            assert typed.startswith(INSTRUCTION) == question.startswith(INSTRUCTION)
            meant = plain(question).rstrip(".").replace(" ", "")
            assert meant in plain(typed).replace(" ", "")
        assert len(seen) > 10
        assert question in seen

    def test_numbers_inside_of_others_keep_their_digits(self) -> None:
        typed = {
            as_typed(Dice(index), "A 3.5 m rope costs $12 and 1/2 of it 3x or 25% less, 7th, B12")
            for index in range(2000)
        }
        assert not any(word in text for text in typed for word in ("three", "five", "twelve", "half", "two", "seven"))
