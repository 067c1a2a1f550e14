"""Where the input model comes from: a local folder, or a name on the Hugging Face Hub.

A Hub name is pinned to the commit that it stands for; the files that are here already are used
without asking the network (offline first).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from drupe.core.digest import DigestMemo, value_digest
from drupe.core.errors import Refused
from drupe.core.files import files_below
from drupe.core.model import (
    HUB,
    Model,
    check_kind,
    model_files,
)
from drupe.resources.checks import check_adapter, check_checkpoint, check_described
from drupe.resources.hub import (
    HUB_FILES,
    HUB_NAME,
    Asked,
    described,
    no_name,
    snapshot,
    snapshot_here,
)
from drupe.resources.mlflow import is_mlflow, join


@dataclass(frozen=True)
class Located:
    """An input model: what it is, what it is called, the Hub's commit, whether it was found.

    parts: the MLflow folder from which the model's own folder is joined. note: what is told.
    elsewhere_bytes: the size of a model of which here are the small files alone. is_shown: those
    are, at least.
    """

    model: Model
    name: str
    revision: str | None = None
    found: bool = True
    parts: Path | None = None
    note: str | None = None
    elsewhere_bytes: int | None = None
    is_shown: bool = True

    @property
    def size_bytes(self) -> int:
        """The size of the files that are the model, links followed; an adapter's with its base."""
        return size_of(self.model) if self.elsewhere_bytes is None else self.elsewhere_bytes


def locate(
    name: str,
    folder: Path,
    revision: str | None,
    remote_code: bool,
    digests: DigestMemo,
    *,
    needs_tokenizer: bool = True,
    fetched_there: bool = False,
) -> Located:
    """Return the model that `name` stands for, relative to the config's `folder`.

    needs_tokenizer: refuse a model without one. fetched_there: where the steps run a model of the
    Hub is fetched, so that here its small files are enough.

    Raises Refused when it is neither a folder nor a name that the Hub could know, DrupeError
    when the Hub cannot be reached or knows no such model.
    """
    local = (folder / name).resolve()
    if local.exists():
        return checkpoint(
            local,
            remote_code,
            lambda found: digests.folder(found, model_files(found)),
            needs_tokenizer=needs_tokenizer,
        )
    asked = Asked(
        kind="model",
        name=name,
        revision=revision,
        where="input_model.model_path",
        revision_field="input_model.load_kwargs.revision",
        instead=f"folder ({local})",
        files=HUB_FILES,
    )
    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise no_name(asked)
    check = partial(check_checkpoint, needs_tokenizer=needs_tokenizer)
    here = snapshot_here(asked, check) if fetched_there else snapshot(asked, check)
    if here is None:
        return _on_hub(asked, remote_code)
    commit = here.name  # a snapshot's folder is named by its commit
    # With the names and sizes, so that a snapshot that another program left incomplete is another.
    files = [(str(file.relative_to(here)), file.stat().st_size) for file in model_files(here)]
    model = Model("hf", here, _hub_digest(name, commit, files), remote_code=remote_code)
    if fetched_there:
        model = replace(model, source=f"{HUB}{name}@{commit}")
    return Located(model, name, commit)


def _on_hub(asked: Asked, remote_code: bool) -> Located:
    """Return a model that stays on the Hub; known by the same digest as if it were here."""
    found = described(asked)
    order = sorted(found.files, key=PurePosixPath)
    digest = _hub_digest(asked.name, found.commit, [(each, found.files[each]) for each in order])
    folder = found.folder or Path(asked.name)
    model = Model("hf", folder, digest, remote_code=remote_code)
    return Located(
        replace(model, source=f"{HUB}{asked.name}@{found.commit}"),
        asked.name,
        found.commit,
        elsewhere_bytes=sum(found.files.values()),
        is_shown=found.folder is not None,
    )


def _hub_digest(name: str, commit: str, files: list[tuple[str, int]]) -> str:
    return value_digest(["hub", name, commit, files])


def checkpoint(
    local: Path,
    remote_code: bool,
    digest: Callable[[Path], str],
    *,
    needs_tokenizer: bool = True,
    whole: bool = True,
) -> Located:
    """Return the checkpoint in a folder, in MLflow's parts too; whole: with its weights."""
    if local.is_dir() and is_mlflow(local):
        joined, flavour = join(local, needs_tokenizer=needs_tokenizer, whole=whole)
        model = Model("hf", joined, digest(joined), remote_code=remote_code)
        note = f"{local.name} is an MLflow model ({flavour}): its parts are read as one checkpoint."
        return Located(model, called(local), parts=local, note=note)
    if whole:
        check_checkpoint(local, needs_tokenizer=needs_tokenizer)
    else:
        check_described(local)
    return Located(Model("hf", local, digest(local), remote_code=remote_code), called(local))


def called(folder: Path) -> str:
    """Return a model's name: its folder's, or of what a run delivered the output folder's.

    OUTPUT/PASS-PASS/cpu-cpu_model is called OUTPUT: all runs call the innermost folder alike.
    """
    output = folder.parent.parent
    delivered = folder.name.endswith("_model") and (output / "config.lock.json").is_file()
    return output.name if delivered else folder.name


def locate_adapter(name: str, folder: Path, base: Model, digests: DigestMemo) -> Model:
    """Return the adapter in the folder `name` as a model on `base`."""
    local = (folder / name).resolve()
    check_adapter(local)
    return Model(
        "hf-adapter", local, digests.folder(local, model_files(local)), base, base.remote_code
    )


def locate_files(name: str, folder: Path, digests: DigestMemo) -> Located:
    """Return a folder of any files as a model."""
    local = (folder / name).resolve()
    if not local.exists():
        what = f'"{name}" is not there ({local})'
        raise Refused("input_model.model_path", what, "Give the folder of the files.")
    check_kind("files", local)
    return Located(Model("files", local, digests.folder(local, files_below(local))), local.name)


def locate_export(name: str, folder: Path, digests: DigestMemo) -> Located:
    """Return the folder of an ONNX Runtime GenAI model as a model."""
    local = (folder / name).resolve()
    if not local.exists():
        what = f'"{name}" is not there ({local})'
        raise Refused("input_model.model_path", what, "Give the folder of the exported model.")
    check_kind("onnx-genai", local)
    return Located(
        Model("onnx-genai", local, digests.folder(local, files_below(local))), called(local)
    )


def size_of(model: Model) -> int:
    """Return the size of the files that are the model, links followed, an adapter's base too."""
    return sum(path.stat().st_size for path in _files(model))


def architectures(model: Model) -> list[str]:
    """Return the class names that a checkpoint's config.json gives (of an adapter: its base)."""
    try:
        config = json.loads(((model.base or model).path / "config.json").read_text())
    except (OSError, ValueError):
        return []
    return [str(name) for name in config.get("architectures") or []]


def _files(model: Model) -> list[Path]:
    """Return all files of a model, an adapter's base included."""
    of_checkpoint = model.kind in ("hf", "hf-adapter")
    own = model_files(model.path) if of_checkpoint else files_below(model.path)
    return own + (_files(model.base) if model.base else [])
