"""A config file as plain values that remember where they were written.

`Map` and `Items` are a dict and a list whose entries know their origin (line and path in the
file as the user wrote it), so that a fault that is found after all upgrades still points there.
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.errors import ConfigError, Fault, Refused


@dataclass(frozen=True)
class Origin:
    """Where an entry stands: its line (from 1) and its path in the user's words."""

    line: int
    path: str


class Map(dict[str, Any]):
    """A JSON object whose entries know where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, Origin] = {}

    def put(self, key: str, value: Any, origin: Origin) -> None:
        """Set an entry that was written at `origin`."""
        self[key] = value
        self.origins[key] = origin

    def move(self, key: str, to: Map, new: str | None = None) -> None:
        """Move an entry to another map (or under another name), its origin with it."""
        origin = self.origins.pop(key)
        to.put(new or key, self.pop(key), origin)

    def drop(self, key: str) -> Origin:
        """Remove an entry; return where it stood."""
        del self[key]
        return self.origins.pop(key)


class Items(list[Any]):
    """A JSON array whose items know where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: list[Origin] = []

    def add(self, value: Any, origin: Origin) -> None:
        """Append an item that was written at `origin`."""
        self.append(value)
        self.origins.append(origin)


def read(file: Path) -> Map:
    """Return the JSON object in `file`.

    Raises Refused when it cannot be read, ConfigError for faults of syntax and repeated keys.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as fault:
        raise Refused(str(file), "there is no such file", "Give the path of a config.") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(str(file), f"cannot be read: {fault}", "A config is UTF-8 text.") from fault
    parser = _Parser(text)
    try:
        json.loads(text)
        value, _ = parser.value(parser.start(0), "")
    except RecursionError as fault:
        too_deep = Fault(f"{file}:1", "is nested too deeply", "No config needs a hundred levels.")
        raise ConfigError(str(file), [too_deep]) from fault
    except json.JSONDecodeError as fault:
        raise ConfigError(
            str(file),
            [Fault(f"{file}:{fault.lineno}", f"is not JSON: {fault.msg}", "Mend this line.")],
        ) from fault
    faults = [
        Fault(f"{file}:{origin.line}", f"{origin.path} is there twice", "Keep one of them.")
        for origin in parser.repeated
    ]
    if faults:
        raise ConfigError(str(file), faults)
    if not isinstance(value, Map):
        raise ConfigError(
            str(file),
            [Fault(f"{file}:1", "is not a JSON object", "Begin it with {.")],
        )
    return value


class _Parser:
    """Finds the line of each entry in a text that is known to be JSON."""

    _space = re.compile(r"[ \t\r\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._scalar = json.JSONDecoder().raw_decode
        self.repeated: list[Origin] = []

    def start(self, position: int) -> int:
        """Return the position of the next token."""
        match = self._space.match(self._text, position)
        return match.end() if match else position

    def value(self, position: int, path: str) -> tuple[Any, int]:
        """Return the value that begins at `position`, and the position behind it."""
        if self._text[position] == "{":
            return self._map(position, path)
        if self._text[position] == "[":
            return self._items(position, path)
        return self._scalar(self._text, position)

    def _map(self, position: int, path: str) -> tuple[Map, int]:
        found = Map()
        position = self.start(position + 1)
        while self._text[position] != "}":
            line = self._line(position)
            key, position = self._scalar(self._text, position)
            origin = Origin(line, f"{path}.{key}" if path else key)
            if key in found:
                self.repeated.append(origin)
            position = self.start(self.start(position) + 1)
            value, position = self.value(position, origin.path)
            found.put(key, value, origin)
            position = self._behind_comma(position)
        return found, position + 1

    def _items(self, position: int, path: str) -> tuple[Items, int]:
        found = Items()
        position = self.start(position + 1)
        while self._text[position] != "]":
            origin = Origin(self._line(position), f"{path}[{len(found)}]")
            value, position = self.value(position, origin.path)
            found.add(value, origin)
            position = self._behind_comma(position)
        return found, position + 1

    def _behind_comma(self, position: int) -> int:
        position = self.start(position)
        return self.start(position + 1) if self._text[position] == "," else position

    def _line(self, position: int) -> int:
        return bisect.bisect_left(self._newlines, position) + 1


def origin_of(root: Map, place: tuple[str | int, ...]) -> Origin:
    """Return the origin of the entry at `place`, or of the nearest entry around it."""
    value: Any = root
    origin = Origin(1, "")
    for step in place:
        if isinstance(value, Map) and step in value:
            origin = value.origins.get(str(step), origin)
            value = value[str(step)]
        elif isinstance(value, Items) and isinstance(step, int) and step < len(value):
            origin = value.origins[step]
            value = value[step]
        else:
            break
    return origin
