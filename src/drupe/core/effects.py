"""Fields that were written and change nothing: whoever knows of some tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Idle:
    """A field that has no effect. place: its name, or its path from the one who tells; why."""

    place: tuple[str, ...]
    why: str


@runtime_checkable
class TellsEffects(Protocol):
    """What a declared value may be: a pass, a metric, or a part of one's fields."""

    def without_effect(self) -> list[Idle]:
        """Return the fields that are written (`model_fields_set`) and change no result."""
