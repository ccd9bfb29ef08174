"""LaTeX -> MathML that is safe to put into a page.

latex2mathml reads the LaTeX. What it makes of text that a model wrote is not trusted: its tree is written again,
element by element, with nothing but what stands in the tables below.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element

from sambay.recent import Recent

__all__ = ["LONGEST", "mathml"]

LONGEST = 5000
"""Characters of a formula; longer ones are shown as source."""

_SET: Recent[tuple[str, bool], str] = Recent(4096, 4_000_000)
"""Formulas and what they became, "" for what cannot be set; the size is in characters."""

# Definitions of macros: what they expand to has no bound. \unicode could spell control characters.
_REFUSED = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|def|gdef|edef|let|DeclareMathOperator|unicode|verb)(?![a-zA-Z])"
)

# A number of children, or None for any. What is not here is not written, and the formula is shown as source.
_ELEMENTS: dict[str, int | None] = {
    "mrow": None, "mi": None, "mn": None, "mo": None, "mtext": None, "mspace": 0, "ms": None,
    "mfrac": 2, "msqrt": None, "mroot": 2, "mstyle": None, "mpadded": None, "mphantom": None, "menclose": None,
    "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3,
    "mtable": None, "mtr": None, "mtd": None,
}  # fmt: skip
_LEAVES = {"mi", "mn", "mo", "mtext", "ms"}

_FLAG = re.compile(r"true|false")
_LENGTH = re.compile(r"[+-]?\d{0,3}(?:\.\d{0,4})?(?:em|ex|px|pt|mu|%)?")
_ATTRIBUTES = {
    "stretchy": _FLAG, "fence": _FLAG, "separator": _FLAG, "movablelimits": _FLAG, "accent": _FLAG,
    "accentunder": _FLAG, "displaystyle": _FLAG, "largeop": _FLAG, "symmetric": _FLAG,
    "form": re.compile("prefix|infix|postfix"), "scriptlevel": re.compile(r"[+-]?\d"),
    "lspace": _LENGTH, "rspace": _LENGTH, "minsize": _LENGTH, "maxsize": _LENGTH, "width": _LENGTH,
    "height": _LENGTH, "depth": _LENGTH, "voffset": _LENGTH, "linethickness": _LENGTH,
}  # fmt: skip
_WIDEST = 10.0  # of the em; a formula that moves further could cover what stands beside it
_EM = {"em": 1.0, "ex": 0.5, "px": 1 / 16, "pt": 1 / 12, "mu": 1 / 18, "%": 0.1, "": 1.0}
_NAMED_SPACES = {
    f"{sign}{name}mathspace": f"{'-' if sign else ''}{number}em"
    for sign in ("", "negative")
    for name, number in zip(
        ("veryverythin", "verythin", "thin", "medium", "thick", "verythick", "veryverythick"),
        ("0.0556", "0.1111", "0.1667", "0.2222", "0.2778", "0.3333", "0.3889"),
        strict=True,
    )
}
# Browsers no longer draw these attributes; the style sheet draws the classes.
_CLASSES = {
    "notation": {
        "box": "boxed",
        "updiagonalstrike": "struck",
        "downdiagonalstrike": "struck",
        "updiagonalstrike downdiagonalstrike": "struck",
    },
    "mathvariant": {"bold": "bold", "bold-italic": "bold", "italic": "italic", "monospace": "monospace"},
    "columnalign": {"left": "left", "right": "right"},
}


class _UnsafeError(Exception):
    """The tree has something that is not in the tables, or that is wrong."""


def mathml(latex: str, display: bool = False) -> str | None:
    """A formula as a `<math>` element, or None if it cannot be set: show its source.

    Args:
        latex: without its delimiters.
        display: on a line of its own.
    """
    source = latex.strip()
    if not source or len(source) > LONGEST or _REFUSED.search(source):
        return None
    found = _SET.find((source, display))
    if found is None:
        found = _set(source, display)
        _SET.keep((source, display), found, len(source) + len(found))
    return found or None


def _set(source: str, display: bool) -> str:
    # Numbers of equations mean nothing here: those that would be numbered become those that are not.
    plain = re.sub(r"(\\(?:begin|end)\{)(align|equation|gather)\}", r"\1\2*}", source)
    try:
        # The list makes sure that what is wrong is raised here.
        inner = "".join([*_children(convert_to_element(plain, display="block" if display else "inline"))])
    except Exception:  # the library's parser raises whatever it stumbles over, RecursionError included
        return ""
    kind = ' display="block"' if display else ""
    return f'<math{kind} alttext="{html.escape(source)}">{inner}</math>'


def _children(element: Element) -> Iterator[str]:
    rules = _column_rules(element)
    for child in element:
        if child.tag == "mtr":
            for cell, ruled in zip(child, rules, strict=False):
                if ruled:
                    cell.set("rule", "right")
        yield from _written(child)


def _written(element: Element) -> Iterator[str]:
    arity = _ELEMENTS.get(element.tag, -1)
    if arity is not None and arity != len(element):
        raise _UnsafeError(element.tag)
    text = html.unescape(element.text or "")
    leaf = element.tag in _LEAVES
    if (text.strip() and not leaf) or (element.tail or "").strip() or (leaf and len(element)):
        raise _UnsafeError(text)
    if re.match(r"\\[a-zA-Z]", text) or any(ord(one) < 32 and one not in "\t\n" for one in text):
        raise _UnsafeError(text)  # a command that the library does not know comes out as its name
    # menclose and its notations are gone from browsers: a row with a frame.
    tag = "mrow" if element.tag == "menclose" else element.tag
    yield f"<{tag}{_attributes(element)}>"
    if leaf:
        yield html.escape(text)
    yield from _children(element)
    yield f"</{tag}>"


def _attributes(element: Element) -> str:
    written, classes = [], []
    for name, value in element.attrib.items():
        if name in _CLASSES:
            if value in _CLASSES[name]:
                classes.append(_CLASSES[name][value])
            elif value == "normal":  # upright letters, the one variant that browsers still know
                written.append(' mathvariant="normal"')
        elif name == "rule":
            classes.append("ruled")
        elif name in _ATTRIBUTES:
            value = _NAMED_SPACES.get(value, value)
            if _ATTRIBUTES[name].fullmatch(value) and _moves_little(name, value):
                written.append(f' {name}="{value}"')
    if classes:
        written.append(f' class="{" ".join(classes)}"')
    return "".join(written)


def _moves_little(name: str, value: str) -> bool:
    found = re.fullmatch(r"[+-]?([\d.]*)(\D*)", value)
    if _ATTRIBUTES[name] is not _LENGTH or found is None or not found[1].strip("."):
        return _ATTRIBUTES[name] is not _LENGTH
    return float(found[1]) * _EM[found[2]] <= _WIDEST


def _column_rules(table: Element) -> list[bool]:
    """After which columns a line is drawn: `columnlines`, which browsers do not draw."""
    return [one == "solid" for one in table.get("columnlines", "").split()]
