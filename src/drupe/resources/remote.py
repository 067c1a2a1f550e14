"""What a config names elsewhere, resolved: what keys know it by, what it holds, its files here.

    the address alone says what it holds     a model's version (in a registry, in a workspace),
                                             the output of a job: with a copy here no network
    the address and a listing do             a path of a datastore, a URL: each run asks for
                                             names, sizes and versions, and for no byte again

The identity is the same wherever the bytes are read, and so is every key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from drupe.core.digest import value_digest
from drupe.core.errors import DrupeError, Refused
from drupe.core.resource import AzureMLClient, Remote
from drupe.resources.fetch import Kept, Note, fetch, kept
from drupe.resources.place import Listing, Place

SMALL_BYTES = 32 * 2**20
ELSE = "Download it, and give its path: it travels with the job then."
UNUSUAL = re.compile(r"[^\w.+-]")


@dataclass(frozen=True)
class Resolved:
    """Something elsewhere, and where its files are kept here.

    remote: with its identity. place: opens what it is fetched from. cache: the cache's folder.
    """

    remote: Remote
    where: str
    cache: Path
    place: Callable[[], Place]
    note: Note
    known: Listing | None = None

    @property
    def name(self) -> str:
        """What it is called: the model's own name, else the last part of the path."""
        remote = self.remote
        path = (remote.relative_path or remote.url or "").split("?")[0].rstrip("/")
        name = UNUSUAL.sub("_", remote.name or PurePosixPath(path).name).lstrip(".")
        return name or "resource"

    @property
    def digest(self) -> str:
        """What its content is known by: 64 hex digits."""
        return value_digest(["remote", self.remote.identity])

    @cached_property
    def listing(self) -> Listing:
        """All its files, asked for only where nothing here tells."""
        found = kept(self.cache, self.digest, self.name)
        return self.known or (found.listing if found else self._listed(self.place()))

    def here(self) -> Kept:
        """Return its files here, fetching what is not."""
        found = kept(self.cache, self.digest, self.name)
        if found is not None:
            return found
        place = self.place()
        listing = self._listed(place)
        return fetch(self.cache, self.digest, self.name, place, listing, self.note)

    def small_files(self) -> Kept:
        """Return the files that tell of a model what it is, without its weights."""
        digest = value_digest(["small", self.digest])
        found = kept(self.cache, self.digest, self.name) or kept(self.cache, digest, self.name)
        if found is not None:
            return found
        place = self.place()
        listing = self._listed(place)
        few = tuple(
            entry
            for entry in listing.entries
            if entry.size_bytes <= SMALL_BYTES and not entry.name.endswith(".safetensors")
        )
        small = Listing(few, listing.is_file)
        return fetch(self.cache, digest, self.name, place, small, self.note)

    def _listed(self, place: Place) -> Listing:
        """Return the listing by which it is known, so that what changed since is a fault."""
        return self.known or _filled(place.listing(), self.remote, self.where)


class Unfilled(Refused):
    """What lies elsewhere is still a placeholder in one of its fields."""

    def __init__(self, where: str, field: str, value: str) -> None:
        what = f'is a placeholder in {field} ("{value}")'
        super().__init__(where, what, "Write your own, or give a folder.")
        self.value = value


def resolve(
    remote: Remote, client: AzureMLClient | None, where: str, cache: Path, note: Note
) -> Resolved:
    """Return what `remote` is; where: the field that names it.

    client: the workspace, whole, where it lies in one. Raises Refused for what is still a
    placeholder, or not there; DrupeError where it cannot be reached.
    """
    remote = remote.model_copy(update={"azureml_client": client})
    for field, value in remote.placeholders():
        raise Unfilled(where, field, value)

    def place() -> Place:
        return _open(remote, client or AzureMLClient(), where)

    if remote.is_immutable:
        named = remote.model_copy(update={"identity": value_digest(["address", remote.address])})
        return Resolved(named, where, cache, place, note)
    opened = place()
    found = _filled(opened.listing(), remote, where)
    identity = value_digest(["address", remote.address.rstrip("/"), found.digest])
    named = ending(remote, is_file=found.is_file).model_copy(update={"identity": identity})
    return Resolved(named, where, cache, lambda: opened, note, found)


def read_url(url: str, known: str, cache: Path) -> Path:
    """Return the file of a URL, fetched in a job that runs where it is needed.

    known: its identity when the job was planned. Raises DrupeError where it is another now, or
    cannot be read from there.
    """
    remote = Remote(type="url", url=url)
    try:
        found = resolve(remote, None, url, cache, print)
        if found.remote.identity == known:
            return found.here().path
    except DrupeError as fault:
        raise DrupeError(f"the job, {fault.where}", fault.what, ELSE) from fault
    what = "holds something else than when the run was planned"
    raise DrupeError(f"the job, {url}", what, f"Run again. {ELSE}")


def ending(remote: Remote, *, is_file: bool) -> Remote:
    """Return a remote whose path ends in / where it is a folder, and not where it is a file."""
    end = "" if is_file else "/"
    update = {
        name: f"{getattr(remote, name).rstrip('/')}{end}"
        for name in ("relative_path", "datastore_url", "url")
        if getattr(remote, name) is not None
    }
    return remote.model_copy(update=update)


def _open(remote: Remote, client: AzureMLClient, where: str) -> Place:
    if remote.type == "url":
        from drupe.resources.urls import UrlPlace

        return UrlPlace(str(remote.url), where)
    from drupe.resources.datastores import open_azureml

    return open_azureml(remote, client, where)


def _filled(listing: Listing, remote: Remote, where: str) -> Listing:
    if not listing.entries:
        raise Refused(where, f"{remote.uri} holds no file", "Mend the address.")
    return listing
