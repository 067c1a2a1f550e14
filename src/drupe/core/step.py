"""A step is a pure function of files: this file is what every system runs, wherever it is.

    drupe step --spec step.json --out DIR

The spec holds the operation by name, its fields, its input models and the threads; nothing of
the machine that planned it is needed beside the files that it names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drupe.core.errors import DrupeError, PassRefused, Refused
from drupe.core.job import Job
from drupe.core.libraries import HERE, PINNED, Environment
from drupe.core.model import Model
from drupe.core.operation import Metric, Operation, Pass

FORMAT = 2


@dataclass(frozen=True)
class StepSpec:
    """All that a worker has to know. `models` is (input,) or (input, reference).

    libraries: the versions that the key names, where they are known; others are refused.
    """

    key: str
    group: str  # "passes" or "metrics": the table in which `operation` is looked up
    operation: str
    fields: dict[str, Any]
    models: tuple[Model, ...]
    threads: int
    libraries: Mapping[str, str | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return {
            "format": FORMAT,
            "key": self.key,
            "group": self.group,
            "operation": self.operation,
            "fields": self.fields,
            "models": [model.to_json() for model in self.models],
            "threads": self.threads,
            "libraries": dict(self.libraries),
        }

    @classmethod
    def read(cls, file: Path) -> StepSpec:
        """Return the spec in `file`; raises DrupeError when it is of another format."""
        value = json.loads(file.read_text(encoding="utf-8"))
        if value.get("format") != FORMAT:
            raise DrupeError(
                str(file),
                f"is of format {value.get('format')}, this drupe reads {FORMAT}",
                "Run the step with the drupe that planned it.",
            )
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StepSpec:
        """Return the spec that `to_json` wrote."""
        return cls(
            key=value["key"],
            group=value["group"],
            operation=value["operation"],
            fields=value["fields"],
            models=tuple(Model.from_json(model) for model in value["models"]),
            threads=value["threads"],
            libraries=value["libraries"],
        )


def check_libraries(spec: StepSpec, environment: Environment) -> None:
    """Raise Refused unless the libraries here are those that the step's key names."""
    for library, planned in spec.libraries.items():
        found = environment.version(library)
        if planned is not None and not planned.startswith(PINNED) and found != planned:
            raise Refused(
                spec.operation,
                f"was planned with {library} {planned}, and runs where there is {found or 'none'}",
                "Install that version where the steps run, or plan with what is there.",
            )


def execute(
    spec: StepSpec, find: Callable[[str, str], type[Operation]], out: Path, job: Job
) -> None:
    """Do the step into the folder `out`.

    `find(group, name)` gives the class of the operation: the catalog's look-up.
    """
    operation = find(spec.group, spec.operation).model_validate_json(json.dumps(spec.fields))
    check_libraries(spec, HERE)
    out.mkdir(parents=True, exist_ok=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    if isinstance(operation, Pass):
        try:
            operation.apply(spec.models[0], out, job)
        except Refused as fault:
            raise PassRefused(fault.where, fault.what, fault.remedy) from fault
    elif isinstance(operation, Metric):
        reference = spec.models[1] if len(spec.models) > 1 else None
        operation.apply(spec.models[0], reference, out, job)
    else:
        raise TypeError(f"{spec.operation} is neither a pass nor a metric")
