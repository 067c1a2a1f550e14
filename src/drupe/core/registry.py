"""Names to classes: one table of strings, extended by entry points, imported when asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.core.errors import Refused, nearest


class Registry:
    """The names of one group ("passes", "metrics", "systems") and where their classes live."""

    def __init__(self, group: str, built_in: Mapping[str, str]) -> None:
        self.group = group
        self._built_in = built_in

    def find(self, name: str) -> type[Any]:
        """Return the class registered as `name`.

        Raises Refused for an unknown name (with the nearest known one), and for a plug-in that
        cannot be imported: it is named, never passed over.
        """
        if name in self._built_in:
            return _import(self._built_in[name])
        plug_ins = self._plug_ins()
        if name not in plug_ins:
            known = [*self._built_in, *plug_ins]
            raise Refused(
                name,
                f"is not one of drupe's {self.group}{nearest(name, known)}",
                f"Known: {', '.join(known)}. Others come with plug-ins, by entry points in the "
                f'group "drupe.{self.group}".',
            )
        entry_point = plug_ins[name]
        try:
            return entry_point.load()  # type: ignore[no-any-return]
        except Exception as fault:
            distribution = entry_point.dist.name if entry_point.dist else "a plug-in"
            raise Refused(
                name,
                f"comes from {distribution} ({entry_point.value}), which fails to import: {fault}",
                f"Mend or uninstall {distribution}.",
            ) from fault

    def names(self) -> list[str]:
        """Return every registered name, built-ins first."""
        return [*self._built_in, *self._plug_ins()]

    def _plug_ins(self) -> dict[str, importlib.metadata.EntryPoint]:
        found: dict[str, importlib.metadata.EntryPoint] = {}
        for entry_point in _entry_points(f"drupe.{self.group}", _places()):
            known = found.get(entry_point.name)
            if entry_point.name in self._built_in or (known and known.value != entry_point.value):
                taken = "drupe itself" if known is None else known.value
                raise Refused(
                    entry_point.name,
                    f"is registered by {entry_point.value} and by {taken}",
                    "Uninstall one of the two, or rename its entry point.",
                )
            found[entry_point.name] = entry_point
        return found


@functools.lru_cache(maxsize=16)
def _entry_points(
    group: str, places: tuple[tuple[str, int], ...]
) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return what is installed at `places`, read once: it opens a file of each distribution."""
    return tuple(importlib.metadata.entry_points(group=group))


def _places() -> tuple[tuple[str, int], ...]:
    """Return where distributions lie, with the time at which one was last put there or removed."""
    return tuple((place, _changed(place)) for place in sys.path)


def _changed(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:  # no such folder, or within an archive
        return 0


def _import(path: str) -> type[Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
