"""Reading every byte of a cache against the digests that it was written under."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from drupe.core.cache import Cache
from drupe.core.digest import file_digest, value_digest
from drupe.core.errors import DrupeError
from drupe.core.files import check_writable
from drupe.core.housekeeping import drop_result
from drupe.core.locks import is_locked
from drupe.core.manifest import Manifest, OtherFormat, compare
from drupe.core.stock import KEY, Inode, in_use, names_in


@dataclass(frozen=True)
class Damage:
    """One thing that is not what it was: a result, or a blob, by its key or digest."""

    what: Literal["result", "blob"]
    name: str
    fault: str


@dataclass
class Verified:
    """What was read, and what is wrong with it."""

    results: int = 0
    blobs: int = 0
    other_formats: int = 0
    read_bytes: int = 0
    damages: list[Damage] = field(default_factory=list)


def verify(cache: Cache) -> Verified:
    """Read each result and each blob of the cache; what is dropped meanwhile is left out."""
    verified = Verified()
    reader = _Reader(verified)
    for step in names_in(cache.folder / "steps"):
        if KEY.fullmatch(step.name):
            fault = _fault_of_result(step, reader, verified)
            # One that is made anew this moment is not damaged, but changing.
            if fault and step.exists() and not is_locked(cache.folder / "locks" / step.name):
                verified.damages.append(Damage("result", step.name, fault))
    for digest, file in cache.blobs.all():
        verified.blobs += 1
        fault = reader.fault(file, digest)
        if fault and file.exists():
            verified.damages.append(Damage("blob", digest, fault))
    return verified


def _fault_of_result(step: Path, reader: _Reader, verified: Verified) -> str | None:
    """Return what is wrong with a result, or None."""
    try:
        manifest = Manifest.read(step)
        verified.results += 1
        if manifest.key != step.name:
            return "its manifest is another step's"
        if manifest.parts and value_digest(manifest.parts) != manifest.key:
            return "its key is not that of what it was made of"
        fault = compare(step, manifest.files).fault
    except OtherFormat:
        verified.other_formats += 1
        return None
    except FileNotFoundError:
        return "its manifest is missing"
    except ValueError as error:
        return str(error)
    except DrupeError as error:  # a link that leads out
        return f"{error.where} {error.what}"
    except OSError as error:
        return f"its files cannot be read ({error})"
    if fault:
        return fault
    faults = (
        (name, reader.fault(step / "files" / name, digest))
        for name, digest in manifest.files.items()
    )
    return next((f"{name} {fault}" for name, fault in faults if fault), None)


class _Reader:
    """Reads each file once, whatever the number of its names."""

    def __init__(self, verified: Verified) -> None:
        self._verified = verified
        self._digests: dict[Inode, str] = {}

    def fault(self, file: Path, digest: str) -> str | None:
        """Return what is wrong with a file whose content should have that digest, or None."""
        try:
            status = file.stat()
            inode = (status.st_dev, status.st_ino)
            if inode not in self._digests:
                self._digests[inode] = file_digest(file)
                self._verified.read_bytes += status.st_size
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None if self._digests[inode] == digest else "has changed since it was made"


def repair(cache: Cache, damages: list[Damage]) -> list[Damage]:
    """Drop what is damaged: it is made anew when it is needed. Return what is left, being in use.

    A damaged blob goes in any case: nothing reads it but the making of another result.
    """
    check_writable(cache.folder, "the cache")
    busy, left = in_use(cache), []
    for damage in damages:
        if damage.what == "blob":
            cache.blobs.path(damage.name).unlink(missing_ok=True)
        elif damage.name in busy or not drop_result(cache, damage.name):
            left.append(damage)
    return left
