"""Secrets in a config are refused before anything else of it is read or told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drupe.config.source import Items, Map, Origin
from drupe.core.errors import ConfigError, Fault
from drupe.core.secrets import has_shape_of_secret, is_secret_name, known_secrets, redacted

REMEDY = (
    "Take it out, and set it in the environment (HF_TOKEN for the Hub): a config is kept with its "
    "results. If others have seen it, withdraw it."
)


def refuse_secrets(file: Path, *configs: Map) -> None:
    """Raise ConfigError, which names the places alone, for tokens and passwords in `configs`."""
    known = known_secrets()
    faults = [
        Fault(
            origin.where,
            f"{redacted(origin.path, known)} holds what looks like a secret",
            REMEDY,
        )
        for config in configs
        for origin in _found(config, known)
    ]
    if faults:
        raise ConfigError(str(file), faults)


def _found(value: Map | Items, known: tuple[str, ...]) -> Iterator[Origin]:
    entries: Any = value.items() if isinstance(value, Map) else enumerate(value)
    for key, inner in entries:
        if isinstance(inner, Map | Items):
            yield from _found(inner, known)
        elif _is_secret(key, inner, known):
            yield value.origins[key]


def _is_secret(key: str | int, value: Any, known: tuple[str, ...]) -> bool:
    texts = [text for text in (key, value) if isinstance(text, str)]
    if any(has_shape_of_secret(text) or any(each in text for each in known) for text in texts):
        return True
    return isinstance(key, str) and isinstance(value, str) and value != "" and is_secret_name(key)
