"""Declared: a frozen, strictly checked value whose content is its cache key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, ValidationInfo, field_validator

from drupe.core.documented import Documented


class Declared(Documented):
    """A frozen value that a config can name: no unknown field, no silent conversion.

    **A field of type `Path` names an input file or folder**: it enters the key by its content,
    never by its name, so the same files give the same key wherever they lie.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="after")
    @classmethod
    def _from_the_configs_folder(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return value if folder is None else _absolute(value, folder)

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the value as JSON in which each path is replaced by its content's digest."""
        return {name: _key_form(getattr(self, name), digest) for name in type(self).model_fields}

    def relocated(self, move: Callable[[Path], Path]) -> Self:
        """Return the value with each path that its fields name replaced by `move` of it.

        Nothing else changes, and nothing is checked anew.
        """
        moved = {name: _relocated(getattr(self, name), move) for name in type(self).model_fields}
        return self.model_copy(update=moved)

    def input_paths(self) -> list[Path]:
        """Return every path that the fields name, in order."""
        paths: list[Path] = []

        def note(path: Path) -> str:
            paths.append(path)
            return ""

        self.key_form(note)
        return paths


def _key_form(value: Any, digest: Callable[[Path], str]) -> Any:
    if isinstance(value, Declared):
        return value.key_form(digest)
    if isinstance(value, Path):
        return {"content": digest(value)}
    if isinstance(value, (tuple, list)):
        return [_key_form(item, digest) for item in value]
    if isinstance(value, dict):
        return {key: _key_form(item, digest) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a default of 16, and 16 that was read as 16.0, are one key
    return value


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return Path(os.path.normpath(folder / value))
    if isinstance(value, tuple):
        return tuple(_absolute(item, folder) for item in value)
    return value


def _relocated(value: Any, move: Callable[[Path], Path]) -> Any:
    if isinstance(value, Declared):
        return value.relocated(move)
    if isinstance(value, Path):
        return move(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_relocated(item, move) for item in value)
    if isinstance(value, dict):
        return {key: _relocated(item, move) for key, item in value.items()}
    return value
