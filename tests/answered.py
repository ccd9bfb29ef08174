"""What the tests of the generator share: its problems, and what their answers are, computed without it.

A calculator and a table of answers, written without a look at the solutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache

from sambay.data.problems import INSTRUCTION, Problem, problem_at

SEED = 2024


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
