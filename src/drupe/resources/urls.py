"""A place at a URL, of whatever kind fsspec knows: https, s3, gs, abfss (ADLS and OneLake), ...

Who asks is each file system's own business: environment variables, a login, a managed identity.
"""

from __future__ import annotations

import base64
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from drupe.core.errors import DrupeError, Refused, nearest
from drupe.core.executor import Transient
from drupe.resources.place import Entry, Listing, listed

CHUNK_BYTES = 8 * 2**20
# What tells that a file is another, the surest first; each file system has its own word.
VERSIONS = (
    *("etag", "ETag", "e_tag", "md5Hash", "mtime", "last_modified", "LastModified"),
    *("Last-Modified", "updated", "created"),
)
AZURE = ("abfs", "abfss", "az", "adl", "wasb", "wasbs")
ON_AZURE = re.compile(
    r"\w+://(?P<container>[^@/]+)@(?P<account>[^./@]+)\.(?:dfs|blob)\.(?P<suffix>[^/]+)/"
)
LOCAL = ("file", "local")


class UrlPlace:
    """A file or a folder at a URL; raises Refused for a scheme that nothing here can read."""

    def __init__(self, url: str, where: str) -> None:
        self._url, self._where, self._is_file = url, where, False
        scheme = url.partition(":")[0].lower()
        fsspec = _fsspec()
        _check_scheme(fsspec, scheme, where)
        with self._told():
            self._files, self._root = fsspec.core.url_to_fs(url, **_options(url))

    def listing(self) -> Listing:
        """Return the files with what their versions are known by."""
        with self._told():
            self._files.invalidate_cache()
            about = self._files.info(self._root)
            is_file = self._is_file = about["type"] == "file"
            found = {self._root: about} if is_file else self._files.find(self._root, detail=True)
        root = str(self._root).rstrip("/")
        entries = (
            self._entry(
                PurePosixPath(root).name if is_file else path[len(root) :].lstrip("/"), each
            )
            for path, each in found.items()
        )
        return listed(self._where, self._url, entries, is_file=is_file)

    def read(self, entry: Entry, start: int) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on, in ranges; after `listing`."""
        path = self._root if self._is_file else f"{str(self._root).rstrip('/')}/{entry.name}"
        while start < entry.size_bytes:
            end = min(start + CHUNK_BYTES, entry.size_bytes)
            with self._told():
                data = self._files.cat_file(path, start=start, end=end)
            if len(data) == entry.size_bytes != end - start:
                data = data[start:]  # a server that knows no ranges sends all
            if not data or start + len(data) > entry.size_bytes:
                what = f"{self._url} sent {len(data)} bytes where {end - start} were asked for"
                raise Transient(self._where, what, "Run again: what is here is kept.")
            yield data
            start += len(data)

    def _entry(self, name: str, about: dict[str, Any]) -> Entry:
        size = about.get("size")
        version = next((str(about[key]) for key in VERSIONS if about.get(key)), None)
        if size is None or version is None:
            lacking = "size" if size is None else "version (an etag or a time)"
            what = f"tells no {lacking} of {name or self._url}"
            raise DrupeError(self._where, f"{self._url} {what}", "Download it, and give its path.")
        return Entry(name, int(size), version, _md5(about))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what a file system raises, each its own, as a fault in three parts."""
        try:
            yield
        except DrupeError:
            raise
        except FileNotFoundError as fault:
            status = _status(fault)
            if status in (None, 404, 410):
                raise Refused(
                    self._where, f"{self._url} is not there", "Mend the address."
                ) from fault
            raise self._fault(fault, status) from fault
        except Exception as fault:
            raise self._fault(fault, _status(fault)) from fault

    def _fault(self, fault: BaseException, status: int | None) -> DrupeError:
        login = type(fault).__name__ == "ClientAuthenticationError"  # of azure-identity
        if status in (401, 403) or login or isinstance(fault, PermissionError):
            what = f"{self._url} is not shown to you ({status or 'no permission'})"
            return DrupeError(self._where, what, "Log in, or set the variables of that service.")
        if isinstance(fault, ImportError | TypeError | ValueError):
            what = f"{self._url} cannot be read: {_words(fault)}"
            return Refused(self._where, what, "Mend the address, or download it and give its path.")
        what = f"{self._url} cannot be reached: {_words(fault)}"
        return Transient(self._where, what, "Connect and run again: what is here is kept.")


def _fsspec() -> Any:
    try:
        importlib.import_module("fsspec.core")
        return importlib.import_module("fsspec")
    except ImportError as fault:
        raise Refused("fsspec", "is not installed", 'pip install "drupe[azureml]"') from fault


def _check_scheme(fsspec: Any, scheme: str, where: str) -> None:
    known = sorted(fsspec.available_protocols())
    if scheme in LOCAL:
        raise Refused(where, f'begins with "{scheme}:"', "Write the path alone.")
    if scheme not in known:
        what = f'begins with "{scheme}:", which nothing here can read{nearest(scheme, known)}'
        raise Refused(where, what, "Give a folder, a name on the Hub, or https, abfss, s3, gs.")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as fault:
        extra = 'pip install "drupe[azureml]"' if scheme in AZURE else _words(fault)
        what = f'begins with "{scheme}:", and what reads it is not installed'
        raise Refused(where, what, extra) from fault


def _options(url: str) -> dict[str, Any]:
    """Return what a file system does not find by itself.

    Of https the proxies that the environment names; of Azure the host: OneLake's, other clouds'.
    """
    if url.startswith(("https:", "http:")):
        return {"client_kwargs": {"trust_env": True}}
    found = ON_AZURE.match(url)
    if found is None:
        return {}
    host = f"{found['account']}.blob.{found['suffix']}"
    return {"account_name": found["account"], "account_host": host}


def _md5(about: dict[str, Any]) -> str | None:
    settings = about.get("content_settings") or {}
    given = settings.get("content_md5") if isinstance(settings, dict) else settings.content_md5
    given = given or about.get("Content-MD5") or about.get("md5Hash")
    if isinstance(given, str):
        try:
            given = base64.b64decode(given, validate=True)
        except ValueError:
            return None
    return bytes(given).hex() if given and len(given) == 16 else None


def _status(fault: BaseException) -> int | None:
    told: BaseException | None = fault
    while told is not None:
        status = getattr(told, "status", None) or getattr(told, "status_code", None)
        if isinstance(status, int):
            return status
        told = told.__cause__ or told.__context__
    return None


def _words(fault: BaseException) -> str:
    return (str(fault).strip().partition("\n")[0] or type(fault).__name__)[:200]
