"""Whether a value fits a JSON schema, as far as calls of functions need it.

Checked are types, enumerations, required and further properties, items, alternatives, bounds of numbers and lengths,
and references within the schema. What else a schema says (formats, patterns) is taken on trust: a pattern comes from
outside, and matching it could take for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["misfit"]

_DEPTH, _STEPS = 64, 10_000
"""How deep a schema is followed, and how many parts of it are looked at; beyond, a value counts as fitting."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def misfit(value: object, schema: object) -> str | None:
    """Why a value does not fit a schema; None if it does.

    Args:
        value: from JSON.
        schema: a JSON schema; what is none fits everything.
    """
    return _Check(schema).misfit(value, schema, "the value", 0)


class _Check:
    def __init__(self, root: object) -> None:
        self._root, self._steps = root, 0

    def misfit(self, value: object, schema: object, where: str, depth: int) -> str | None:
        self._steps += 1
        if schema is False:
            return f"{where} must not be there"
        if not isinstance(schema, Mapping) or depth > _DEPTH or self._steps > _STEPS:
            return None
        reference = schema.get("$ref")
        if isinstance(reference, str) and (why := self.misfit(value, self._at(reference), where, depth + 1)):
            return why
        if (why := _wrong_type(value, schema.get("type"), where)) is not None:
            return why
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(allowed, list) and not any(_same(value, one) for one in allowed):
            return f"{where} is {value!r:.99}: it must be one of {allowed!r:.200}"
        return (
            self._alternatives(value, schema, where, depth)
            or _out_of_bounds(value, schema, where)
            or (self._properties(value, schema, where, depth) if isinstance(value, dict) else None)
            or (self._items(value, schema, where, depth) if isinstance(value, list) else None)
        )

    def _at(self, reference: str) -> object:
        """The place within the schema that a reference is to."""
        place = self._root
        for name in reference.removeprefix("#").split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            place = place.get(name) if isinstance(place, Mapping) else None
        return place

    def _alternatives(self, value: object, schema: Mapping[str, Any], where: str, depth: int) -> str | None:
        for name in ("anyOf", "oneOf"):
            ways = schema.get(name)
            if isinstance(ways, list) and ways:
                reasons = [self.misfit(value, way, where, depth + 1) for way in ways]
                if None not in reasons:
                    return reasons[0]
        parts = schema.get("allOf")
        for part in parts if isinstance(parts, list) else ():
            if (why := self.misfit(value, part, where, depth + 1)) is not None:
                return why
        return None

    def _properties(self, value: dict[str, Any], schema: Mapping[str, Any], where: str, depth: int) -> str | None:
        known = schema.get("properties")
        known = known if isinstance(known, Mapping) else {}
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if name not in value:
                return f"{where} has no {name!r}"
        further = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        for name, one in value.items():
            if name not in known and further is False:
                return f"{where} has {name!r:.99}, which is not in its schema"
            why = self.misfit(one, known.get(name, further), f"{where}.{name:.99}", depth + 1)
            if why is not None:
                return why
        return None

    def _items(self, value: list[Any], schema: Mapping[str, Any], where: str, depth: int) -> str | None:
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        for index, one in enumerate(value):
            kind = first[index] if index < len(first) else schema.get("items")
            if (why := self.misfit(one, kind, f"{where}[{index}]", depth + 1)) is not None:
                return why
        return None


def _wrong_type(value: object, kinds: object, where: str) -> str | None:
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if not names or any(_is(value, name) for name in names):
        return None
    return f"{where} is {value!r:.99}: it must be of the type {' or '.join(map(str, names))}"


def _is(value: object, kind: object) -> bool:
    if isinstance(value, bool) and kind in ("number", "integer"):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(str(kind), (object,)))


def _same(one: object, other: object) -> bool:
    """Equal as JSON, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _out_of_bounds(value: object, schema: Mapping[str, Any], where: str) -> str | None:
    """The bounds that grammars keep, too."""
    size: Any = None
    names: tuple[str, ...] = ()
    if isinstance(value, int | float) and not isinstance(value, bool):
        size, names = value, ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    elif isinstance(value, str):
        size, names = len(value), ("minLength", "maxLength")
    elif isinstance(value, list):
        size, names = len(value), ("minItems", "maxItems")
    for name in names:
        bound = schema.get(name)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            continue
        below = name.startswith(("min", "exclusiveMin"))
        outside = size < bound if below else size > bound
        if outside or (name.startswith("exclusive") and size == bound):
            return f"{where} is {value!r:.99}: {name} is {bound}"
    return None
