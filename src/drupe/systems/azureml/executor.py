"""The AzureML executor: a batch is one command job, its log tells the events.

    drupe-KEY      the job, KEY that of its last step: whoever wants its steps again attaches to it
    drupe-KEY-2    the next, where the one before failed, was cancelled, or does other work

A job tells in its properties which steps it does, on which models. A client that was lost when it
had the first results of a job wants the others alone: they are taken from the job that does them,
if what they read is what that job has made.

AzureML's libraries are imported when something is to be asked: opening an executor asks nothing.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from drupe.core.digest import file_digest, folder_digest
from drupe.core.errors import DrupeError
from drupe.core.executor import Batch, Polled, State, Transient
from drupe.core.secrets import redact_file
from drupe.core.system import Setting
from drupe.systems.azureml.declaration import AzureML
from drupe.systems.azureml.log import JobLog
from drupe.systems.bundle import pack

if TYPE_CHECKING:
    from drupe.systems.azureml.workspace import Job, Workspace

POLL_SECONDS = 5.0  # between two questions to AzureML: a job takes minutes
LATE_SECONDS = 30.0  # how long a log may lag behind the end of its job
ABSENT_SECONDS = 5.0
CANCEL_SECONDS = 600.0
QUEUED = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued", "Paused")
OVER = ("Completed", "Failed", "Canceled")
STEPS, INPUTS = "drupe.steps", "drupe.inputs"
RESULTS = "azureml://datastores/workspaceblobstore/paths/azureml/{}/results"


class AzureMLExecutor:
    """Runs batches on a compute of a workspace; the results come back by its blob store."""

    slots, joins, here = 4, True, False

    def __init__(self, system: AzureML, setting: Setting) -> None:
        self._system = system
        self._setting = setting
        self._followed: dict[str, _Followed] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._followed.clear()

    @cached_property
    def _workspace(self) -> Workspace:
        from drupe.systems.azureml.workspace import Workspace

        client = self._system.client()
        assert client is not None, "refused while planning"
        return Workspace(client)

    def warm_up(self) -> None:
        """Do nothing: a compute begins with its job."""

    def submit(self, batch: Batch) -> None:
        """Send the batch as a job, or attach to the one that runs or has done it."""
        name, is_there = self._job_of(batch)
        self._followed[batch.name] = _Followed(name, batch, is_there)
        if is_there:
            return
        from drupe.systems.azureml.job import job_of

        kind = self._workspace.kind_of_compute(self._system.aml_compute)
        with tempfile.TemporaryDirectory(prefix="drupe-bundle-") as folder:
            bundle = pack(batch, Path(folder) / "bundle", self._setting.preload)
            bundle.inputs = {
                each: self._workspace.source(place) if isinstance(place, str) else place
                for each, place in bundle.inputs.items()
            }
            results = RESULTS.format(name)
            job = job_of(name, bundle, self._system, kind, results, properties_of(batch))
            self._workspace.create(job, name)

    def job_name(self, batch: Batch) -> str:
        """Return the name of the job that a submitted batch is."""
        return self._followed[batch.name].name

    def _job_of(self, batch: Batch) -> tuple[str, bool]:
        """Return the name of the batch's job, and whether there is such a job already."""
        own = self._followed.get(batch.name)
        first = f"drupe-{batch.steps[-1].key}"
        for number in itertools.count(1):
            name = first if number == 1 else f"{first}-{number}"
            job = self._workspace.job(name)
            if job is None:
                return name, False
            again = self._setting.force and not (own and own.name == name)
            if job.status in ("Failed", "Canceled", "CancelRequested"):
                continue
            if job.status == "Completed" and again:
                continue
            if self._does(job, batch):
                return name, True
        raise AssertionError("unreachable")

    def _does(self, job: Job, batch: Batch) -> bool:
        """Return whether a job does all steps of a batch, on the same models."""
        wanted, does = properties_of(batch), job.properties
        if not {*wanted[STEPS].split()} <= {*does.get(STEPS, "").split()}:
            return False
        others = {*wanted[INPUTS].split()} - {*does.get(INPUTS, "").split()}
        if not others:
            return True
        done = [each for each in JobLog().read(self._workspace, job) if each["event"] == "done"]
        return others <= {folder_digest(each["files"]) for each in done}

    def poll(self, batch: Batch, seconds: float) -> Polled:
        """Return what the job's log has told since; AzureML is asked every few seconds."""
        followed = self._followed[batch.name]
        wait = followed.due - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, seconds))
            return Polled(followed.state)
        followed.due = time.monotonic() + POLL_SECONDS
        job = self._workspace.job(followed.name)
        if job is None:
            return Polled("lost", ending=f"the job {followed.name} is gone from the workspace")
        events = followed.hear(self._workspace, job)
        if job.status not in OVER:
            followed.state = "queued" if job.status in QUEUED else "running"
            return Polled(followed.state, events)
        if not followed.is_told(job):
            return Polled(followed.state, events)
        followed.state = "ended"
        return Polled("ended", events, _ending(job), 0 if job.status == "Completed" else 1)

    def cancel(self, batch: Batch) -> None:
        """Cancel the job, and wait until it is over."""
        followed = self._followed.get(batch.name)
        if followed is None:
            return
        asked, end = False, time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < end:
            try:
                job = self._workspace.job(followed.name)
                if job is None or job.status in OVER:
                    return
                if not asked:
                    self._workspace.cancel(followed.name)
                    asked = True
            except Transient as fault:
                time.sleep(fault.after_seconds or 0.0)
            time.sleep(min(1.0, POLL_SECONDS))
        raise DrupeError(
            self._setting.name,
            f"the job {followed.name} was to be cancelled, and still is not over",
            f'Cancel it in the studio, or: az ml job cancel --name "{followed.name}"',
        )

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring the result of a finished step to folder/out; what is there and whole stays."""
        followed = self._followed[batch.name]
        for name, digest in followed.done[key]["files"].items():
            file = folder / "out" / name
            if file.is_file() and file_digest(file) == digest:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if not self._workspace.download(f"{followed.results}/{key}/{name}", file):
                raise Transient(
                    self._setting.name,
                    f"{name} of the job {followed.name} is not in its output yet",
                    "Run again; if it was deleted there, run with --force.",
                    ABSENT_SECONDS,
                )

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring what the step printed to folder/log; failing that, what the job printed."""
        followed = self._followed[batch.name]
        file = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._workspace.download(f"{followed.results}/{key}.log", file):
            file.write_bytes(bytes(followed.log.printed))
        redact_file(file)


@dataclass
class _Followed:
    """A job of ours, as far as it is known. done: the last events of the steps that are done."""

    name: str
    batch: Batch
    is_attached: bool
    due: float = 0.0
    state: State = "queued"
    status: str = ""
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: bool = False
    over_at: float | None = None
    log: JobLog = field(default_factory=JobLog)

    @property
    def results(self) -> str:
        return RESULTS.format(self.name)

    def hear(self, workspace: Workspace, job: Job) -> tuple[dict[str, Any], ...]:
        """Return the new events of the steps."""
        keys = [spec.key for spec in self.batch.steps]
        notes = self._tell(job) if job.status != self.status else ()
        read = self.log.read(workspace, job)
        events = (*notes, *(each for each in read if each["step"] in keys))
        for event in events:
            if event["event"] == "done":
                self.done[event["step"]] = event
            self.failed = self.failed or event["event"] == "failed"
        return events

    def _tell(self, job: Job) -> Iterator[dict[str, Any]]:
        """Yield what a job waits for, where it may be long: an image is built, a node started."""
        text = f"AzureML: {job.status}"
        if not self.status:
            text = f"AzureML: {'attached to ' if self.is_attached else ''}{self.name}, {job.status}"
            text += f" ({job.studio})" if job.studio else ""
        waits = next((spec.key for spec in self.batch.steps if spec.key not in self.done), None)
        if waits and (not self.status or job.status in (*QUEUED, "Running")):
            yield {"event": "note", "text": text, "step": waits}
        self.status = job.status

    def is_told(self, job: Job) -> bool:
        """Return whether the log has said how it ended, or is not waited for any longer."""
        last = self.batch.steps[-1].key in self.done
        if {"Completed": last, "Failed": self.failed, "Canceled": True}[job.status]:
            return True
        self.over_at = self.over_at or time.monotonic()
        return time.monotonic() - self.over_at > LATE_SECONDS


def properties_of(batch: Batch) -> dict[str, str]:
    """Return what a job tells of its batch: the keys of its steps, the digests of its models."""
    models = [model for spec in batch.steps for model in spec.models]
    models += [model.base for model in models if model.base]
    inputs = sorted({model.digest for model in models if model.step is None})
    return {STEPS: " ".join(spec.key for spec in batch.steps), INPUTS: " ".join(inputs)}


def _ending(job: Job) -> str:
    if job.status == "Completed":
        return "ended with exit code 0"
    did = "failed" if job.status == "Failed" else "was cancelled"
    return f"{did} on AzureML (job {job.name}{f', {job.studio}' if job.studio else ''})"


def open_workspace(system: AzureML, setting: Setting) -> AzureMLExecutor:
    """Return the executor, as `System.open` asks for it."""
    return AzureMLExecutor(system, setting)
