"""A config file read, upgraded and checked: every fault at once, or a `Workflow`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from drupe.catalog import METRICS, PASSES
from drupe.config.faults import Place, faults_of
from drupe.config.olive import upgrade
from drupe.config.schema import (
    AzureMLConfig,
    LocalSystemConfig,
    EngineConfig,
    InputModel,
    NamedMetric,
    NamedPass,
    SystemConfig,
    Workflow,
    provider_of,
)
from drupe.config.source import Items, Map, origin_of, read
from drupe.core.dataset import Dataset
from drupe.core.errors import ConfigError, Fault, Refused, nearest
from drupe.core.operation import Metric, Operation, Pass
from drupe.core.process import usable_cores
from drupe.core.registry import Registry
from drupe.core.target import PROVIDERS, Target

Schema = TypeVar("Schema", bound=BaseModel)
SECTIONS = ("input_model", "data_configs", "systems", "evaluators", "passes", "engine")
HARMLESS = ("$schema", "workflow_id")


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
    notes = upgrade(root)
    reader = _Reader(file, root)
    workflow = reader.workflow(system, target, output)
    if reader.faults:
        raise ConfigError(str(file), dict.fromkeys(reader.faults))
    assert workflow is not None
    said = tuple(f"{file.name}:{note.line}: {note.text}" for note in notes)
    return _with_notes(workflow, said + tuple(reader.notes))


def _with_notes(workflow: Workflow, notes: tuple[str, ...]) -> Workflow:
    return dataclasses.replace(workflow, notes=notes)


class _Reader:
    """Checks the sections of one upgraded config; collects faults instead of raising."""

    def __init__(self, file: Path, root: Map) -> None:
        self._file = file
        self._folder = file.resolve().parent
        self._root = root
        self.faults: list[Fault] = []
        self.notes: list[str] = []

    def workflow(
        self, system: str | None, target: str | None, output: str | None
    ) -> Workflow | None:
        """Return the workflow, or None when a section has faults."""
        self._check_sections()
        engine = self._section(EngineConfig, ("engine",)) or EngineConfig()
        if output is not None:
            engine = engine.model_copy(update={"output_dir": str(Path(output).resolve())})
        model = self._section(InputModel, ("input_model",), required=True)
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
            raw=json.loads(json.dumps(self._root)),
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
        adapter: TypeAdapter[Any] = TypeAdapter(SystemConfig)
        found = {}
        for name, value in (self._at(("systems",)) or {}).items():
            try:
                found[name] = adapter.validate_json(json.dumps(value))
            except ValidationError as error:
                schema = _tagged(adapter, value)
                self.faults += faults_of(
                    error, schema, self._file.name, self._root, ("systems", name)
                )
        return found

    def _datasets(self) -> dict[str, Place]:
        """Return where each data config stands, checking all of them, used or not."""
        found: dict[str, Place] = {}
        for index, value in enumerate(self._at(("data_configs",)) or []):
            place: Place = ("data_configs", index)
            self._section(Dataset, place, required=True)
            name = value.get("name") if isinstance(value, Map) else None
            if name in found:
                self._fault((*place, "name"), f'"{name}" is there twice', "Give each its own name.")
            if isinstance(name, str):
                found[name] = place
        return found

    def _target(
        self, engine: EngineConfig, systems: dict[str, Any], system: str | None, target: str | None
    ) -> Target:
        if system not in (None, "local"):
            raise Refused("--system", f'"{system}" is not there', 'The one that is: "local".')
        for role in ("host", "target"):
            name = getattr(engine, role)
            if name is not None and name not in systems:
                self._fault(
                    ("engine", role),
                    f'names no system: "{name}"{nearest(name, systems)}',
                    f"Known: {', '.join(systems) or 'none'}.",
                )
            elif name and systems[name].type == "AzureML" and role == "host" and not system:
                self._fault(
                    ("engine", role),
                    f'"{name}" is an AzureML system, and steps run on '
                    "this machine only in this version",
                    "Run with --system local.",
                )
        if target is not None:
            return Target(provider=_provider(target), threads=_threads(_provider(target)))
        owner = systems.get(engine.target or "")
        if owner and owner.accelerators:
            provider = provider_of(owner.accelerators[0])
        else:
            provider = (engine.execution_providers or ["CPUExecutionProvider"])[0]
        if provider not in PROVIDERS:
            self._fault(
                ("engine", "target"),
                f"{provider} is not supported{nearest(provider, PROVIDERS)}",
                f"Known: {', '.join(PROVIDERS)}.",
            )
            return Target()
        return Target(provider=provider, threads=_threads(provider))

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
        found = []
        for evaluator, value in evaluators.items():
            for index, entry in enumerate(value.get("metrics", [])):
                place: Place = ("evaluators", evaluator, "metrics", index)
                metric = self._operation(METRICS, place, datasets, target)
                if isinstance(metric, Metric) and evaluator == engine.evaluator:
                    found.append(
                        NamedMetric(entry.get("name", entry["type"]), entry["type"], metric)
                    )
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
        fields = self._fields(entry, place, datasets)
        if fields is None:
            return None
        if "target" in schema.model_fields:
            fields["target"] = target.model_dump()
        try:
            checked: Operation = schema.model_validate_json(
                json.dumps(fields), context={"folder": self._folder}
            )
            return checked
        except ValidationError as error:
            view = _with_fields(self._root, place, fields)
            self.faults += faults_of(error, schema, self._file.name, view, place)
            return None

    def _fields(
        self, entry: Map, place: Place, datasets: dict[str, Place]
    ) -> dict[str, Any] | None:
        """Return the entry's own fields, the names of data configs replaced by what they name."""
        fields: dict[str, Any] = {}
        for key, value in entry.items():
            if key in ("type", "host", "evaluator") or (key == "name" and place[0] == "evaluators"):
                continue
            if key.endswith("data_config") and isinstance(value, str):
                if value not in datasets:
                    self._fault(
                        (*place, key),
                        f'names no data config: "{value}"{nearest(value, datasets)}',
                        f"Known: {', '.join(datasets) or 'none'}.",
                    )
                    return None
                value = self._at(datasets[value])
            fields[key] = value
        return fields

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


def _with_fields(root: Map, place: Place, fields: dict[str, Any]) -> Map:
    """Return a root in which the data configs stand where the entry at `place` names them."""
    entry: Any = root
    for step in place:
        entry = entry[step]
    seen = Map()
    for key, origin in entry.origins.items():
        seen.put(key, fields.get(key, entry[key]), origin)
    view: Map = seen
    for step, owner in reversed([(place[depth], place[:depth]) for depth in range(len(place))]):
        origin = origin_of(root, (*owner, step))
        around: Any = Items() if isinstance(step, int) else Map()
        if isinstance(step, int):
            for _ in range(step + 1):
                around.add(view, origin)
        else:
            around.put(str(step), view, origin)
        view = around
    return view


def _tagged(adapter: TypeAdapter[Any], value: Any) -> type[BaseModel]:
    return AzureMLConfig if value.get("type") == "AzureML" else LocalSystemConfig


def _provider(name: str) -> str:
    short = {short: long for long, (_, short) in PROVIDERS.items()}
    provider = short.get(name.split("-")[-1], name)
    if provider not in PROVIDERS:
        raise Refused(
            "--target",
            f'"{name}" is not a target{nearest(name, short)}',
            f"Known: {', '.join(short)}.",
        )
    return provider


def _threads(provider: str) -> int | None:
    """Threads of the deployed model: as many as this machine has, where it is the target."""
    return usable_cores() if provider == "CPUExecutionProvider" else None
