"""Toy systems, as a third party would write them: several steps at once, and a job in a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Self

from drupe.cli.batch import MARK
from drupe.core.executor import Batch, Polled
from drupe.core.system import Setting, System
from drupe.systems.bundle import pack
from drupe.systems.local import LocalExecutor


class Pool(System):
    """Several steps at once, each by a local executor of its own."""

    executor = "drupe_toy_systems:PoolExecutor"

    type: Literal["Pool"] = "Pool"
    workers: int = 2


class PoolExecutor:
    joins, here = False, True

    def __init__(self, system: Pool, setting: Setting) -> None:
        self.slots = system.workers
        self._free = [LocalExecutor(setting.preload) for _ in range(system.workers)]
        self._busy: dict[str, LocalExecutor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        for executor in [*self._free, *self._busy.values()]:
            executor.__exit__(*fault)

    def warm_up(self) -> None:
        for executor in self._free:
            executor.warm_up()

    def submit(self, batch: Batch) -> None:
        self._busy[batch.name] = self._free.pop()
        self._busy[batch.name].submit(batch)

    def poll(self, batch: Batch, seconds: float) -> Polled:
        polled = self._busy[batch.name].poll(batch, seconds)
        if polled.state == "ended":
            self._free.append(self._busy.pop(batch.name))
        return polled

    def cancel(self, batch: Batch) -> None:
        executor = self._busy.pop(batch.name)
        executor.cancel(batch)
        self._free.append(executor)

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        pass

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        pass


class Folder(System):
    """Jobs that travel: each is packed into a folder and run there by `drupe batch`.

    A marker file counts how often a job was started; lose: of how many first attempts the machine
    is lost after its first event.
    """

    executor = "drupe_toy_systems:FolderExecutor"
    elsewhere = True

    type: Literal["Folder"] = "Folder"
    folder: Path
    lose: int = 0


class FolderExecutor:
    slots, joins, here = 1, True, False

    def __init__(self, system: Folder, setting: Setting) -> None:
        self._system = system
        self._setting = setting
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def submit(self, batch: Batch) -> None:
        job = self._job(batch)
        shutil.rmtree(job / "bundle", ignore_errors=True)
        bundle = pack(batch, job / "bundle", self._setting.preload)
        with (job / "starts").open("a") as starts:
            starts.write("started\n")
        self._read = 0
        words = [
            word for name, place in bundle.inputs.items() for word in ("--input", f"{name}={place}")
        ]
        with (job / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "drupe", "batch", "--bundle", str(job / "bundle")),
                    *(*words, "--results", str(job / "results")),
                ],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def poll(self, batch: Batch, seconds: float) -> Polled:
        assert self._process
        try:
            status: int | None = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        events = tuple(self._new_events(self._job(batch) / "output"))
        starts = (self._job(batch) / "starts").read_text().count("\n")
        if events and starts <= self._system.lose:
            self._process.kill()
            self._process.wait()
            return Polled("lost", events, "the folder's machine was lost")
        if status is None:
            return Polled("running", events)
        return Polled("ended", events, f"ended with exit code {status}", status)

    def cancel(self, batch: Batch) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.copytree(self._job(batch) / "results" / key, folder / "out")

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        log = self._job(batch) / "results" / f"{key}.log"
        if log.exists():
            shutil.copyfile(log, folder / "log")

    def _job(self, batch: Batch) -> Path:
        job = self._system.folder / batch.name
        job.mkdir(parents=True, exist_ok=True)
        return job

    def _new_events(self, output: Path) -> list[dict[str, Any]]:
        data = output.read_bytes()[self._read :]
        whole, newline, _ = data.rpartition(b"\n")
        self._read += len(whole) + len(newline)
        mark = MARK.encode()
        return [
            json.loads(line.removeprefix(mark))
            for line in whole.splitlines()
            if line.startswith(mark)
        ]
