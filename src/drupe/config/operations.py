"""Data configs, passes and evaluators of a config: found by name, their fields checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from drupe.catalog import METRICS, PASSES
from drupe.config.choices import Choices
from drupe.config.dialects.names import OLIVE_METRICS, OLIVE_PASSES
from drupe.config.document import Document
from drupe.config.effects import idle_fields
from drupe.config.faults import Place
from drupe.config.goals import Wanted, numbers_wanted, settled
from drupe.config.open_passes import Alternative, Open, OpenPass
from drupe.config.schema import EngineConfig, NamedMetric, NamedPass, Said
from drupe.config.source import Map, origin_of
from drupe.config.target import Systems
from drupe.core.dataset import Dataset
from drupe.core.errors import Refused, nearest
from drupe.core.goal import SubType
from drupe.core.operation import Metric, Operation, Pass
from drupe.core.registry import Registry
from drupe.core.system import NamedSystem
from drupe.core.target import Target
from drupe.data.columns import check_columns, check_files, check_template

PREPROCESS = "pre_process_data_config"
OF_OLIVE = {"passes": OLIVE_PASSES, "metrics": OLIVE_METRICS}
# What an entry says beside the fields of its pass or metric.
BESIDE = {"passes": ("type", "host"), "metrics": ("type", "name", "sub_types")}


class Operations:
    """What a config wants done, for one target."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._checked: dict[str, Dataset] = {}
        self._datasets = self._read_datasets()
        self.choices = Choices(document, self._given)

    def _read_datasets(self) -> dict[str, Place]:
        """Return where each data config stands, checking all of them, used or not."""
        found: dict[str, Place] = {}
        for index, value in enumerate(self._document.at(("data_configs",)) or []):
            place: Place = ("data_configs", index)
            self._document.filled_in(place, Dataset)
            dataset = self._document.section(Dataset, place, required=True)
            if dataset is not None:
                self._document.refuse_if(
                    check_template, dataset, (*place, PREPROCESS, "text_template")
                )
                self._document.warn(idle_fields(dataset, place))
            name = value.get("name") if isinstance(value, Map) else None
            if isinstance(name, str) and name in found:
                self._document.fault(
                    (*place, "name"), f'"{name}" is there twice', "Give each its own name."
                )
            if isinstance(name, str):
                found[name] = place
            if dataset is not None:
                self._checked[dataset.name] = dataset
        return found

    def passes(
        self, target: Target, systems: Systems, asked: str | None
    ) -> tuple[list[OpenPass], list[NamedPass]]:
        """Return the passes in their order with all that is open, and with the first of it.

        asked: the system that was asked for in place of all that the config names.
        """
        found, first = [], []
        for name in self._document.at(("passes",)) or {}:
            alternatives: list[Alternative] = []
            for place, label, axes in self.choices.alternatives(name):
                alternative = self._alternative(place, axes, target)
                own = self._host(place, systems) if asked is None else None
                if alternative is not None:
                    step, opened, fields = alternative
                    kind = self._document.at((*place, "type"))
                    if not alternatives:
                        first.append(NamedPass(name, kind, step, own))
                    alternatives.append(
                        Alternative(label, kind, type(step), fields, own, tuple(opened))
                    )
            if alternatives:
                axis = f"passes.{name}" if len(alternatives) > 1 else None
                found.append(OpenPass(name, tuple(alternatives), axis))
        return found, first

    def _alternative(
        self, place: Place, axes: str, target: Target
    ) -> tuple[Pass, list[Open], dict[str, Any]] | None:
        """Return one way to fill in a pass: with the first values, what is open, its fields."""
        schema = self._class(PASSES, place)
        if schema is None:
            return None
        opened = self.choices.take(schema, place, axes)
        step = self._operation(PASSES, place, target, schema)
        if not isinstance(step, Pass):
            return None
        self.choices.check(opened, place, lambda: self._validated(PASSES, place, target, schema))
        fields = self._fields(PASSES, place, target, schema)
        return step, opened, json.loads(json.dumps(fields))

    def _given(self, place: Place, key: str, value: Any) -> Any:
        """Return what a value stands for: the data config of a name."""
        if key.endswith("data_config") and isinstance(value, str) and value in self._datasets:
            self._note_places(value)
            return self._document.at(self._datasets[value])
        return value

    def _host(self, place: Place, systems: Systems) -> NamedSystem | None:
        """Return the system that a pass names for itself."""
        name = self._document.at((*place, "host"))
        if name is None:
            return None
        if isinstance(name, str) and name in systems:
            return NamedSystem(name, systems[name])
        described = self._document.at(("systems",)) or {}
        if not isinstance(name, str) or name not in described:  # else its own faults are told
            what = f"names no system: {json.dumps(name)}{nearest(str(name), described)}"
            remedy = f"Known: {', '.join(described) or 'none'}."
            self._document.fault((*place, "host"), what, remedy)
        return None

    def metrics(self, engine: EngineConfig, target: Target) -> list[NamedMetric]:
        """Return the metrics of the evaluator that the engine names; all of them are checked."""
        evaluators = self._document.at(("evaluators",)) or {}
        if engine.evaluator is not None and engine.evaluator not in evaluators:
            self._document.fault(
                ("engine", "evaluator"),
                f'names no evaluator: "{engine.evaluator}"{nearest(engine.evaluator, evaluators)}',
                "Name one of `evaluators`.",
            )
        elif evaluators and engine.evaluator is None:
            text = "no evaluator is used: engine.evaluator names none of `evaluators`"
            self._document.notes.append(Said(text, "warning"))
        found = []
        for evaluator, value in evaluators.items():
            read: list[tuple[Place, NamedMetric]] = []
            wanted: list[Wanted] = []
            for key in value:
                if key != "metrics":
                    what = f"is unknown{nearest(key, ['metrics'])}"
                    self._document.fault(
                        ("evaluators", evaluator, key), what, "Known here: metrics."
                    )
            names: set[str] = set()
            for index, entry in enumerate(value.get("metrics") or []):
                place: Place = ("evaluators", evaluator, "metrics", index)
                metric = self._operation(METRICS, place, target)
                name = str(entry.get("name", entry.get("type")))
                if name in names:
                    what = f'is the second that is named "{name}"'
                    self._document.fault(place, what, 'Give each its own "name".')
                names.add(name)
                if isinstance(metric, Metric):
                    own = numbers_wanted(self._document, metric, place)
                    metric = self._giving(metric, own, place)
                    read.append((place, NamedMetric(name, entry["type"], metric)))
                    wanted += own
            used = evaluator == engine.evaluator
            evaluate = engine.evaluate if used else ""
            sub_types = settled(self._document, evaluator, wanted, evaluate)
            found += [_with(named, place, sub_types) for place, named in read] if used else []
        return found

    def _giving(self, metric: Metric, wanted: list[Wanted], place: Place) -> Metric:
        """Return a metric as it gives the numbers that are wanted of it."""
        try:
            return metric.giving(tuple(each.sub_type.name for each in wanted))
        except Refused as fault:
            self._document.fault((*place, fault.where), fault.what, fault.remedy)
            return metric

    def _operation(
        self,
        registry: Registry,
        place: Place,
        target: Target,
        schema: type[Operation] | None = None,
    ) -> Operation | None:
        """Return the pass or metric at `place`: its type looked up, its fields checked.

        schema: its class, where that was looked up already.
        """
        schema = schema or self._class(registry, place)
        if schema is None:
            return None
        self._document.filled_in(place, schema)
        checked = self._validated(registry, place, target, schema)
        if checked is None:
            return None
        self._document.warn(idle_fields(checked, place))
        for name in schema.model_fields:
            value = getattr(checked, name)
            if isinstance(value, Dataset):
                self._look_at(value, (*place, name))
        return checked

    def _validated(
        self, registry: Registry, place: Place, target: Target, schema: type[Operation]
    ) -> Operation | None:
        fields = self._fields(registry, place, target, schema)
        return None if fields is None else self._document.validated(schema, fields, place)

    def _fields(
        self, registry: Registry, place: Place, target: Target, schema: type[Operation]
    ) -> dict[str, Any] | None:
        """Return the fields of the entry at `place`, what they name put in its place."""
        entry = self._document.at(place)
        fields = {key: value for key, value in entry.items() if key not in BESIDE[registry.group]}
        if not self._resolve_data_configs(entry, fields, place):
            return None
        if "target" in schema.model_fields:
            fields["target"] = target.model_dump()
        return fields

    def _class(self, registry: Registry, place: Place) -> type[Operation] | None:
        """Return the class that the entry at `place` names, or None with a fault."""
        entry = self._document.at(place)
        kind: Place = (*place, "type")
        name = entry.get("type") if isinstance(entry, Map) else None
        if not isinstance(name, str):
            self._document.fault(kind, "is missing", f'Add a "type" of {registry.group}.')
            return None
        known = f"Known: {', '.join(registry.names())}."
        if name in OF_OLIVE[registry.group] and name not in registry.names():
            what = f'"{name}" is one of Olive\'s {registry.group} that this version does not have'
            self._document.fault(kind, what, known)
            return None
        try:
            schema = registry.find(name)
        except Refused as fault:
            self._document.fault(kind, f'"{fault.where}" {fault.what}', fault.remedy)
            return None
        wanted, word = (Pass, "pass") if registry is PASSES else (Metric, "metric")
        if not (isinstance(schema, type) and issubclass(schema, wanted)):
            self._document.fault(kind, f'"{name}" is no {word}', known)
            return None
        if place[0] == "evaluators" and issubclass(schema, Metric) and schema.is_proof():
            what = f'"{name}" compares two models, and a metric judges one'
            remedy = "Leave it out: a pass whose result it proves has it run by itself."
            self._document.fault(kind, what, remedy)
            return None
        return schema

    def _look_at(self, dataset: Dataset, place: Place) -> None:
        """Tell what can be known to be wrong with rows that a pass or metric uses."""
        template: Place = (*place, PREPROCESS, "text_template")
        if self._document.refuse_if(check_template, dataset, template):
            files: Place = (*place, "load_dataset_config", "data_files")
            named = (*place, PREPROCESS, "text_cols")
            by_template = dataset.pre_process_data_config.text_template is not None
            if self._document.refuse_if(check_files, dataset, files):
                self._document.refuse_if(check_columns, dataset, template if by_template else named)

    def _note_places(self, name: str) -> None:
        """Write down where the files of a data config that is used are named."""
        place = (*self._datasets[name], "load_dataset_config", "data_files")
        origin = origin_of(self._document.root, place)
        if name in self._checked:
            for file in self._checked[name].load_dataset_config.local_files:
                self._document.places[file] = f"{origin.where}: {origin.path}"

    def _resolve_data_configs(self, entry: Map, fields: dict[str, Any], place: Place) -> bool:
        """Put what a field ending in data_config names in its place; return whether all exist."""
        for key, name in fields.items():
            if not (key.endswith("data_config") and isinstance(name, str)):
                continue
            if name not in self._datasets:
                self._document.fault(
                    (*place, key),
                    f'names no data config: "{name}"{nearest(name, self._datasets)}',
                    f"Known: {', '.join(self._datasets) or 'none'}.",
                )
                return False
            self._note_places(name)
            # In the tree as well: faults below are then told where they were written.
            fields[key] = entry[key] = self._document.at(self._datasets[name])
        return True


def _with(named: NamedMetric, place: Place, sub_types: dict[Place, SubType]) -> NamedMetric:
    """Return a metric with those of an evaluator's numbers that stand at its place."""
    own = tuple(each for inner, each in sub_types.items() if inner[: len(place)] == place)
    return replace(named, sub_types=own)
