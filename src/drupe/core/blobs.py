"""The blobs of a cache: one read-only file per content, named by its digest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from drupe.core.digest import file_digest
from drupe.core.files import link_or_copy, make_read_only, sync_file, sync_folder

FOLDER, NAME = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{62}")


class Blobs:
    """A folder of blobs. One that is lost costs the sharing of its content, never a result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Return where the content `digest` lies, if it is here."""
        return self.folder / digest[:2] / digest[2:]

    def all(self) -> Iterator[tuple[str, Path]]:
        """Yield the digest and the file of each blob; a foreign file is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for folder in sorted(self.folder.iterdir()):
                if FOLDER.fullmatch(folder.name) and folder.is_dir():
                    for file in sorted(folder.iterdir()):
                        if NAME.fullmatch(file.name) and file.is_file():
                            yield folder.name + file.name, file

    def store(self, file: Path, name: Path) -> str:
        """Make `file` a blob (a rename, no byte is moved) with the second name `name`.

        Returns its digest. `file` itself is gone then, or a blob of the same content was there
        already, and `name` is a name of that one.
        """
        sync_file(file)
        digest = file_digest(file)
        blob = self.path(digest)
        if self._is_sound(blob, file, digest):
            with suppress(FileNotFoundError):  # dropped this moment, by another's housekeeping
                link_or_copy(blob, name)
                return digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        make_read_only(file)
        link_or_copy(file, name)  # first: housekeeping may drop the blob as soon as it is there
        os.replace(file, blob)
        sync_folder(blob.parent)
        return digest

    def _is_sound(self, blob: Path, file: Path, digest: str) -> bool:
        """Return whether the blob keeps what its name promises: it may have been edited."""
        try:
            return blob.stat().st_size == file.stat().st_size and file_digest(blob) == digest
        except OSError:  # absent, or the disk does not give it back
            return False
