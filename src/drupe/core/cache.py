"""The cache: results as content-addressed blobs under manifests; whole or absent.

    blobs/ab/cdef...     one read-only file per content, named by its digest
    steps/KEY/manifest   what the step gave: {file: digest}, its parents, time, memory, facts
    steps/KEY/marks      device, inode, size and time of each file on this machine
    steps/KEY/files/     the result as a folder: hard links to the blobs
    locks/KEY            held by the process that works on a step
    work/KEY/            where a running step writes; its scratch outlives a kill
    digests              digests of input files by their identity

    a step's folder      is a hit when
    absent               never
    manifest + files     format, parents and kind fit, and each file's marks are those recorded
    marks differ         the bytes still give the digests (then the marks are renewed)
    anything else        never: a miss, told in one warning, and made anew

Reading creates nothing. What is in a manifest holds on any machine: no path, no secret.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drupe.core.digest import (
    DigestMemo,
    canonical_json,
    file_digest,
    folder_digest,
    identity,
)
from drupe.core.errors import DrupeError
from drupe.core.files import (
    files_below,
    link_or_copy,
    locked,
    make_read_only,
    remove_tree,
    replace_folder,
    sync_file,
    sync_folder,
    write_atomic,
)
from drupe.core.model import Model

FORMAT = 1
WAITING = "Another process works on this step: waiting for its result."


@dataclass(frozen=True)
class Result:
    """What a step gave, and what it cost when it ran.

    seconds: wall time. peak_bytes: most memory that the process held. facts: what the work told.
    hit: whether it was found in the cache.
    """

    key: str
    model: Model
    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    hit: bool

    @property
    def size_bytes(self) -> int:
        """The size of all files of the result."""
        return sum(file.stat().st_size for file in files_below(self.model.path))


@dataclass(frozen=True)
class Run:
    """What a system reports of a finished step."""

    seconds: float
    peak_bytes: int
    facts: dict[str, Any]


class Cache:
    """One folder of results; several processes may use it at once."""

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self._warn = warn
        self._warned: set[str] = set()
        self.digests = DigestMemo(folder / "digests")

    def save_digests(self) -> None:
        """Keep what was learnt of input files for the next run."""
        data = self.digests.unsaved()
        if data is not None:
            write_atomic(self.folder / "digests", data)

    def work_folder(self, key: str) -> Path:
        """Return where a step that is being worked on writes (out/, scratch/, events, log)."""
        return self.folder / "work" / key

    def find(
        self, key: str, kind: str, parents: tuple[str, ...], base: Model | None = None
    ) -> Result | None:
        """Return the step's result if it is here and sound, else None. Creates nothing.

        parents: the content digests of the models that the step works on. A key promises how
        they came about, not that they are the same bytes: training again may differ.
        """
        step = self.folder / "steps" / key
        try:
            manifest = json.loads((step / "manifest").read_text())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            self._warn_of(key, f"its manifest cannot be read ({error})")
            return None
        try:
            fault = self._fault(step, manifest, key, kind, parents)
            if fault is None:
                model = Model(kind, step / "files", folder_digest(manifest["files"]), base)
                seconds, peak_bytes = manifest["seconds"], manifest["peak_bytes"]
                return Result(key, model, seconds, peak_bytes, manifest["facts"], hit=True)
        except DrupeError as error:  # a link that leads out
            fault = f"{error.where} {error.what}"
        except (KeyError, TypeError, AttributeError):
            fault = "its manifest is not one that drupe writes"
        self._warn_of(key, fault)
        return None

    def _warn_of(self, key: str, fault: str) -> None:
        text = f"The cached result {key[:12]} is not used: {fault}. It is made anew."
        if text not in self._warned:  # a plan, a run and the lock's holder ask the same
            self._warned.add(text)
            self._warn(text)

    def _fault(
        self, step: Path, manifest: dict[str, Any], key: str, kind: str, parents: tuple[str, ...]
    ) -> str | None:
        """Return why a step's folder is no hit, or None."""
        if manifest.get("format") != FORMAT:
            return f"it is of format {manifest.get('format')}, not {FORMAT}"
        if manifest["key"] != key or manifest["kind"] != kind:
            return "its manifest is another step's"
        if manifest["parents"] != list(parents):
            return "it was made from other bytes of the step before it"
        return self._fault_of_files(step, manifest["files"])

    def _fault_of_files(self, step: Path, digests: dict[str, str]) -> str | None:
        """Return what is wrong with the files of a step, or None."""
        try:
            marks = json.loads((step / "marks").read_text())
        except (OSError, ValueError):
            marks = {}
        marks = marks if isinstance(marks, dict) else {}
        present = {
            file.relative_to(step / "files").as_posix() for file in files_below(step / "files")
        }
        if present != set(digests):
            changed = sorted(present ^ set(digests))
            return f"{changed[0]} is {'missing' if changed[0] in digests else 'foreign'}"
        renewed = {}
        for name, digest in digests.items():
            file = step / "files" / name
            renewed[name] = identity(file.stat())
            if renewed[name] != marks.get(name) and file_digest(file) != digest:
                return f"{name} has changed since it was made"
        if renewed != marks and os.access(step, os.W_OK):
            write_atomic(step / "marks", canonical_json(renewed))
        return None

    def run(
        self,
        key: str,
        kind: str,
        parents: tuple[str, ...],
        work: Callable[[Path], Run],
        base: Model | None = None,
        force: bool = False,
    ) -> Result:
        """Return the step's result: found, or made by `work(folder)`, which writes folder/out.

        Two runs of one key: one works, the other waits and finds. A result is committed whole
        or not at all; `work` raises when it failed, and nothing of that is kept but its
        scratch folder and its log.
        """
        found = None if force else self.find(key, kind, parents, base)
        if found:
            return found
        with locked(self.folder / "locks" / key, lambda: self._warn(WAITING)):
            found = None if force else self.find(key, kind, parents, base)
            if found:
                return found
            folder = self.work_folder(key)
            remove_tree(folder if force else folder / "out")
            (folder / "out").mkdir(parents=True)
            try:
                run = work(folder)
                self._commit(key, kind, parents, folder / "out", run)
            except BaseException:
                remove_tree(folder / "out")
                raise
            remove_tree(folder)
        made = self.find(key, kind, parents, base)
        if made is None:
            raise DrupeError(
                str(self.folder),
                f"step {key[:12]} was made, but cannot be read back",
                "Is the disk sound, and does another program clean this folder?",
            )
        return replace(made, hit=False)

    def _commit(self, key: str, kind: str, parents: tuple[str, ...], out: Path, run: Run) -> None:
        """Turn the folder `out` into blobs, a manifest and a folder of links, then publish it."""
        staging = self.work_folder(key) / "commit"
        remove_tree(staging)
        digests = {}
        files = files_below(out)
        for link in filter(Path.is_symlink, files):  # a blob is a file, wherever it lies
            content = link.resolve()
            link.unlink()
            shutil.copyfile(content, link)
        for file in files:
            name = file.relative_to(out).as_posix()
            digests[name] = self._store(file)
            link_or_copy(self._blob(digests[name]), staging / "files" / name)
        manifest = {
            "format": FORMAT,
            "key": key,
            "kind": kind,
            "files": digests,
            "parents": list(parents),
            "seconds": round(run.seconds, 3),
            "peak_bytes": run.peak_bytes,
            "facts": run.facts,
            "made": int(time.time()),
        }
        marks = {name: identity((staging / "files" / name).stat()) for name in digests}
        write_atomic(staging / "marks", canonical_json(marks))
        write_atomic(staging / "manifest", canonical_json(manifest))
        replace_folder(staging, self.folder / "steps" / key)

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest[:2] / digest[2:]

    def _store(self, file: Path) -> str:
        """Make `file` a blob (a rename, no byte is moved) and return its digest."""
        sync_file(file)
        digest = file_digest(file)
        blob = self._blob(digest)
        if blob.exists():
            # The name promises the content; one that was edited in place does not keep it.
            if blob.stat().st_size == file.stat().st_size and file_digest(blob) == digest:
                return digest
            blob.unlink()
        blob.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, blob)
        make_read_only(blob)
        sync_folder(blob.parent)
        return digest
