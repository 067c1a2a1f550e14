"""What lies on the Hugging Face Hub: pinned to a commit, offline first.

The files that are here already are used without asking the network.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drupe.core.errors import DrupeError, Refused
from drupe.core.model import HUB, MODEL_FILES, MORE_TEMPLATES, PICKLES, check_kind

# In the Hub's patterns a * goes into folders too. Of folders only the templates are the model's.
HUB_FILES: dict[str, list[str]] = {
    "allow_patterns": [*MODEL_FILES, f"{MORE_TEMPLATES}/*.jinja"],
    "ignore_patterns": [
        *(f"*{suffix}" for suffix in PICKLES),
        *(f"*/{pattern}" for pattern in MODEL_FILES if pattern != "*.jinja"),
    ],
}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Asked:
    """A name on the Hub. where: the field that has it. files: which, in huggingface_hub's words.

    instead: what else the name might have been ("a folder (/data/x)"). revision_field: as where.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    where: str
    revision_field: str
    instead: str
    files: Mapping[str, list[str]]


def snapshot(asked: Asked, check: Callable[[Path], None], token: str | None = None) -> Path:
    """Return the folder of its files, named by the commit; downloads what is not here.

    check: raises Refused for a folder that is not whole. token: None is that of the environment or
    of the login. Raises Refused for a name or a revision that the Hub does not have, DrupeError
    where it cannot be reached.
    """
    hub = _library()
    path = snapshot_here(asked, check)
    if path is not None:
        return path
    path = _downloaded(hub, asked, {**_wanted(asked), "token": token})
    check(path)
    return path


def snapshot_here(asked: Asked, check: Callable[[Path], None]) -> Path | None:
    """Return the folder of its files if they are here and whole; asks nobody."""
    hub = _library()
    try:
        path = Path(hub.snapshot_download(asked.name, local_files_only=True, **_wanted(asked)))
        check(path)
    except hub.errors.HFValidationError as fault:
        raise no_name(asked) from fault
    except (hub.errors.LocalEntryNotFoundError, Refused):
        return None  # not here, or not whole
    return path


def _wanted(asked: Asked) -> dict[str, Any]:
    return {"revision": asked.revision, "repo_type": asked.kind, **asked.files}


@dataclass(frozen=True)
class Described:
    """A model that is fetched elsewhere. files: {name: size}. folder: its small files, if shown."""

    commit: str
    files: dict[str, int]
    folder: Path | None


def described(asked: Asked) -> Described:
    """Return what the Hub tells of a model, and its files but for the weights."""
    hub = _library()
    about = _asked(
        hub, asked, lambda: hub.model_info(asked.name, revision=asked.revision, files_metadata=True)
    )
    sizes = {each.rfilename: each.size or 0 for each in about.siblings or ()}
    names = list(hub.utils.filter_repo_objects(sizes, **asked.files))
    small = [name for name in names if not name.endswith(".safetensors")]
    wanted = {"revision": about.sha, "repo_type": asked.kind, "allow_patterns": small}
    try:
        folder = Path(hub.snapshot_download(asked.name, **wanted))
    except hub.errors.GatedRepoError:
        folder = None
    return Described(about.sha, {name: sizes[name] for name in names}, folder)


def fetched(source: str, token: str | None) -> Path:
    """Return the folder of "hub:OWNER/NAME@COMMIT", in a job that runs where it is needed."""
    name, _, commit = source.removeprefix(HUB).partition("@")
    asked = Asked("model", name, commit, source, source, "model of the Hub", HUB_FILES)
    return snapshot(asked, lambda folder: check_kind("hf", folder), token)


def no_name(asked: Asked) -> Refused:
    """Return the error for what cannot be a name on the Hub."""
    what = f'"{asked.name}" is no {asked.instead}, and no name on the Hub ("owner/name")'
    return Refused(asked.where, what, "Give the folder of the model.")


def _downloaded(hub: Any, asked: Asked, wanted: dict[str, Any]) -> Path:
    """Return the folder of the files, asking the Hub; what is here is kept."""
    return Path(_asked(hub, asked, lambda: hub.snapshot_download(asked.name, **wanted)))


def _asked(hub: Any, asked: Asked, call: Callable[[], Any]) -> Any:
    """Return what a call of the Hub's library gives; what goes wrong is told in three parts."""
    try:
        return call()
    except hub.errors.RepositoryNotFoundError as fault:
        kind = "model" if asked.kind == "model" else "data set"
        raise Refused(
            asked.where,
            f'"{asked.name}" is neither a {asked.instead} nor a {kind} that the Hub shows you',
            f"Mend the name; for a gated or private {kind} set HF_TOKEN.",
        ) from fault
    except hub.errors.RevisionNotFoundError as fault:
        raise Refused(
            asked.revision_field,
            f'is "{asked.revision}", which "{asked.name}" does not have',
            "Name a branch, a tag or a commit of it.",
        ) from fault
    except OSError as fault:  # of the network and of the disk; the Hub's own errors are such too
        partly = type(fault).__name__ == "IncompleteSnapshotError"  # of later versions alone
        here = "is here in part only" if partly else f"is no {asked.instead}"
        raise DrupeError(
            asked.where,
            f'"{asked.name}" {here}, and the Hub cannot be reached: {_reason(fault)}',
            "Give what lies here, or connect and run again: what is here is kept.",
        ) from fault


def _reason(fault: BaseException) -> str:
    """Return in a few words what went wrong first; the Hub's library wraps it in advice."""
    told: BaseException | None = fault
    while told is not None:
        fault, told = told, told.__cause__ or told.__context__
        if type(fault).__name__ == "OfflineModeIsEnabled":
            return "HF_HUB_OFFLINE is set"
    status = getattr(getattr(fault, "response", None), "status_code", None)
    if status is not None:
        return f"it answers with the status {status}"
    return (str(fault).strip().partition("\n")[0] or type(fault).__name__)[:100]


def _library() -> Any:
    """Return huggingface_hub, asked for only where a name on the Hub is used."""
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as fault:
        raise Refused(
            "huggingface_hub", "is not installed", 'pip install "drupe[finetune]"'
        ) from fault
