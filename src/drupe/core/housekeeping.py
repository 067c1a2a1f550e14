"""Dropping from a cache what nothing needs: results, provisions, blobs, what kills left.

One process at a time does it. A result that a process works on, or that a run that goes on has
named (`Cache.using`), is never dropped; a result goes by a rename, so whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drupe.core.cache import Cache
from drupe.core.errors import Refused
from drupe.core.files import check_writable, remove_tree
from drupe.core.locks import is_locked, lock_if_free, locked
from drupe.core.provisions import Provision, drop, provisions
from drupe.core.stock import (
    KEY,
    SHORT,
    Entry,
    Inode,
    Stock,
    in_use,
    left_behind,
    names_in,
    sizes_of,
    survey,
    total_of,
)

MEMO_DAYS = 90


@dataclass(frozen=True)
class Sweep:
    """What was dropped, or would be.

    results: whole results. blobs: digests that no result names. freed_bytes, left_bytes: on
    the disk; left are results, blobs and provisions. provisions: what systems and resources kept.
    leftovers: what killed processes left. locks: lock
    files that nobody holds. digests: how many digests of input files were forgotten.
    """

    results: tuple[Entry, ...]
    blobs: tuple[str, ...]
    freed_bytes: int
    left_bytes: int
    provisions: tuple[Provision, ...] = ()
    leftovers: tuple[Path, ...] = ()
    locks: tuple[Path, ...] = ()
    digests: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as plain JSON values."""
        return {
            "results": [entry.to_json() for entry in self.results],
            "blobs": len(self.blobs),
            "provisions": [provision.to_json() for provision in self.provisions],
            "leftovers": [f"{path.parent.name}/{path.name}" for path in self.leftovers],
            "locks": len(self.locks),
            "digests": self.digests,
            "freed_bytes": self.freed_bytes,
            "left_bytes": self.left_bytes,
        }


def remove(cache: Cache, prefixes: Iterable[str], dry_run: bool = False) -> Sweep:
    """Drop the results whose keys begin with `prefixes`, and the blobs that they alone named.

    Raises Refused for a prefix that fits none or several, or a result that is in use.
    """
    with _alone(cache, dry_run):
        stock, busy = survey(cache), in_use(cache)
        chosen = list({(entry := stock.named(prefix)).key: entry for prefix in prefixes}.values())
        for entry in chosen:
            if entry.key in busy:
                raise Refused(
                    entry.key[:SHORT],
                    "is in use by a run that goes on",
                    "Wait until it is done, or stop it.",
                )
        return _drop(cache, stock, chosen, provisions(cache, busy), [], dry_run)


def collect(
    cache: Cache,
    keep_bytes: int | None = None,
    older_than_seconds: float | None = None,
    dry_run: bool = False,
) -> Sweep:
    """Drop what nothing can use any more, and what was not used for longest beyond a limit.

    keep_bytes: results, environments and resources are dropped until so much is left.
    older_than_seconds: those not used for so long are dropped. Neither: every result stays.
    """
    with _alone(cache, dry_run):
        stock, busy = survey(cache), in_use(cache)
        idle = [entry for entry in stock.entries if entry.key not in busy]
        chosen = []
        if older_than_seconds is not None:
            chosen = [entry for entry in idle if entry.age_seconds > older_than_seconds]
        kept = provisions(cache, busy)
        unused = [each for each in kept if each.is_idle(older_than_seconds)]
        if keep_bytes is not None:
            stay = [each for each in kept if each not in unused]
            results, others = _until_it_fits(stock.without(chosen), stay, busy, keep_bytes)
            chosen, unused = chosen + results, unused + others
        return _tidy_up(cache, _drop(cache, stock, chosen, kept, unused, dry_run), busy, dry_run)


def fit(cache: Cache, quota_bytes: int, needed: Iterable[str]) -> Sweep | None:
    """Drop what is not `needed` and was used least recently until the cache fits its quota.

    needed: keys of results, and what `Cache.using` is told beside them. Returns None when it fits
    already, or cannot be written.
    """
    total = on_disk(survey(cache), provisions(cache, set()))
    if total <= quota_bytes or not os.access(cache.folder, os.W_OK):
        return None
    with _alone(cache, dry_run=False):
        stock = survey(cache)
        busy = in_use(cache) | set(needed)
        kept = provisions(cache, busy)
        chosen, unused = _until_it_fits(stock, kept, busy, quota_bytes)
        return _drop(cache, stock, chosen, kept, unused, dry_run=False)


def on_disk(stock: Stock, kept: Iterable[Provision]) -> int:
    """Return the bytes of a cache on the disk: what has several names is counted once."""
    return total_of([*stock.sizes, *(each.sizes for each in kept)])


@contextmanager
def _alone(cache: Cache, dry_run: bool) -> Iterator[None]:
    """Keep other housekeepers, and runs that begin, waiting; a dry run creates no lock."""
    if not dry_run:
        check_writable(cache.folder, "the cache")
    with nullcontext() if dry_run else locked(cache.folder / "locks" / "housekeeping"):
        yield


def _until_it_fits(
    stock: Stock, kept: list[Provision], busy: set[str], keep_bytes: int
) -> tuple[list[Entry], list[Provision]]:
    """Return what was used least recently, without which at most `keep_bytes` are left."""
    named = stock.without(())
    left = on_disk(named, kept)
    blobs = Counter(digest for entry in named.entries for digest in entry.digests)
    held = [*named.sizes, *(each.sizes for each in kept)]
    holders: Counter[Inode] = Counter(inode for sizes in held for inode in sizes)
    results: list[Entry] = []
    others: list[Provision] = []
    candidates: list[Entry | Provision] = [*named.entries, *kept]
    for each in sorted(candidates, key=lambda each: each.used):
        if left <= keep_bytes:
            break
        if each.in_use if isinstance(each, Provision) else each.key in busy:
            continue
        gone = [each.sizes]
        if isinstance(each, Provision):
            others.append(each)
        else:
            results.append(each)
            blobs.subtract(each.digests)
            gone += [
                named.blobs[name] for name in each.digests & named.blobs.keys() if not blobs[name]
            ]
        for sizes in gone:
            for inode, size in sizes.items():
                holders[inode] -= 1
                left -= size if not holders[inode] else 0
    return results, others


def _drop(
    cache: Cache,
    stock: Stock,
    chosen: list[Entry],
    kept: list[Provision],
    unused: list[Provision],
    dry_run: bool,
) -> Sweep:
    """Drop the chosen results with every blob that no other names, and what is unused of `kept`."""
    if not dry_run:
        chosen = [entry for entry in chosen if drop_result(cache, entry.key)]
        unused = [each for each in unused if drop(cache, each)]
    rest = stock.without(chosen)
    blobs = tuple(sorted(stock.blobs.keys() - rest.blobs.keys()))
    if not dry_run:
        for digest in blobs:
            cache.blobs.path(digest).unlink(missing_ok=True)
    left = on_disk(rest, [each for each in kept if each not in unused])
    freed = on_disk(stock, kept) - left
    return Sweep(tuple(chosen), blobs, freed, left, tuple(unused))


def _tidy_up(cache: Cache, sweep: Sweep, busy: set[str], dry_run: bool) -> Sweep:
    """Drop beside results and blobs what nobody holds or asks for any more."""
    leftovers = tuple(left_behind(cache, busy))
    size = total_of(map(sizes_of, leftovers))
    locks = tuple(_stale_locks(cache))
    forgotten = cache.digests.forget(MEMO_DAYS)
    if not dry_run:
        for path in leftovers:
            _drop_leftover(cache, path)
        for lock in locks:
            _drop_lock(lock)
        cache.save_digests()
    return replace(
        sweep,
        leftovers=leftovers,
        locks=locks,
        digests=forgotten,
        freed_bytes=sweep.freed_bytes + size,
    )


def drop_result(cache: Cache, key: str) -> bool:
    """Drop a result unless a process works on it; return whether it is gone."""
    lock = cache.folder / "locks" / key
    with lock_if_free(lock) as free:
        if not free:
            return False
        step = cache.step_folder(key)
        aside = step.with_name(f".{key}.dropped-{os.getpid()}")
        with suppress(FileNotFoundError):
            os.replace(step, aside)
        remove_tree(aside)
        lock.unlink(missing_ok=True)  # who waits for it finds that it was removed
    return True


def _drop_leftover(cache: Cache, path: Path) -> None:
    if path.parent.name != "work":
        remove_tree(path)
        return
    with lock_if_free(cache.folder / "locks" / path.name) as free:
        if free:
            remove_tree(path)


def _stale_locks(cache: Cache) -> Iterator[Path]:
    for lock in names_in(cache.folder / "locks"):
        if KEY.fullmatch(lock.name) and not is_locked(lock):
            yield lock


def _drop_lock(lock: Path) -> None:
    with lock_if_free(lock) as free:
        if free:
            lock.unlink(missing_ok=True)
