"""Files that are whole or absent: atomic writes and links; POSIX and Windows behind one door.

Nothing else in drupe calls link or fsync.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from drupe.core.errors import DrupeError, Refused
from drupe.core.process import is_alive

# A disk with less than this left is full for a model's work.
FULL_BYTES = 2**20
LINK_FROM_BYTES = 16 * 2**20


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = _written_beside(path, data)
    try:
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, or leave all as it was; the last one gets its name last.

    A kill between two names leaves the later ones out.
    """
    with ExitStack() as undo:
        halves = {}
        for path, data in contents.items():
            for folder in _absent_folders(path.parent):
                folder.mkdir()
                undo.callback(folder.rmdir)
            halves[path] = _written_beside(path, data)
            undo.callback(halves[path].unlink, missing_ok=True)
        asides = []
        for path, half in halves.items():
            if os.path.lexists(path):
                aside = path.with_name(f".{path.name}.replaced-{os.getpid()}")
                asides.append(aside)
                undo.callback(_put_back, aside, path)
                os.replace(path, aside)
            else:
                undo.callback(path.unlink, missing_ok=True)
            os.replace(half, path)
        undo.pop_all()
    for aside in asides:
        aside.unlink()
    for folder in {path.parent for path in contents}:
        sync_folder(folder)


def _put_back(aside: Path, path: Path) -> None:
    """Give what was moved aside, if it was, its name again."""
    if os.path.lexists(aside):
        os.replace(aside, path)


def _absent_folders(folder: Path) -> list[Path]:
    """Return the folders that are to be made so that `folder` is there, the uppermost first."""
    absent = []
    while not folder.exists() and folder != folder.parent:
        absent.append(folder)
        folder = folder.parent
    return absent[::-1]


def _written_beside(path: Path, data: bytes) -> Path:
    """Return a new file beside `path`, of which the disk holds all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    return Path(name)


def _umask() -> int:
    """Return what new files may not be; it cannot be asked for without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def check_writable(folder: Path, where: str) -> None:
    """Raise Refused unless `folder` can be written to, or can be made; creates nothing."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise Refused(where, f"is {folder}, but {place} is a file", "Name another folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise Refused(
            where, f"is {folder}, but {place} cannot be written to", "Name another folder."
        )


def full_disk(folder: Path) -> DrupeError:
    """Return the error that says that the disk of `folder` is full, and what to do."""
    usage = shutil.disk_usage(_nearest_folder(folder))
    return DrupeError(
        str(folder),
        f"its disk is full ({usage.free / 1e6:.1f} MB of {usage.total / 1e6:.1f} MB left)",
        "Make room there (drupe cache gc drops what nothing needs) and run again: finished steps "
        "are kept.",
    )


def is_disk_full(folder: Path) -> bool:
    """Return whether the disk of `folder` has no room left."""
    return shutil.disk_usage(_nearest_folder(folder)).free < FULL_BYTES


def _nearest_folder(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turn "no space left on device", which names no place, into words about `folder`'s disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise full_disk(folder) from error


def sync_file(path: Path) -> None:
    """Have the disk hold what was written to `path`."""
    with path.open("rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the disk hold the names in `path` (Windows does this by itself)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> list[Path]:
    """Return all regular files below `folder`, sorted by their relative posix path.

    Raises DrupeError for a link that leads out of the folder: a model that was copied or sent
    would lack what it points to, and a hostile one could name any file of the machine.
    """
    root = folder.resolve()
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() and not _target(path).is_relative_to(root):
            raise DrupeError(
                str(path),
                f"is a link to {_target(path)}, which lies outside {folder}",
                "Replace the link by the file itself.",
            )
        if path.is_symlink() and path.is_dir():
            raise DrupeError(
                str(path),
                f"is a link to the folder {path.resolve()}, whose files would be left out",
                "Replace the link by the folder itself.",
            )
        if path.is_file():
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _target(link: Path) -> Path:
    """Return what a link leads to; raises DrupeError for one that leads to itself."""
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError until Python 3.12
        raise DrupeError(str(link), "is a link that leads to itself", "Remove it.") from error


def link_or_copy(source: Path, destination: Path) -> None:
    """Give `source` a second name, or copy it where the file system has no hard links.

    `destination` holds all of it or what it held before.
    """
    with file_in_place_of(destination) as half:
        try:
            os.link(source, half)
        except OSError:
            shutil.copyfile(source, half)
            shutil.copymode(source, half)


def link_if_large(source: Path, destination: Path) -> None:
    """Link a large file and copy a small one, for that is what people edit."""
    if source.stat().st_size >= LINK_FROM_BYTES:
        link_or_copy(source, destination)
    else:
        copy_whole(source, destination)


def link_softly(source: Path, destination: Path) -> None:
    """Have `destination` lead to `source`: by a symbolic link, else as `link_or_copy` does."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        destination.symlink_to(source)
    except (OSError, NotImplementedError):  # Windows, unless the user is allowed to
        link_or_copy(source, destination)


def copy_whole(source: Path, destination: Path) -> None:
    """Copy a file so that `destination` holds all of it or what it held before."""
    with file_in_place_of(destination) as half:
        shutil.copyfile(source, half)


@contextmanager
def file_in_place_of(destination: Path) -> Iterator[Path]:
    """Yield the name of a file beside `destination` that becomes it when all went well."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    half = destination.with_name(f".{destination.name}.half-{os.getpid()}")
    half.unlink(missing_ok=True)
    try:
        yield half
        os.replace(half, destination)
    finally:
        half.unlink(missing_ok=True)  # on failure; and two names of one file stay two


def make_read_only(path: Path) -> None:
    """Take the write permission from a file."""
    path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def remove_tree(path: Path) -> None:
    """Remove a folder with all below it, read-only files too; an absent one is no fault."""
    if not path.is_dir() or path.is_symlink():  # a file where a folder should be
        path.unlink(missing_ok=True)
        return
    if os.name == "nt":  # a read-only file cannot be deleted there
        for file in path.rglob("*"):
            if file.is_file():
                file.chmod(stat.S_IWUSR | stat.S_IRUSR)
    shutil.rmtree(path)


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old`; at no moment is there half a folder."""
    if not old.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, old)
    else:
        aside = old.with_name(f".{old.name}.replaced-{os.getpid()}")
        os.replace(old, aside)
        try:
            os.replace(new, old)
        except BaseException:
            os.replace(aside, old)
            raise
        remove_tree(aside)
    sync_folder(old.parent)


@contextmanager
def folder_in_place_of(destination: Path) -> Iterator[Path]:
    """Yield an empty sibling of `destination` that takes its place when all went well."""
    tidy_up_beside(destination)
    staging = destination.with_name(f".{destination.name}.new-{os.getpid()}")
    remove_tree(staging)
    staging.mkdir(parents=True)
    try:
        yield staging
        replace_folder(staging, destination)
    finally:
        remove_tree(staging)


def tidy_up_beside(folder: Path) -> None:
    """Put right what a process that was killed while it replaced `folder` has left beside it."""
    for aside in folder.parent.glob(f".{folder.name}.replaced-*"):
        if not is_alive(_owner(aside)):
            if folder.exists():
                remove_tree(aside)
            else:
                os.replace(aside, folder)
    for staging in folder.parent.glob(f".{folder.name}.new-*"):
        if not is_alive(_owner(staging)):
            remove_tree(staging)


def tidy_up_halves(destination: Path) -> None:
    """Remove what a process that was killed while it wrote the file `destination` has left."""
    for half in destination.parent.glob(f"{glob.escape(f'.{destination.name}.half-')}*"):
        if not is_alive(_owner(half)):
            half.unlink(missing_ok=True)


def _owner(folder: Path) -> int:
    """Return the process that made a folder or file which is named by its number."""
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
