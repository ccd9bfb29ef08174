r"""Reading final answers: the last `\boxed{...}` of a text, and the equality of two of them as exact numbers.

Nothing is ever evaluated: a small grammar is matched, and what it does not match is compared as text.
"""

from __future__ import annotations

import re
from fractions import Fraction

# Longer contents are no school answer; the bound keeps hostile text from costing time.
_MAX_LENGTH = 200

_INTEGER = r"[0-9]+"
_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"([+-]?)({_DECIMAL})")
_RATIO = re.compile(rf"([+-]?)(?:({_INTEGER}) )?([+-]?{_DECIMAL}) ?/ ?([+-]?{_DECIMAL})")
_TEX = re.compile(r"\\[dt]?frac ?(?:\{ ?([^{}]*?) ?\}|([0-9])) ?(?:\{ ?([^{}]*?) ?\}|([0-9]))")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox) ?\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
_UNIT = re.compile(r"(?<=[0-9}.]) ?[A-Za-z°][A-Za-z°/ ]*(?:\^ ?\{? ?[23] ?\}?|[²³])?\Z")


def boxed(text: str) -> str | None:
    r"""Find the final answer of a text.

    Args:
        text: Any text.

    Returns:
        The content of the last `\boxed{...}` whose braces balance, stripped of outer spaces, or None.
    """
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) >= 0:
        depth = 0
        for at in range(start + len("\\boxed"), len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                return text[start + len("\\boxed{") : at].strip()
        end = start
    return None


def same_answer(a: str, b: str) -> bool:
    r"""Compare two boxed contents as exact rational numbers.

    Fractions (`\frac{2}{4}`, `2/4`, `1 1/2`), decimals, thousands commas, "$", "%", units in letters after
    the number, a leading "x =", trailing dots and spaces are understood; units are ignored, not converted.

    Args:
        a: One content.
        b: The other.

    Returns:
        Whether the numbers are equal; where either is no number, whether the stripped texts are.
    """
    x, y = _number(a), _number(b)
    if x is None or y is None:
        return a.strip() == b.strip()
    return x == y


def _number(text: str) -> Fraction | None:
    """Read a number, or return None."""
    if len(text) > _MAX_LENGTH:
        return None
    text = _TEXT.sub(r" \1", text.replace("−", "-"))
    text = re.sub(r"\\[,;:! ]|\\(?:left|right)(?![A-Za-z])|[$%~]|\\(?=[$%])", "", text)
    text = " ".join(text.split()).rstrip(". ")
    text = re.sub(r"\A[A-Za-z] ?= ?", "", text)
    text = _THOUSANDS.sub(lambda match: match[1].replace(",", ""), text)
    text = _UNIT.sub("", text).rstrip(". ")
    text = _TEX.sub(lambda m: f" {m[1] or m[2] or ''}/{m[3] or m[4] or ''}", text)
    text = re.sub(r"\A([+-]) +", r"\1", " ".join(text.split()))
    if match := _PLAIN.fullmatch(text):
        return _signed(match[1], _decimal(match[2]))
    if match := _RATIO.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        below = _decimal(bottom)
        if below == 0:
            return None
        return _signed(sign, int(whole or 0) + _decimal(top) / below)
    return None


def _decimal(text: str) -> Fraction:
    """Read "12", "-1.5", "3." or ".5" exactly."""
    sign = -1 if text.startswith("-") else 1
    whole, _, decimals = text.lstrip("+-").partition(".")
    return Fraction(sign * int(f"{whole}{decimals}"), 10 ** len(decimals))


def _signed(sign: str, value: Fraction) -> Fraction:
    """Apply a leading sign to a value."""
    return -value if sign == "-" else value
