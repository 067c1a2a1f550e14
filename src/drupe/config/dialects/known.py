"""What a table says of a key that is known and not ours: no effect, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Harmless:
    """A key without effect. asks_nothing: the values that ask for nothing; why: the words."""

    asks_nothing: tuple[Any, ...]
    why: str


@dataclass(frozen=True)
class Refusal:
    """A key that is known and cannot be honoured, but for the values that ask for nothing."""

    asks_nothing: tuple[Any, ...]
    what: str
    remedy: str


Known = Mapping[str, Harmless | Refusal]
NOTHING: tuple[Any, ...] = (None, False, {}, [], "")
