"""What a config leaves open: alternatives of a pass, values of a field; found, and put into a pass.

    "quantize": [{"type": "A"}, {"type": "B", "bits": {"search": [4, 8]}}]

A field is open where it is {"search": [values]} ("all": each value that its type has), or a list
where it takes no list. While the config is checked each value stands in the tree in its turn, so
that a fault of one is told where it was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from drupe.config.document import Document
from drupe.config.faults import Place, schema_at
from drupe.config.open_passes import Open
from drupe.config.source import Items, Map, Origin, origin_of
from drupe.core.operation import Operation
from drupe.search.space import told

CHOICE, EVERY = "search", "all"


class Choices:
    """Finds what the entry of a pass leaves open, and has each of its values checked."""

    def __init__(self, document: Document, given: Callable[[Place, str, Any], Any]) -> None:
        """given: what a field's value stands for ("train" for the data config of that name)."""
        self._document = document
        self._given = given
        self.origins: list[Origin] = []  # of all that is open
        self._of_values: dict[tuple[Place, str], Origin] = {}

    def alternatives(self, name: str) -> list[tuple[Place, str, str]]:
        """Return where each alternative of an entry stands, its label, and its axes' prefix."""
        entry = self._document.at(("passes", name))
        place: Place = ("passes", name)
        if not isinstance(entry, Items):
            return [(place, "", f"passes.{name}")]
        self.origins.append(origin_of(self._document.root, place))
        if not entry:
            self._document.fault(place, "is an empty list", "Name a pass.")
        return [
            ((*place, index), label, f"passes.{name}.{label}")
            for index, label in enumerate(_labels(entry))
        ]

    def take(self, schema: type[Operation], place: Place, name: str) -> list[Open]:
        """Return what is open at `place`, and put the first value of each in its place."""
        found = []
        for inner, value, origin in list(_open_fields(self._document.at(place), schema)):
            at: Place = (*place, *inner)
            self.origins.append(origin)
            values = self._values(value, schema, inner, at)
            if values is None:
                continue
            owner: Map = self._document.at(at[:-1])
            given = []
            for number, each in enumerate(values):
                where = value.origins[number] if isinstance(value, Items) else origin
                owner.put(inner[-1], each, where)
                given.append(self._given(at, inner[-1], each))
                self._of_values[at, _text(given[-1])] = where
            first = value.origins[0] if isinstance(value, Items) else origin
            owner.put(inner[-1], given[0], first)
            shown = tuple(json.loads(json.dumps(each)) for each in values)
            axis = f"{name}.{'.'.join(inner)}"
            found.append(Open(axis, inner, shown, tuple(json.loads(json.dumps(given)))))
        return found

    def check(self, opened: list[Open], place: Place, validate: Callable[[], object]) -> None:
        """Have every value but the first checked, each beside the first ones of the others."""
        for each in opened:
            owner: Map = self._document.at((*place, *each.place[:-1]))
            key = each.place[-1]
            first, origin = owner[key], owner.origins[key]
            for given in each.given[1:]:
                known = len(self._document.faults)
                owner.put(key, given, self._of_values[(*place, *each.place), _text(given)])
                validate()
                new = self._document.faults[known:]
                # What does not fit beside the others' first values may fit beside their next.
                del self._document.faults[known:]
                self._document.faults += [fault for fault in new if key in fault.what]
            owner.put(key, first, origin)

    def _values(
        self, value: Any, schema: type[Operation], inner: tuple[str, ...], at: Place
    ) -> list[Any] | None:
        """Return the values of an open field, or None with a fault."""
        if value == EVERY:
            values = _every_value(schema, inner)
            if not values:
                what = "has no values of its own"
                remedy = f'Write them: {{"{CHOICE}": [...]}}.'
                self._document.fault(at, what, remedy)
                self._document.at(at[:-1]).drop(inner[-1])
                return None
            return values
        texts = list(map(_text, value))
        twice = [text for number, text in enumerate(texts) if text in texts[:number]]
        if twice:
            self._document.fault(at, f"names {twice[0]} twice", "Name each value once.")
        if not texts:
            self._document.fault(at, "has nothing to choose from", "Name the values.")
        if twice or not texts:
            self._document.at(at[:-1]).drop(inner[-1])
            return None
        return list(value)


def _labels(entries: Items) -> list[str]:
    """Return what alternatives are called: by type, with the values in which these differ."""
    fixed = [
        {key: value for key, value in each.items() if isinstance(value, str | int | float)}
        if isinstance(each, Map)
        else {}
        for each in entries
    ]
    keys = dict.fromkeys(key for each in fixed for key in each if key != "type")
    differ = [key for key in keys if all(key in each for each in fixed)]
    differ = [key for key in differ if len({_text(each[key]) for each in fixed}) > 1]
    types = [str(each.get("type", "")) for each in fixed]
    if len(set(types)) == len(types):
        return types
    labels = [
        " ".join([kind, *(told(each[key]) for key in differ)])
        for kind, each in zip(types, fixed, strict=True)
    ]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{kind} {number}" for number, kind in enumerate(types, 1)]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _open_fields(
    entry: Map, schema: type[BaseModel], inner: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Origin]]:
    """Yield each open field: its place, its values (or EVERY), and where it stands."""
    for key, value in entry.items():
        origin = entry.origins[key]
        if isinstance(value, Map) and set(value) == {CHOICE}:
            chosen = value[CHOICE]
            if chosen == EVERY or isinstance(chosen, Items):
                yield (*inner, key), chosen, origin
        elif isinstance(value, Map):
            yield from _open_fields(value, schema, (*inner, key))
        elif isinstance(value, Items) and value and _takes_each_alone(schema, inner, key, value):
            yield (*inner, key), value, origin


def _annotation(schema: type[BaseModel], inner: tuple[str, ...], key: str) -> Any:
    parent = schema_at(schema, inner)
    field = parent.model_fields.get(key) if parent else None
    return None if field is None else field.annotation


def _takes_each_alone(
    schema: type[BaseModel], inner: tuple[str, ...], key: str, values: Items
) -> bool:
    """Return whether a field takes each of the values, and not their list."""
    annotation = _annotation(schema, inner, key)
    if annotation is None:
        return False
    if key.endswith("data_config"):
        return all(isinstance(each, str) for each in values)  # names of data configs
    return not _fits(annotation, values) and all(_fits(annotation, each) for each in values)


def _fits(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def _every_value(schema: type[BaseModel], inner: tuple[str, ...]) -> list[Any]:
    """Return the values that a field's type has, where these are few: of a Literal, or a bool."""
    annotation = _annotation(schema, inner[:-1], inner[-1])
    found: list[Any] = []
    for part in (annotation, *get_args(annotation)):
        if part is bool:
            found += [False, True]
        found += [each for each in get_args(part) if isinstance(each, str | int | float)]
    return list(dict.fromkeys(found))
