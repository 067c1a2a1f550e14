"""The sections of one upgraded config, each checked; faults are collected, none is raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from drupe.catalog import SYSTEMS
from drupe.config.document import Document
from drupe.config.effects import idle_of_model, told, unused_host
from drupe.config.faults import Place
from drupe.config.lints import lints, unready
from drupe.config.operations import Operations
from drupe.config.placeholders import unused
from drupe.config.schema import EngineConfig, InputModel, Said, Workflow
from drupe.config.search import goals_checked, kind_of_input, search_of
from drupe.config.source import Items, Map, lines_of
from drupe.config.target import Systems, choose, findings, host, measures, notes
from drupe.config.workspace import completed, find_workspace
from drupe.core.dataset import Dataset
from drupe.core.errors import Refused, nearest
from drupe.core.operation import Operation
from drupe.core.resource import AzureMLClient
from drupe.core.system import System
from drupe.core.target import Target

SECTIONS = (
    *("input_model", "data_configs", "systems", "evaluators", "passes", "engine"),
    "azureml_client",
)
HARMLESS = ("$schema", "workflow_id")
LOCAL = "local"  # this machine, whatever the config describes


class Reader:
    """Reads a config whose words are ours."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def workflow(
        self, file: Path, system: str | None, target: str | None, output: str | None
    ) -> Workflow | None:
        """Return the workflow, or None when a section has faults."""
        self._check_sections()
        document = self._document
        raw, lines = json.loads(json.dumps(document.root)), lines_of(document.root)
        engine = document.section(EngineConfig, ("engine",)) or EngineConfig()
        if output is not None:
            engine = engine.model_copy(update={"output_dir": str(Path(output).resolve())})
        model = document.section(InputModel, ("input_model",), required=True)
        if model is not None:
            document.warn(idle_of_model(model, document.folder))
        document.section(AzureMLClient, ("azureml_client",))
        workspace = find_workspace(document.root, document.folder)
        systems = {
            name: each.in_workspace(self._own_workspace(each) or workspace.client)
            for name, each in self._systems().items()
        }
        operations = Operations(document)
        chosen = self._target(engine, systems, system, target)
        open_passes, passes = operations.passes(chosen, systems, system)
        metrics = operations.metrics(engine, chosen)
        goals_checked(document, engine, metrics)
        search = None
        if model is not None:
            kind = kind_of_input(model)
            search = search_of(document, engine, open_passes, operations.choices, metrics, kind)
        hosts = (host(engine, systems, system), measures(engine, systems, system))
        names = [
            (each.host or hosts[0]).name for entry in open_passes for each in entry.alternatives
        ]
        names += [hosts[1].name] if engine.evaluate != "none" else []
        used = [name for name in dict.fromkeys(names) if name in systems]
        document.warn(lints(document.root, systems, used))
        document.notes += map(Said, told(unused(document.root, used), document.root))
        if document.faults or model is None:
            return None
        read: list[Operation] = [
            *(each.step for each in passes),
            *(each.metric for each in metrics),
        ]
        data = {name for each in read for name in _data_of(each)}
        return Workflow(
            file=str(file),
            input_model=model,
            passes=tuple(passes),
            metrics=tuple(metrics),
            engine=engine,
            target=chosen,
            host=hosts[0],
            measures=hosts[1],
            workspace=workspace,
            raw=raw,
            lines=lines,
            notes=(),
            search=search,
            unready=tuple(unready(document.root, systems, used, data, workspace)),
        )

    def _check_sections(self) -> None:
        for key in self._document.root:
            if key not in SECTIONS and key not in HARMLESS:
                self._document.fault(
                    (key,),
                    f"is unknown{nearest(key, SECTIONS)}",
                    f"Known here: {', '.join(SECTIONS)}.",
                )

        self._document.keep_maps(("data_configs",), Items)
        for name in ("systems", "evaluators", "passes"):
            self._document.keep_maps((name,), Map, listed=name == "passes")
        for name in self._document.at(("evaluators",)) or ():
            self._document.keep_maps(("evaluators", name, "metrics"), Items)

    def _systems(self) -> dict[str, System]:
        found = {}
        for name, value in (self._document.at(("systems",)) or {}).items():
            place: Place = ("systems", name)
            kind = value.get("type")
            if isinstance(kind, str) and kind in SYSTEMS.names():
                system = self._document.section(SYSTEMS.find(kind), place)
                if isinstance(system, System):
                    found[name] = system
            else:
                what = "is missing"
                if kind is not None:
                    near = nearest(str(kind), SYSTEMS.names())
                    what = f"is {json.dumps(kind)}, which this version does not have{near}"
                remedy = f'Write "LocalSystem" (this machine) or {_listed(SYSTEMS.names()[1:])}.'
                self._document.fault((*place, "type"), what, remedy)
        return found

    def _own_workspace(self, system: System) -> AzureMLClient | None:
        """Return the workspace of the file that a system names, if it names a sound one."""
        own = system.client()
        with suppress(Refused):  # "has no workspace" is told where steps are to run there
            found = completed(own, self._document.folder) if own else None
            return found if found and all(found.triple) else None
        return None

    def _target(
        self, engine: EngineConfig, systems: Systems, system: str | None, target: str | None
    ) -> Target:
        if system not in (None, LOCAL, *systems):
            raise Refused(
                "--system",
                f'"{system}" is not there{nearest(str(system), [LOCAL, *systems])}',
                f"Those that are: {_listed([LOCAL, *systems])}.",
            )
        for place, what, remedy in findings(engine, systems):
            self._document.fault(place, what, remedy)
        if target is None:
            self._document.notes += [Said(text, "warning") for text in notes(engine, systems)]
        self._document.warn(unused_host(engine, systems, system, self._document.root))
        return Target() if self._document.faults else choose(engine, systems, target)


def _data_of(operation: Operation) -> Iterator[str]:
    """Yield the names of the data configs that a pass or metric reads."""
    for field in type(operation).model_fields:
        value = getattr(operation, field)
        if isinstance(value, Dataset):
            yield value.name


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
