"""A batch made ready to travel: one folder with its steps, its small files and drupe's own code.

    batch.json      the steps in their order; each path in it begins with where it lies
    files/N/NAME    what the fields of the steps name: data, scripts
    wheels/         drupe and its plug-ins, as they are installed here

    a path in batch.json       is, where the batch runs
    bundle/...                 below this folder
    inputs/NAME                a model, brought there by the executor; or data that lie elsewhere
    results/KEY                the result of an earlier step of the batch

What batch.json names under "fetch" is a model of the Hub, under "urls" what lies at a public URL:
the batch itself fetches them into its inputs. No path of this machine, and no secret, is in it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from drupe.catalog import find
from drupe.core.dataset import Dataset
from drupe.core.executor import Batch
from drupe.core.model import HUB, Model
from drupe.core.operation import Operation
from drupe.core.resource import Remote
from drupe.core.step import StepSpec
from drupe.systems.code import write_wheels

FORMAT = 1
BUNDLE, INPUTS, RESULTS = "bundle", "inputs", "results"


@dataclass
class Bundle:
    """What travels. folder: with what is described above.

    inputs: {name: a folder here, or an address: a registered model's, else one of a folder if it
    ends in "/", and of a file if not}. fetch: {name: "hub:OWNER/NAME@COMMIT"}. urls: {name: a
    URL, and what its content was known by when the batch was planned}.
    """

    folder: Path
    inputs: dict[str, Path | str] = field(default_factory=dict)
    fetch: dict[str, str] = field(default_factory=dict)
    urls: dict[str, tuple[str, str]] = field(default_factory=dict)


def pack(batch: Batch, folder: Path, preload: tuple[str, ...] = (), code: bool = True) -> Bundle:
    """Write `batch` into the empty `folder`, the models of which are the bundle's inputs.

    preload: what is imported there before the first step. code: whether the wheels are needed.
    """
    packing = _Packing(Bundle(folder))
    steps = [packing.step(spec).to_json() for spec in batch.steps]
    if code:
        (folder / "wheels").mkdir(parents=True)
        write_wheels(folder / "wheels")
    bundle = packing.bundle
    there = {"fetch": bundle.fetch, "urls": bundle.urls}
    told = {"format": FORMAT, "preload": list(preload), **there, "steps": steps}
    (folder / "batch.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return bundle


class _Packing:
    """Gives each path of a batch its place in the bundle, each file and model once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._files: dict[Path, Path] = {}
        self._inputs: dict[Path | str, Path] = {}

    def step(self, spec: StepSpec) -> StepSpec:
        operation: type[Operation] = find(spec.group, spec.operation)
        declared = operation.model_validate_json(json.dumps(spec.fields))
        moved = self._with_rows(declared).relocated(self._file)
        return replace(
            spec,
            fields=json.loads(moved.model_dump_json()),
            models=tuple(map(self._model, spec.models)),
        )

    def _with_rows(self, operation: Operation) -> Operation:
        """Return an operation that finds its data sets, those that are not here among the inputs.

        Who asks for them does not travel.
        """
        update = {}
        for name in type(operation).model_fields:
            value = getattr(operation, name)
            if not isinstance(value, Dataset):
                continue
            source = value.load_dataset_config
            if isinstance(source.data_files, Remote):
                files = source.data_files
                known = str(files.identity) if files.is_public else None
                there = source.fetched or self._input("data", files.source, known)
                files = files.model_copy(update={"azureml_client": None})
                given = source.model_copy(update={"data_files": files, "fetched": there})
                update[name] = value.model_copy(update={"load_dataset_config": given})
        return operation.model_copy(update=update)

    def _file(self, path: Path) -> Path:
        if path.is_relative_to(INPUTS):
            return path
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
        path = self._input("model", model.source or model.path)
        return replace(model, path=path, base=base, source=None)

    def _input(self, kind: str, place: Path | str, known: str | None = None) -> Path:
        """Return where a model's folder, or what lies at an address, is to be, each once.

        known: what a public URL's content is known by.
        """
        if place not in self._inputs:
            name = f"{kind}{len(self._inputs)}"
            self._inputs[place] = Path(INPUTS, name)
            if isinstance(place, str) and place.startswith(HUB):
                self.bundle.fetch[name] = place
            elif isinstance(place, str) and known is not None:
                self.bundle.urls[name] = (place, known)
            else:
                self.bundle.inputs[name] = place
        return self._inputs[place]
