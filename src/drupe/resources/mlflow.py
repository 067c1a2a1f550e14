"""MLflow folders: a checkpoint in parts, joined by links into the one folder that the passes see.

    MLmodel                      flavours, and where their parts lie
    data/{model,config,tokenizer}         hftransformersv2, hftransformers (AzureML's)
    model/, components/tokenizer          transformers (MLflow's own)

The joined folder is of links alone and lies in the system's temporary folder as long as this
process lives: a plan needs it too, and writes neither beside the model nor into the cache. Its
content is the key, as of any checkpoint, so the same files give the same key, joined or not.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from drupe.core.errors import DrupeError, Refused
from drupe.core.files import files_below, link_softly, remove_tree
from drupe.core.model import model_files
from drupe.resources.checks import check_checkpoint, check_no_pickles

FILE = "MLmodel"
MOST_BYTES = 2**20
AZUREML = ("hftransformersv2", "hftransformers")
FLAVOURS = (*AZUREML, "transformers")
SAVED = "Save the model with its weights and its tokenizer, or give a Hugging Face folder."


def is_mlflow(folder: Path) -> bool:
    """Return whether a folder is an MLflow model, and no checkpoint by itself."""
    parts = (folder / FILE, folder / "data" / "model", folder / "components" / "tokenizer")
    return not (folder / "config.json").exists() and any(part.exists() for part in parts)


def arrived(path: Path) -> Path:
    """Return an input of a job as its steps read it: an MLflow model as one checkpoint."""
    return join(path, needs_tokenizer=False)[0] if path.is_dir() and is_mlflow(path) else path


def join(folder: Path, *, needs_tokenizer: bool = True, whole: bool = True) -> tuple[Path, str]:
    """Return the folder that joins the parts of the MLflow model `folder`, and its flavour.

    whole: its weights are here too, and are looked at.

    Raises Refused for parts that are absent, no checkpoint, or outside of `folder`, and for
    weights that are pickles.
    """
    try:
        files_below(folder)
    except DrupeError as fault:  # a link that leads out
        raise Refused(fault.where, fault.what, fault.remedy) from fault
    flavour, settings = _flavour(folder)
    needed = ("model", "tokenizer") if needs_tokenizer else ("model",)
    parts = _parts(folder, flavour, settings, needed if whole else ())
    if whole:
        check_no_pickles(parts["model"])
    joined = _temporary() / folder.name  # some results name the model's folder
    joined.mkdir()
    # The model's own part is the last: what another part holds is that part's business.
    for part in (parts.get("config"), parts.get("tokenizer"), parts.get("model")):
        for file in model_files(part) if part else ():
            link = joined / file.relative_to(part or folder)
            if not link.exists():
                link_softly(file.resolve(), link)
    if not whole:
        return joined, flavour
    try:
        check_checkpoint(joined, needs_tokenizer=needs_tokenizer)
    except Refused as fault:
        where, what = (text.replace(str(joined), str(folder)) for text in (fault.where, fault.what))
        raise Refused(where, what, fault.remedy) from fault
    return joined, flavour


def _flavour(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the flavour that is read, and what MLmodel says of it."""
    file = folder / FILE
    if not file.is_file():
        raise Refused(
            str(folder),
            f"has the folders of an MLflow model, but no {FILE}",
            "Copy the whole model, or give the folder that holds config.json.",
        )
    try:
        flavours = yaml.safe_load(file.read_bytes()[:MOST_BYTES])["flavors"]
        found = {name: flavours[name] or {} for name in FLAVOURS if name in flavours}
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as fault:
        reason = str(fault).partition("\n")[0]
        raise Refused(str(file), f"cannot be read as MLflow's: {reason}", SAVED) from fault
    for name, settings in found.items():
        if isinstance(settings, dict):
            return name, settings
    named = ", ".join(map(str, flavours)) or "none"
    raise Refused(
        str(file),
        f"has the flavors {named}, of which none is a model of transformers",
        f"Save it with one of {', '.join(FLAVOURS)}.",
    )


def _parts(
    folder: Path, flavour: str, settings: dict[str, Any], needed: tuple[str, ...]
) -> dict[str, Path]:
    """Return the folders of model, config and tokenizer, as far as they are there.

    Raises Refused for a needed one that is not.
    """
    if flavour in AZUREML:
        data = settings.get("model_data") or "data"
        named = {name: f"{data}/{name}" for name in ("model", "config", "tokenizer")}
    else:
        named = {
            "model": str(settings.get("model_binary") or "model"),
            "tokenizer": "components/tokenizer",
        }
    parts = {name: _inside(folder, path) for name, path in named.items()}
    if "model" in needed and not parts["model"].is_dir() and (folder / "peft").is_dir():
        raise Refused(
            str(folder),
            "holds an adapter (peft) without the model that it is for",
            f'Give that model as "model_path" and {folder / "peft"} as "adapter_path".',
        )
    missing = [named[name] for name in needed if not parts[name].is_dir()]
    if missing:
        raise Refused(
            str(folder),
            f"lacks {' and '.join(missing)}, where an MLflow model ({flavour}) has its "
            f"{' and '.join(name for name in needed if named[name] in missing)}",
            SAVED,
        )
    return {name: part for name, part in parts.items() if part.is_dir()}


def _inside(folder: Path, name: str) -> Path:
    """Return the folder `name` of an MLflow model; raises Refused for one that lies elsewhere."""
    path = folder / name
    if ".." in Path(name).parts or not path.resolve().is_relative_to(folder.resolve()):
        raise Refused(
            str(folder / FILE),
            f'names "{name}", which lies outside of the model\'s folder',
            "Give a model that holds all of its parts.",
        )
    return path


def _temporary() -> Path:
    """Return a new folder that goes with this process, and not with one that is forked from it."""
    folder, owner = Path(tempfile.mkdtemp(prefix="drupe-mlflow-")), os.getpid()
    atexit.register(lambda: remove_tree(folder) if os.getpid() == owner else None)
    return folder
