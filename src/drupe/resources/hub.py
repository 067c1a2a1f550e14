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


def snapshot(asked: Asked, check: Callable[[Path], None]) -> Path:
    """Return the folder of its files, named by the commit; downloads what is not here.

    check: raises Refused for a folder that is not whole. Raises Refused for a name or a revision
    that the Hub does not have, DrupeError where it cannot be reached.
    """
    hub = _library()
    wanted: dict[str, Any] = {
        "revision": asked.revision,
        "repo_type": asked.kind,
        **asked.files,
    }
    try:
        path = Path(hub.snapshot_download(asked.name, local_files_only=True, **wanted))
        check(path)
    except hub.errors.HFValidationError as fault:
        raise no_name(asked) from fault
    except (hub.errors.LocalEntryNotFoundError, Refused):
        pass  # not here, or not whole
    else:
        return path
    path = _downloaded(hub, asked, wanted)
    check(path)
    return path


def no_name(asked: Asked) -> Refused:
    """Return the error for what cannot be a name on the Hub."""
    what = f'"{asked.name}" is no {asked.instead}, and no name on the Hub ("owner/name")'
    return Refused(asked.where, what, "Give the folder of the model.")


def _downloaded(hub: Any, asked: Asked, wanted: dict[str, Any]) -> Path:
    """Return the folder of the files, asking the Hub; what is here is kept."""
    try:
        return Path(hub.snapshot_download(asked.name, **wanted))
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
