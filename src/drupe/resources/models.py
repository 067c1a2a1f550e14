"""Where the input model comes from: a local folder, or a name on the Hugging Face Hub.

A Hub name is pinned to the commit that it stands for; the files that are here already are used
without asking the network (offline first).
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.digest import DigestMemo, value_digest
from drupe.core.errors import DrupeError, Refused
from drupe.core.files import files_below
from drupe.core.model import Model, check_kind

# What of a checkpoint's folder is the model; caches, pictures and pickles beside it are not.
MODEL_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".py")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = [f"*{suffix}" for suffix in MODEL_SUFFIXES]


@dataclass(frozen=True)
class Located:
    """An input model that was found: what it is, what it is called, and the Hub's commit."""

    model: Model
    name: str
    revision: str | None = None


def locate(
    name: str, folder: Path, revision: str | None, remote_code: bool, digests: DigestMemo
) -> Located:
    """Return the model that `name` stands for, relative to the config's `folder`.

    Raises Refused when it is neither a folder nor a name that the Hub could know, DrupeError
    when the Hub cannot be reached or knows no such model.
    """
    local = (folder / name).resolve()
    if local.is_dir():
        check_kind_of_checkpoint(local)
        digest = digests.folder(local, model_files(local))
        return Located(Model("hf", local, digest, remote_code=remote_code), local.name)
    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise Refused(
            "input_model.model_path",
            f'"{name}" is no folder ({local}), and no name on the Hub ("owner/name")',
            "Give the folder of the model.",
        )
    path, commit = _from_hub(name, revision, local)
    digest = value_digest(["hub", name, commit])
    return Located(Model("hf", path, digest, remote_code=remote_code), name, commit)


def locate_adapter(name: str, folder: Path, base: Model, digests: DigestMemo) -> Model:
    """Return the adapter in the folder `name` as a model on `base`."""
    local = (folder / name).resolve()
    check_kind("hf-adapter", local)
    return Model(
        "hf-adapter", local, digests.folder(local, model_files(local)), base, base.remote_code
    )


def locate_files(name: str, folder: Path, digests: DigestMemo) -> Located:
    """Return a folder of any files as a model."""
    local = (folder / name).resolve()
    check_kind("files", local)
    return Located(Model("files", local, digests.folder(local, files_below(local))), local.name)


def architectures(model: Model) -> list[str]:
    """Return the class names that a checkpoint's config.json gives (of an adapter: its base)."""
    try:
        config = json.loads(((model.base or model).path / "config.json").read_text())
    except (OSError, ValueError):
        return []
    return [str(name) for name in config.get("architectures") or []]


def model_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's folder that are the model, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in MODEL_SUFFIXES
    )


def check_kind_of_checkpoint(folder: Path) -> None:
    """Refuse a folder that is no checkpoint, with the remedy if it holds a pickle."""
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickles and not any(folder.glob("*.safetensors")):
        raise Refused(
            str(folder),
            f"holds its weights as a pickle ({pickles[0].name}), which can run any code",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder) writes safetensors.",
        )
    check_kind("hf", folder)


def _from_hub(name: str, revision: str | None, local: Path) -> tuple[Path, str]:
    """Return the folder of a Hub model's files and its commit, downloading what is not here."""
    hub = _hub_library()
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": HUB_FILES}
    try:
        path = Path(hub.snapshot_download(name, local_files_only=True, **wanted))
        check_kind_of_checkpoint(path)
    except (hub.errors.LocalEntryNotFoundError, DrupeError):
        try:
            path = Path(hub.snapshot_download(name, **wanted))
        except hub.errors.RepositoryNotFoundError as fault:
            raise Refused(
                "input_model.model_path",
                f'"{name}" is neither a folder ({local}) nor a model that the Hub shows you',
                "Mend the name; for a gated or private model set HF_TOKEN.",
            ) from fault
        except (OSError, hub.errors.HfHubHTTPError, hub.errors.OfflineModeIsEnabled) as fault:
            raise DrupeError(
                "input_model.model_path",
                f'"{name}" is no folder ({local}), and the Hub cannot be reached: {fault}',
                "Give a local folder, or connect.",
            ) from fault
        check_kind_of_checkpoint(path)
    return path, path.name  # a snapshot's folder is named by its commit


def _hub_library() -> Any:
    """Return huggingface_hub, asked for only where a name on the Hub is used."""
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as fault:
        raise Refused(
            "huggingface_hub", "is not installed", 'pip install "drupe[finetune]"'
        ) from fault
