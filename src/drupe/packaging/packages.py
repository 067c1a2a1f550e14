"""`engine.packaging_config`: the delivered model once more, as a zip, for an image, for MLflow.

    OUTPUT/NAME.zip   model/... (or mlflow_model/...), report.html, report.json, config.lock.json,
                      requirements.txt, app.py
    OUTPUT/NAME/      Dockerfile, requirements.txt, app.py, model/...
    OUTPUT/NAME/      MLmodel, conda.yaml, ..., data/model/...
    OUTPUT/NAME/      what goes to AzureML (see `azureml.py`)

A package carries a stamp, the digest of what is in it, by which it is left alone where it is
whole and up to date.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.config.packages import PackageConfig
from drupe.core.digest import file_digest, value_digest
from drupe.core.errors import Refused
from drupe.core.files import (
    LINK_FROM_BYTES,
    files_below,
    folder_in_place_of,
    link_if_large,
    write_atomic,
)
from drupe.outcome import Outcome, Stage
from drupe.packaging.archive import Content, check_name, size_of, stamp_of_zip, write_zip
from drupe.packaging.companions import COMPANIONS, VERIFY, program
from drupe.packaging.container import dockerfile
from drupe.packaging.mlflow import DATA, PROGRAMS, mlflow_files
from drupe.packaging.requirements import OF_KINDS, requirements
from drupe.plan import Plan

FORMAT = 1
MARK = "drupe-package.json"
CARD = "README.md"
RECORDS = ("report.html", "report.json", "config.lock.json")
FIELD = "engine.packaging_config"
APPS = {"onnx-genai": "app_genai.py", "hf": "app_transformers.py"}
MADE = {
    "Zipfile": "a zip",
    "Dockerfile": "a folder for docker build; no image was built",
    "MLflow": "an MLflow model",
    "AzureMLModels": "a model for AzureML",
    "AzureMLData": "data for AzureML",
    "AzureMLDeployment": "a deployment for AzureML",
}


def refuse_packages(planned: Plan, folder: Path, model: Path) -> None:
    """Refuse packages of what is not packed so, and those that would take another's place.

    folder: the output folder. model: where the model is delivered.
    """
    kinds = [step.operation.gives for step in planned.steps if step.role == "pass"]
    names: set[str] = set()
    for index, package in enumerate(planned.workflow.engine.packaging_config):
        where = f"{FIELD}[{index}]"
        place = folder / package.file_name
        if not kinds:
            raise Refused(
                where, "packs a result, and there is no pass that makes one", "Leave it out."
            )
        if package.file_name in names or model.is_relative_to(place):
            raise Refused(
                where,
                f'is called "{package.name}", as another thing in {folder}',
                "Give it another name.",
            )
        names.add(package.file_name)
        _refuse_kind(where, package, kinds[-1], planned)
        if package.is_sent:
            _azureml().refuse(where, package, kinds[-1], planned.workflow)
        if place.exists() and _stamp(package, place) is None and not _is_empty(place):
            raise Refused(
                str(place),
                "is there, and is no whole package that drupe has written",
                f"Move it away, or give {where} another name.",
            )


def _refuse_kind(where: str, package: PackageConfig, kind: str, planned: Plan) -> None:
    as_mlflow = package.type == "MLflow" or package.export_in_mlflow_format
    if as_mlflow and kind not in PROGRAMS:
        known = " or ".join(PROGRAMS)
        raise Refused(
            where,
            f"asks for MLflow's format, which is there for {known}; the last pass gives {kind}",
            "Merge and export the model, or pack it as a zip.",
        )
    target = planned.workflow.target
    if package.type == "Dockerfile" and (kind != "onnx-genai" or target.short_provider != "cpu"):
        raise Refused(
            where,
            "asks for a Dockerfile, which is there for onnx-genai on the CPU; the last pass "
            f"gives {kind} for {target.provider}",
            "Pack it as a zip, and write the image of your device around that.",
        )


def write_packages(outcome: Outcome, folder: Path, note: Callable[[str], None]) -> None:
    """Write what `packaging_config` asks for into the output folder, as far as it is not there."""
    written: list[PackageConfig] = []
    for package in outcome.plan.workflow.engine.packaging_config:
        if outcome.path is None:
            continue
        place = folder / package.file_name
        content = contents(package, outcome, folder)
        stamp = _stamp_of(content, outcome.final.model.digest)
        if _stamp(package, place) != stamp or not (place.is_file() or _is_whole(place, content)):
            if package.type == "Zipfile":
                write_zip(place, content, stamp)
            else:
                write_folder(place, content, stamp)
            note(f"{package.file_name}: {MADE[package.type]}.")
            written.append(package)
        if package.is_sent:
            planned = outcome.plan
            device = planned.workflow.target.device
            _azureml().send(package, place, stamp, device, planned.workflow, note)
    if (
        any(package.include_runtime_packages and not package.is_sent for package in written)
        and outcome.final.kind in OF_KINDS
    ):
        note(
            "requirements.txt names the versions that run it; no wheel was fetched "
            "(pip download -r requirements.txt does)."
        )


def contents(package: PackageConfig, outcome: Outcome, folder: Path) -> dict[str, Content]:
    """Return {name in the package: file or bytes} of all that is in it."""
    stage, target = outcome.final, outcome.plan.workflow.target
    assert outcome.path is not None
    # What was delivered and nothing else: a user's own files in the folder stay where they are.
    source = stage.model.path
    names = [file.relative_to(source).as_posix() for file in files_below(source)]
    names += [name for name in (*COMPANIONS, CARD) if (outcome.path / name).is_file()]
    model: dict[str, Content] = {name: outcome.path / name for name in names}
    lines = requirements(stage.kind, target) if stage.kind in OF_KINDS else []
    needed = {"requirements.txt": "".join(f"{line}\n" for line in lines).encode()}
    app = {"app.py": program(APPS[stage.kind])} if stage.kind in APPS else {}
    records: dict[str, Content] = {name: folder / name for name in RECORDS}
    found: dict[str, Content] = {}
    if package.is_sent:
        return _sent(package, stage, lines, model)
    if package.type == "MLflow" or package.export_in_mlflow_format:
        top = "" if package.type == "MLflow" else "mlflow_model/"
        files = mlflow_files(stage.kind, stage.model.digest, lines)
        files |= {f"{DATA}/{name}": file for name, file in model.items()}
        found |= {f"{top}{name}": content for name, content in files.items()}
    else:
        found |= {f"model/{name}": file for name, file in model.items()}
    if package.type == "Dockerfile":
        found["Dockerfile"] = dockerfile(package.name, has_verify=VERIFY in model)
    if package.type != "MLflow":
        found |= needed if package.include_runtime_packages and lines else {}
        found |= app if package.include_sample_code else {}
    return found | records


def _sent(
    package: PackageConfig, stage: Stage, lines: list[str], model: dict[str, Content]
) -> dict[str, Content]:
    """Return {name: file or bytes} of what goes to AzureML: the model itself, no report of it."""
    if package.export_in_mlflow_format:
        files = mlflow_files(stage.kind, stage.model.digest, lines)
        model = {**files, **{f"{DATA}/{name}": file for name, file in model.items()}}
    if package.type != "AzureMLDeployment":
        return model
    deployed = {f"model/{name}": file for name, file in model.items()}
    files = _azureml().deployment_files(package, stage.kind, lines)
    return {**deployed, **files}


def _azureml() -> Any:
    """Return what sends to AzureML; few configs ask for it, and each run pays for an import."""
    return importlib.import_module("drupe.packaging.azureml")


def write_folder(destination: Path, content: Mapping[str, Content], stamp: str) -> None:
    """Write {name: file or bytes} as a folder that carries `stamp`; it is whole or as it was."""
    with folder_in_place_of(destination) as staging:
        for name, each in content.items():
            check_name(name)
            if isinstance(each, bytes):
                write_atomic(staging / name, each)
            else:
                link_if_large(each, staging / name)
        mark = {"drupe": FORMAT, "stamp": stamp}
        write_atomic(staging / MARK, json.dumps(mark).encode() + b"\n")


def _stamp_of(content: Mapping[str, Content], digest: str) -> str:
    """Return the digest of what is in a package.

    Large files are the model's own: the digest of the model stands for them, so that nobody
    reads gigabytes to learn that there is nothing to do.
    """
    listed = {}
    for name, each in content.items():
        if isinstance(each, bytes):
            mark = value_digest(each.hex())
        else:
            mark = digest if size_of(each) >= LINK_FROM_BYTES else file_digest(each)
        listed[name] = [size_of(each), mark]
    return value_digest([FORMAT, listed])


def _stamp(package: PackageConfig, place: Path) -> str | None:
    """Return the stamp of a package that drupe has written at `place`, or None."""
    if package.type == "Zipfile":
        return stamp_of_zip(place)
    try:
        mark = json.loads((place / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(mark["stamp"]) if isinstance(mark, dict) and mark.get("drupe") == FORMAT else None


def _is_whole(place: Path, content: Mapping[str, Content]) -> bool:
    """Return whether a folder still has all its files in their sizes."""
    return all(
        (place / name).is_file() and (place / name).stat().st_size == size_of(each)
        for name, each in content.items()
    )


def _is_empty(place: Path) -> bool:
    return place.is_dir() and not any(place.iterdir())
