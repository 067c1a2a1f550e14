"""Files fetched from elsewhere into the cache: whole or absent, resumed, checked, once.

    CACHE/resources/DIGEST/parts/...    on the way; a restart goes on where each file ends
    CACHE/resources/DIGEST/files/NAME/  whole: the size of each file is the listing's, and its MD5
                                        where the other side tells one
    CACHE/resources/DIGEST/listing      what was fetched

DIGEST is of the address and, where that may change what it holds, of the listing, so that a
folder never mixes versions. One process fetches, the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from drupe.core.digest import canonical_json
from drupe.core.errors import DrupeError
from drupe.core.executor import Transient
from drupe.core.files import full_disk_told, remove_tree, write_atomic
from drupe.core.locks import locked
from drupe.resources.place import Entry, Listing, Place

ATTEMPTS, FIRST_SECONDS, MOST_SECONDS = 6, 1.0, 30.0
SIDE_BY_SIDE = 4
TOLD_SECONDS = 5.0
READ_BYTES = 2**20
FOLDER = "resources"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """What was fetched before. path: the folder, or the file where the place is one."""

    path: Path
    listing: Listing


def kept(cache: Path, digest: str, name: str) -> Kept | None:
    """Return what lies under `digest`, if it is here and whole."""
    folder = cache / FOLDER / digest
    try:
        listing = Listing.from_json(json.loads((folder / "listing").read_text(encoding="utf-8")))
        with suppress(OSError):  # a cache that cannot be written serves what it holds
            os.utime(folder / "listing")  # housekeeping drops what is not asked for any more
    except (OSError, ValueError, KeyError, TypeError):
        return None
    below = folder / "files" / name
    whole = below.is_dir() and all(
        _size(below / entry.name) == entry.size_bytes for entry in listing.entries
    )
    if not whole:
        return None
    return Kept(below / listing.entries[0].name if listing.is_file else below, listing)


def fetch(cache: Path, digest: str, name: str, place: Place, listing: Listing, note: Note) -> Kept:
    """Return the files of `place`, fetching what is not here.

    name: of the folder in which they lie. Raises DrupeError where they cannot be had; what came
    is kept for the next time.
    """
    folder = cache / FOLDER / digest

    def waits() -> None:
        note(f"Another process fetches {name}: waiting for it.")

    with locked(cache / "locks" / digest, waits):
        found = kept(cache, digest, name)
        if found is not None:
            return found
        parts = folder / "parts"
        with full_disk_told(cache):
            parts.mkdir(parents=True, exist_ok=True)
            _Fetching(place, parts, name, listing, note).all()
            _refuse_changed(place, parts, name, listing)
            remove_tree(folder / "files")
            (folder / "files").mkdir()
            os.replace(parts, folder / "files" / name)
            write_atomic(folder / "listing", canonical_json(listing.to_json()))
    found = kept(cache, digest, name)
    if found is None:
        raise DrupeError(name, "was taken from the cache at once", "Run again.")
    return found


def _refuse_changed(place: Place, parts: Path, name: str, listing: Listing) -> None:
    """Raise DrupeError where the other side changed meanwhile: not every kind tells a read so."""
    if not set(listing.entries) <= set(place.listing().entries):
        remove_tree(parts)
        remedy = "Run again when it is left alone."
        raise DrupeError(name, "was changed while it was fetched", remedy)


@dataclass
class _Fetching:
    """The files of one place on their way, some side by side."""

    place: Place
    folder: Path
    name: str
    listing: Listing
    note: Note
    _done: int = 0
    _told: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def all(self) -> None:
        largest = sorted(self.listing.entries, key=lambda entry: -entry.size_bytes)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            running = [pool.submit(self._file, entry) for entry in largest]
            try:
                for each in running:
                    each.result()
            except BaseException:
                self._stopped.set()  # the others end at their next bytes
                raise

    def _file(self, entry: Entry) -> None:
        whole = self.folder / entry.name
        part = whole.with_name(f"{whole.name}.part")
        if _size(whole) == entry.size_bytes:
            self._progress(entry.size_bytes)
            return
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            if file.tell() > entry.size_bytes:
                file.seek(0)
                file.truncate()
            self._progress(file.tell())
            self._rest(entry, file)
            file.flush()
            os.fsync(file.fileno())
        if self._stopped.is_set():
            return
        self._check(entry, part)
        os.replace(part, whole)

    def _rest(self, entry: Entry, file: IO[bytes]) -> None:
        """Add to `file` what it lacks, trying again where that may help."""
        seconds, attempt = FIRST_SECONDS, 1
        while file.tell() < entry.size_bytes and not self._stopped.is_set():
            before = file.tell()
            try:
                for data in self.place.read(entry, before):
                    if self._stopped.is_set():
                        return
                    file.write(data)
                    self._progress(len(data))
                self._refuse_stop(entry, before, file.tell())
            except Transient as fault:
                if file.tell() > before:
                    seconds, attempt = FIRST_SECONDS, 1
                if attempt == ATTEMPTS:
                    raise
                self._stopped.wait(min(fault.after_seconds or seconds, MOST_SECONDS))
                seconds, attempt = seconds * 2, attempt + 1

    def _refuse_stop(self, entry: Entry, before: int, after: int) -> None:
        if after == before:
            what = f"{entry.name} ends after {before} of {entry.size_bytes} bytes"
            raise Transient(self.name, what, "Run again: what is here is kept.")

    def _check(self, entry: Entry, part: Path) -> None:
        size = _size(part)
        if size != entry.size_bytes:
            part.unlink()
            what = f"{entry.name} arrived with {size} bytes, not {entry.size_bytes}"
            raise DrupeError(self.name, what, "Run again: it is fetched anew.")
        if entry.md5 is None:
            return
        digest = hashlib.md5(usedforsecurity=False)
        with part.open("rb") as file:
            while data := file.read(READ_BYTES):
                digest.update(data)
        if digest.hexdigest() != entry.md5:
            part.unlink()
            what = f"{entry.name} arrived with the MD5 {digest.hexdigest()}, not {entry.md5}"
            raise DrupeError(self.name, what, "Run again: it is fetched anew.")

    def _progress(self, size_bytes: int) -> None:
        with self._lock:
            self._done += size_bytes
            now = time.monotonic()
            if now - self._told >= TOLD_SECONDS:
                self._told = now
                total = max(self.listing.size_bytes, 1)
                self.note(
                    f"Fetching {self.name}: {self._done / 2**20:.0f} of {total / 2**20:.0f} MiB "
                    f"({100 * self._done / total:.0f} %)."
                )


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
