"""A place in Azure's blob storage: where AzureML keeps models, data and outputs.

Reads are ranged and bound to the etag of the listing: a blob that changes in between is a fault,
never a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from drupe.core.errors import DrupeError
from drupe.core.executor import Transient
from drupe.resources.azure import PASSING, asked_seconds, fault_of, library
from drupe.resources.place import Entry, Listing, listed

FOLDER_MARK = "hdi_isfolder"  # an empty blob that stands for a folder


class BlobPlace:
    """A blob, or all blobs below a prefix, of a container.

    container: azure-storage-blob's ContainerClient. where, uri: for errors.
    """

    def __init__(self, container: Any, prefix: str, where: str, uri: str) -> None:
        self._container = container
        self._prefix = prefix.strip("/")
        self._where, self._uri = where, uri
        self._names: dict[str, str] = {}

    def listing(self) -> Listing:
        """Return the blobs with their etags."""
        with self._told():
            blobs = list(
                self._container.list_blobs(
                    name_starts_with=self._prefix or None, include=["metadata"]
                )
            )
        alone = [blob for blob in blobs if blob.name == self._prefix and not _is_folder(blob)]
        below = [
            blob
            for blob in blobs
            if not _is_folder(blob)
            and (not self._prefix or blob.name.startswith(f"{self._prefix}/"))
        ]
        if alone and not below:
            found = [(PurePosixPath(self._prefix).name, alone[0])]
        else:
            found = [(blob.name[len(self._prefix) :].lstrip("/"), blob) for blob in below]
        self._names = {name: blob.name for name, blob in found}
        entries = (_entry(name, blob) for name, blob in found)
        return listed(self._where, self._uri, entries, is_file=bool(alone and not below))

    def read(self, entry: Entry, start: int) -> Iterator[bytes]:
        """Yield a blob's bytes from `start` on, as long as it is that of the listing."""
        unmodified = library("azure.core").MatchConditions.IfNotModified
        with self._told():
            stream = self._container.download_blob(
                self._names[entry.name],
                offset=start,
                length=entry.size_bytes - start,
                etag=entry.version,
                match_condition=unmodified,
            )
            yield from stream.chunks()

    @contextmanager
    def _told(self) -> Iterator[None]:
        errors = library("azure.core.exceptions")
        try:
            yield
        except errors.ResourceModifiedError as fault:
            what = "was changed while it was fetched"
            raise DrupeError(
                self._where, f"{self._uri} {what}", "Run again when it is left alone."
            ) from fault
        except errors.AzureError as fault:
            known = fault_of(self._where, fault)
            what = f"{self._uri} {known.what}"
            status = getattr(fault, "status_code", None)
            login = type(fault).__name__ == "ClientAuthenticationError"
            if status in PASSING or (status is None and not login):
                raise Transient(known.where, what, known.remedy, asked_seconds(fault)) from fault
            raise type(known)(known.where, what, known.remedy) from fault


def _entry(name: str, blob: Any) -> Entry:
    md5 = blob.content_settings.content_md5 if blob.content_settings else None
    # A listing gives etags without the quotes with which a read has to name them.
    version = '"{}"'.format(str(blob.etag).strip('"'))
    return Entry(name, blob.size, version, bytes(md5).hex() if md5 else None)


def _is_folder(blob: Any) -> bool:
    return bool(blob.metadata and blob.metadata.get(FOLDER_MARK))
