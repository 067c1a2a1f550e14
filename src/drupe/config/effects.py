"""What a config says without effect: told, for it may well be a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drupe.config.faults import Place
from drupe.config.schema import EngineConfig, InputModel
from drupe.config.source import Map, origin_of
from drupe.config.target import Systems
from drupe.core.dataset import Dataset
from drupe.core.declared import Declared
from drupe.core.effects import Idle, TellsEffects
from drupe.core.errors import DrupeError, closest
from drupe.data.columns import needed_columns

Found = tuple[Place, str]


def idle_fields(value: Declared, place: Place) -> Iterator[Found]:
    """Yield the place and the reason of each field of `value`, or within it, without effect."""
    told: list[Idle] = value.without_effect() if isinstance(value, TellsEffects) else []
    for idle in told:
        yield (*place, *idle.place), idle.why
    if isinstance(value, Dataset):
        yield from _columns_beside_a_template(value, place)
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, Declared):
            yield from idle_fields(inner, (*place, name))


def _columns_beside_a_template(dataset: Dataset, place: Place) -> Iterator[Found]:
    preprocess = dataset.pre_process_data_config
    if preprocess.text_template is None or "text_cols" not in preprocess.model_fields_set:
        return
    try:
        columns = needed_columns(dataset)
    except DrupeError:
        return  # told as a fault
    for name in preprocess.text_cols or ():
        if name not in columns:
            hint = closest(name, columns)
            near = f' (it names "{hint}")' if hint else ""
            why = f'"{name}" has no effect: the text is made by text_template, without it{near}'
            yield (*place, "pre_process_data_config", "text_cols"), why


def idle_of_model(model: InputModel, folder: Path) -> Iterator[Found]:
    """Yield what the model that is named makes no use of."""
    place: Place = ("input_model",)
    if model.type != "HfModel":
        for name in ("adapter_path", "load_kwargs"):
            if name in model.model_fields_set:
                yield (*place, name), f"has no effect on {model.type}"
    elif (
        model.load_kwargs.revision is not None
        and isinstance(model.model_path, str)
        and (folder / model.model_path).is_dir()
    ):
        why = f"has no effect on a local folder ({model.model_path}): it is about the Hub"
        yield (*place, "load_kwargs", "revision"), why


def unused_host(
    engine: EngineConfig, systems: Systems, system: str | None, root: Map
) -> Iterator[Found]:
    """Yield the system on which no step runs, since `--system` asked for another."""
    host = systems.get(engine.host or "")
    if system in (None, engine.host) or host is None or host.type == "LocalSystem":
        return
    fields: Any = root["systems"][engine.host]
    idle = ", ".join(name for name in fields if name not in ("type", "accelerators"))
    yield (
        ("engine", "host"),
        f'"{engine.host}" runs no step under --system {system}'
        + (f"; what it says of {idle} has no effect" if idle else ""),
    )


def told(found: Iterator[Found], root: Map) -> list[str]:
    """Return each as a line for the user, with where it was written; none twice."""
    lines = []
    for place, why in found:
        origin = origin_of(root, place)
        lines.append(f"{origin.where}: {origin.path} {why}")
    return list(dict.fromkeys(lines))
