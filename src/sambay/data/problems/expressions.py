r"""The family "order_of_operations": expressions of two to four operators, one operation a step.

Example::

    2+3*(9-5)

    = 2 + 3 × (9 - 5)
    Brackets:
    9 - 5 = 4
    = 2 + 3 × 4
    × and ÷:
    3 × 4 = 12
    = 2 + 12
    + and -:
    2 + 12 = 14

    The value is \boxed{14}.

An expression is a tree: a number or a letter of a shape, a `Sum` of signed terms, a `Product` of factors and
divisors, or a `Power`. A sum inside of anything, and a product inside of a product or a power, stands in
brackets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sambay.data.problems.base import Dice, Draft, Weighted, Written
from sambay.data.problems.wording import BARE, EXPRESSION, ask, typed, written
from sambay.data.problems.work import Work, signed


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms with "+" or "-" before each; the first has "+"."""

    terms: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Product:
    """Factors with "×" or "÷" before each; the first has "×"."""

    factors: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Power:
    """Its base to the exponent 2 or 3."""

    base: Node
    exponent: int


Node = int | str | Sum | Product | Power

# Shapes by difficulty. Letters become numbers: small ones under × and ÷, larger ones as terms of a sum.
_SHAPES: Final = (
    (
        "a + b × c|a × b + c|a - b × c|a × b - c|(a + b) × c|(a - b) × c|a × (b + c)|a × (b - c)|a - (b + c)"
        "|a - (b - c)|a - b + c|a + b - c|a - b - c|a ÷ b + c|a + b ÷ c|a - b ÷ c|a ÷ b - c|a ÷ b × c"
        "|a × b ÷ c|(a + b) ÷ c|(a - b) ÷ c|a ÷ (b + c)|a ÷ (b - c)|a × b × c|a^2 + b|a + b^2|a^2 - b"
        "|a - b^2|(a - b)^2|a^3 + b|a + b + c + d|a × b^2"
    ),
    (
        "a + b × c|a × b + c|a - b × c|a × b - c|(a + b) × c|(a - b) × c|a × (b + c)|a × (b - c)|(a + b) ÷ c"
        "|a - (b + c)|a - (b - c)|a - b + c|a + b ÷ c|a - b ÷ c|a ÷ b - c|a × b ÷ c|a ÷ (b - c)|a + b - c + d"
        "|a × b + c × d|a × b - c × d|a × b + c ÷ d|a ÷ b + c × d|a ÷ b + c ÷ d|a ÷ b - c ÷ d|a + b × c - d"
        "|a - b × c + d|a + b ÷ c - d|a × b + c - d|(a + b) × (c + d)|(a + b) × (c - d)|(a - b) × (c - d)"
        "|a × (b + c) - d|a + b × (c + d)|a + b × (c - d)|a - b × (c - d)|a - (b + c) × d|(a + b) ÷ c + d"
        "|a - (b + c) ÷ d|a × (b + c) ÷ d|(a + b × c) ÷ d|a × (b + c × d)|a × (b - c × d)|a - (b + c - d)"
        "|a^2 + b × c|a × b^2|a^2 + b^2|a^2 - b^2|(a + b)^2|(a + b)^2 - c|a × b - c^2|a + (b - c)^2"
        "|(a + b) × c - d|(a + b) × c + d|(a - b) × c + d|(a - b) × c - d|a + b + c + d|a^3 - b|a × b^3|a^3 + b^2"
    ),
    (
        "a + b × c - d ÷ e|a × b + c × d - e|a × b - c × d + e|a × (b + c) - d × e|(a + b) × (c - d) + e"
        "|(a + b) × c - d ÷ e|a + (b - c) × d - e|a × (b - c) + d ÷ e|a ÷ b + c × (d - e)|(a + b + c) ÷ d - e"
        "|a × (b + c × (d - e))|a - (b × (c - d) + e)|a × ((b + c) × d - e)|(a + b × c) ÷ d + e"
        "|a + b × c + d ÷ e|a - b ÷ c - d × e|(a - b) × (c + d) - e|a × b × c - d|a × b + c × d + e"
        "|(a × b + c) ÷ d - e|a ÷ (b - c) + d × e|a^2 + b × (c - d)|a × b^2 - c × d|(a + b)^2 - c × d"
        "|a^2 - b × c + d|a × (b + c) + d × (e - f)|a × b + c|a × b - c|(a + b) × c|a × (b + c)"
    ),
)

_ASK: Final = (
    *EXPRESSION,
    "Simplify {e}.",
    "Simplify: {e}",
    "Use the order of operations: {e}",
    "Work this out: {e}",
    "Work out step by step: {e}",
    "Find the value of the expression {e}.",
    "What is the value of the expression {e}?",
    "Evaluate the expression {e}.",
)


def parse(text: str) -> Node:
    """Read a shape or an expression.

    Args:
        text: Letters or numbers with " + ", " - ", " × ", " ÷ ", "^2", "^3" and round brackets, well formed.

    Returns:
        Its tree.
    """
    tokens = re.findall(r"[a-z]|\^?[0-9]+|\S", text)[::-1]

    def atom() -> Node:
        token = tokens.pop()
        node: Node
        if token == "(":
            node = level("+-")
            tokens.pop()
        else:
            node = int(token) if token.isdigit() else token
        if tokens and tokens[-1][0] == "^":
            return Power(node, int(tokens.pop()[1:]))
        return node

    def level(signs: str) -> Node:
        parts = [(signs[0], level("×÷") if signs == "+-" else atom())]
        while tokens and tokens[-1] in signs:
            parts.append((tokens.pop(), level("×÷") if signs == "+-" else atom()))
        if len(parts) == 1:
            return parts[0][1]
        return Sum(tuple(parts)) if signs == "+-" else Product(tuple(parts))

    return level("+-")


def show(node: Node) -> str:
    """Write an expression in our own spelling."""
    match node:
        case Sum(parts) | Product(parts):
            first = _operand(node, parts[0][1], leading=True)
            return first + "".join(f" {sign} {_operand(node, part)}" for sign, part in parts[1:])
        case Power(base, exponent):
            return f"{_operand(node, base)}^{exponent}"
        case _:
            return str(node)


def canonical(node: Node) -> str:
    """Write an expression with the terms of sums and the factors of products sorted, and without spaces."""
    match node:
        case Sum(parts) | Product(parts):
            neutral = parts[0][0]
            ordered = sorted((sign, _operand(node, part, canon=True)) for sign, part in parts)
            return "".join(f"{sign}{part}" for sign, part in ordered).removeprefix(neutral)
        case Power(base, exponent):
            return f"{_operand(node, base, canon=True)}^{exponent}"
        case _:
            return str(node)


def _bracketed(parent: Node, child: Node) -> bool:
    return isinstance(child, Sum) or (isinstance(child, Product) and not isinstance(parent, Sum))


def _operand(parent: Node, child: Node, leading: bool = False, canon: bool = False) -> str:
    if isinstance(child, int):
        return str(child) if leading else signed(child)
    text = canonical(child) if canon else show(child)
    return f"({text})" if _bracketed(parent, child) else text


def value(node: Node, numbers: Mapping[str, int], top: bool = True) -> int | None:
    """Compute an expression, or refuse it.

    Args:
        node: The tree.
        numbers: What its letters stand for.
        top: Whether it is the whole expression, which alone may fall below zero.

    Returns:
        The value, or None where a division is not exact, a factor is 0, or a step leaves the range of school
        exercises.
    """
    match node:
        case Sum(parts):
            total = 0
            for sign, part in parts:
                term = value(part, numbers, top=False)
                if term is None:
                    return None
                total += term if sign == "+" else -term
                if not (-100 if top else 0) <= total <= 5000:
                    return None
            return total
        case Product(parts):
            total = 1
            for sign, part in parts:
                factor = value(part, numbers, top=False)
                if not factor or (sign == "÷" and total % factor):
                    return None
                total = total * factor if sign == "×" else total // factor
            return total if total <= 5000 else None
        case Power(base, exponent):
            root = value(base, numbers, top=False)
            return root**exponent if root and root <= (30 if exponent == 2 else 10) else None
        case str():
            return numbers[node]
        case _:
            return node


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tree of letters, and what its letters are drawn from."""

    tree: Node
    terms: tuple[str, ...]
    factors: tuple[str, ...]
    # (letter, divisor): the letter is the dividend, and is multiplied by the divisor so that it divides.
    divisions: tuple[tuple[str, Node], ...]
    # (letter, dividend, divisor): the letter is a term of the dividend, and is raised until that divides.
    sums: tuple[tuple[str, Sum, Node], ...]

    @staticmethod
    def of(tree: Node) -> _Shape:
        terms: list[str] = []
        factors: list[str] = []
        divisions: list[tuple[str, Node]] = []
        sums: list[tuple[str, Sum, Node]] = []

        def walk(node: Node, into: list[str]) -> None:
            match node:
                case str():
                    into.append(node)
                case Sum(parts):
                    for _, part in parts:
                        walk(part, into)
                case Product(parts):
                    head = parts[0][1]
                    for sign, part in parts:
                        walk(part, factors)
                        if sign == "÷" and isinstance(head, str):
                            divisions.append((head, part))
                        elif sign == "÷" and isinstance(head, Sum):
                            added = [t for plus, t in head.terms if plus == "+" and isinstance(t, str)]
                            sums.extend((letter, head, part) for letter in added[:1])
                case Power(base):
                    walk(base, factors)

        walk(tree, terms)
        return _Shape(tree, tuple(terms), tuple(factors), tuple(divisions), tuple(sums))


_LEVELS: Final = tuple(tuple(_Shape.of(parse(text)) for text in shapes.split("|")) for shapes in _SHAPES)
_TERM_RANGE: Final = ((1, 20), (2, 60), (5, 200))
_FACTOR_RANGE: Final = ((2, 9), (2, 10), (2, 12))


def _fill(node: Node, numbers: Mapping[str, int]) -> Node:
    """Put numbers in the place of letters."""
    match node:
        case str():
            return numbers[node]
        case Sum(parts):
            return Sum(tuple((sign, _fill(part, numbers)) for sign, part in parts))
        case Product(parts):
            return Product(tuple((sign, _fill(part, numbers)) for sign, part in parts))
        case Power(base, exponent):
            return Power(_fill(base, numbers), exponent)
        case _:
            return node


# How often a free tree has each operation, and how many operations it has at each level.
_OPERATIONS: Final = Weighted((("+", 34.0), ("-", 26.0), ("×", 30.0), ("÷", 10.0)))
_OPERATION_COUNT: Final = ((2, 2), (2, 3), (3, 4))


def _free_tree(dice: Dice, count: int) -> Node:
    """Draw a tree of `count` operations of any form, so that no form is unheard of."""
    letters = iter("abcdefgh")

    def tree(count: int) -> Node:
        if count == 0:
            leaf = next(letters)
            return Power(leaf, 2 if dice.chance(0.8) else 3) if dice.chance(0.05) else leaf
        sign = _OPERATIONS.draw(dice)
        # The left side is built first and more often the larger one, as expressions are written.
        left_count = max(dice.below(count), dice.below(count))
        left = tree(left_count)
        right = tree(count - 1 - left_count)
        if sign in "+-":
            terms = left.terms if isinstance(left, Sum) else (("+", left),)
            return Sum((*terms, (sign, right)))
        factors = left.factors if isinstance(left, Product) else (("×", left),)
        return Product((*factors, (sign, right)))

    return tree(count)


_SUM_OF_THREE: Final = parse("a + b + c")


def _draw(dice: Dice) -> Node:
    """Draw a shape, a common one or a free one, and then numbers until they suit it."""
    level = dice.level()
    while True:
        free = dice.chance(0.4)
        shape = _Shape.of(_free_tree(dice, dice.pick(_OPERATION_COUNT[level]))) if free else dice.pick(_LEVELS[level])
        if shape.tree == _SUM_OF_THREE:
            # It belongs to the family "arithmetic", and a problem has one key only.
            continue
        # Some free shapes have hardly any numbers that suit them: another one is drawn then.
        for _ in range(40):
            numbers = _numbers(dice, level, shape)
            result = value(shape.tree, numbers)
            if result is not None and (result >= 0 or dice.chance(0.15)):
                return _fill(shape.tree, numbers)


def _numbers(dice: Dice, level: int, shape: _Shape) -> dict[str, int]:
    """Draw numbers for the letters of a shape, such that its divisions come out even where that is simple."""
    numbers = {letter: dice.between(*_TERM_RANGE[level]) for letter in shape.terms}
    numbers |= {letter: dice.between(*_FACTOR_RANGE[level]) for letter in shape.factors}
    if level == 2 and len(shape.factors) == 2 and not shape.divisions:
        numbers[shape.factors[0]] = dice.between(12, 99)
    for letter, divisor in shape.divisions:
        numbers[letter] *= value(divisor, numbers) or 1
    for letter, dividend, divisor in shape.sums:
        numbers[letter] += -(value(dividend, numbers) or 0) % (value(divisor, numbers) or 1)
    return numbers


def draft(dice: Dice) -> Draft:
    """Draw one expression of the family "order_of_operations"."""
    tree = _draw(dice)
    return Draft(f"order_of_operations/value:{canonical(tree)}", lambda: _write(dice, tree))


def _write(dice: Dice, tree: Node) -> Written:
    work = Work()
    result = solve(work, tree)
    text = typed(dice, show(tree))
    question = ask(dice, BARE if dice.chance(0.3) else _ASK, e=text)
    return written(dice, work, question, result, ("The value is {box}.",))


def solve(work: Work, tree: Node) -> int:
    """Write the steps: brackets from the inside, powers, × and ÷ from the left, + and - from the left.

    Args:
        work: Where the steps go.
        tree: The expression.

    Returns:
        Its value.
    """
    label = ""
    # First the expression in our own spelling, however it was typed: every later line copies from one like it.
    work.say(f"= {show(tree)}")
    while not isinstance(tree, int):
        tree, label = _step(work, tree, label)
        if not isinstance(tree, int):
            work.say(f"= {show(tree)}")
    return tree


def _step(work: Work, node: Node, said: str, inside: bool = False) -> tuple[Node, str]:
    """Carry out the next operation of a tree and say, where it is new, which rule chose it."""
    children = _children(node)
    # Brackets first: the leftmost child that is or contains a bracket with something to do.
    for at, child in enumerate(children):
        if _bracketed(node, child):
            done, label = _step(work, child, said, inside=True)
            return _replace(node, at, done), label
        if _has_brackets(child):
            done, label = _step(work, child, said, inside)
            return _replace(node, at, done), label
    for kind in (Power, Product):
        for at, child in enumerate(children):
            if isinstance(child, kind):
                done, label = _step(work, child, said, inside)
                return _replace(node, at, done), label
    label = "Brackets:" if inside else _LABELS[type(node)]
    if label != said:
        work.say(label)
    match node:
        case Power(int(base), exponent):
            return work.power(base, exponent), label
        case Product(parts):
            a, sign, b = _first_two(parts)
            result = work.mul(a, b) if sign == "×" else work.divide(a, b)[0]
            return _shorter(Product((("×", result), *parts[2:]))), label
        case Sum(parts):
            a, sign, b = _first_two(parts)
            result = work.add(a, b) if sign == "+" else work.sub(a, b)
            return _shorter(Sum((("+", result), *parts[2:]))), label
    raise AssertionError(f"nothing left to do in {node}")


_LABELS: Final[Mapping[type, str]] = {Power: "Powers:", Product: "× and ÷:", Sum: "+ and -:"}


def _first_two(parts: tuple[tuple[str, Node], ...]) -> tuple[int, str, int]:
    """Return the first operation of a sum or product, whose parts are numbers by now."""
    (_, a), (sign, b) = parts[:2]
    if isinstance(a, int) and isinstance(b, int):
        return a, sign, b
    raise AssertionError(f"an operand is not yet a number: {a}, {b}")


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Sum(parts) | Product(parts):
            return tuple(part for _, part in parts)
        case Power(base):
            return (base,)
        case _:
            return ()


def _has_brackets(node: Node) -> bool:
    return any(_bracketed(node, child) or _has_brackets(child) for child in _children(node))


def _replace(node: Node, at: int, child: Node) -> Node:
    match node:
        case Sum(parts):
            return Sum((*parts[:at], (parts[at][0], child), *parts[at + 1 :]))
        case Product(parts):
            return Product((*parts[:at], (parts[at][0], child), *parts[at + 1 :]))
        case Power(_, exponent):
            return Power(child, exponent)
        case _:
            raise AssertionError(f"{node} has no parts")


def _shorter(node: Sum | Product) -> Node:
    """Return the only part of a sum or product that has no other left."""
    parts = node.terms if isinstance(node, Sum) else node.factors
    return parts[0][1] if len(parts) == 1 else node
