"""What is asked of an AzureML workspace: its jobs, and the files of its datastores.

Every call raises `Transient` for what may be tried again, a fault in three parts for the rest.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from azure.ai.ml.entities import NoneCredentialConfiguration
from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import ContainerClient, LinearRetry

from drupe.core.errors import DrupeError, Refused
from drupe.core.executor import Transient
from drupe.core.resource import ADDRESSES, AzureMLClient, Remote
from drupe.core.secrets import redacted
from drupe.resources.azure import PASSING, asked_seconds, credential, fault_of, workspace
from drupe.resources.datastores import output_uri

REFUSED = {400, 405, 409, 412, 413, 415, 422}
CONNECTION = (ServiceRequestError, ServiceResponseError, IncompleteReadError)
FRESH_SECONDS = 1800.0  # AzureML's keys to a datastore hold for an hour
OUTPUT = ADDRESSES["azureml_job_output"]
UPLOADING = threading.Lock()
ADDRESS = re.compile(r"azureml://(?:.*/)?datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.*)")


@dataclass(frozen=True)
class Job:
    """A job as AzureML tells it. artifacts: the address of its default output, with its log.

    properties: what it was given of them, and AzureML's own.
    """

    name: str
    status: str
    studio: str | None
    artifacts: str
    properties: Mapping[str, str]


class Workspace:
    """The workspace of a client, with the retries and the patience that the config names."""

    def __init__(self, client: AzureMLClient) -> None:
        self._client = client
        self._where = f"the workspace {client.workspace_name}"
        # azure-ai-ml tells of each class of its own that is an experiment, whoever asks.
        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        self._ml = workspace(client)
        self._containers: dict[str, tuple[float, ContainerClient]] = {}

    def job(self, name: str) -> Job | None:
        """Return a job, or None where there is none of that name."""
        try:
            with calling(self._where):
                told = self._ml.jobs.get(name)
        except Absent as fault:
            if fault.is_workspace:
                raise
            return None
        default = (told.outputs or {}).get("default")
        artifacts = getattr(default, "path", None)
        usual = f"azureml://datastores/workspaceartifactstore/paths/ExperimentRun/dcid.{name}"
        status = str(getattr(told.status, "value", told.status))
        artifacts = (artifacts or usual).rstrip("/")
        return Job(name, status, told.studio_url, artifacts, told.properties or {})

    def source(self, address: str) -> str:
        """Return an address as an input of a job may have it: of a job's output, where it lies."""
        if not OUTPUT.match(address):
            return address
        remote = Remote.model_validate(address)
        with calling(self._where):
            return output_uri(remote, self._ml.jobs.get(str(remote.job_name)))

    def create(self, job: Any, name: str) -> None:
        """Upload what a job needs, and submit it; one that is there is left alone."""
        try:
            with calling(self._where), _silent_thread():
                self._ml.jobs.create_or_update(job)
        except DrupeError as fault:
            # Another client was faster, or the answer to our own request was lost on its way.
            if isinstance(fault, Transient) or self.job(name) is None:
                raise

    def cancel(self, name: str) -> None:
        """Ask a job to stop; one that is over is left alone."""
        try:
            with calling(self._where):
                self._ml.jobs.begin_cancel(name, polling=False)
        except DrupeError as fault:
            status = getattr(fault.__cause__, "status_code", None)
            if isinstance(fault, Transient) or status not in (400, 409):
                raise

    def kind_of_compute(self, name: str) -> str:
        """Return what a compute is: "amlcompute", "kubernetes"; raises Refused where it is not."""
        try:
            with calling(self._where):
                return str(self._ml.compute.get(name).type).lower()
        except Absent as fault:
            if fault.is_workspace:
                raise
            raise Refused(
                "aml_compute",
                f'is "{name}", and {self._where} has no such compute',
                "Name one that the studio lists under Compute, or create it there.",
            ) from fault

    def names(self, address: str, below: str) -> list[str]:
        """Return the files of the folder `below` an address, relative to it."""
        container, path = self._place(address)
        prefix = f"{path.rstrip('/')}/"
        with calling(self._where):
            found = container.list_blob_names(name_starts_with=prefix + below)
            return sorted(name.removeprefix(prefix) for name in found)

    def read(self, address: str, offset: int, most: int) -> bytes:
        """Return what a file holds from `offset` on; it may grow, or be no longer than that."""
        container, path = self._place(address)
        with calling(self._where):
            try:
                return bytes(container.download_blob(path, offset=offset, length=most).readall())
            except HttpResponseError as fault:
                if fault.status_code in (404, 416):
                    return b""
                raise

    def download(self, address: str, file: Path) -> bool:
        """Write a file of a datastore to `file`; return False where it is not there."""
        container, path = self._place(address)
        partial = file.with_name(f"{file.name}.partial")
        try:
            with calling(self._where), partial.open("wb") as opened:
                container.download_blob(path, max_concurrency=4).readinto(opened)
        except Absent:
            partial.unlink()
            return False
        partial.replace(file)
        return True

    def _place(self, address: str) -> tuple[ContainerClient, str]:
        """Return the container of an azureml:// address, and the path in it."""
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise DrupeError(self._where, f"{address} is no address in a datastore", "Mend it.")
        made, container = self._containers.get(found["store"], (0.0, None))
        if container is None or time.monotonic() - made > FRESH_SECONDS:
            container = self._container(found["store"])
            self._containers[found["store"]] = (time.monotonic(), container)
        return container, found["path"]

    def _container(self, name: str) -> ContainerClient:
        """Return the container of a datastore; with its own key, where we may have that."""
        with calling(self._where):
            store = self._ml.datastores.get(name)
            who: Any = credential(self._client)
            if not isinstance(store.credentials, NoneCredentialConfiguration):
                try:
                    keys = self._ml.datastores.get(name, include_secrets=True).credentials
                    own = getattr(keys, "sas_token", None) or getattr(keys, "account_key", None)
                    who = own or who
                except HttpResponseError as fault:
                    if fault.status_code != 403:
                        raise
            return ContainerClient(
                f"{store.protocol or 'https'}://{store.account_name}.blob.{store.endpoint}",
                store.container_name,
                credential=who,
                retry_policy=LinearRetry(
                    backoff=self._client.operation_retry_interval,
                    retry_total=self._client.max_operation_retries,
                    random_jitter_range=0,
                ),
                read_timeout=self._client.read_timeout,
            )


@contextmanager
def _silent_thread() -> Iterator[None]:
    """Hold back what this thread writes to the standard error, and no other's words.

    After each upload azure-ai-ml prints an empty line there, in the colours of a terminal. The
    standard error is the whole process's: one at a time.
    """
    with UPLOADING, redirect_stderr(_WithoutThread(sys.stderr, threading.get_ident())):
        yield


class _WithoutThread:
    """A text file as it is, but for what one thread writes."""

    def __init__(self, file: TextIO, thread: int) -> None:
        self._file = file
        self._thread = thread

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Absent(Refused):
    """What was asked for is not there. is_workspace: nor is the workspace itself."""

    is_workspace = False


@contextmanager
def calling(where: str) -> Iterator[None]:
    """Raise what fails within as `Transient`, `Absent` or a fault in three parts."""
    try:
        yield
    except (AzureError, MlException) as fault:
        root = _root(fault)
        told = fault_of(where, root)
        told.what = redacted(told.what)  # an address that was not reached may hold its key
        if isinstance(root, ResourceNotFoundError):
            absent = Absent(told.where, told.what, told.remedy)
            code = getattr(root.error, "code", "") if root.error else ""
            absent.is_workspace = code in ("ResourceGroupNotFound", "SubscriptionNotFound") or (
                "workspaces/" in str(root) and "/jobs/" not in str(root)
            )
            raise absent from root
        if _is_transient(root):
            raise Transient(told.where, told.what, told.remedy, asked_seconds(root)) from root
        if isinstance(root, MlException) or getattr(root, "status_code", None) in REFUSED:
            said = str(getattr(root, "message", "") or root).strip().partition("\n")[0]
            what = f"refuses what it was sent: {redacted(said)}"
            raise DrupeError(where, what, "Mend what it names and run again.") from root
        raise told from root


def _root(fault: Any) -> Any:
    """Return what azure-core said, where azure-ai-ml has put words of its own around it.

    Failing that, what azure-ai-ml said first, before it wrote a page about it.
    """
    found, each = fault, fault
    while each is not None:
        if isinstance(each, AzureError) and not isinstance(each, MlException):
            return each
        found = each if isinstance(each, MlException) else found
        each = getattr(each, "inner_exception", None) or each.__cause__ or each.__context__
    return found


def _is_transient(fault: BaseException) -> bool:
    if isinstance(fault, ClientAuthenticationError):
        return False
    return isinstance(fault, CONNECTION) or getattr(fault, "status_code", None) in PASSING
