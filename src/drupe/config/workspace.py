"""Which AzureML workspace a config means, where it is not written beside what lies in it.

    azureml_client                    at the top level
    the one other client              of a resource or a system; two different ones are a fault
    config.json                       of the workspace, as the Azure portal gives it: in .azureml/,
                                      aml_config/ or beside the config, or in a folder above
    the environment                   AZUREML_ARM_SUBSCRIPTION and the like, as in a job

The first of them decides; what it leaves out (a client with a key vault alone) comes from the
next. Only names are read here; who asks is azure-identity's business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drupe.config.faults import Place
from drupe.config.source import Items, Map
from drupe.core.errors import Refused
from drupe.core.resource import CLIENT_NAMES, AzureMLClient

TOP = "azureml_client"
KEYS = (TOP, "azureml_client_config")
FOLDERS = (".azureml", "aml_config", "")
VARIABLES = {
    "subscription_id": ("AZUREML_ARM_SUBSCRIPTION", "AZURE_SUBSCRIPTION_ID"),
    "resource_group": ("AZUREML_ARM_RESOURCEGROUP", "AZURE_RESOURCE_GROUP"),
    "workspace_name": ("AZUREML_ARM_WORKSPACE_NAME", "AZUREML_WORKSPACE_NAME"),
}
REMEDY = 'Write "azureml_client" with subscription_id, resource_group and workspace_name.'


@dataclass(frozen=True)
class Workspace:
    """What was found. client: None where there is none, or more than one: why says which.

    places: of the config, where it is described.
    """

    client: AzureMLClient | None
    origin: str = ""
    why: str = ""
    places: tuple[Place, ...] = ()

    @property
    def note(self) -> str:
        """What the plan tells of it."""
        name = self.client.workspace_name if self.client else None
        return f"The AzureML workspace is {name} ({self.origin})."

    def needed(self, where: str) -> AzureMLClient:
        """Return the client; raises Refused where what stands at `where` has none."""
        if self.client is None:
            raise Refused(where, self.why, REMEDY)
        return self.client


NO_WORKSPACE = Workspace(None, why="has no workspace")


def find_workspace(
    root: Map, folder: Path, environment: Mapping[str, str] = os.environ
) -> Workspace:
    """Return the workspace of a config in our words; folder: the config's."""
    named = list(_clients(root))
    client, places = AzureMLClient(), list[Place]()
    for is_top in (True, False):
        asked = [each for each in named if (each[1] == (TOP,)) is is_top]
        if all(client.triple) or not asked:
            continue
        try:
            whole = [(completed(each, folder), place) for each, place in asked]
        except Refused as fault:
            return Workspace(None, why=f"needs a workspace, and {fault.where} {fault.what}")
        naming = [each for each in whole if any(each[0].triple)]
        differing = {each.triple for each, _ in naming}
        if len(differing) > 1:
            names = " and ".join(sorted({str(triple[2]) for triple in differing}))
            why = f"is in no workspace of its own, and the config names {names}"
            return Workspace(None, why=why)
        said, place = (naming or whole)[0]
        if not places:
            client, places = said, [place]
        elif naming:
            client = _with(client, dict(zip(CLIENT_NAMES, said.triple, strict=True)))
            places.append(place)
    origin = " and ".join(map(_written, places))
    if not all(client.triple):
        client, found = _filled(client, folder, environment)
        origin = " and ".join(filter(None, (origin, found)))
    if all(client.triple):
        return Workspace(client, origin, places=tuple(places))
    missing = [name for name in CLIENT_NAMES if not getattr(client, name)]
    some = f"knows no {', '.join(missing)}" if any(client.triple) else "has no workspace"
    return Workspace(None, why=f"{some}, nor has a config.json or the environment")


def completed(client: AzureMLClient, folder: Path) -> AzureMLClient:
    """Return a client with what its `aml_config_path` says; raises Refused for no such file."""
    if client.aml_config_path is None:
        return client
    file = (folder / client.aml_config_path).resolve()
    said = _read(file)
    if said is None:
        what = f"is {file}, which is no JSON file with {', '.join(CLIENT_NAMES)}"
        raise Refused("azureml_client.aml_config_path", what, "Mend the path.")
    return client.model_copy(
        update={name: getattr(client, name) or said[name] for name in CLIENT_NAMES}
    )


def _filled(
    client: AzureMLClient, folder: Path, environment: Mapping[str, str]
) -> tuple[AzureMLClient, str]:
    """Return the client with what the workspace's file, else the environment, says; and which."""
    for above in (folder, *folder.parents):
        for inner in FOLDERS:
            file = above / inner / "config.json"
            said = _read(file)
            if said is not None:
                return _with(client, said), str(file)
    variables = {
        name: next(variable for variable in known if environment.get(variable))
        for name, known in VARIABLES.items()
        if any(environment.get(variable) for variable in known)
    }
    said = {name: environment[variable] for name, variable in variables.items()}
    origin = f"the environment: {', '.join(variables.values())}" if said else ""
    return _with(client, said), origin


def _with(client: AzureMLClient, said: Mapping[str, str | None]) -> AzureMLClient:
    update = {name: getattr(client, name) or said.get(name) for name in CLIENT_NAMES}
    return client.model_copy(update=update)


def _read(file: Path) -> dict[str, str] | None:
    """Return the three names that a file holds; None for any other file, or none."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not all(
        isinstance(said.get(name), str) for name in CLIENT_NAMES
    ):
        return None
    return {name: said[name] for name in CLIENT_NAMES}


def _written(place: Place) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return "".join(steps).removeprefix(".")


def _clients(value: Any, place: Place = ()) -> Iterator[tuple[AzureMLClient, Place]]:
    """Yield each client that is written down, and where; what is none is told elsewhere."""
    if isinstance(value, Items):
        for index, inner in enumerate(value):
            yield from _clients(inner, (*place, index))
    elif isinstance(value, Map):
        for key, inner in value.items():
            if key in KEYS and isinstance(inner, Map):
                with suppress(ValidationError):
                    client = AzureMLClient.model_validate_json(json.dumps(inner))
                    yield client, (*place, key)
            else:
                yield from _clients(inner, (*place, key))
