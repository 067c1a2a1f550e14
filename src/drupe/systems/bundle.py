"""A batch made ready to travel: one folder with its steps, its small files and drupe's own code.

    batch.json      the steps in their order; each path in it begins with where it lies
    files/N/NAME    what the fields of the steps name: data, scripts
    wheels/         drupe and its plug-ins, as they are installed here

    a path in batch.json       is, where the batch runs
    bundle/...                 below this folder
    inputs/NAME                a model, brought there by the executor
    results/KEY                the result of an earlier step of the batch

No path of this machine, and no secret, is in it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from drupe.catalog import find
from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.core.operation import Operation
from drupe.core.step import StepSpec
from drupe.systems.code import write_wheels

FORMAT = 1
BUNDLE, INPUTS, RESULTS = "bundle", "inputs", "results"


@dataclass
class Bundle:
    """What travels. folder: with what is described above.

    inputs: {name: a model's folder here, or its address (azureml://...) where it lies elsewhere}.
    """

    folder: Path
    inputs: dict[str, Path | str] = field(default_factory=dict)


def pack(batch: Batch, folder: Path, preload: tuple[str, ...] = ()) -> Bundle:
    """Write `batch` into the empty `folder`, the models of which are the bundle's inputs.

    preload: what is imported there before the first step.
    """
    packing = _Packing(Bundle(folder))
    steps = [packing.step(spec).to_json() for spec in batch.steps]
    (folder / "wheels").mkdir(parents=True)
    write_wheels(folder / "wheels")
    told = {"format": FORMAT, "preload": list(preload), "steps": steps}
    (folder / "batch.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return packing.bundle


class _Packing:
    """Gives each path of a batch its place in the bundle, each file and model once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._files: dict[Path, Path] = {}
        self._models: dict[Path, Path] = {}

    def step(self, spec: StepSpec) -> StepSpec:
        operation: type[Operation] = find(spec.group, spec.operation)
        declared = operation.model_validate_json(json.dumps(spec.fields))
        moved = declared.relocated(self._file)
        return replace(
            spec,
            fields=json.loads(moved.model_dump_json()),
            models=tuple(map(self._model, spec.models)),
        )

    def _file(self, path: Path) -> Path:
        if path not in self._files:
            place = PurePosixPath("files", str(len(self._files)), path.name)
            copy = self.bundle.folder / place
            copy.parent.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copyfile(path, copy)
            self._files[path] = Path(BUNDLE) / place
        return self._files[path]

    def _model(self, model: Model) -> Model:
        base = self._model(model.base) if model.base else None
        if model.step is not None:
            return replace(model, path=Path(RESULTS, model.step), base=base)
        if model.path not in self._models:
            name = f"model{len(self._models)}"
            self.bundle.inputs[name] = model.path
            self._models[model.path] = Path(INPUTS, name)
        return replace(model, path=self._models[model.path], base=base)
