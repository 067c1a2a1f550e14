"""Systems and accelerators: devices as words, execution providers in the engine."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.config.dialects.rule import Note, map_of, maps
from drupe.config.source import NOWHERE, Items, Map, Origin
from drupe.core.target import PROVIDERS


def accelerators(config: Map) -> Iterator[Note]:
    """N3: devices as strings, with the execution providers in the engine, until Olive 0.5.

    Each provider goes to the listed devices that it runs on.
    """
    engine, systems = config.get("engine"), maps(config.get("systems"))
    listed = [
        each["accelerators"] for each in systems if isinstance(each.get("accelerators"), Items)
    ]
    providers: list[str] = []
    origin = NOWHERE
    written = engine.get("execution_providers") if isinstance(engine, Map) else None
    if isinstance(engine, Map) and isinstance(written, list) and any(listed):
        providers = [name for name in written if isinstance(name, str)]
        origin = engine.drop("execution_providers")
    taken: set[str] = set()
    for devices in listed:
        for index, entry in enumerate(devices):
            where = devices.origins[index]
            if isinstance(entry, str):
                devices[index] = map_of({"device": entry.lower()}, where)
            elif not isinstance(entry, Map):
                continue
            given = _give_providers(devices[index], providers, origin)
            named = devices[index].get("execution_providers")
            taken.update(name for name in providers if isinstance(named, list) and name in named)
            if given or isinstance(entry, str):
                offering = f" with {', '.join(given)}" if given else ""
                device = devices[index]["device"]
                yield Note("N3", where.where, f'"{device}" is read as a device{offering}')
    for name in providers:
        if name not in taken:
            text = f"{origin.path}: {name} runs on none of the devices listed"
            yield Note("N3", origin.where, text, "warning")


def _give_providers(entry: Map, providers: list[str], origin: Origin) -> list[str]:
    """Give an accelerator those of the engine's providers that it runs, if it names none."""
    device = entry.get("device")
    fitting = [name for name in providers if PROVIDERS.get(name, ("",))[0] == device]
    if not fitting or "execution_providers" in entry:
        return []
    entry.put("execution_providers", fitting, origin)
    return fitting
