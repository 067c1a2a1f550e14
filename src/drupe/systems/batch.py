"""The other end of a bundle: its steps done one after the other where it has travelled to.

    drupe batch --bundle DIR --input NAME=DIR ... --results DIR

Each step runs in a child process, as it does at home; what it tells goes on with its key. A
result lies in RESULTS/KEY once its step is "done", and that event holds the digest of each of its
files; what a step printed lies in RESULTS/KEY.log.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drupe.catalog import find
from drupe.core.digest import file_digest
from drupe.core.errors import DrupeError
from drupe.core.executor import Batch
from drupe.core.files import files_below, remove_tree
from drupe.core.model import Model
from drupe.core.operation import Operation
from drupe.core.step import StepSpec
from drupe.resources.mlflow import arrived
from drupe.systems.bundle import BUNDLE, FORMAT, INPUTS, RESULTS
from drupe.systems.follow import Followed
from drupe.systems.local import LocalExecutor

MARK = "drupe-event: "  # begins a line of a job's log that is an event
Send = Callable[[dict[str, Any]], None]


def run_batch(
    bundle: Path, inputs: Mapping[str, Path], results: Path, work: Path, send: Send
) -> bool:
    """Do the steps of a bundle; return whether all are done. The first that fails ends it.

    inputs: {name: folder} of the models, and of data that lie elsewhere. work: a folder of this
    machine for what is on its way. send: is given each event, with "step", the step's key.
    """
    preload = tuple(read_batch(bundle)["preload"])
    with LocalExecutor(preload, name="the job's machine") as executor:
        return run_steps(executor, bundle, inputs, results, work, send)


def run_steps(
    executor: LocalExecutor,
    bundle: Path,
    inputs: Mapping[str, Path],
    results: Path,
    work: Path,
    send: Send,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Do what `run_batch` does by an executor that is there, and may be warm.

    stopped: asked now and then; where it answers True the step is killed, and KeyboardInterrupt
    is raised.
    """
    told = read_batch(bundle)
    places = {BUNDLE: bundle, RESULTS: results}
    places |= {f"{INPUTS}/{name}": arrived(folder) for name, folder in inputs.items()}
    specs = [_located(StepSpec.from_json(step), places) for step in told["steps"]]
    results.mkdir(parents=True, exist_ok=True)
    return all(_done(executor, spec, results, work / spec.key, send, stopped) for spec in specs)


def _done(
    executor: LocalExecutor,
    spec: StepSpec,
    results: Path,
    folder: Path,
    send: Send,
    stopped: Callable[[], bool],
) -> bool:
    """Do a step and tell what became of it; return whether it is done."""
    remove_tree(folder / "out")  # what was half done when its machine died
    (folder / "out").mkdir(parents=True)
    try:
        spec = replace(spec, threads=spec.threads or os.cpu_count() or 1)
        batch = Batch((spec,), lambda key: folder)
        run = Followed(executor, batch, stopped).step(
            spec.key, lambda event: send({**event, "step": spec.key})
        )
    except DrupeError as fault:
        _keep_log(folder, results, spec.key)
        # The client puts the operation's name before the place, as it was put here.
        where = fault.where.removeprefix(f"{spec.operation}, ")
        failed = {"event": "failed", "where": where, "what": fault.what}
        remedy = {} if str(folder) in fault.remedy else {"remedy": fault.remedy}
        send({**failed, **remedy, "step": spec.key})
        return False
    _keep_log(folder, results, spec.key)
    remove_tree(results / spec.key)
    shutil.move(folder / "out", results / spec.key)
    send(
        {
            "event": "done",
            "seconds": run.seconds,
            "peak_bytes": run.peak_bytes,
            "facts": run.facts,
            "machine": run.machine,
            "files": digests(results / spec.key),
            "step": spec.key,
        }
    )
    remove_tree(folder)
    return True


def digests(folder: Path) -> dict[str, str]:
    """Return {relative posix path: content digest} of all files below a folder."""
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files_below(folder)}


def read_batch(bundle: Path) -> dict[str, Any]:
    """Return what batch.json says; raises DrupeError for one of another format."""
    file = bundle / "batch.json"
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if told.get("format") != FORMAT:
        what = f"is of format {told.get('format')}, this drupe reads {FORMAT}"
        raise DrupeError(str(file), what, "Run it with the drupe that packed it.")
    return told


def _located(spec: StepSpec, places: Mapping[str, Path]) -> StepSpec:
    """Return the spec with each of its paths where it lies here."""

    def here(path: Path) -> Path:
        for place, folder in places.items():
            if path.is_relative_to(place):
                return folder / path.relative_to(place)
        return path

    def model(value: Model) -> Model:
        base = model(value.base) if value.base else None
        return replace(value, path=here(value.path), base=base, step=None)

    operation: type[Operation] = find(spec.group, spec.operation)
    declared = operation.model_validate_json(json.dumps(spec.fields)).relocated(here)
    return replace(
        spec,
        fields=json.loads(declared.model_dump_json()),
        models=tuple(map(model, spec.models)),
    )


def _keep_log(folder: Path, results: Path, key: str) -> None:
    log = folder / "log"
    if log.is_file():
        (results / f"{key}.log").write_bytes(log.read_bytes())
