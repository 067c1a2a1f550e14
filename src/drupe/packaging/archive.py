"""A zip that has the same bytes for the same content, and is whole or absent."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from drupe.core.errors import Refused
from drupe.core.files import file_in_place_of, sync_file, sync_folder, tidy_up_halves

Content = Path | bytes
# The earliest that the format can say. Unix as the system of origin, whatever this one is.
TIME = (1980, 1, 1, 0, 0, 0)
UNIX, MODE = 3, 0o100644 << 16
BLOCK_BYTES = 2**20
SIGNATURE = "drupe-package-1 "


def write_zip(destination: Path, content: Mapping[str, Content], stamp: str) -> None:
    """Write {name: file or bytes} as a zip that carries `stamp`; a block at a time is in memory.

    Nothing is compressed: weights hardly shrink, and what a compressor writes depends on its
    version. Names are sorted.
    """
    tidy_up_halves(destination)
    with file_in_place_of(destination) as half:
        with zipfile.ZipFile(half, "x", zipfile.ZIP_STORED) as archive:
            for name in sorted(content):
                check_name(name)
                _add(archive, name, content[name])
            archive.comment = (SIGNATURE + stamp).encode()
        sync_file(half)
    sync_folder(destination.parent)


def _add(archive: zipfile.ZipFile, name: str, content: Content) -> None:
    entry = zipfile.ZipInfo(name, TIME)
    entry.create_system, entry.external_attr = UNIX, MODE
    entry.file_size = size_of(content)  # from 2 GiB on it needs other headers
    with archive.open(entry, "w") as into:
        if isinstance(content, bytes):
            into.write(content)
        else:
            with content.open("rb") as source:
                _copy(source, into)


def _copy(source: IO[bytes], into: IO[bytes]) -> None:
    shutil.copyfileobj(source, into, BLOCK_BYTES)


def check_name(name: str) -> None:
    """Refuse a name that would lie outside of the folder into which an archive is unpacked."""
    parts = name.split("/")
    if not name or "\\" in name or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise Refused(name, "is no name for a file in a package", "Rename the model's file.")


def stamp_of_zip(file: Path) -> str | None:
    """Return the stamp of a whole zip that drupe wrote, or None."""
    try:
        with zipfile.ZipFile(file) as archive:
            comment = archive.comment.decode("ascii", "replace")
    except (OSError, zipfile.BadZipFile):
        return None
    return comment.removeprefix(SIGNATURE) if comment.startswith(SIGNATURE) else None


def size_of(content: Content) -> int:
    """Return how many bytes a file's content has."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size
