"""Digests: the tree against its plain definition, folders, and the memo."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.core import digest
from drupe.core.digest import DigestMemo, canonical_json, file_digest, folder_digest, value_digest
from drupe.core.files import files_below, write_atomic


def plain_digest(data: bytes, chunk: int) -> str:
    """The definition in the fewest words: SHA-256 of the size and the SHA-256 of each chunk."""
    chunks = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    tree = b"".join(hashlib.sha256(each).digest() for each in chunks)
    return hashlib.sha256(b"drupe-tree-1\0" + str(len(data)).encode() + b"\0" + tree).hexdigest()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock show a minute later: the memo trusts the times of the test's files."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17, 80])
def test_equals_the_plain_version_at_chunk_borders(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "CHUNK_BYTES", 8)
    monkeypatch.setattr(digest, "READ_BYTES", 3)
    file = tmp_path / "file"
    file.write_bytes(bytes(range(size)))
    assert file_digest(file) == plain_digest(bytes(range(size)), 8)


def test_is_pinned(tmp_path: Path) -> None:
    """Another value here makes every cache in the world cold: raise a format's number with it."""
    file = tmp_path / "file"
    file.write_bytes(b"drupe")
    assert file_digest(file) == plain_digest(b"drupe", 64 * 2**20)
    assert file_digest(file) == "d26c9363ec5de6ce463223fc0aefbfd5adeed1c35396bf09b826b48b3a644a93"
    assert (
        folder_digest({"a": "1", "b/c": "2"})
        == "bd5cc28f81bfe661cd8b0da0615e85ae9e25491e9b95331e3956120668656023"
    )


@given(st.dictionaries(st.text(), st.text()), st.randoms())
def test_a_folders_digest_knows_no_order(files: dict[str, str], random: object) -> None:
    shuffled = list(files.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folder_digest(files) == folder_digest(dict(shuffled))


@given(st.dictionaries(st.text(), st.text(), min_size=1), st.text())
def test_a_folders_digest_knows_names_and_contents(files: dict[str, str], other: str) -> None:
    name = next(iter(files))
    if other != files[name]:
        assert folder_digest(files) != folder_digest({**files, name: other})
    if other not in files:
        renamed = {(other if key == name else key): value for key, value in files.items()}
        assert folder_digest(files) != folder_digest(renamed)


def test_a_folders_digest_knows_no_location(tmp_path: Path) -> None:
    digests = []
    for place in ("here", "there/deep"):
        folder = tmp_path / place
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "b.txt").write_text("b")
        (folder / "a.txt").write_text("a")
        digests.append(DigestMemo().folder(folder, files_below(folder)))
    assert digests[0] == digests[1]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_canonical_json_is_one_text_a_value(value: dict[str, object]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))
    assert value_digest(value) == hashlib.sha256(canonical_json(value)).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read for their digest, in order."""
    read: list[Path] = []
    original: Callable[[Path], str] = file_digest

    def counted(path: Path) -> str:
        read.append(path)
        return original(path)

    monkeypatch.setattr(digest, "file_digest", counted)
    return read


@pytest.mark.usefixtures("later")
def test_the_memo_reads_an_unchanged_file_once(tmp_path: Path, reads: list[Path]) -> None:
    file = written(tmp_path / "file", b"old")
    memo = DigestMemo()
    assert memo.digest(file) == memo.digest(file) == plain_digest(b"old", 64 * 2**20)
    assert reads == [file]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("keeps_time", [False, True], ids=["", "keeping size and time"])
def test_the_memo_reads_a_file_that_was_edited_in_place(
    keeps_time: bool, tmp_path: Path, reads: list[Path]
) -> None:
    file = written(tmp_path / "file", b"old")
    memo = DigestMemo()
    memo.digest(file)
    before = file.stat()
    time.sleep(0.02)  # the change time's clock may tick as rarely as a hundred times a second
    file.write_bytes(b"new")
    if keeps_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memo.digest(file) == plain_digest(b"new", 64 * 2**20)
    assert reads == [file, file]


@pytest.mark.parametrize("mtime", [None, 0, 2**33], ids=["now", "of 1970", "of the future"])
def test_the_memo_does_not_trust_a_file_of_this_moment(
    mtime: int | None, tmp_path: Path, reads: list[Path]
) -> None:
    """Nor one whose time was set: its change time is of this moment, or it lies ahead."""
    file = written(tmp_path / "file", b"old")
    if mtime is not None:
        os.utime(file, (mtime, mtime))
    memo = DigestMemo()
    memo.digest(file)
    memo.digest(file)
    assert reads == [file, file]
    assert memo.unsaved() is None


def test_the_memo_trusts_no_file_of_a_clock_that_was_set_back(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "file", b"old")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    memo = DigestMemo()
    assert memo.digest(file) == memo.digest(file)
    assert reads == [file, file]


@pytest.mark.usefixtures("later")
def test_the_memo_forgets_what_nobody_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo, now = DigestMemo(), time.time()
    for name in ("old", "new"):
        memo.digest(written(tmp_path / name, name.encode()))
    monkeypatch.setattr(time, "time", lambda: now + 100 * 86400)
    memo.digest(tmp_path / "new")
    assert memo.forget(unused_days=90) == 1
    assert memo.forget(unused_days=90) == 0
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    assert memo.forget(unused_days=0) == 0, "the clock was set back: nothing is old"


@pytest.mark.usefixtures("later")
def test_the_memo_is_kept_without_a_path(tmp_path: Path, reads: list[Path]) -> None:
    file = written(tmp_path / "file", b"old")
    memo = DigestMemo(tmp_path / "cache" / "digests")
    memo.digest(file)
    assert not (tmp_path / "cache").exists()
    data = memo.unsaved()
    assert data is not None
    assert str(tmp_path) not in data.decode()
    assert "file" not in data.decode()
    write_atomic(tmp_path / "cache" / "digests", data)
    again = DigestMemo(tmp_path / "cache" / "digests")
    assert again.digest(file) == plain_digest(b"old", 64 * 2**20)
    assert reads == [file]
    assert again.unsaved() is None


FORGED = '{"format": 2, "known": {"1:2:3:4:5": ["0", 1]}, "seal": "0"}'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1, "digests": {}}', '{"format": 2}', "[" * 10**5, FORGED],
)
def test_a_memo_that_cannot_be_read_is_forgotten(text: str, tmp_path: Path) -> None:
    file = written(tmp_path / "file", b"old")
    (tmp_path / "digests").write_text(text)
    assert DigestMemo(tmp_path / "digests").digest(file) == plain_digest(b"old", 64 * 2**20)
