"""The fake workspace's jobs: each command runs as a process of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azureml_blobs import Blobs

LOG = "ExperimentRun/dcid.{}/user_logs/std_log.txt"
OVER = ("Completed", "Failed", "Canceled")
LEFT_OUT = (
    "DRUPE_",
    "HF_",
    "AZURE_",
    "PYTHON",
    "COV_",
)  # another machine knows nothing of this one


@dataclass
class FakeJob:
    """A job. statuses: all that it was in, in order."""

    name: str
    properties: dict[str, Any]
    folder: Path
    statuses: list[str] = field(default_factory=lambda: ["NotStarted"])
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = False

    @property
    def status(self) -> str:
        return self.statuses[-1]

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    def cancel(self) -> None:
        """Ask it to stop; it is over some time later."""
        self.cancelled = True
        self.statuses.append("CancelRequested")
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)


class Jobs:
    """The jobs by their names.

    hold: while it is set, what is queued stays queued. command: what runs in place of a job's own.
    """

    def __init__(self, folder: Path, blobs: Blobs, place_of: Callable[[str], Path]) -> None:
        self.hold = threading.Event()
        self.command = ""
        self.environment: dict[str, str] = {}
        self.started: list[FakeJob] = []
        self._folder = folder
        self._blobs = blobs
        self._place_of = place_of
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __contains__(self, name: object) -> bool:
        return any(job.name == name for job in self.started)

    def __getitem__(self, name: str) -> FakeJob:
        return next(job for job in self.started if job.name == name)

    def start(self, name: str, properties: dict[str, Any], code: Path) -> None:
        """Begin with a job; its code is copied, as a compute does."""
        job = FakeJob(name, properties, self._folder / name)
        shutil.copytree(code, job.folder / "code")
        self.started.append(job)
        thread = threading.Thread(target=self._run, args=(job,))
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop what runs."""
        self._closing.set()
        for job in self.started:
            if not job.is_over:
                job.cancel()
        for thread in self._threads:
            thread.join()

    def _run(self, job: FakeJob) -> None:
        job.statuses.append("Queued")
        while self.hold.is_set() and not job.cancelled:
            self._closing.wait(0.02)
        if not job.cancelled:
            job.statuses += ["Preparing", "Running"]
            try:
                status = self._do(job)
            except Exception:
                job.statuses.append("Failed")  # a client would wait for ever
                raise
            if not job.cancelled:
                job.statuses.append("Finalizing")
                job.statuses.append("Failed" if status else "Completed")
        if job.cancelled:
            job.statuses.append("Canceled")

    def _do(self, job: FakeJob) -> int:
        artifacts = "azureml://datastores/workspaceartifactstore/paths/"
        log = self._place_of(artifacts + LOG.format(job.name))
        log.parent.mkdir(parents=True)
        command = self.command or job.properties["command"]
        for kind in ("inputs", "outputs"):
            for name, told in job.properties[kind].items():
                place = self._place_of(told["uri"])
                if kind == "outputs":
                    place.mkdir(parents=True, exist_ok=True)
                assert place.exists(), f"{told['uri']} is not there"
                command = command.replace(f"${{{{{kind}.{name}}}}}", str(place))
        assert "${{" not in command, command
        ours = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        packages = str(job.folder / "packages")
        environment = {
            **ours,
            **self.environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PIP_TARGET": packages,
            "PYTHONPATH": packages,
            "PIP_CONFIG_FILE": os.devnull,
            **job.properties["environmentVariables"],
        }
        with log.open("ab", buffering=0) as file:
            job.process = subprocess.Popen(
                ["/bin/bash", "-c", command],
                cwd=job.folder / "code",
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            if job.cancelled:
                job.cancel()
            return job.process.wait()
