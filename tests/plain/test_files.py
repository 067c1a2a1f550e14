"""Files that are whole or absent."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drupe.core import files
from drupe.core.errors import DrupeError
from drupe.core.files import (
    copy_whole,
    files_below,
    folder_in_place_of,
    link_or_copy,
    make_read_only,
    remove_tree,
    replace_folder,
    write_atomic,
)
from drupe.core.locks import is_locked, lock_if_free, locked
from drupe.output import deliver


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    write_atomic(file, b"old")
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
    assert listed(file.parent) == ["file"]
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_atomic_leaves_the_old_content_on_failure(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_atomic(file, b"old")
    monkeypatch.setattr(files.os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert listed(tmp_path) == ["file"]


def test_files_below_is_sorted_by_posix_path(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a.b", "a/b/c"):
        write_atomic(tmp_path / name, b"")
    found = [file.relative_to(tmp_path).as_posix() for file in files_below(tmp_path)]
    assert found == sorted(["b", "a/z", "a.b", "a/b/c"])


def test_files_below_refuses_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside").write_text("fine")
    (folder / "link").symlink_to("inside")
    assert len(files_below(folder)) == 2
    (folder / "out").symlink_to("../secret")
    with pytest.raises(DrupeError, match=r"is a link to .*secret, which lies outside"):
        files_below(folder)


def test_files_below_refuses_a_folder_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "sub").symlink_to("../elsewhere")
    with pytest.raises(DrupeError, match=r"which lies outside"):
        files_below(tmp_path / "model")


def test_link_or_copy_copies_where_links_are_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_text("content")
    make_read_only(source)
    link_or_copy(source, tmp_path / "linked")
    monkeypatch.setattr(files.os, "link", full_disk)
    link_or_copy(source, tmp_path / "a" / "copied")
    assert (tmp_path / "linked").stat().st_ino == source.stat().st_ino
    copied = tmp_path / "a" / "copied"
    assert copied.stat().st_ino != source.stat().st_ino
    assert copied.read_text() == "content"
    assert copied.stat().st_mode & 0o222 == 0


def test_replace_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "file", b"new")
    replace_folder(tmp_path / "new", tmp_path / "deep" / "place")
    write_atomic(tmp_path / "newer" / "file", b"newer")
    replace_folder(tmp_path / "newer", tmp_path / "deep" / "place")
    assert (tmp_path / "deep" / "place" / "file").read_bytes() == b"newer"
    assert listed(tmp_path) == ["deep"]
    assert listed(tmp_path / "deep") == ["place"]


def test_replace_folder_puts_the_old_one_back_when_it_fails(tmp_path: Path) -> None:
    write_atomic(tmp_path / "old" / "file", b"old")
    with pytest.raises(FileNotFoundError, match="absent"):
        replace_folder(tmp_path / "absent", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_bytes() == b"old"
    assert listed(tmp_path) == ["old"]


def test_a_folder_that_fails_takes_no_place(tmp_path: Path) -> None:
    write_atomic(tmp_path / "place" / "file", b"old")

    def fail() -> None:
        with folder_in_place_of(tmp_path / "place") as staging:
            write_atomic(staging / "file", b"new")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert (tmp_path / "place" / "file").read_bytes() == b"old"
    assert listed(tmp_path) == ["place"]


def test_deliver_copies_what_people_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drupe.core.files.LINK_FROM_BYTES", 5)
    write_atomic(tmp_path / "result" / "sub" / "large", b"12345")
    write_atomic(tmp_path / "result" / "small", b"1234")
    for file in files_below(tmp_path / "result"):
        make_read_only(file)
    deliver(tmp_path / "result", tmp_path / "place")
    place = tmp_path / "place"
    assert (place / "sub" / "large").samefile(tmp_path / "result" / "sub" / "large")
    assert not (place / "small").samefile(tmp_path / "result" / "small")
    assert (place / "small").stat().st_mode & 0o200


def test_remove_tree_removes_what_is_read_only(tmp_path: Path) -> None:
    write_atomic(tmp_path / "tree" / "sub" / "file", b"")
    make_read_only(tmp_path / "tree" / "sub" / "file")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert listed(tmp_path) == []


HOLD = """
import sys, time
from pathlib import Path
from drupe.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_another_process_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "key"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout
    time.sleep(0.3)
    os.set_blocking(waiting.stdout.fileno(), False)
    assert waiting.stdout.readline() == ""
    holder.kill()  # no clean-up of its own
    holder.communicate()
    os.set_blocking(waiting.stdout.fileno(), True)
    assert waiting.stdout.readline() == "held\n"
    waiting.kill()
    waiting.communicate()
    with locked(lock):
        pass


def test_what_a_killed_replacement_left_is_put_right(tmp_path: Path) -> None:
    """A folder that was moved aside comes back if nothing took its place; staging goes."""
    nobody = 2**22 + 1  # above the kernel's largest process number
    (tmp_path / f".place.replaced-{nobody}").mkdir()
    (tmp_path / f".place.replaced-{nobody}" / "old.txt").write_text("old")
    (tmp_path / f".place.new-{nobody}").mkdir()
    with pytest.raises(ZeroDivisionError, match="division"), folder_in_place_of(tmp_path / "place"):
        raise ZeroDivisionError("division by zero")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "old.txt").read_text() == "old"


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    """Its files would be left out of whatever is made of the list."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    with pytest.raises(DrupeError, match=r"is a link to the folder .*real, whose files would be"):
        files_below(tmp_path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    if sys.version_info >= (3, 13):  # there it is no error, and no file
        assert files_below(tmp_path) == []
        return
    with pytest.raises(DrupeError, match=r"loop: is a link that leads to itself\n  Remove it\."):
        files_below(tmp_path)


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process grows beyond 1000 bytes meanwhile: a write fails in its middle.

    Around the call alone: what pytest itself writes may go into a larger file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("put", [copy_whole, link_or_copy])
def test_a_copy_that_fails_leaves_what_was_there(
    put: Callable[[Path, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "new").write_text("n" * 2000)
    (tmp_path / "place").write_text("old")

    def refuse(*names: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with small_files(), pytest.raises(OSError, match="File too large"):
        put(tmp_path / "new", tmp_path / "place")
    assert (tmp_path / "place").read_text() == "old"
    assert listed(tmp_path) == ["new", "place"]


def test_a_second_name_takes_the_place_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file")
    (tmp_path / "place").write_text("old")
    for _ in range(2):  # the second time they are one file already
        link_or_copy(tmp_path / "file", tmp_path / "place")
        assert (tmp_path / "place").samefile(tmp_path / "file")
        assert listed(tmp_path) == ["file", "place"]


def test_whether_a_lock_is_held_is_asked_without_making_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_locked(lock)
    assert listed(tmp_path) == []
    with locked(lock):
        assert is_locked(lock)
        with lock_if_free(lock) as free:
            assert not free
    assert not is_locked(lock)
    with lock_if_free(lock) as free:
        assert free
        assert is_locked(lock)


def test_remove_tree_removes_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "file")
    assert listed(tmp_path) == ["kept"]
