"""Locks that a process holds on a file, and that end with it; POSIX and Windows behind one door.

Nothing else in drupe calls fcntl or msvcrt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


@contextmanager
def locked(path: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made when absent), waiting for it.

    `waits` is called when another process holds it. The lock goes with the process, so a killed
    one leaves none behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+b") as file:
            if not _lock(file, wait=False):
                waits()
                _lock(file, wait=True)
            if _names(path, file):  # else it was removed while we waited for it
                try:
                    yield
                finally:
                    _unlock(file)
                return


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock `path` if no process does; yield whether it is held now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        held = _lock(file, wait=False)
        try:
            yield held and _names(path, file)
        finally:
            if held:
                _unlock(file)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock `path`; makes no file."""
    try:
        with path.open("rb") as file:
            held = _lock(file, wait=False)
            if held:
                _unlock(file)
            return not held
    except (FileNotFoundError, IsADirectoryError):
        return False


def _names(path: Path, file: IO[bytes]) -> bool:
    """Return whether `path` is still the name of the open `file`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Lock an open file; return False if another process holds it and we do not wait."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(file: IO[bytes]) -> None:
    if fcntl is None:  # elsewhere the lock goes as the file is closed
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
