"""What lies in a cache at one moment: its results, their sizes and ages, its blobs.

Reads names, sizes and manifests, and no byte of a result. Only what has the name of a key or of
a digest is looked at: whatever else somebody keeps in the folder is not the cache's.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from drupe.core.cache import FOLDERS, Cache
from drupe.core.errors import DrupeError, Refused
from drupe.core.locks import is_locked
from drupe.core.manifest import Manifest, OtherFormat, compare
from drupe.core.process import is_alive

KEY = re.compile(r"[0-9a-f]{64}")
ASIDE = re.compile(r"\.[0-9a-f]{64}\.(replaced|dropped)-\d+")
SHORT = 12
Inode = tuple[int, int]
Sizes = dict[Inode, int]
State = Literal["sound", "unverified", "damaged", "other format"]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a cache keeps. sizes: its files by their inodes. used: last, in seconds since 1970."""

    sizes: Sizes
    used: float

    @property
    def size_bytes(self) -> int:
        """The size of all its files."""
        return sum(self.sizes.values())

    @property
    def age_seconds(self) -> float:
        """How long ago it was used; 0 where the clock was set back since."""
        return max(0.0, time.time() - self.used)


@dataclass(frozen=True)
class Entry(Kept):
    """One result.

    state: "sound" (its files are those that were made, as far as their marks tell),
        "unverified" (the cache was moved or copied: their bytes tell), "damaged", or
        "other format"; why: the last two in words.
    digests: the blobs that it names. made: when it was made, in seconds since 1970.
    """

    key: str
    state: State
    why: str
    manifest: Manifest | None
    digests: frozenset[str]
    made: float

    def to_json(self) -> dict[str, Any]:
        """Return what `drupe cache ls --json` tells of it."""
        return {
            "key": self.key,
            "operation": self.manifest.operation if self.manifest else None,
            "kind": self.manifest.kind if self.manifest else None,
            "size_bytes": self.size_bytes,
            "made": self.made,
            "used": self.used,
            "state": self.state,
            "why": self.why,
        }


@dataclass(frozen=True)
class Stock:
    """All results of a cache, and its blobs: {digest: file's sizes}."""

    entries: tuple[Entry, ...]
    blobs: dict[str, Sizes]

    @property
    def total_bytes(self) -> int:
        """The bytes on the disk: what has several names is counted once."""
        return total_of(self.sizes)

    @property
    def sizes(self) -> list[Sizes]:
        """The files of each result and of each blob, by their inodes."""
        return [*(entry.sizes for entry in self.entries), *self.blobs.values()]

    @cached_property
    def _holders(self) -> Counter[Inode]:
        return Counter(inode for entry in self.entries for inode in entry.sizes)

    def own_bytes(self, entry: Entry) -> int:
        """Return how much of a result no other result shares."""
        return sum(size for inode, size in entry.sizes.items() if self._holders[inode] == 1)

    def without(self, dropped: Iterable[Entry]) -> Stock:
        """Return the stock without these results, and without the blobs that nothing names."""
        keys = {entry.key for entry in dropped}
        entries = tuple(entry for entry in self.entries if entry.key not in keys)
        named = {digest for entry in entries for digest in entry.digests}
        return Stock(entries, {name: size for name, size in self.blobs.items() if name in named})

    def named(self, prefix: str) -> Entry:
        """Return the result whose key begins with `prefix`; raises Refused unless it is one."""
        found = [entry for entry in self.entries if entry.key.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise Refused(
                f'"{prefix}"',
                "is the key of no result in this cache",
                "drupe cache ls lists the keys.",
            )
        meant = ", ".join(_described(entry) for entry in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise Refused(f'"{prefix}"', f"may be {meant}{more}", "Give more digits of the key.")


def total_of(sizes: Iterable[Sizes]) -> int:
    """Return the bytes of all files, each counted once."""
    merged: Sizes = {}
    for each in sizes:
        merged |= each
    return sum(merged.values())


def _described(entry: Entry) -> str:
    operation = entry.manifest.operation if entry.manifest else entry.state
    return f"{entry.key[:SHORT]} ({operation})"


def check_is_cache(folder: Path) -> None:
    """Raise Refused unless `folder` is a cache: nobody else's `work` is to be tidied up."""
    if not any((folder / name).is_dir() for name in FOLDERS):
        raise Refused(
            str(folder),
            "is no cache of drupe",
            "Name one: --cache-dir DIR, or the config whose cache is meant.",
        )


def survey(cache: Cache) -> Stock:
    """Return what lies in the cache now; what others drop meanwhile is left out."""
    entries = []
    for step in names_in(cache.folder / "steps"):
        if KEY.fullmatch(step.name):
            with suppress(FileNotFoundError):
                entries.append(_entry(step))
    return Stock(tuple(entries), {digest: sizes_of(file) for digest, file in cache.blobs.all()})


def _entry(step: Path) -> Entry:
    manifest: Manifest | None = None
    state: State
    try:
        manifest = Manifest.read(step)
        state, why = _state(step, manifest)
    except FileNotFoundError:
        step.stat()  # dropped by another: no entry
        state, why = "damaged", "its manifest is missing"
    except OtherFormat as error:
        state, why = "other format", str(error)
    except ValueError as error:
        state, why = "damaged", str(error)
    about = step / "manifest" if (step / "manifest").exists() else step
    used = about.stat().st_mtime
    made = float(manifest.made) if manifest else used
    digests = frozenset(_digests_in(step))
    sizes = sizes_of(step / "files")
    return Entry(step.name, state, why, manifest, digests, made, sizes=sizes, used=used)


def _state(step: Path, manifest: Manifest) -> tuple[State, str]:
    if manifest.key != step.name:
        return "damaged", "its manifest is another step's"
    try:
        compared = compare(step, manifest.files)
    except DrupeError as error:  # a link that leads out
        return "damaged", f"{error.where} {error.what}"
    if compared.fault is not None:
        return "damaged", compared.fault
    return ("unverified" if compared.touched else "sound"), ""


def _digests_in(step: Path) -> list[str]:
    """Return the blobs that a manifest of whatever format names."""
    try:
        files = json.loads((step / "manifest").read_text(encoding="utf-8"))["files"]
        return [digest for digest in files.values() if isinstance(digest, str)]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []


def sizes_of(path: Path) -> Sizes:
    """Return the inode and the size of a file, or of each file below a folder."""
    sizes: Sizes = {}
    files = path.rglob("*") if path.is_dir() else [path]
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = file.lstat()
            if not file.is_dir():
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sizes


def names_in(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def in_use(cache: Cache) -> set[str]:
    """Return the keys that a process works on, or that a run that goes on needs."""
    keys = {lock.name for lock in names_in(cache.folder / "locks") if is_locked(lock)}
    for told in names_in(cache.folder / "runs"):
        if is_locked(told):
            with suppress(FileNotFoundError):  # that run has ended this moment
                keys |= set(told.read_text().split())
    return keys


def left_behind(cache: Cache, busy: set[str]) -> Iterator[Path]:
    """Yield what killed processes left: folders of work, results moved aside, runs' notes."""
    for work in names_in(cache.folder / "work"):
        if KEY.fullmatch(work.name) and work.name not in busy:
            yield work
    for aside in names_in(cache.folder / "steps"):
        if ASIDE.fullmatch(aside.name) and not is_alive(int(aside.name.rpartition("-")[2])):
            yield aside
    for told in names_in(cache.folder / "runs"):
        if not is_locked(told):
            yield told
