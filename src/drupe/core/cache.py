"""The cache: results as content-addressed blobs under manifests; whole or absent.

    blobs/ab/cdef...     one read-only file per content, named by its digest
    steps/KEY/manifest   what the step gave: {file: digest}, its parents, the parts of its key,
                         time, memory, facts; the file's own time is that of its last use
    steps/KEY/marks      device, inode, size and time of each file on this machine
    steps/KEY/files/     the result as a folder: hard links to the blobs
    locks/KEY            held by the process that works on a step
    runs/PID-N           held by a run that goes on: the keys that it needs, and what it uses
                         of what follows
    work/KEY/            where a running step writes; its scratch outlives a kill
    resources/DIGEST/    what was fetched from elsewhere; environments, code, ray: what systems
                         keep (see `provisions.py`)
    searches/KEY.jsonl   the trials of a search (see `search/state.py`)
    digests              digests of input files by their identity

    a step's folder      is a hit when
    absent               never
    manifest + files     format, seal, parents and kind fit, and each file's marks are those
                         recorded
    marks differ         the bytes still give the digests (then the marks are renewed)
    anything else        never: a miss, told in one warning, and made anew

Reading creates nothing. What a hit does not see is a file that was changed while its size and
time stayed: `drupe cache verify` reads every byte. `housekeeping.py` drops what is not needed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drupe.core.blobs import Blobs
from drupe.core.digest import DigestMemo, canonical_json, file_digest, folder_digest
from drupe.core.errors import DrupeError, Refused
from drupe.core.files import files_below, full_disk_told, remove_tree, replace_folder, write_atomic
from drupe.core.locks import locked
from drupe.core.manifest import Compared, Manifest, compare
from drupe.core.model import Model

FOLDERS = ("blobs", "locks", "runs", "steps", "work")
WAITING = "Another process works on this step: waiting for its result."


@dataclass(frozen=True)
class Result:
    """What a step gave, and what it cost when it ran.

    seconds: wall time. peak_bytes: most memory that the process held. facts: what the work told.
    machine: of which class the machine was. hit: whether it was found in the cache.
    """

    key: str
    model: Model
    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    machine: dict[str, Any]
    hit: bool

    @property
    def size_bytes(self) -> int:
        """The size of all files of the result."""
        return sum(file.stat().st_size for file in files_below(self.model.path))


@dataclass(frozen=True)
class Run:
    """What a system reports of a finished step. machine: see `core.machine`."""

    seconds: float
    peak_bytes: int
    facts: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)


class Cache:
    """One folder of results; several processes may use it at once."""

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self.warn = warn
        self._warned: set[str] = set()
        self.blobs = Blobs(folder / "blobs")
        self.digests = DigestMemo(folder / "digests")

    def warning_by(self, warn: Callable[[str], None]) -> Cache:
        """Return this cache, with another way to warn; what was told once is not told again."""
        other = copy(self)
        other.warn = warn
        return other

    def check_folders(self, where: str) -> None:
        """Raise Refused where a file lies in the place of a folder."""
        for place in (self.folder, *(self.folder / name for name in FOLDERS)):
            if place.exists() and not place.is_dir():
                raise Refused(
                    where,
                    f"is {self.folder}, but {place} is a file",
                    "Move it away, or name another folder.",
                )

    def save_digests(self) -> None:
        """Keep what was learnt of input files for the next run, if they can be kept."""
        data = self.digests.unsaved()
        if data is not None:
            with suppress(OSError):  # a full or read-only disk: they are read again next time
                write_atomic(self.folder / "digests", data)

    def step_folder(self, key: str) -> Path:
        """Return where a step's result lies, if it is here."""
        return self.folder / "steps" / key

    def work_folder(self, key: str) -> Path:
        """Return where a step that is being worked on writes (out/, scratch/, events, log)."""
        return self.folder / "work" / key

    @contextmanager
    def using(self, keys: Iterable[str]) -> Iterator[None]:
        """Have no other process drop the results `keys` as long as this block runs.

        What of `core.provisions` is used is named among them: the digest of an environment or a
        resource, "code", "ray".

        In a cache that cannot be written nothing is told, and nobody drops anything.
        """
        with ExitStack() as held:
            with suppress(OSError), locked(self.folder / "locks" / "housekeeping"):
                told = self.folder / "runs" / f"{os.getpid()}-{time.monotonic_ns()}"
                held.enter_context(locked(told))
                held.callback(told.unlink, missing_ok=True)
                told.write_text("\n".join(keys))
            yield

    def find(
        self, key: str, kind: str, parents: tuple[str, ...], base: Model | None = None
    ) -> Result | None:
        """Return the step's result if it is here and sound, else None. Creates nothing.

        parents: the content digests of the models that the step works on. A key promises how
        they came about, not that they are the same bytes: training again may differ.
        """
        step = self.step_folder(key)
        try:
            manifest = Manifest.read(step)
            fault = self._fault(step, manifest, key, kind, parents)
        except FileNotFoundError:
            return None
        except ValueError as error:
            fault = str(error)
        except DrupeError as error:  # a link that leads out
            fault = f"{error.where} {error.what}"
        except OSError as error:
            fault = f"its files cannot be read ({error})"
        if fault is not None:
            self._warn_of(key, fault)
            return None
        model = Model(kind, step / "files", folder_digest(manifest.files), base)
        return Result(
            key=key,
            model=model,
            seconds=manifest.seconds,
            peak_bytes=manifest.peak_bytes,
            facts=manifest.facts,
            machine=manifest.machine,
            hit=True,
        )

    def _warn_of(self, key: str, fault: str) -> None:
        text = f"The cached result {key[:12]} is not used: {fault}. It is made anew."
        if text not in self._warned:  # a plan, a run and the lock's holder ask the same
            self._warned.add(text)
            self.warn(text)

    def _fault(
        self, step: Path, manifest: Manifest, key: str, kind: str, parents: tuple[str, ...]
    ) -> str | None:
        """Return why a step's folder is no hit, or None."""
        if manifest.key != key or manifest.kind != kind:
            return "its manifest is another step's"
        if manifest.parents != list(parents):
            return "it was made from other bytes of the step before it"
        compared = compare(step, manifest.files)
        if compared.fault is not None:
            return compared.fault
        for name in compared.touched:
            if file_digest(step / "files" / name) != manifest.files[name]:
                return f"{name} has changed since it was made"
        self._renew_marks(step, compared)
        return None

    def _renew_marks(self, step: Path, compared: Compared) -> None:
        if compared.touched and os.access(step, os.W_OK):
            with suppress(OSError):  # a full disk: they are compared by their bytes next time
                write_atomic(step / "marks", canonical_json(compared.marks))

    def run(
        self,
        key: str,
        kind: str,
        parents: tuple[str, ...],
        work: Callable[[Path], Run],
        base: Model | None = None,
        force: bool = False,
        parts: dict[str, Any] | None = None,
    ) -> Result:
        """Return the step's result: found, or made by `work(folder)`, which writes folder/out.

        Two runs of one key: one works, the other waits and finds. A result is committed whole
        or not at all; `work` raises when it failed, and nothing of that is kept but its
        scratch folder and its log. parts: what `key` is the hash of, for `drupe cache explain`.
        """
        found = None if force else self._use(key, kind, parents, base)
        if found:
            return found
        with (
            full_disk_told(self.folder),
            locked(self.folder / "locks" / key, lambda: self.warn(WAITING)),
        ):
            found = None if force else self._use(key, kind, parents, base)
            if found:
                return found
            folder = self.work_folder(key)
            remove_tree(folder if force else folder / "out")
            (folder / "out").mkdir(parents=True, exist_ok=True)
            try:
                run = work(folder)
                self._commit(key, kind, parents, folder / "out", run, parts or {})
            except BaseException:
                remove_tree(folder / "out")
                remove_tree(folder / "commit")
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

    def _use(
        self, key: str, kind: str, parents: tuple[str, ...], base: Model | None
    ) -> Result | None:
        """Return what `find` does, and record the time of this use where that is possible."""
        found = self.find(key, kind, parents, base)
        if found:
            with suppress(OSError):
                os.utime(self.step_folder(key) / "manifest")
        return found

    def _commit(
        self,
        key: str,
        kind: str,
        parents: tuple[str, ...],
        out: Path,
        run: Run,
        parts: dict[str, Any],
    ) -> None:
        """Turn the folder `out` into blobs, a manifest and a folder of links, then publish it."""
        staging = self.work_folder(key) / "commit"
        remove_tree(staging)
        files = files_below(out)
        for link in filter(Path.is_symlink, files):  # a blob is a file, wherever it lies
            content = link.resolve()
            link.unlink()
            shutil.copyfile(content, link)
        digests = {}
        for file in files:
            name = file.relative_to(out).as_posix()
            digests[name] = self.blobs.store(file, staging / "files" / name)
        manifest = Manifest(
            key=key,
            kind=kind,
            files=digests,
            parents=list(parents),
            parts=parts,
            seconds=round(run.seconds, 3),
            peak_bytes=run.peak_bytes,
            facts=run.facts,
            machine=run.machine,
            made=int(time.time()),
        )
        write_atomic(staging / "marks", canonical_json(compare(staging, digests).marks))
        write_atomic(staging / "manifest", manifest.to_bytes())
        replace_folder(staging, self.step_folder(key))
