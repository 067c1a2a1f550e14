"""What a config says that will not do what its writer expects: warnings, each with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.rule import maps
from drupe.config.faults import Place
from drupe.config.schema import EngineConfig
from drupe.config.source import Items, Map
from drupe.config.target import Systems
from drupe.core.resource import PLACEHOLDER

Found = tuple[Place, str]


def lints(root: Map, engine: EngineConfig, systems: Systems, asked: str | None) -> Iterator[Found]:
    """Yield the place and the words of each lint; systems that are not used are left out.

    asked: the system that was asked for in place of the config's; "local" is this machine.
    """
    for key, value in root.items():
        if key not in ("systems", "azureml_client"):
            yield from placeholders(value, (key,))
    hosts = {each["host"] for each in maps(root.get("passes")) if isinstance(each.get("host"), str)}
    used = {engine.host, engine.target, *hosts} if asked is None else {asked}
    for name in [name for name in systems if name in used]:
        yield from placeholders(root["systems"][name], ("systems", name))
        for place, text in systems[name].lints():
            yield ("systems", name, *place), text
        if systems[name].client() is not None and "azureml_client" in root:
            yield from placeholders(root["azureml_client"], ("azureml_client",))


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
