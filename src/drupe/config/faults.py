"""Pydantic's errors in our words: line, path, what was found and expected, the nearest name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from drupe.config.dialects.names import DATA_NAMES, PASS_NAMES, TRAINING_NAMES
from drupe.config.source import Items, Map, Origin, origin_of
from drupe.core.dataset import Part
from drupe.core.documented import description
from drupe.core.errors import Fault, closest
from drupe.core.merging import Merging
from drupe.core.secrets import redacted
from drupe.core.target import Target

Place = tuple[str | int, ...]
OLD_NAMES = PASS_NAMES | DATA_NAMES | TRAINING_NAMES
# Fields of these types are no user's: the target is chosen by the engine, the others by the plan.
FILLED_IN: dict[type[BaseModel], str] = {
    Target: "Name a system in engine.target, or run with --target.",
    Merging: "Name it as a pass of its own, before this one.",
    Part: 'Write "eval_dataset_size" in the pass, which holds rows out.',
}


def faults_of(
    error: ValidationError, schema: type[BaseModel], root: Map, place: Place
) -> list[Fault]:
    """Return a fault for each error of validating the entry of `root` at `place`."""
    faults = []
    for found in error.errors(include_url=False):
        location = _written(root, place, found["loc"], missing=found["type"] == "missing")
        origin = origin_of(root, (*place, *location))
        faults.append(_fault(found, schema, origin, location))
    return faults


def filled_in(
    value: Any, schema: type[BaseModel] | None, place: Place
) -> Iterator[tuple[Place, str]]:
    """Yield the place and the remedy of each written field that is filled in, not written."""
    if not isinstance(value, Map) or schema is None:
        return
    for name, inner in value.items():
        found = schema_at(schema, (name,))
        if found in FILLED_IN:
            yield (*place, name), FILLED_IN[found]
        else:
            yield from filled_in(inner, found, (*place, name))


def _written(root: Map, place: Place, location: Place, *, missing: bool) -> Place:
    """Return `location` without the steps that pydantic adds for unions and validators."""
    value: Any = root
    for step in place:
        value = value[step]
    kept: list[str | int] = []
    for index, step in enumerate(location):
        there = (isinstance(value, Map) and step in value) or (
            isinstance(value, Items) and isinstance(step, int) and step < len(value)
        )
        if there:
            value = value[step]
        if there or (missing and index == len(location) - 1):
            kept.append(step)
    return tuple(kept)


def _fault(found: Any, schema: type[BaseModel], origin: Origin, location: Place) -> Fault:
    name = str(location[-1]) if location else ""
    parent = schema_at(schema, location[:-1])
    known = _writable(parent) if parent else []
    where = origin.where
    if found["type"] == "missing":
        remedy = f'Add "{name}".{_description(parent, name)}'
        return Fault(where, f"{_path(origin, location)} is missing", remedy)
    if found["type"] == "extra_forbidden":
        return Fault(
            where,
            f"{origin.path} is unknown{_nearest_field(name, known)}",
            f"Known here: {', '.join(known)}.",
        )
    return Fault(
        where,
        f"{origin.path}: {_lowered(found['msg'])} (found {_short(found['input'])})",
        f"Change the value.{_description(parent, name)}",
    )


def _writable(schema: type[BaseModel]) -> list[str]:
    fields = schema.model_fields.items()
    return [name for name, field in fields if _schema_in(field.annotation) not in FILLED_IN]


def _nearest_field(name: str, known: list[str]) -> str:
    """Return the words for the nearest field, under its name of today or an older one."""
    old = {older: new for older, new in OLD_NAMES.items() if new in known}
    match = closest(name, [*known, *old])
    if match in old:
        return f'; did you mean "{old[match]}" (formerly "{match}")?'
    return f'; did you mean "{match}"?' if match else ""


def _path(origin: Origin, location: Place) -> str:
    name = str(location[-1])
    return origin.path if origin.path.endswith(name) else f"{origin.path}.{name}".lstrip(".")


def _description(schema: type[BaseModel] | None, name: str) -> str:
    told = description(schema, name) if schema else ""
    return f" It is: {told}" if told else ""


def _lowered(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    text = redacted(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else text[:57] + "..."


def schema_at(schema: type[BaseModel], location: Place) -> type[BaseModel] | None:
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
