"""Passes of which something is open: their alternatives, and what their fields choose from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drupe.core.errors import Refused
from drupe.core.operation import Pass
from drupe.core.system import NamedSystem
from drupe.search.space import Axis, Option, Point, Space


@dataclass(frozen=True)
class Open:
    """A field that is open. place: within the pass. values, given: as shown, and as JSON."""

    axis: str
    place: tuple[str, ...]
    values: tuple[Any, ...]
    given: tuple[Any, ...]


@dataclass(frozen=True)
class Alternative:
    """One way to fill in an entry of `passes`.

    label: what it is called among the others. registered: its type. fields: with the first value
    of each open one.
    """

    label: str
    registered: str
    schema: type[Pass]
    fields: dict[str, Any]
    host: NamedSystem | None
    open: tuple[Open, ...] = ()

    def at(self, values: Mapping[str, Any], folder: Path, name: str) -> Pass:
        """Return the pass with its open fields as `values` say; raises Refused if it is none."""
        fields = json.loads(json.dumps(self.fields))
        for each in self.open:
            owner = fields
            for step in each.place[:-1]:
                owner = owner[step]
            owner[each.place[-1]] = each.given[each.values.index(values[each.axis])]
        try:
            return self.schema.model_validate_json(json.dumps(fields), context={"folder": folder})
        except ValidationError as error:
            told = error.errors(include_url=False)[0]
            where = ".".join([f"passes.{name}", *map(str, told["loc"])])
            what = told["msg"].removeprefix("Value error, ")
            raise Refused(where, what[:1].lower() + what[1:], "Choose other values.") from error


@dataclass(frozen=True)
class OpenPass:
    """An entry of `passes`. axis: which says what alternative is meant, None for a single one."""

    name: str
    alternatives: tuple[Alternative, ...]
    axis: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the alternatives are called."""
        return tuple(each.label for each in self.alternatives)

    @property
    def space(self) -> Space:
        """The axes of this pass."""
        inner = [
            tuple(Axis.of(each.axis, each.values) for each in alternative.open)
            for alternative in self.alternatives
        ]
        if self.axis is None:
            return Space(inner[0])
        options = zip(self.labels, inner, strict=True)
        return Space((Axis(self.axis, tuple(Option(label, axes) for label, axes in options)),))

    def at(self, point: Point, folder: Path) -> tuple[Alternative, Pass]:
        """Return what a point chose, filled in; raises Refused where its values do not fit."""
        values = point.values
        place = 0 if self.axis is None else self.labels.index(values[self.axis])
        chosen = self.alternatives[place]
        return chosen, chosen.at(values, folder, self.name)
