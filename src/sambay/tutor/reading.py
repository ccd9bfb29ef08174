r"""Reading what a learner types: "1 1/2", "3,5 kg", "x = 3 or x = -3", "\frac{3}{4}" -> LaTeX that can be compared.

A small grammar is matched and written again as LaTeX; nothing is evaluated here. What the grammar cannot read goes on
as it is, for math-verify in its own process (`judge`) to try.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

from sambay.data.problems.answers import boxed
from sambay.data.problems.wording import in_words
from sambay.errors import TutorError

__all__ = ["Part", "Reading", "UnreadableError", "markdown", "read_answer", "read_sides", "shown"]

LONGEST: Final = 400
_MOST_DIGITS, _MOST_TOKENS, _DEEPEST, _LARGEST_POWER = 40, 160, 24, 2000

Form = Literal["integer", "decimal", "fraction", "mixed", "expression", "relation", "latex"]


class UnreadableError(TutorError):
    """What was typed cannot be read as mathematics; the message is for the learner."""


@dataclass(frozen=True)
class Part:
    """One value of an answer.

    Attributes:
        latex: it, in the LaTeX that `judge` takes.
        form: how it is written.
        name: the unknown that it is given for ("x" of "x = 3"), else "".
        unit: as typed, in lower case, else "".
        percent: whether a % follows.
        places: digits after the decimal point.
    """

    latex: str
    form: Form
    name: str = ""
    unit: str = ""
    percent: bool = False
    places: int = 0


@dataclass(frozen=True)
class Reading:
    """An answer as it was understood.

    Attributes:
        parts: its values; none where it is words.
        ordered: whether their order matters: a pair of coordinates, a quotient with its rest.
        words: the answer in words ("no solution"), else "".
    """

    parts: tuple[Part, ...] = ()
    ordered: bool = False
    words: str = ""


_SAME_WORDS: Final = (
    {"no solution", "no solutions", "none", "no answer", "there is no solution", "there is none", "unsolvable", "∅",
     "empty set", "has no solution", "never"},
    {"all numbers", "all real numbers", "every number", "any number", "all", "infinitely many", "infinite",
     "infinitely many solutions", "always", "all x", "every x", "any x", "all values", "true for all"},
    {"undefined", "not defined", "impossible", "not possible", "cannot be done", "can't be done", "error", "nan",
     "does not exist", "not a number"},
    {"yes", "true", "correct", "y"},
    {"no", "false", "wrong", "n"},
)  # fmt: skip
_NUMBER_WORDS: Final = {in_words(n): str(n) for n in range(100)} | {"half": "1/2", "a half": "1/2", "one half": "1/2"}

UNITS: Final[dict[str, tuple[str, Fraction]]] = {
    name: (dimension, factor)
    for dimension, units in (
        ("length", {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": 1, "km": 1000, "millimeter": "1/1000",
                    "centimeter": "1/100", "meter": 1, "kilometer": 1000, "metre": 1, "kilometre": 1000,
                    "centimetre": "1/100", "millimetre": "1/1000"}),
        ("imperial length", {"inch": 1, "inches": 1, "in": 1, "foot": 12, "feet": 12, "ft": 12, "yard": 36,
                             "mile": 63360, "mi": 63360}),
        ("mass", {"mg": "1/1000", "g": 1, "kg": 1000, "t": 1000000, "gram": 1, "kilogram": 1000, "ton": 1000000}),
        ("time", {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600,
                  "day": 86400, "week": 604800}),
        ("volume", {"ml": "1/1000", "cl": "1/100", "dl": "1/10", "l": 1, "liter": 1, "litre": 1,
                    "milliliter": "1/1000"}),
        ("dollars", {"$": 1, "dollar": 1, "cent": "1/100", "¢": "1/100"}),
        ("euros", {"€": 1, "euro": 1}),
        ("pounds", {"£": 1, "pound": 1, "pence": "1/100", "penny": "1/100"}),
        ("speed", {"km/h": 1, "kph": 1, "mph": "1609344/1000000"}),
    )
    for name, factor in ((name, Fraction(str(factor))) for name, factor in units.items())
}  # fmt: skip
"""Units of the same dimension can be converted; any other word after a number is a name of things."""

_COMMANDS: Final = {
    "cdot": "*", "times": "*", "ast": "*", "div": "÷", "left": "", "right": "", "pi": "π", "le": "≤", "leq": "≤",
    "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "pm": "±", "displaystyle": "", "quad": " ", "qquad": " ", "lt": "<",
    "gt": ">", "cup": " or ", "lor": " or ", "land": " and ",
}  # fmt: skip
_SIGNS: Final = {"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "∙": "*", "⋅": "*", "**": "^", "∶": ":"}
_RAISED: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RELATIONS: Final = {"=": "=", "<": "<", ">": ">", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "}
_TOKEN: Final = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[^\W\d_]+(?:['’/][^\W\d_]+)*)|(?P<sign>[-+*÷/:^()\[\]{}=<>≤≥≠√π%°$€£¢±!|;,])"
    r"|(?P<command>\\[A-Za-z]+)|(?P<space>\s+)|(?P<other>.)"
)
_WORDS_OF_LISTS: Final = re.compile(r"\b(?:and|or)\b|;|&")
_LEADING: Final = re.compile(
    r"\A(?:(?:so|then|thus|hence|therefore|it['’]?s|it|that|this|is|are|was|the|my|final|answer|answers|solution|"
    r"solutions|result|total|sum|value|equals?|about|approximately|i get|i think|be|must|together|there|he|she|they|"
    r"has|have|had|costs?|pays?|in|all|makes?)\b[:,]?\s*)+(?=\S)",
    re.IGNORECASE,
)


def read_answer(text: str, letters: frozenset[str] = frozenset()) -> list[Reading]:
    r"""Read an answer.

    Args:
        text: as typed: numbers, fractions, mixed numbers, units, LaTeX, several values, words.
        letters: unknowns of the problem, so that "5m" can be told from five metres.

    Returns:
        What it can mean, the likeliest first: "3,5" is one decimal number or two values.

    Raises:
        UnreadableError: it is empty, too long, or not mathematics.
    """
    content = _plain(text)
    inner = boxed(content)
    content = inner if inner is not None else content
    lowered = " ".join(content.lower().strip(" .!").split())
    if not lowered.strip(",;"):
        raise UnreadableError("there is no answer: type a number, such as 12, 3/4 or 2.5")
    for group in _SAME_WORDS:
        if lowered in group:
            return [Reading(words=min(group, key=lambda word: (len(word), word)))]
    lowered = lowered.removeprefix("minus ") if lowered.startswith("minus ") else lowered
    if lowered in _NUMBER_WORDS:
        sign = "-" if content.lower().strip().startswith("minus ") else ""
        return [_values([f"{sign}{_NUMBER_WORDS[lowered]}"], letters)]
    if rest := re.fullmatch(r"(-?\d+)\s*(?:r|rest|rem|remainder)\.?\s*:?\s*(\d+)", lowered):
        return [replace(_values([rest[1], rest[2]], letters), ordered=True)]
    content = _LEADING.sub("", content).strip().rstrip(". ")
    readings, failure = [], None
    for pieces, ordered in _splits(content):
        try:
            readings.append(replace(_values(pieces, letters), ordered=ordered))
        except UnreadableError as error:
            failure = failure or error
    if not readings and "\\" in content:
        return [Reading((Part(content, "latex"),))]
    if not readings:
        if failure is None or re.fullmatch(r"[^\W\d_]+(?:[ '’-][^\W\d_]+){0,5}", lowered):
            return [Reading(words=lowered)]
        raise failure
    return readings


def read_sides(line: str, letters: frozenset[str] = frozenset()) -> tuple[str, ...] | None:
    """Read one line of working as sides between signs of equality.

    Args:
        line: as typed.
        letters: unknowns.

    Returns:
        The LaTeX of two sides or more; None where the line says nothing that could be true or false: words, a plan,
        an expression by itself.

    Raises:
        UnreadableError: there is an "=" and a side cannot be read.
    """
    text = _plain(line).replace("⇒", "=>").replace("→", "=>")
    text = re.sub(r"\A\s*(?:=>|\d+[.)]\s|[-•*]\s)", "", text).rpartition("=>")[2].strip(" .;,")
    # What a colon or words lead to: "So 3x = 15", "Subtract 5: 3x = 15".
    text = re.sub(r"\A[^=:]*[A-Za-z]{3,}[^=:]*:\s*(?=.*=)", "", text)
    if "=" not in text or any(sign in text for sign in "<>≤≥≠"):
        return None
    text = _LEADING.sub("", text).strip()
    if rest := re.fullmatch(
        r"(.+?)[÷/:](.+?)=(.+?)\s*(?:,\s*)?(?:rest|remainder|rem|r)\.?\s*(\d+)", text, re.IGNORECASE
    ):
        left, by, whole, over = (_expression(part, letters).latex for part in rest.groups())
        return left, rf"{_bracketed(by)} \cdot {_bracketed(whole)} + {over}"
    sides = [side for side in text.split("=") if side.strip(" ?.")]
    if len(sides) < 2:
        return None
    return tuple(_expression(side, letters).latex for side in sides)


def shown(text: str) -> str:
    r"""A line of mathematics as LaTeX for the page: "3/4 + 1/6 = 11/12" -> "\frac{3}{4} + ...".

    Raises:
        UnreadableError: the line is not mathematics alone.
    """
    pieces = re.split(r"([=<>≤≥])", _plain(text))
    out = []
    for piece in pieces:
        if piece in _RELATIONS:
            out.append(f" {_RELATIONS[piece]} ")
        elif piece.strip():
            side = _expression(piece, frozenset("abcdefghijklmnopqrstuvwxyz"), pretty=True).latex
            out.append(f"{{{side}}}" if side.startswith("-") else side)  # a sign, and no difference
    return "".join(out).strip()


def _plain(text: str) -> str:
    """One line in one spelling, of bounded length."""
    if len(text) > LONGEST:
        raise UnreadableError(f"the answer has {len(text)} characters: {LONGEST} are the most that are read")
    text = re.sub(r"[²³⁰¹⁴-⁹⁻]+", lambda raised: f"^({raised[0].translate(_RAISED)})", text)
    text = re.sub(r"(?<=\d)(?=[½¼¾⅓⅔⅕-⅞])", " ", text)
    # Digits of other scripts and full-width signs become ours; ½ becomes 1⁄2.
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for sign, ours in _SIGNS.items():
        text = text.replace(sign, ours)
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text).replace("\\%", "%").replace("\\$", "$").replace("^\\circ", "°")
    text = re.sub(r"\\([{}])", r"\1", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: f" {_COMMANDS[m[1]]} " if m[1] in _COMMANDS else m[0], text)
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text.strip("$")  # mathematics between dollars, not a price
    return text.strip()


def _splits(text: str) -> list[tuple[list[str], bool]]:
    """The ways of taking a text apart into values, each with whether their order matters."""
    stripped = text.strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        return [(_at_commas(stripped[1:-1]), False)]
    if match := re.fullmatch(r"[(\[]([^()\[\]]*,[^()\[\]]*)[)\]]", stripped):
        return [(_at_commas(match[1]), True)]
    # Several unknowns may be given in any order.
    text = re.sub(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,])", lambda m: m[1].replace(",", ""), text)
    text = re.sub(r"(?<![\d.])([1-9]\d{0,2}(?: \d{3})+)(?![\d/])(?! ?/)", lambda m: m[1].replace(" ", ""), text)
    pieces = [piece.strip() for part in _WORDS_OF_LISTS.split(text) for piece in _at_commas(part) if piece.strip()]
    pieces = [sign + rest for piece in pieces for sign, rest in _plus_minus(piece)]
    ways = [(pieces, False)] if pieces else []
    if re.search(r"(?<=\d),(?=\d)", text) and not _WORDS_OF_LISTS.search(text):
        ways.insert(0, ([re.sub(r"(?<=\d),(?=\d)", ".", text)], False))
    return ways


def _plus_minus(piece: str) -> list[tuple[str, str]]:
    """Both values of "±3" and of "x = ±3"."""
    before, sign, after = piece.partition("±")
    return [(f"{before}-", after), (before, after)] if sign else [("", piece)]


def _at_commas(text: str) -> list[str]:
    """The pieces between commas that stand outside of brackets."""
    pieces, depth, begin = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0:
            pieces.append(text[begin:at])
            begin = at + 1
    return [*pieces, text[begin:]]


def _values(pieces: list[str], letters: frozenset[str]) -> Reading:
    """Read every piece."""
    if len(pieces) > 12:
        raise UnreadableError(f"the answer has {len(pieces)} values: 12 are the most that are read")
    parts = []
    for piece in pieces:
        piece = _LEADING.sub("", piece.strip())
        named = re.match(r"([A-Za-z])\s*=(?!=)\s*(?=\S)(?!.*[=<>≤≥≠])", piece)
        sides = re.split(r"([=<>≤≥≠])", piece)
        if named:
            parts.append(replace(_expression(piece[named.end() :], letters), name=named[1]))
        elif len(sides) == 1:
            parts.append(_expression(piece, letters))
        elif not sides[0].strip() and sides[1] == "=" and len(sides) == 3:
            parts.append(_expression(sides[2], letters))
        else:
            every = letters | frozenset(re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", piece))
            latex = "".join(
                f" {_RELATIONS[side]}" if side in _RELATIONS else _expression(side, every).latex for side in sides
            )
            parts.append(Part(latex, "relation"))
    return Reading(tuple(parts))


def _expression(text: str, letters: frozenset[str], pretty: bool = False) -> Part:
    tokens = _tokens(text)
    if not tokens:
        raise UnreadableError("a value is missing: type a number, such as 12, 3/4 or 2.5")
    return _Grammar(tokens, text.strip(), letters, pretty).part()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    spaced: bool


def _tokens(text: str) -> list[_Token]:
    out: list[_Token] = []
    spaced = False
    for match in _TOKEN.finditer(text):
        kind, piece = str(match.lastgroup), match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "other" or (kind == "command" and piece not in (r"\frac", r"\dfrac", r"\tfrac", r"\sqrt")):
            raise UnreadableError(
                f"{piece[:20]!r} cannot be read in {text.strip()[:60]!r}: use numbers, letters and signs"
            )
        if kind == "number" and sum(c.isdigit() for c in piece) > _MOST_DIGITS:
            raise UnreadableError(f"a number has more than {_MOST_DIGITS} digits, which are the most that are read")
        out.append(_Token(kind, piece, spaced))
        spaced = False
    if len(out) > _MOST_TOKENS:
        raise UnreadableError(f"the answer has {len(out)} numbers and signs: {_MOST_TOKENS} are the most that are read")
    return out


def _bracketed(latex: str) -> str:
    return rf"\left({latex}\right)"


class _Grammar:
    """Recursive descent over the tokens of one expression; every rule returns LaTeX."""

    def __init__(self, tokens: list[_Token], text: str, letters: frozenset[str], pretty: bool) -> None:
        self.tokens, self.text, self.letters, self.pretty = tokens, text, letters, pretty
        self.at, self.depth = 0, 0
        self.currency = ""

    def part(self) -> Part:
        latex = self._sum()
        percent = self._take("%")
        unit = self._unit()
        if unit in ("percent", "per cent", "percentage", "pct"):
            percent, unit = True, ""
        if self.at < len(self.tokens):
            raise self._stuck()
        number = re.fullmatch(r"[-+]?\d*\.(\d+)", self.text.replace(" ", "").strip("$€£%"))
        places = len(number[1]) if number else 0
        return Part(latex, self._form(latex), unit=unit or self.currency, percent=percent, places=places)

    def _form(self, latex: str) -> Form:
        if re.fullmatch(r"-?\d+", latex):
            return "integer"
        if re.fullmatch(r"-?\\left\(\d+ \+ \\frac\{\d+\}\{\d+\}\\right\)", latex):
            return "mixed"
        if re.fullmatch(r"-?\\frac\{-?\d+\}\{-?\d+\}", latex):
            return "decimal" if "." in self.text and "/" not in self.text else "fraction"
        return "expression"

    def _peek(self, ahead: int = 0) -> _Token | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def _take(self, text: str) -> bool:
        token = self._peek()
        if token is not None and token.kind == "sign" and token.text == text:
            self.at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise UnreadableError(f"a {text!r} is missing in {self.text[:60]!r}")

    def _stuck(self) -> UnreadableError:
        token = self._peek()
        where = f"at {token.text[:20]!r}" if token else "at its end"
        return UnreadableError(f"{self.text[:60]!r} cannot be read {where}: write it such as 12, 3/4, 2.5 or 3x + 5")

    def _sum(self) -> str:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UnreadableError(f"brackets are nested more than {_DEEPEST} deep, which is the most that is read")
        out = self._product()
        while (token := self._peek()) is not None and token.kind == "sign" and token.text in "+-":
            self.at += 1
            term = self._product()
            out += f" {token.text} {_bracketed(term) if term.startswith(('-', '+')) else term}"
        self.depth -= 1
        return out

    def _product(self) -> str:
        out = self._signed()
        while (token := self._peek()) is not None:
            if token.kind == "sign" and token.text in "*÷/:":
                self.at += 1
                right = self._signed()
                right = _bracketed(right) if right.startswith("-") else right
                if token.text == "*":
                    out = out + (r" \times " if self.pretty else r" \cdot ") + right
                elif self.pretty and token.text in "÷:":
                    out = rf"{out} \div {right}"
                else:
                    out = rf"\frac{{{out}}}{{{right}}}"
            elif token.kind == "word" and token.text == "of":
                self.at += 1
                out = rf"{out} \cdot {self._signed()}"
            elif self._begins_factor(token):
                right = self._power()
                out = f"{out}{right}" if self.pretty else rf"{out} \cdot {right}"
            else:
                return out
        return out

    def _begins_factor(self, token: _Token) -> bool:
        """Whether a product goes on without a sign: 3x, 2(x + 1), 4√2; two numbers side by side are none."""
        if token.kind == "sign":
            return token.text in "([√π" and not (token.text == "[" and token.spaced)
        if token.kind == "command":
            return True
        return token.kind == "word" and self._is_letters(token)

    def _is_letters(self, token: _Token) -> bool:
        """Whether a word is an unknown or a product of them, not a unit or a name of things."""
        text = token.text
        if text.lower() in ("sqrt", "pi"):
            return True
        if len(text) == 1:
            if text in self.letters:
                return True
            last = self.at + 1 == len(self.tokens)
            return text.isascii() and not (last and self.at > 0 and text in UNITS)
        if text in UNITS or text.lower() in UNITS:
            return False
        return len(text) <= 3 and (set(text) <= self.letters or set(text) <= frozenset("abcnpqrvwxyz"))

    def _signed(self) -> str:
        sign = ""
        for _ in range(4):
            if self._take("-"):
                sign = "" if sign else "-"
            elif not self._take("+"):
                break
        return sign + self._power()

    def _power(self) -> str:
        base = self._base()
        while self._take("%" if not self._ends_with_percent() else "\0"):
            base = rf"\frac{{{base}}}{{100}}"
        if self._take("!"):
            if not re.fullmatch(r"\d{1,3}", base):
                raise UnreadableError("the factorial of a whole number below 1000 can be read, no other")
            base = f"{base}!"
        if not self._take("^"):
            return base
        exponent = self._exponent()
        if not re.fullmatch(r"\d+|[A-Za-z]|\\pi ?|\\left\(.*\\right\)", base):
            base = _bracketed(base)
        digits = re.fullmatch(r"(?:\\left\()?-?(\d+)(?:\\right\))?", exponent)
        if (digits and int(digits[1]) * len(base) > _LARGEST_POWER) or "^" in exponent:
            raise UnreadableError(f"the power {self.text[:40]!r} is too large to be checked")
        return f"{base}^{{{exponent}}}"

    def _ends_with_percent(self) -> bool:
        """Whether the "%" ahead is that of the whole answer, which `part` takes."""
        token = self._peek(1)
        alone = self.at == 1 or (self.at == 2 and self.tokens[0].text in "-+")
        return alone and (token is None or (token.kind == "word" and token.text != "of"))

    def _exponent(self) -> str:
        if self._take("{"):
            inner = self._sum()
            self._need("}")
            return inner
        sign = "-" if self._take("-") else ""
        return sign + self._base()

    def _base(self) -> str:
        token = self._peek()
        if token is None:
            raise self._stuck()
        self.at += 1
        if token.kind == "number":
            return self._number(token.text)
        if token.text in ("$", "€", "£") and self.at == 1:
            self.currency = token.text
            return self._signed()
        if token.text in ("(", "[", "{"):
            inner = self._sum()
            self._need({"(": ")", "[": "]", "{": "}"}[token.text])
            return _bracketed(inner)
        if token.text == "|":
            inner = self._sum()
            self._need("|")
            return rf"\left|{inner}\right|"
        if token.text == "π" or token.text.lower() == "pi":
            return r"\pi "
        if token.text in (r"\frac", r"\dfrac", r"\tfrac"):
            return rf"\frac{{{self._group()}}}{{{self._group()}}}"
        if token.text in ("√", r"\sqrt") or token.text.lower() == "sqrt":
            return self._root()
        self.at -= 1
        if token.kind == "word" and self._is_letters(token):
            self.at += 1
            return token.text if self.pretty or len(token.text) == 1 else r" \cdot ".join(token.text)
        raise self._stuck()

    def _number(self, text: str) -> str:
        whole, point, decimals = text.partition(".")
        top, sign, bottom = self._peek(), self._peek(1), self._peek(2)
        mixed = [one.kind for one in (top, bottom) if one is not None] == ["number", "number"] and not point
        if mixed and top is not None and bottom is not None and top.spaced and sign is not None and sign.text == "/":
            self.at += 3
            fraction = rf"\frac{{{top.text}}}{{{bottom.text}}}"
            return f"{text}{fraction}" if self.pretty else _bracketed(f"{text} + {fraction}")
        if not point and top is not None and top.text in (r"\frac", r"\dfrac", r"\tfrac"):
            self.at += 1
            fraction = rf"\frac{{{self._group()}}}{{{self._group()}}}"
            return f"{text}{fraction}" if self.pretty else _bracketed(f"{text} + {fraction}")
        if not point or self.pretty:
            return text
        return rf"\frac{{{int(whole + decimals)}}}{{{10 ** len(decimals)}}}"  # exact, where a float would not be

    def _group(self) -> str:
        if self._take("{"):
            inner = self._sum()
            self._need("}")
            return inner
        token = self._peek()
        if token is not None and token.kind == "number" and len(token.text) == 2 and token.text.isdigit():  # \frac34
            self.tokens[self.at : self.at + 1] = [replace(token, text=digit) for digit in token.text]
        return self._base()

    def _root(self) -> str:
        if self._take("["):
            degree = self._sum()
            self._need("]")
            return rf"\sqrt[{degree}]{{{self._group()}}}"
        inner = self._group() if (token := self._peek()) is not None and token.text == "{" else self._base()
        inner = re.sub(r"\A\\left\((.*)\\right\)\Z", r"\1", inner) if inner.count(r"\left(") == 1 else inner
        return rf"\sqrt{{{inner}}}"

    def _unit(self) -> str:
        """The words after a value, and a sign of degrees or of money."""
        words = []
        while (token := self._peek()) is not None:
            if token.kind == "word" or token.text in ("°", "$", "€", "£", "¢"):
                words.append(token.text)
            elif token.text == "/" and words:
                words.append("/")
            elif token.text == "^" and words and (power := self._peek(1)) is not None:
                self.at += 1
                inner = (
                    power.text
                    if power.kind == "number"
                    else "".join(t.text for t in self.tokens[self.at : self.at + 3])
                )
                self.at += 0 if power.kind == "number" else 2
                words.append(inner.strip("(){}"))
            elif token.text == "." and words:
                pass
            else:
                break
            self.at += 1
        return " ".join(words).replace(" / ", "/").lower()


def markdown(text: str) -> str:
    """A line of a problem or a solution with its mathematics set as such, as the Markdown that pages render.

    Args:
        text: as the generator or a model wrote it; what has LaTeX delimiters already stays as it is.
    """
    if re.search(r"\$[^$\d]|\\[(\[]|\\begin", text):
        return text
    with suppress(UnreadableError):
        if re.search(r"[-+×÷/^=*<>]", text) and not re.search(r"[A-Za-z]{2}", text.replace("\\frac", "")):
            return rf"\({shown(text)}\)".replace(r"\frac", r"\dfrac")
    text = re.sub(r"\$(?=\d)", r"\\$", text)
    text = re.sub(r"(\\boxed\{(?:[^{}]|\{[^{}]*\})*\})", r"\\(\1\\)", text)
    text = re.sub(r"(?<!\()(?<!\\boxed\{)(\d*\\frac\{\d+\}\{\d+\})", r"\\(\1\\)", text)
    text = re.sub(r"(?<![\w/.,(])(\d+) (\d+) ?/ ?(\d+)(?![\w/.]\d)(?![\w/])", r"\\(\1\\frac{\2}{\3}\\)", text)
    text = re.sub(r"(?<![\w/.,{])(\d+) ?/ ?(\d+)(?![\w/])", r"\\(\\frac{\1}{\2}\\)", text)
    text = re.sub(r"(?<![\w.])(\d+)\^(\d+)(?![\w.]\d)", r"\\(\1^{\2}\\)", text)
    return text.replace(r"\frac", r"\dfrac")  # in lines of text, fractions would be too small to be read
