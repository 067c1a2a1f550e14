"""What systems and resources keep in a cache beside its results: seen, measured, dropped.

    environments/DIGEST/   an environment made by pip, whole with its mark; what pip said
    code/DIGEST/           drupe's own code, as it goes on the path of another Python
    ray/                   what the workers of a Ray cluster of this machine read and write
    resources/DIGEST/      what was fetched from elsewhere, whole with its listing

A run names those that it uses among its keys (`Cache.using`). Code and Ray's files are made again
in no time, and go as soon as no run uses them; what costs a download stays until it was not used
for 90 days, or for as long as is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drupe.core.cache import Cache
from drupe.core.files import remove_tree
from drupe.core.locks import is_locked, lock_if_free
from drupe.core.process import is_alive
from drupe.core.stock import KEY, Kept, names_in, sizes_of

Kind = Literal["environment", "code", "ray", "resource"]
ENVIRONMENTS, CODE, RAY, RESOURCES = "environments", "code", "ray", "resources"
ENVIRONMENT = re.compile(r"[0-9a-f]{32}")
CODE_NAME = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{16}\.(?P<process>\d+)")
MARKS = {"environment": "drupe-environment", "resource": "listing"}
AT_ONCE = ("code", "ray")
UNUSED_SECONDS = 90 * 86400.0


@dataclass(frozen=True)
class Provision(Kept):
    """One of them. path: in the cache. whole: whether it can be used."""

    kind: Kind
    path: Path
    whole: bool
    in_use: bool

    @property
    def name(self) -> str:
        """What it is called, with its folder: "environments/3f2a..."."""
        return self.path.name if self.kind == "ray" else f"{self.path.parent.name}/{self.path.name}"

    def is_idle(self, older_than_seconds: float | None) -> bool:
        """Return whether it is to go: nobody uses it, and it is a half, cheap, or old."""
        asked = UNUSED_SECONDS if older_than_seconds is None else older_than_seconds
        old = self.age_seconds > min(asked, UNUSED_SECONDS)
        return not self.in_use and (not self.whole or self.kind in AT_ONCE or old)

    def to_json(self) -> dict[str, Any]:
        """Return what `drupe cache ls --json` tells of it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "size_bytes": self.size_bytes,
            "used": self.used,
            "whole": self.whole,
            "in_use": self.in_use,
        }


def provisions(cache: Cache, busy: set[str]) -> list[Provision]:
    """Return all of a cache. busy: what runs that go on have named, and whose lock is held."""
    return [*_marked(cache, busy), *_codes(cache, busy), *_rays(cache, busy)]


def drop(cache: Cache, provision: Provision) -> bool:
    """Drop one unless a process makes it now; return whether it is gone.

    A kill in the middle of it leaves what is seen to be a half.
    """
    path, lock = provision.path, _lock(cache, provision.kind, provision.path.name)
    with lock_if_free(lock) as free:
        if not free:
            return False
        with suppress(FileNotFoundError):
            if provision.kind in MARKS:
                (path / MARKS[provision.kind]).unlink()
            elif provision.kind == "code" and provision.whole:
                path = path.replace(path.with_name(f".{path.name}.{os.getpid()}"))
        remove_tree(path)
        if provision.kind == "environment":
            path.with_suffix(".log").unlink(missing_ok=True)
        lock.unlink(missing_ok=True)  # who waits for it finds that it was removed
    return True


def _lock(cache: Cache, kind: Kind, name: str) -> Path:
    """Return the lock that who makes it holds."""
    if kind == "environment":
        return cache.folder / ENVIRONMENTS / f"{name}.held"
    return cache.folder / "locks" / name


def _marked(cache: Cache, busy: set[str]) -> Iterator[Provision]:
    """Yield environments and resources: whole with their mark, which is touched at each use."""
    places: tuple[tuple[Kind, str, re.Pattern[str]], ...] = (
        ("environment", ENVIRONMENTS, ENVIRONMENT),
        ("resource", RESOURCES, KEY),
    )
    for kind, folder, pattern in places:
        names = {path.name.partition(".")[0] for path in names_in(cache.folder / folder)}
        for name in sorted(filter(pattern.fullmatch, names)):
            path = cache.folder / folder / name
            mark = path / MARKS[kind]
            held = name in busy or is_locked(_lock(cache, kind, name))
            used = _time(mark) or _time(path) or _time(path.with_suffix(".log"))
            sizes = sizes_of(path) | sizes_of(path.with_suffix(".log"))
            yield Provision(kind, path, mark.exists(), held, sizes=sizes, used=used)


def _codes(cache: Cache, busy: set[str]) -> Iterator[Provision]:
    for path in names_in(cache.folder / CODE):
        found = CODE_NAME.fullmatch(path.name)
        if found:
            process = found["process"]
            held = CODE in busy or bool(process and is_alive(int(process)))
            sizes, used = sizes_of(path), _time(path)
            yield Provision("code", path, process is None, held, sizes=sizes, used=used)


def _rays(cache: Cache, busy: set[str]) -> Iterator[Provision]:
    path = cache.folder / RAY
    if not path.is_dir():
        return
    held = RAY in busy or any(map(is_locked, names_in(path / "locks")))
    used = max(map(_time, (path, *names_in(path))))
    yield Provision("ray", path, whole=True, in_use=held, sizes=sizes_of(path), used=used)


def _time(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
