"""What a config still says in place of a name of its writer's: "Your Azure ...", "<name>".

Of what lies on AzureML, and is used, each is in the way: nothing is sent there before all are
filled in. Of the rest, and of what is not used, it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from pydantic import ValidationError

from drupe.config.faults import Place
from drupe.config.source import Items, Map, origin_of
from drupe.config.target import Systems
from drupe.config.workspace import KEYS, TOP, Workspace
from drupe.core.errors import Fault
from drupe.core.resource import CLIENT_NAMES, NEEDS, PLACEHOLDER, Remote, is_address, is_blank

Found = tuple[Place, str]
WRITE = "Write your own."
AZURE = "AzureML"  # a system's type, and the beginning of that of a package that is sent there
PROSE = ("description", "model_description")  # of a package: "Your ..." may well be meant
MODEL, ROWS = ("model_path", "adapter_path"), ("data_files",)


def told(root: Map) -> Iterator[Found]:
    """Yield the place and the words of each placeholder that is in nobody's way."""
    for key, value in root.items():
        if key not in ("systems", TOP):
            for place, text in _within(value, (key,), PLACEHOLDER.match):
                if not _of_azureml(root, place):
                    yield place, f'is still a placeholder ("{text}"): write your own'


def unused(root: Map, used: Collection[str]) -> Iterator[Found]:
    """Yield each system that was not filled in, where no step runs there."""
    for name, value in (root.get("systems") or {}).items():
        blank = [] if name in used else list(_within(value, ("systems", name), is_blank))
        if blank:
            listed = ", ".join(".".join(map(str, place[2:])) for place, _ in blank)
            yield ("systems", name), f"is not used, and not filled in ({listed})"


def blocking(
    root: Map,
    systems: Systems,
    used: Collection[str],
    data: Collection[str],
    workspace: Workspace,
) -> Iterator[tuple[Place, Fault]]:
    """Yield each that is in the way, with its place.

    used: the systems on which steps run. data: the data configs that these read.
    """
    blank: list[Found] = []
    for name in used:
        is_one = is_blank if systems[name].type == AZURE else PLACEHOLDER.match
        blank += _within(root["systems"][name], ("systems", name), is_one)
    resources = list(_resources(root, data))
    for place, resource in resources:
        blank += _within(resource, place, is_blank)
    sent = list(_packages(root))
    for place, package in sent:
        found_there = _within(package, place, PLACEHOLDER.match)
        blank += [each for each in found_there if each[0][-1] not in PROSE]
    clients = [systems[name].client() for name in used]
    found = workspace.client
    if (
        sent
        or any(_is_in_none(resource) for _, resource in resources)
        or any(each and (found is None or each.triple == found.triple) for each in clients)
    ):
        for place in (*workspace.places, (TOP,)):
            blank += _within(_at(root, place), place, is_blank)
        yield from _of_its_file(workspace, {text for _, text in blank})
    for place, text in dict.fromkeys(blank):
        what = f'is still a placeholder ("{text}")'
        yield place, fault_at(root, place, what, WRITE)


def _of_its_file(workspace: Workspace, known: Collection[str]) -> Iterator[tuple[Place, Fault]]:
    """Yield what a workspace's file, or the environment, leaves blank."""
    for name in CLIENT_NAMES if workspace.client else ():
        text = getattr(workspace.client, name) or ""
        if is_blank(text) and text not in known:
            what = f'{name} is still a placeholder ("{text}")'
            yield (TOP, name), Fault(workspace.origin, what, WRITE)


def fault_at(root: Map, place: Place, what: str, remedy: str) -> Fault:
    """Return a fault of what stands at a place, in the words in which it is written there."""
    origin = origin_of(root, place)
    path = ".".join(map(str, place))
    written = origin.path if path.endswith(origin.path.rpartition(".")[2]) else path
    return Fault(f"{origin.where}: {written}", what, remedy)


def _within(value: Any, place: Place, is_one: Callable[[str], object]) -> Iterator[Found]:
    """Yield each text in `value` for which `is_one` holds."""
    if isinstance(value, Map):
        for key, inner in value.items():
            yield from _within(inner, (*place, key), is_one)
    elif isinstance(value, Items):
        for index, inner in enumerate(value):
            yield from _within(inner, (*place, index), is_one)
    elif isinstance(value, str) and is_one(value):
        yield place, value


def _resources(root: Map, data: Collection[str]) -> Iterator[tuple[Place, Map | str]]:
    """Yield what of the input model and of the data lies elsewhere."""
    owners: list[tuple[Any, Place, tuple[str, ...]]] = [
        (root.get("input_model"), ("input_model",), MODEL)
    ]
    for index, entry in enumerate(root.get("data_configs") or ()):
        if entry.get("name") in data:
            place: Place = ("data_configs", index, "load_dataset_config")
            owners.append((entry.get("load_dataset_config"), place, ROWS))
    for owner, place, keys in owners:
        for key in keys:
            value = owner.get(key) if isinstance(owner, Map) else None
            if value is not None and _is_elsewhere(value):
                yield (*place, key), value


def _is_elsewhere(value: Any) -> bool:
    if isinstance(value, str):
        return is_address(value)
    return isinstance(value, Map) and value.get("type") in NEEDS


def _is_in_none(resource: Map | str) -> bool:
    """Return whether a resource names no workspace itself."""
    if isinstance(resource, Map):
        return not any(isinstance(resource.get(key), Map) for key in KEYS)
    try:
        remote = Remote.model_validate(resource)
    except ValidationError:
        return False
    return remote.needs_client and remote.azureml_client is None


def _packages(root: Map) -> Iterator[tuple[Place, Map]]:
    """Yield the packages that are sent to AzureML."""
    engine = root.get("engine")
    packages = engine.get("packaging_config") if isinstance(engine, Map) else None
    for index, package in enumerate(packages if isinstance(packages, Items) else ()):
        if isinstance(package, Map) and str(package.get("type")).startswith(AZURE):
            yield ("engine", "packaging_config", index), package


def _at(root: Map, place: Place) -> Any:
    value: Any = root
    for step in place:
        value = value.get(str(step)) if isinstance(value, Map) else value[step]
    return value


def _of_azureml(root: Map, place: Place) -> bool:
    """Return whether a place is within the description of what lies on AzureML, or goes there."""
    if any(place[: len(package)] == package for package, _ in _packages(root)):
        return True
    value: Any = root
    for step in place:
        value = value[step]
        if _is_elsewhere(value):
            return True
    return False
