"""Content digests: SHA-256 over a tree of 64 MiB chunks, hashed side by side.

A chunk tree lets two threads hash one file (1 GB/s a core, so near the disk's speed), and lets
a single chunk be checked alone. `hashlib` releases the interpreter lock while it hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHUNK_BYTES = 64 * 2**20
READ_BYTES = 2**20
MEMO_FORMAT = 2
# A file changed this recently may be changed again within one tick of its clock: not remembered.
SETTLED_NS = 2 * 10**9


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of `value`: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def value_digest(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sealed(value: dict[str, Any]) -> bytes:
    """Return `value` as canonical JSON with the digest of it all under "seal"."""
    written = json.loads(canonical_json(value))  # as it will be read: keys are texts there
    return canonical_json({**written, "seal": value_digest(written)})


def is_sealed(value: dict[str, Any]) -> bool:
    """Return whether `value` is what `sealed` wrote."""
    return value.get("seal") == value_digest({k: v for k, v in value.items() if k != "seal"})


def tree_digest(size_bytes: int, chunks: list[bytes]) -> str:
    """Return the digest of a file from the SHA-256 of each of its chunks."""
    return hashlib.sha256(b"drupe-tree-1\0%d\0" % size_bytes + b"".join(chunks)).hexdigest()


def file_digest(path: Path) -> str:
    """Return the content digest of a file (64 hex digits); its name is no part of it."""
    size = path.stat().st_size
    starts = range(0, size, CHUNK_BYTES)
    if len(starts) <= 1:
        return tree_digest(size, [_chunk_digest(path, start) for start in starts])
    with ThreadPoolExecutor(2) as pool:
        return tree_digest(size, list(pool.map(lambda start: _chunk_digest(path, start), starts)))


def _chunk_digest(path: Path, start: int) -> bytes:
    digest, left = hashlib.sha256(), CHUNK_BYTES
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (data := file.read(min(READ_BYTES, left))):
            digest.update(data)
            left -= len(data)
    return digest.digest()


def folder_digest(files: Mapping[str, str]) -> str:
    """Return the digest of a folder from {relative posix path: content digest}."""
    return value_digest(["drupe-folder-1", sorted(files.items())])


def identity(status: os.stat_result) -> str:
    """Return what tells that a file was not touched: device, inode, size, time of change."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


class DigestMemo:
    """Remembers digests of files by their `identity`, so that 7.6 GB are hashed once.

    The memo holds no paths, but the day on which each digest was last asked for. It is read
    from `file` when there is one and written by its owner: asking creates nothing.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._known: dict[str, tuple[str, int]] = {}
        self._changed = False
        if file is not None and file.is_file():
            try:
                read = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                read = None  # half-written by a machine that went down: hash again
            if isinstance(read, dict) and read.get("format") == MEMO_FORMAT and is_sealed(read):
                self._known = {mark: (digest, day) for mark, (digest, day) in read["known"].items()}

    def digest(self, path: Path) -> str:
        """Return the content digest of `path`, hashing it if it is new or was touched."""
        status = path.stat()
        mark = f"{identity(status)}:{status.st_ctime_ns}"  # no cp -p escapes the change time
        if mark in self._known:
            digest, day = self._known[mark]
        else:
            digest, day = file_digest(path), -1
            if not _is_settled(path.stat(), status):
                return digest
        if day != _today():
            self._known[mark] = (digest, _today())
            self._changed = True
        return digest

    def folder(self, root: Path, files: list[Path]) -> str:
        """Return the digest of those `files` (below `root`) as one folder."""
        return folder_digest(
            {file.relative_to(root).as_posix(): self.digest(file) for file in files}
        )

    def forget(self, unused_days: int) -> int:
        """Forget what was not asked for in so many days; return how many digests that was."""
        old = [mark for mark, (_, day) in self._known.items() if _today() - day > unused_days]
        for mark in old:
            del self._known[mark]
        self._changed = self._changed or bool(old)
        return len(old)

    def unsaved(self) -> bytes | None:
        """Return the memo's new text if it has learnt something, else None."""
        if not self._changed:
            return None
        return sealed({"format": MEMO_FORMAT, "known": self._known})


def _is_settled(after: os.stat_result, before: os.stat_result) -> bool:
    """Return whether a file stayed as it was while it was read, and was left alone for a while.

    One of the future (the clock was set back) was not: it is read each time.
    """
    last = max(after.st_mtime_ns, after.st_ctime_ns)
    return (
        identity(after) == identity(before)
        and after.st_ctime_ns == before.st_ctime_ns
        and time.time_ns() - last >= SETTLED_NS
    )


def _today() -> int:
    """Return the day by the machine's clock, counted from 1970."""
    return int(time.time() // 86400)
