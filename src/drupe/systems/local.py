"""The local executor: each step in a child process of this machine, forked or started anew."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from drupe.core.executor import Batch, Polled
from drupe.core.files import write_atomic
from drupe.core.process import anonymous_bytes, death
from drupe.core.secrets import redact_file
from drupe.core.system import Setting
from drupe.systems.declarations import LocalSystem
from drupe.systems.processes import ForkServer, Fresh, Interpreter, Processes


class LocalExecutor:
    """Runs steps on this machine, one at a time, in the folders that the batch names.

    preload: modules that the server imports once, before the first step.
    fork: whether a fork server is used (20 ms a step); without one each step is a fresh
        `drupe step`, which is the way of systems that cannot fork, Windows among them.
    interpreter: the Python that runs the steps. name: what the system is called in an error.
    """

    slots, joins, here = 1, False, True

    def __init__(
        self,
        preload: tuple[str, ...] = (),
        fork: bool = hasattr(os, "fork"),
        interpreter: Interpreter | None = None,
        name: str = "the local system",
    ) -> None:
        self._preload = preload
        self._fork = fork
        self._interpreter = interpreter or Interpreter()
        self._name = name
        self._processes: Processes | None = None
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        if self._processes:
            self._processes.close()
            self._processes = None

    def warm_up(self) -> None:
        """Start the fork server's imports now, while the client still does other things."""
        if self._processes is None:
            self._processes = (
                ForkServer(self._preload, self._interpreter, self._name)
                if self._fork
                else Fresh(self._interpreter)
            )

    def submit(self, batch: Batch) -> None:
        """Start the batch's only step."""
        [spec] = batch.steps
        folder = batch.folder(spec.key)
        write_atomic(folder / "spec.json", json.dumps(spec.to_json()).encode())
        for name in ("events", "log"):
            (folder / name).unlink(missing_ok=True)
        self.warm_up()
        assert self._processes
        self._running = _Running(folder, spec.key)
        self._running.pid = self._processes.start(folder / "spec.json", folder / "out")

    def poll(self, batch: Batch, seconds: float) -> Polled:
        """Return the step's new events and its memory, and its end."""
        assert self._processes
        assert self._running
        ended = self._processes.wait(seconds)
        events = tuple(self._running.new_events())
        if ended is None:
            return Polled("running", events)
        self._finish()
        return Polled("ended", events, death(ended.status), ended.status, ended.peak_bytes)

    def cancel(self, batch: Batch) -> None:
        """Kill the step."""
        if self._processes and self._running:
            self._processes.kill()
            self._finish()

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        """Do nothing: the result is there."""

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        """Do nothing: the log is there."""

    def _finish(self) -> None:
        assert self._running
        self._running.close()
        redact_file(self._running.folder / "log")
        self._running = None


@dataclass
class _Running:
    """Reads a step's events as they come, and its memory."""

    folder: Path
    key: str
    pid: int = 0
    _file: IO[bytes] | None = None
    _rest: bytes = field(default=b"")
    _peak_bytes: int = 0

    def new_events(self) -> Iterator[dict[str, Any]]:
        now = anonymous_bytes(self.pid)
        if now:
            self._peak_bytes = max(self._peak_bytes, now)
            yield {"event": "memory", "now": now, "peak": self._peak_bytes, "step": self.key}
        if self._file is None:
            if not (self.folder / "events").exists():
                return
            self._file = (self.folder / "events").open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            yield {**json.loads(line), "step": self.key}

    def close(self) -> None:
        if self._file:
            self._file.close()


def open_local(system: LocalSystem, setting: Setting) -> LocalExecutor:
    """Return the executor of a local system, as `System.open` asks for it."""
    return LocalExecutor(setting.preload, interpreter=system.interpreter)
