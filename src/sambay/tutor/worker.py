"""The process in which mathematics that strangers typed is computed: sympy and math-verify, nothing of the house.

One request a line on the standard input, one reply a line on the standard output. Each has a budget of processor time
and the process one of memory, both kept by the system: what is too hard ends the process, and `judge` starts another.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
import time
from typing import Any, TypeAlias

import math_verify
import sympy
from math_verify import LatexExtractionConfig

__all__ = ["answer", "main"]

Expression: TypeAlias = Any
"""Of sympy: expressions, relations and sets have no common type; None is what could not be read."""
Json: TypeAlias = Any

_CONFIG = [LatexExtractionConfig()]


def _load(latex: str) -> Expression:
    """The expression, or None where math-verify cannot read it."""
    # The time is limited from outside: its own timeout would need the alarm of this process.
    found = math_verify.parse(f"${latex}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found and not isinstance(found[0], str) else None


def _value(expression: Expression) -> str | float | None:
    """Return "3/4" for a rational number, a float for another real one, "undefined", or None for what is no number."""
    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    done = expression.doit()
    if done.has(sympy.nan, sympy.zoo, sympy.oo):
        return "undefined"
    if not done.is_Rational:
        done = sympy.nsimplify(done) if done.has(sympy.Float) else sympy.simplify(done)
    if done.is_Rational:
        return f"{done.p}/{done.q}"
    return float(done.evalf(15)) if done.is_real else None


def _equal(expected: Expression, given: Expression) -> bool:
    if expected is None or given is None or "undefined" in (_value(expected), _value(given)):
        return False
    return bool(math_verify.verify(expected, given, timeout_seconds=None))


def _compare(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    out = []
    for expected, given in pairs:
        a, b = _load(expected), _load(given)
        out.append({"equal": _equal(a, b), "expected": _value(a), "given": _value(b), "read": b is not None})
    return out


def _statement(sides: list[str]) -> dict[str, Any]:
    """What is to be known of one line "a = b = c"."""
    expressions = [_load(side) for side in sides]
    if any(not isinstance(one, sympy.Expr) for one in expressions):
        return {"read": False}
    values = [_value(one) for one in expressions]
    differences = [sympy.simplify(a.doit() - b.doit()) for a, b in itertools.pairwise(expressions)]
    broken = next((at for at, one in enumerate(differences) if one != 0), None)
    unknowns = sorted({str(symbol) for one in differences for symbol in one.free_symbols})
    return {"read": True, "values": values, "broken": broken, "unknowns": unknowns}


def _solutions(sides: list[str]) -> dict[str, Any]:
    """The real solutions of an equation in one unknown."""
    left, right = (_load(side) for side in sides)
    difference = sympy.simplify(left.doit() - right.doit())
    symbols = sorted(difference.free_symbols, key=str)
    if not symbols:
        return {"all": difference == 0, "solutions": []}
    if len(symbols) > 1:
        return {"unsolved": True}
    found = sympy.solveset(difference, symbols[0], sympy.S.Reals)
    if not isinstance(found, sympy.FiniteSet) and found is not sympy.S.EmptySet:
        return {"unsolved": True}
    return {"all": False, "solutions": sorted(str(_value(one) or one) for one in found)}


def answer(request: dict[str, Any]) -> Json:
    """Answer one request."""
    (kind, content), *_ = request.items()
    if kind == "compare":
        return _compare(content)
    if kind == "statement":
        return _statement(content)
    assert kind == "solutions"
    return _solutions(content)


def _set_limit(name: str, value: int) -> None:
    """Set a limit of this process, or the lower one that the system has set already."""
    try:
        import resource
    except ImportError:  # Windows: `judge` keeps to the time on the wall instead
        return
    which = getattr(resource, name)
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows a limit of memory and refuses it
        # Only that of the time is raised again, with each question.
        resource.setrlimit(which, (value, hard if name == "RLIMIT_CPU" else value))


def _allow(seconds: int) -> None:
    """From now on so many seconds of processor time; then the system ends this process, in whatever code it is."""
    _set_limit("RLIMIT_CPU", int(time.process_time()) + seconds + 1)


def main() -> None:
    """Answer requests until the input ends."""
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    logging.disable()
    _compare([("1", "1")])  # the parser is built at its first use
    for name, value in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        _set_limit(name, value)
    print('"ready"', flush=True)
    for line in sys.stdin:
        _allow(seconds)
        try:
            reply = {"reply": answer(json.loads(line))}
        except MemoryError:
            raise
        except Exception as error:  # whatever sympy raises at what strangers typed: the reply says so
            reply = {"failed": type(error).__name__}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
