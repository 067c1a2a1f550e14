"""The fields of a pass in words, for the terminal and for its page of the documentation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from drupe.config import faults

ROWS = "data_config"  # what a field's name ends with that names an entry of `data_configs`
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
FILLED_IN = {schema.__name__ for schema in faults.FILLED_IN}  # by drupe, and written by nobody
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


@dataclass(frozen=True)
class FieldWords:
    """A field as a config has it: its name, what it may be, its default, what it means.

    parts: the fields of an object.
    """

    name: str
    type: str
    default: str
    meaning: str
    parts: tuple[FieldWords, ...] = ()


def fields_of(declared: type[BaseModel]) -> tuple[FieldWords, ...]:
    """Return the fields of a pass that a config may name, in their order."""
    shape = declared.model_json_schema()
    return _fields(shape, shape.get("$defs", {}))


def _fields(shape: dict[str, Any], shapes: dict[str, Any]) -> tuple[FieldWords, ...]:
    required = shape.get("required", [])
    return tuple(
        _field(name, inner, shapes, required=name in required)
        for name, inner in shape.get("properties", {}).items()
        if not _refers(inner) & FILLED_IN
    )


def _field(
    name: str, inner: dict[str, Any], shapes: dict[str, Any], *, required: bool
) -> FieldWords:
    meaning = re.sub(r"\bNone\b", "null", " ".join(inner.get("description", "").split()))
    # A default that is made anew each time is not in the schema: an empty object.
    unsaid = json.dumps({} if inner.get("type") == "object" else None)
    written = json.dumps(inner["default"], ensure_ascii=False) if "default" in inner else unsaid
    default = "required" if required else written
    if name.endswith(ROWS):
        return FieldWords(name, "name of a data config", default, meaning)
    parts = _fields(shapes[_named(inner)], shapes) if _named(inner) else ()
    if parts:
        return FieldWords(name, "object", "as below", meaning, parts)
    return FieldWords(name, _type(inner), default, meaning)


def _refers(inner: dict[str, Any]) -> set[str]:
    """Return the names of the shapes that a field may have."""
    return {_named(each) for each in (inner, *inner.get("anyOf", ()))}


def _named(inner: dict[str, Any]) -> str:
    return str(inner.get("$ref", "")).rpartition("/")[2]


def _type(inner: dict[str, Any]) -> str:
    """Return what a value may be, from its JSON Schema; null is told by the default."""
    if "const" in inner or "enum" in inner:
        values = inner.get("enum", [inner.get("const")])
        return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    if "anyOf" in inner:
        kinds = [each for each in inner["anyOf"] if each.get("type") != "null"]
        return " or ".join(_type(kind) for kind in kinds)
    if inner.get("type") == "array":
        return f"list of {_type(inner.get('items', {}))}"
    if inner.get("type") == "object":
        return f"object of names and {_type(inner.get('additionalProperties', {}))}s"
    if inner.get("format") in ("path", "file-path", "directory-path"):
        return "path"
    word = WORDS.get(inner.get("type", ""), "any value")
    bounds = [words.format(_number(inner[key])) for key, words in BOUNDS.items() if key in inner]
    return ", ".join([word, *bounds])


def _number(value: float) -> str:
    """Return a bound as one reads it: powers of two that nobody knows by heart as such."""
    exponent = int(value).bit_length() - 1
    return f"2^{exponent}" if exponent > 9 and value == 2**exponent else f"{value:g}"
