"""A config file read, upgraded and checked: every fault at once, or a `Workflow`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from drupe.catalog import METRICS, PASSES
from drupe.config.effects import idle_fields, idle_of_model, told, unused_host
from drupe.config.faults import Place, faults_of, filled_in
from drupe.config.olive import Note, upgrade
from drupe.config.schema import (
    SYSTEM_TYPES,
    EngineConfig,
    InputModel,
    NamedMetric,
    NamedPass,
    Said,
    Workflow,
)
from drupe.config.secrets import refuse_secrets
from drupe.config.source import Items, Map, origin_of, read
from drupe.config.target import Systems, choose, findings, notes
from drupe.core.dataset import Dataset
from drupe.core.errors import ConfigError, DrupeError, Fault, Refused, nearest
from drupe.core.operation import Metric, Operation, Pass
from drupe.core.registry import Registry
from drupe.core.target import Target
from drupe.data.columns import check_columns, check_files, check_template

Schema = TypeVar("Schema", bound=BaseModel)
SECTIONS = ("input_model", "data_configs", "systems", "evaluators", "passes", "engine")
HARMLESS = ("$schema", "workflow_id")
PREPROCESS = "pre_process_data_config"


def load(
    file: Path, system: str | None = None, target: str | None = None, output: str | None = None
) -> Workflow:
    """Return the workflow that `file` describes.

    system: "local" has every step run here, whatever the file says.
    target: a provider (cpu, cuda, dml, webgpu or its long name) in place of the file's target.
    output: the folder for the result (relative to the current one) in place of the file's.
    Raises ConfigError with all faults, Refused for a file that cannot be read.
    """
    root = read(file)
    refuse_secrets(file, root)
    notes = upgrade(root)
    reader = _Reader(file, root)
    reader.faults += [
        Fault(f"{file.name}:{note.line}", note.text, "Keep one of them.")
        for note in notes
        if note.level == "fault"
    ]
    workflow = reader.workflow(system, target, output)
    if reader.faults:
        raise ConfigError(str(file), dict.fromkeys(reader.faults))
    assert workflow is not None
    reader.notes[:0] = _told(file, notes)
    return dataclasses.replace(workflow, notes=tuple(reader.notes))


def _told(file: Path, notes: list[Note]) -> list[Said]:
    """Return one line a rule that fired, warnings first and each by itself."""
    said = [
        Said(f"{file.name}:{note.line}: {note.text}", "warning")
        for note in notes
        if note.level == "warning"
    ]
    rules: dict[str, list[Note]] = {}
    for note in notes:
        if note.level == "note":
            rules.setdefault(note.rule, []).append(note)
    for fired in rules.values():
        more = f" (and {len(fired) - 1} more like it)" if len(fired) > 1 else ""
        said.append(Said(f"{file.name}:{fired[0].line}: {fired[0].text}{more}"))
    return said


class _Reader:
    """Checks the sections of one upgraded config; collects faults instead of raising."""

    def __init__(self, file: Path, root: Map) -> None:
        self._file = file
        self._folder = file.resolve().parent
        self._root = root
        self.faults: list[Fault] = []
        self.notes: list[Said] = []

    def workflow(
        self, system: str | None, target: str | None, output: str | None
    ) -> Workflow | None:
        """Return the workflow, or None when a section has faults."""
        self._check_sections()
        raw = json.loads(json.dumps(self._root))
        engine = self._section(EngineConfig, ("engine",)) or EngineConfig()
        if output is not None:
            engine = engine.model_copy(update={"output_dir": str(Path(output).resolve())})
        model = self._section(InputModel, ("input_model",), required=True)
        if model is not None:
            self._warn(idle_of_model(model, self._folder))
        systems = self._systems()
        datasets = self._datasets()
        chosen = self._target(engine, systems, system, target)
        passes = self._passes(datasets, chosen)
        metrics = self._metrics(engine, datasets, chosen)
        if self.faults or model is None:
            return None
        return Workflow(
            file=str(self._file),
            input_model=model,
            passes=tuple(passes),
            metrics=tuple(metrics),
            engine=engine,
            target=chosen,
            raw=raw,
            notes=(),
        )

    def _check_sections(self) -> None:
        for key in self._root:
            if key not in SECTIONS and key not in HARMLESS:
                self._fault(
                    (key,),
                    f"is unknown{nearest(key, SECTIONS)}",
                    f"Known here: {', '.join(SECTIONS)}.",
                )

        self._keep_maps(("data_configs",), Items)
        for name in ("systems", "evaluators", "passes"):
            self._keep_maps((name,), Map)
        for name in self._at(("evaluators",)) or ():
            self._keep_maps(("evaluators", name, "metrics"), Items)

    def _keep_maps(self, place: Place, shape: type[Map | Items]) -> None:
        """Tell what is no collection of objects at `place`, and read on without it."""
        value, around = self._at(place), self._at(place[:-1])
        if value is None:
            return
        if not isinstance(value, shape):
            wanted = "an object: {...}" if shape is Map else "an array: [...]"
            self._fault(place, f"must be {wanted}", "Change the value.")
            around.drop(place[-1])
            return
        keys: list[Any] = list(value if isinstance(value, Map) else range(len(value)))
        for key in reversed(keys):
            if not isinstance(value[key], Map):
                self._fault((*place, key), "must be an object: {...}", "Change the value.")
                del value[key], value.origins[key]

    def _section(
        self, schema: type[Schema], place: Place, required: bool = False, **given: Any
    ) -> Schema | None:
        value = self._at(place)
        if value is None and not required:
            return None
        if not isinstance(value, Map):
            what = "is missing" if value is None else "must be an object"
            self._fault(place, what, "Write it as {...}.")
            return None
        try:
            return schema.model_validate_json(
                json.dumps({**value, **given}), context={"folder": self._folder}
            )
        except ValidationError as error:
            self.faults += faults_of(error, schema, self._file.name, self._root, place)
            return None

    def _systems(self) -> dict[str, Any]:
        found = {}
        for name, value in (self._at(("systems",)) or {}).items():
            place: Place = ("systems", name)
            kind = value.get("type")
            if isinstance(kind, str) and kind in SYSTEM_TYPES:
                system = self._section(SYSTEM_TYPES[kind], place)
                if system is not None:
                    found[name] = system
                continue
            what = "is missing"
            if kind is not None:
                near = nearest(str(kind), SYSTEM_TYPES)
                what = f"is {json.dumps(kind)}, which this version does not have{near}"
            remedy = 'Write "LocalSystem" (this machine); "AzureML" can be described, not used.'
            self._fault((*place, "type"), what, remedy)
        return found

    def _datasets(self) -> dict[str, Place]:
        """Return where each data config stands, checking all of them, used or not."""
        found: dict[str, Place] = {}
        for index, value in enumerate(self._at(("data_configs",)) or []):
            place: Place = ("data_configs", index)
            self._filled_in(place, Dataset)
            dataset = self._section(Dataset, place, required=True)
            if dataset is not None:
                self._refuse_if(check_template, dataset, (*place, PREPROCESS, "text_template"))
                self._warn(idle_fields(dataset, place))
            name = value.get("name") if isinstance(value, Map) else None
            if isinstance(name, str) and name in found:
                self._fault((*place, "name"), f'"{name}" is there twice', "Give each its own name.")
            if isinstance(name, str):
                found[name] = place
        return found

    def _target(
        self, engine: EngineConfig, systems: Systems, system: str | None, target: str | None
    ) -> Target:
        if system not in (None, "local"):
            raise Refused("--system", f'"{system}" is not there', 'The one that is: "local".')
        for place, what, remedy in findings(engine, systems, system):
            self._fault(place, what, remedy)
        if target is None:
            self.notes += [Said(text, "warning") for text in notes(engine, systems)]
        self._warn(unused_host(engine, systems, system, self._root))
        return Target() if self.faults else choose(engine, systems, target)

    def _passes(self, datasets: dict[str, Place], target: Target) -> list[NamedPass]:
        found = []
        for name in self._at(("passes",)) or {}:
            place: Place = ("passes", name)
            step = self._operation(PASSES, place, datasets, target)
            if isinstance(step, Pass):
                found.append(NamedPass(name, self._at((*place, "type")), step))
        return found

    def _metrics(
        self, engine: EngineConfig, datasets: dict[str, Place], target: Target
    ) -> list[NamedMetric]:
        evaluators = self._at(("evaluators",)) or {}
        if engine.evaluator is not None and engine.evaluator not in evaluators:
            self._fault(
                ("engine", "evaluator"),
                f'names no evaluator: "{engine.evaluator}"{nearest(engine.evaluator, evaluators)}',
                "Name one of `evaluators`.",
            )
        elif evaluators and engine.evaluator is None:
            text = "no evaluator is used: engine.evaluator names none of `evaluators`"
            self.notes.append(Said(text, "warning"))
        found = []
        for evaluator, value in evaluators.items():
            for key in value:
                if key != "metrics":
                    what = f"is unknown{nearest(key, ['metrics'])}"
                    self._fault(("evaluators", evaluator, key), what, "Known here: metrics.")
            names: set[str] = set()
            for index, entry in enumerate(value.get("metrics") or []):
                place: Place = ("evaluators", evaluator, "metrics", index)
                metric = self._operation(METRICS, place, datasets, target)
                name = str(entry.get("name", entry.get("type")))
                if name in names:
                    what = f'is the second that is named "{name}"'
                    self._fault(place, what, 'Give each its own "name".')
                names.add(name)
                if isinstance(metric, Metric) and evaluator == engine.evaluator:
                    found.append(NamedMetric(name, entry["type"], metric))
        return found

    def _operation(
        self, registry: Registry, place: Place, datasets: dict[str, Place], target: Target
    ) -> Operation | None:
        """Return the pass or metric at `place`: its type looked up, its fields checked."""
        entry = self._at(place)
        if not isinstance(entry, Map) or not isinstance(entry.get("type"), str):
            self._fault((*place, "type"), "is missing", f'Add a "type" of {registry.group}.')
            return None
        try:
            schema = registry.find(entry["type"])
        except Refused as fault:
            self._fault((*place, "type"), f'"{fault.where}" {fault.what}', fault.remedy)
            return None
        wanted, word = (Pass, "pass") if registry is PASSES else (Metric, "metric")
        if not (isinstance(schema, type) and issubclass(schema, wanted)):
            what = f'"{entry["type"]}" is no {word}'
            self._fault((*place, "type"), what, f"Known: {', '.join(registry.names())}.")
            return None
        if place[0] == "evaluators" and issubclass(schema, Metric) and schema.compares:
            what = f'"{entry["type"]}" compares two models, and a metric judges one'
            remedy = "Leave it out: a pass whose result it proves has it run by itself."
            self._fault((*place, "type"), what, remedy)
            return None
        self._filled_in(place, schema)
        fields = {
            key: value
            for key, value in entry.items()
            if key != "type" and not (key == "name" and place[0] == "evaluators")
        }
        if not self._resolve_data_configs(entry, fields, place, datasets):
            return None
        if "target" in schema.model_fields:
            fields["target"] = target.model_dump()
        try:
            checked: Operation = schema.model_validate_json(
                json.dumps(fields), context={"folder": self._folder}
            )
        except ValidationError as error:
            self.faults += faults_of(error, schema, self._file.name, self._root, place)
            return None
        self._warn(idle_fields(checked, place))
        for name in schema.model_fields:
            value = getattr(checked, name)
            if isinstance(value, Dataset):
                self._look_at(value, (*place, name))
        return checked

    def _look_at(self, dataset: Dataset, place: Place) -> None:
        """Tell what can be known to be wrong with rows that a pass or metric uses."""
        template: Place = (*place, PREPROCESS, "text_template")
        if self._refuse_if(check_template, dataset, template):
            files: Place = (*place, "load_dataset_config", "data_files")
            named = (*place, PREPROCESS, "text_cols")
            by_template = dataset.pre_process_data_config.text_template is not None
            if self._refuse_if(check_files, dataset, files):
                self._refuse_if(check_columns, dataset, template if by_template else named)

    def _refuse_if(self, check: Callable[[Dataset], None], dataset: Dataset, place: Place) -> bool:
        """Return whether `check` finds nothing; a fault that it finds is told at `place`."""
        try:
            check(dataset)
        except DrupeError as fault:
            self._fault(place, fault.what, fault.remedy)
            return False
        return True

    def _filled_in(self, place: Place, schema: type[BaseModel]) -> None:
        for written, remedy in filled_in(self._at(place), schema, place):
            self._fault(written, "is filled in by drupe, not written", remedy)

    def _warn(self, found: Iterator[tuple[Place, str]]) -> None:
        known = {said.text for said in self.notes}
        lines = told(found, self._root, self._file.name)
        self.notes += [Said(line, "warning") for line in lines if line not in known]

    def _resolve_data_configs(
        self, entry: Map, fields: dict[str, Any], place: Place, datasets: dict[str, Place]
    ) -> bool:
        """Put what a field ending in data_config names in its place; return whether all exist."""
        for key, name in fields.items():
            if not (key.endswith("data_config") and isinstance(name, str)):
                continue
            if name not in datasets:
                self._fault(
                    (*place, key),
                    f'names no data config: "{name}"{nearest(name, datasets)}',
                    f"Known: {', '.join(datasets) or 'none'}.",
                )
                return False
            # In the tree as well: faults below are then told where they were written.
            fields[key] = entry[key] = self._at(datasets[name])
        return True

    def _at(self, place: Place) -> Any:
        value: Any = self._root
        for step in place:
            if isinstance(value, Map) and step in value:
                value = value[str(step)]
            elif isinstance(value, Items) and isinstance(step, int):
                value = value[step]
            else:
                return None
        return value

    def _fault(self, place: Place, what: str, remedy: str) -> None:
        origin = origin_of(self._root, place)
        path = origin.path if self._at(place) is not None else ".".join(map(str, place))
        self.faults.append(Fault(f"{self._file.name}:{origin.line}", f"{path} {what}", remedy))
