"""A config file as plain values that remember where they were written.

`Map` and `Items` are a dict and a list whose entries know their origin (file, line and path as the
user wrote it), so that a fault that is found after all upgrades still points there.
"""

from __future__ import annotations

import bisect
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.errors import ConfigError, Fault, Refused


@dataclass(frozen=True)
class Origin:
    """Where an entry stands.

    where: "config.json:12" (lines from 1), or the option that says it. path: in the user's words.
    """

    where: str
    path: str


UNUSABLE = re.compile("[\x00\ud800-\udfff]")
NOWHERE = Origin("", "")


class Map(dict[str, Any]):
    """An object whose entries know where they come from. origin: of the object itself."""

    def __init__(self, origin: Origin = NOWHERE) -> None:
        super().__init__()
        self.origin = origin
        self.origins: dict[str, Origin] = {}
        self.whole = False  # a value that takes another's place, and is not laid over it

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
    """An array whose items know where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: list[Origin] = []

    def add(self, value: Any, origin: Origin) -> None:
        """Append an item that was written at `origin`."""
        self.append(value)
        self.origins.append(origin)


def read(file: Path, text: str | None = None) -> Map:
    """Return the object in a JSON or YAML `file` (YAML by its ending .yaml or .yml).

    text: what is read in place of the file's content.
    Raises Refused when it cannot be read, ConfigError for faults of syntax and repeated keys.
    """
    numbered = text is None  # lines that nobody wrote have no numbers
    text = _text(file) if text is None else text
    in_yaml = file.suffix.lower() in (".yaml", ".yml")
    if in_yaml:
        value, repeated = parse_yaml(text, file)
    else:
        value, repeated = parse_json(text, file, numbered=numbered)
    faults = [
        Fault(origin.where, f"{origin.path} is there twice", "Keep one of them.")
        for origin in repeated
    ]
    if faults:
        raise ConfigError(str(file), faults)
    if not isinstance(value, Map):
        what = "is not an object of names and values"
        remedy = "Begin it with a name." if in_yaml else "Begin it with {."
        raise syntax_fault(file, 1, None, what, remedy)
    value.origin = Origin(f"{file.name}:1" if numbered else file.name, "")
    unusable = [
        Fault(origin.where, f"{origin.path} holds a character that no text has", "Write it anew.")
        for origin in _unusable_texts(value)
    ]
    if unusable:
        raise ConfigError(str(file), unusable)
    return value


def _unusable_texts(value: Map | Items) -> Iterator[Origin]:
    """Yield where a text holds what no file's name and no UTF-8 can: NUL, half a character."""
    entries: Any = value.items() if isinstance(value, Map) else enumerate(value)
    for key, inner in entries:
        nested = isinstance(inner, Map | Items)
        if nested:
            yield from _unusable_texts(inner)
        texts = (text for text in (key, inner) if isinstance(text, str))
        if any(UNUSABLE.search(text) for text in texts):
            yield value.origins[key]


def syntax_fault(
    file: Path, line: int, column: int | None, what: str, remedy: str = "Mend this line."
) -> ConfigError:
    """Return the error for a text that is no JSON or YAML (line and column from 1)."""
    where = f"{file}:{line}" if column is None else f"{file}:{line}:{column}"
    return ConfigError(str(file), [Fault(where, what, remedy)])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except IsADirectoryError as fault:
        raise Refused(str(file), "is a folder", "Give the path of a config in it.") from fault
    except FileNotFoundError as fault:
        raise Refused(str(file), "there is no such file", "Give the path of a config.") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(str(file), f"cannot be read: {fault}", "A config is UTF-8 text.") from fault


def parse_json(text: str, file: Path, *, numbered: bool = True) -> tuple[Any, list[Origin]]:
    """Return the value of a JSON text, and the origins of keys that are there twice.

    numbered: whether an origin names the line.
    """
    if not text.strip():
        raise syntax_fault(file, 1, None, "is empty", "Write the config as {...}.")
    parser = _Parser(text, file.name, numbered)
    try:
        json.loads(text)
        value, _ = parser.value(parser.start(0), "")
    except RecursionError as fault:
        remedy = "No config needs a hundred levels."
        raise syntax_fault(file, 1, None, "is nested too deeply", remedy) from fault
    except json.JSONDecodeError as fault:
        raise syntax_fault(file, fault.lineno, fault.colno, f"is not JSON: {fault.msg}") from fault
    except ValueError as fault:  # a number of thousands of digits
        raise syntax_fault(file, 1, None, f"cannot be read: {fault}", "Mend the value.") from fault
    return value, parser.repeated


def parse_yaml(text: str, file: Path) -> tuple[Any, list[Origin]]:
    """Return the value of a YAML text, and the origins of keys that are there twice."""
    # Imported where it is needed: most configs are JSON, and every run pays for an import.
    parse: Any = importlib.import_module("drupe.config.yaml_source").parse
    value: tuple[Any, list[Origin]] = parse(text, file)
    return value


def plain(value: Any, origin: Origin) -> Any:
    """Return a JSON value as Map and Items whose entries all stand at `origin`."""
    if isinstance(value, dict):
        made = Map(origin)
        made.whole = True
        for key, inner in value.items():
            made.put(str(key), plain(inner, origin), origin)
        return made
    if isinstance(value, list):
        items = Items()
        for inner in value:
            items.add(plain(inner, origin), origin)
        return items
    return value


class _Parser:
    """Finds the line of each entry in a text that is known to be JSON."""

    _space = re.compile(r"[ \t\r\n]*")

    def __init__(self, text: str, name: str, numbered: bool) -> None:
        self._text = text
        self._name = name
        self._numbered = numbered
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
            where = self._where(position)
            key, position = self._scalar(self._text, position)
            origin = Origin(where, f"{path}.{key}" if path else key)
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
            origin = Origin(self._where(position), f"{path}[{len(found)}]")
            value, position = self.value(position, origin.path)
            found.add(value, origin)
            position = self._behind_comma(position)
        return found, position + 1

    def _behind_comma(self, position: int) -> int:
        position = self.start(position)
        return self.start(position + 1) if self._text[position] == "," else position

    def _where(self, position: int) -> str:
        if not self._numbered:
            return self._name
        return f"{self._name}:{bisect.bisect_left(self._newlines, position) + 1}"


def lines_of(value: Map | Items, path: str = "") -> dict[str, str]:
    """Return {path: where it was written} of every entry below `value`."""
    found: dict[str, str] = {}
    entries: Any = value.items() if isinstance(value, Map) else enumerate(value)
    for key, inner in entries:
        place = f"{path}[{key}]" if isinstance(value, Items) else f"{path}.{key}".lstrip(".")
        if (isinstance(value, Map) and key in value.origins) or isinstance(value, Items):
            found[place] = value.origins[key].where
        if isinstance(inner, Map | Items):
            found |= lines_of(inner, place)
    return found


def origin_of(root: Map, place: tuple[str | int, ...]) -> Origin:
    """Return the origin of the entry at `place`, or of the nearest entry around it."""
    value: Any = root
    origin = root.origin
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
