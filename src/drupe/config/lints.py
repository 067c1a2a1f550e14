"""What a config says that will not do what its writer expects: warnings, each with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drupe.config.faults import Place
from drupe.config.schema import AzureMLConfig, EngineConfig
from drupe.config.source import Items, Map
from drupe.config.target import Systems
from drupe.core.resource import AzureMLClient

Found = tuple[Place, str]
PLACEHOLDER = re.compile(
    r"^\s*(your\b.*|<[^<>]+>|\[your [^\]]+\]|(todo|changeme|xxx+)\b.*)\s*$", re.IGNORECASE
)
# Lines of a conda.yaml that cannot be installed today, or that do not fit: (pattern, why).
DEAD_PINS = (
    (r"\bpython\s*=+\s*(2|3\.([0-9]|10))(\.|\s|$)", "is older than the Python 3.11 of drupe"),
    (r"git\+https?://\S*/olive@", "is a branch of Olive, which no step of drupe needs"),
    (r"\bort-nightly", "is a nightly build, and those are removed after some weeks"),
    (r"\.dev\d{8}", "is a nightly build, and those are removed after some weeks"),
    (r"\bolive-ai\b(?!.*@)", "is Olive, which no step of drupe needs"),
)


def lints(
    root: Map,
    folder: Path,
    engine: EngineConfig,
    systems: Systems,
    client: AzureMLClient | None,
    system: str | None,
) -> Iterator[Found]:
    """Yield the place and the words of each lint; systems that are not used are left out.

    system: "local" where all runs here.
    """
    for key, value in root.items():
        if key not in ("systems", "azureml_client"):
            yield from placeholders(value, (key,))
    used = {engine.host, engine.target} if system is None else set()
    for name in [name for name in systems if name in used]:
        yield from placeholders(root["systems"][name], ("systems", name))
        described = systems[name]
        if isinstance(described, AzureMLConfig):
            yield from _azure_ml(described, ("systems", name), folder, client)
            if client is not None:
                yield from placeholders(root["azureml_client"], ("azureml_client",))


def _azure_ml(
    system: AzureMLConfig, place: Place, folder: Path, client: AzureMLClient | None
) -> Iterator[Found]:
    client = system.azureml_client_config or client
    if client is None:
        yield place, 'has no workspace: write "azureml_client", or run with --system local'
    if system.hf_token and (client is None or client.keyvault_name is None):
        why = 'has no key vault to read the token from: name it in "azureml_client.keyvault_name"'
        yield (*place, "hf_token"), why
    yield from _conda_file(system, place, folder)


def placeholders(value: Any, place: Place) -> Iterator[Found]:
    """Yield each text that was meant to be replaced ("Your Azure ...", "<name>")."""
    if isinstance(value, Map):
        for key, inner in value.items():
            yield from placeholders(inner, (*place, key))
    elif isinstance(value, Items):
        for index, inner in enumerate(value):
            yield from placeholders(inner, (*place, index))
    elif isinstance(value, str) and PLACEHOLDER.match(value):
        yield place, f'is still a placeholder ("{value}"): write your own'


def _conda_file(system: AzureMLConfig, place: Place, folder: Path) -> Iterator[Found]:
    container = system.aml_docker_config
    if container is None or container.conda_file_path is None:
        return
    written: Place = (*place, "aml_docker_config", "conda_file_path")
    file = folder / container.conda_file_path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        yield written, f"names {file.name}, which cannot be read: mend the path"
        return
    for number, line in enumerate(lines, 1):
        for pattern, why in DEAD_PINS:
            if not line.lstrip().startswith("#") and re.search(pattern, line, re.IGNORECASE):
                yield written, f"{file.name}:{number}: {line.strip(' -')} {why}: leave it out"
                break
