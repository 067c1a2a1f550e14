"""Pydantic's errors in our words: line, path, what was found and expected, the nearest name."""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from drupe.config.source import Map, Origin, origin_of
from drupe.core.errors import Fault, nearest

Place = tuple[str | int, ...]


def faults_of(
    error: ValidationError, schema: type[BaseModel], file: str, root: Map, place: Place
) -> list[Fault]:
    """Return a fault for each error of validating the entry of `root` at `place`."""
    faults = []
    for found in error.errors(include_url=False):
        location = tuple(step for step in found["loc"] if _is_written(step))
        origin = origin_of(root, (*place, *location))
        faults.append(_fault(found, schema, file, origin, location))
    return faults


def _is_written(step: str | int) -> bool:
    """Return False for the steps that pydantic adds for tagged unions and validators."""
    return isinstance(step, int) or not (step.endswith("Config") and step[:1].isupper())


def _fault(
    found: Any, schema: type[BaseModel], file: str, origin: Origin, location: Place
) -> Fault:
    name = str(location[-1]) if location else ""
    parent = _schema_at(schema, location[:-1])
    known = list(parent.model_fields) if parent else []
    if found["type"] == "missing":
        return Fault(
            f"{file}:{origin.line}",
            f"{_path(origin, location)} is missing",
            f'Add "{name}".{_description(parent, name)}',
        )
    if found["type"] == "extra_forbidden":
        return Fault(
            f"{file}:{origin.line}",
            f"{origin.path} is unknown{nearest(name, known)}",
            f"Known here: {', '.join(known)}.",
        )
    return Fault(
        f"{file}:{origin.line}",
        f"{origin.path}: {_lowered(found['msg'])} (found {_short(found['input'])})",
        f"Change the value.{_description(parent, name)}",
    )


def _path(origin: Origin, location: Place) -> str:
    name = str(location[-1])
    return origin.path if origin.path.endswith(name) else f"{origin.path}.{name}".lstrip(".")


def _description(schema: type[BaseModel] | None, name: str) -> str:
    field = schema.model_fields.get(name) if schema else None
    return f" It is: {field.description}" if field and field.description else ""


def _lowered(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _schema_at(schema: type[BaseModel], location: Place) -> type[BaseModel] | None:
    """Return the schema of the section at `location` below `schema`, or None."""
    found: type[BaseModel] | None = schema
    for step in location:
        if found is None or isinstance(step, int):
            continue
        field = found.model_fields.get(step)
        found = _schema_in(field.annotation) if field else None
    return found


def _schema_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _schema_in(argument)
        if found:
            return found
    return None
