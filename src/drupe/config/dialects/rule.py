"""What every rule works with: a note of what it did, and ways to move entries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from drupe.config.source import Items, Map, Origin
from drupe.core.secrets import redacted


@dataclass(frozen=True)
class Note:
    """What a rule did, for the user: one line.

    A "fault" is what no rule can decide (the config says two things at once), or what drupe does
    not do; its remedy says what to write.
    """

    rule: str
    where: str
    text: str
    level: Literal["note", "warning", "fault"] = "note"
    remedy: str = ""


Rule = Callable[[Map], Iterator[Note]]


def move_all(rule: str, source: Map, to: Map) -> Iterator[Note]:
    """Move every entry of `source` to another map."""
    for key in list(source):
        yield from move(rule, source, key, to, key)


def move(rule: str, source: Map, key: str, to: Map, new: str) -> Iterator[Note]:
    """Move an entry to where one may stand already: objects become one, other values clash."""
    if new not in to:
        source.move(key, to, new)
        return
    value, known = source[key], to[new]
    if isinstance(value, Map) and isinstance(known, Map):
        yield from move_all(rule, value, known)
    elif value != known:
        text = (
            f"{source.origins[key].path} is {short(value)}, but {to.origins[new].path} "
            f"({to.origins[new].where}) is {short(known)}"
        )
        yield Note(rule, source.origins[key].where, text, "fault", "Keep one of them.")
    source.drop(key)


def section(owner: Map, key: str, origin: Origin) -> Map:
    """Return the object at `key`, made where there is none."""
    if key not in owner:
        owner.put(key, Map(origin), origin)
    found = owner[key]
    return found if isinstance(found, Map) else Map(origin)


def short(value: Any) -> str:
    """Return a value as JSON, cut to what fits into a line."""
    text = redacted(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else text[:57] + "..."


def maps(values: Any) -> list[Map]:
    """Return the objects in an object or an array."""
    if isinstance(values, Map):
        return [value for value in values.values() if isinstance(value, Map)]
    items = values if isinstance(values, list) else ()
    return [value for value in items if isinstance(value, Map)]


def pass_entries(passes: Any) -> list[Map]:
    """Return the objects that describe passes: each entry, or the alternatives that it lists."""
    entries = passes.values() if isinstance(passes, Map) else ()
    return [
        each
        for entry in entries
        for each in (entry if isinstance(entry, Items) else [entry])
        if isinstance(each, Map)
    ]


def map_of(values: dict[str, Any], origin: Origin) -> Map:
    """Return an object whose entries were all written at `origin`."""
    made = Map(origin)
    for key, value in values.items():
        made.put(key, value, origin)
    return made
