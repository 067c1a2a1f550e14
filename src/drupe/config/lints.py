"""What a config says that will not do what its writer expects, each with the remedy.

A lint is a warning. What is unready is sound, and cannot be run as it is: a plan refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from drupe.config.faults import Place
from drupe.config.source import Items, Map, origin_of
from drupe.config.target import Systems
from drupe.core.errors import Fault
from drupe.core.resource import NEEDS, PLACEHOLDER

Found = tuple[Place, str]
WRITE = "Write your own."


def lints(root: Map, systems: Systems, used: Collection[str]) -> Iterator[Found]:
    """Yield the place and the words of each lint; systems that are not used are left out."""
    for key, value in root.items():
        if key not in ("systems", "azureml_client"):
            for place, text in placeholders(value, (key,)):
                if not _of_azureml(root, place):
                    yield place, f'is still a placeholder ("{text}"): write your own'
    for name in used:
        for inner, words in systems[name].lints():
            yield ("systems", name, *inner), words


def unready(
    root: Map, systems: Systems, used: Collection[str], data: Collection[str]
) -> Iterator[Fault]:
    """Yield what keeps the config from being run as it is.

    used: the systems on which steps run. data: the data configs that these read.
    """
    blank: list[tuple[Place, str]] = []
    for name in used:
        blank += placeholders(root["systems"][name], ("systems", name))
    model = root.get("input_model")
    described = list(_resources(model, ("input_model",), ("model_path", "adapter_path")))
    for index, entry in enumerate(root.get("data_configs") or ()):
        if entry.get("name") in data:
            place: Place = ("data_configs", index, "load_dataset_config")
            described += _resources(entry.get(place[-1]), place, ("data_files",))
    for place, resource in described:
        blank += placeholders(resource, place)
    bare = any("azureml_client" not in resource for _, resource in described)
    if bare or any(systems[name].client() is not None for name in used):
        blank += placeholders(root.get("azureml_client"), ("azureml_client",))
    for place, text in blank:
        yield _fault(root, place, f'is still a placeholder ("{text}")', WRITE)
    places = {place for place, _ in blank}
    for name in used:
        for unfit in systems[name].faults():
            place = ("systems", name, *unfit.place)
            if place not in places:
                fault = _fault(root, place, unfit.what, unfit.remedy)
                yield Fault(unfit.line, unfit.what, unfit.remedy) if unfit.line else fault


def placeholders(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield each text that was meant to be replaced ("Your Azure ...", "<name>")."""
    if isinstance(value, Map):
        for key, inner in value.items():
            yield from placeholders(inner, (*place, key))
    elif isinstance(value, Items):
        for index, inner in enumerate(value):
            yield from placeholders(inner, (*place, index))
    elif isinstance(value, str) and PLACEHOLDER.match(value):
        yield place, value


def _resources(owner: Any, place: Place, keys: tuple[str, ...]) -> Iterator[tuple[Place, Map]]:
    """Yield what of an entry lies on AzureML."""
    for key in keys:
        value = owner.get(key) if isinstance(owner, Map) else None
        if isinstance(value, Map) and value.get("type") in NEEDS:
            yield (*place, key), value


def _of_azureml(root: Map, place: Place) -> bool:
    """Return whether a place is within the description of what lies on AzureML."""
    value: Any = root
    for step in place:
        value = value[step]
        if isinstance(value, Map) and value.get("type") in NEEDS:
            return True
    return False


def _fault(root: Map, place: Place, what: str, remedy: str) -> Fault:
    origin = origin_of(root, place)
    path = ".".join(map(str, place))
    written = origin.path if path.endswith(origin.path.rpartition(".")[2]) else path
    return Fault(f"{origin.where}: {written}", what, remedy)
