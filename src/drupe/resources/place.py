"""Place: something elsewhere that can be listed and read, a file or a folder of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from drupe.core.digest import value_digest
from drupe.core.errors import DrupeError


@dataclass(frozen=True)
class Entry:
    """One file as the other side describes it.

    name: its path below the place; of a place that is a file, its own name. version: what changes
    with its content: an etag, else a time. md5: as hex digits, where the other side tells it.
    """

    name: str
    size_bytes: int
    version: str
    md5: str | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a place, sorted by name. is_file: the place is its only file."""

    entries: tuple[Entry, ...]
    is_file: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def digest(self) -> str:
        """What changes when any of its files does."""
        return value_digest(
            [[entry.name, entry.size_bytes, entry.version] for entry in self.entries]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the listing as JSON values."""
        entries = [[each.name, each.size_bytes, each.version, each.md5] for each in self.entries]
        return {"entries": entries, "is_file": self.is_file}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Listing:
        """Return the listing that `to_json` wrote."""
        return cls(tuple(Entry(*each) for each in value["entries"]), value["is_file"])


class Place(Protocol):
    """What lies elsewhere. Calls that may well succeed when made again raise `Transient`."""

    def listing(self) -> Listing:
        """Return all files, without reading one."""

    def read(self, entry: Entry, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on; raises DrupeError for one that was changed."""


def listed(where: str, uri: str, found: Iterator[Entry], *, is_file: bool) -> Listing:
    """Return the listing of what was found; raises DrupeError for names that lead elsewhere."""
    entries = tuple(sorted(found, key=lambda entry: entry.name))
    for entry in entries:
        path = PurePosixPath(entry.name)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.name or not path.parts:
            what = f'holds "{entry.name}", which leads out of the folder'
            raise DrupeError(where, f"{uri} {what}", "Rename that file there.")
    return Listing(entries, is_file)
