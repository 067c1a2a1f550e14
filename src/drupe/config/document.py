"""A config being checked: looked at by place, its faults and warnings collected, none raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from drupe.config.effects import told
from drupe.config.faults import Place, faults_of, filled_in
from drupe.config.schema import Said
from drupe.config.source import Items, Map, origin_of
from drupe.core.dataset import Dataset
from drupe.core.errors import DrupeError, Fault

Schema = TypeVar("Schema", bound=BaseModel)


class Document:
    """The upgraded config in `root`; folder: what its paths are relative to."""

    def __init__(self, root: Map, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.faults: list[Fault] = []
        self.notes: list[Said] = []
        self.places: dict[Path, str] = {}  # where each data file that is used is named

    def absent_files(self) -> list[Fault]:
        """Return a fault for each data file that is used and not there."""
        remedy = "Mend the path."
        return [
            Fault(
                place.partition(": ")[0],
                f"{place.partition(': ')[2]} names {file}, which is not there",
                remedy,
            )
            for file, place in self.places.items()
            if not file.exists()
        ]

    def at(self, place: Place) -> Any:
        """Return the value at `place`, or None."""
        value: Any = self.root
        for step in place:
            if isinstance(value, Map) and step in value:
                value = value[str(step)]
            elif isinstance(value, Items) and isinstance(step, int):
                value = value[step]
            else:
                return None
        return value

    def fault(self, place: Place, what: str, remedy: str) -> None:
        """Collect a fault of what stands at `place`, or is missing there."""
        origin = origin_of(self.root, place)
        path = origin.path if self.at(place) is not None else ".".join(map(str, place))
        self.faults.append(Fault(origin.where, f"{path} {what}", remedy))

    def warn(self, found: Iterator[tuple[Place, str]]) -> None:
        """Collect warnings, each once."""
        known = {said.text for said in self.notes}
        lines = told(found, self.root)
        self.notes += [Said(line, "warning") for line in lines if line not in known]

    def keep_maps(self, place: Place, shape: type[Map | Items], *, listed: bool = False) -> None:
        """Tell what is no collection of objects at `place`, and read on without it.

        listed: whether an entry may also be an array of objects.
        """
        value, around = self.at(place), self.at(place[:-1])
        if value is None:
            return
        if not isinstance(value, shape):
            wanted = "an object: {...}" if shape is Map else "an array: [...]"
            self.fault(place, f"must be {wanted}", "Change the value.")
            around.drop(place[-1])
            return
        keys: list[Any] = list(value if isinstance(value, Map) else range(len(value)))
        for key in reversed(keys):
            if listed and isinstance(value[key], Items):
                self.keep_maps((*place, key), Items)
            elif not isinstance(value[key], Map):
                self.fault((*place, key), "must be an object: {...}", "Change the value.")
                del value[key], value.origins[key]

    def section(self, schema: type[Schema], place: Place, required: bool = False) -> Schema | None:
        """Return what stands at `place` as `schema`, or None with its faults collected."""
        value = self.at(place)
        if value is None and not required:
            return None
        if not isinstance(value, Map):
            what = "is missing" if value is None else "must be an object"
            self.fault(place, what, "Write it as {...}.")
            return None
        return self.validated(schema, value, place)

    def validated(
        self, schema: type[Schema], fields: dict[str, Any], place: Place
    ) -> Schema | None:
        """Return `fields`, which stand at `place`, as `schema`, or None."""
        try:
            return schema.model_validate_json(json.dumps(fields), context={"folder": self.folder})
        except ValidationError as error:
            self.faults += faults_of(error, schema, self.root, place)
            return None

    def refuse_if(self, check: Callable[[Dataset], None], dataset: Dataset, place: Place) -> bool:
        """Return whether `check` finds nothing; a fault that it finds is told at `place`."""
        try:
            check(dataset)
        except DrupeError as fault:
            self.fault(place, fault.what, fault.remedy)
            return False
        return True

    def filled_in(self, place: Place, schema: type[BaseModel]) -> None:
        """Tell what is written at `place` and filled in by the engine."""
        for written, remedy in filled_in(self.at(place), schema, place):
            self.fault(written, "is filled in by drupe, not written", remedy)
