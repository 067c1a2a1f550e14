"""What runs on a Ray node: a slot that keeps its fork server warm, and does a batch at a time.

    jobs/NAME/bundle, results     a batch, as `drupe.systems.batch` wants it
    inputs/DIGEST                 models that were sent
    work/KEY                      a step on its way; its scratch outlives a worker that dies

They lie in the storage that all nodes share, or in a folder of the worker's own to which the
client sends files in pieces. A worker belongs to the client that started it, its owner; others may
attach to its batch. It ends when its owner has left and nobody follows a batch of it. One that no
client has spoken to for a while ends too: its owner was killed.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drupe.core.files import files_below, remove_tree
from drupe.core.locks import lock_if_free
from drupe.systems.batch import run_steps
from drupe.systems.local import LocalExecutor

GONE_SECONDS = 60.0  # the driver says every few seconds that it is there
WAIT_SECONDS = 0.2
UNDER_WAY = ("awaited", "running")
LATEST_ONLY = ("progress", "memory")


@dataclass
class _Job:
    """A batch of this worker's. clients: those who still want something of it.

    state: "awaited" while `sender` sends what it needs, then "running", then "ended" or "lost".
    """

    name: str
    place: Path
    clients: set[str]
    sender: str
    state: str = "awaited"
    inputs: dict[str, Path] = field(default_factory=dict)
    status: int = 0
    ending: str = ""
    number: int = 0
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class Worker:
    """A Ray actor whose methods run in threads. Every caller says which client it is.

    owner: the client that starts it. storage: the folder that is shared; "" without one.
    idle_seconds: how long results are kept for a client that is gone.
    """

    def __init__(
        self, owner: str, preload: Sequence[str], storage: str, idle_seconds: float
    ) -> None:
        self._owner = owner
        self._shares = bool(storage)
        self._home = Path(storage or tempfile.mkdtemp(prefix="drupe-worker-"))
        self._idle_seconds = idle_seconds
        self._jobs: dict[str, _Job] = {}
        self._heard: dict[str, float] = {}
        self._left: set[str] = set()
        self._ending = threading.Lock()
        self._changed = threading.Condition()
        self._executor = LocalExecutor(tuple(preload), name="the Ray worker")
        self._executor.warm_up()
        threading.Thread(target=self._end_when_left, daemon=True).start()

    def hello(self, client: str, mark: str = "") -> bool:
        """Hear that the client is there; return whether the file `mark` is seen from here."""
        self._hear(client)
        return Path(mark).is_file()

    def receive(self, client: str, path: str, offset: int, data: bytes) -> None:
        """Write a piece of a file below this worker's own folder."""
        self._hear(client)
        file = self._home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(data)

    def expect(self, client: str, name: str) -> None:
        """Hear that a client is about to claim a batch for this worker, and to send what it needs.

        Who finds the claim meanwhile can attach already.
        """
        self._hear(client)
        with self._changed:
            if name not in self._jobs:
                self._jobs[name] = _Job(name, self._home / "jobs" / name, {client}, client)

    def start(self, client: str, name: str, inputs: dict[str, str]) -> bool:
        """Start a batch that was awaited; return False where another one runs.

        inputs: {name: folder, below this worker's home where it is relative}.
        """
        with self._changed:
            if client in self._left:  # it was told to stop while it still sent
                return False
            self.expect(client, name)
            job = self._jobs[name]
            if job.state != "awaited":
                return True
            if any(each.state == "running" for each in self._jobs.values()):
                return False
            job.inputs = {each: self._home / folder for each, folder in inputs.items()}
            job.state = "running"
        job.thread = threading.Thread(target=self._work, args=(job,), daemon=True)
        job.thread.start()
        return True

    def attach(self, client: str, name: str) -> bool:
        """Let another client follow a batch that is here; return whether it is."""
        self._hear(client)
        with self._changed:
            if name not in self._jobs:
                return False
            self._jobs[name].clients.add(client)
            return True

    def poll(self, client: str, name: str, since: int, seconds: float) -> dict[str, Any]:
        """Return the events after number `since` with the state; wait `seconds` for something."""
        self._hear(client)
        with self._changed:
            job = self._jobs.get(name)
            if job is not None and job.state == "awaited" and job.sender not in self._present():
                self._drop(job)
                return {"state": "lost", "ending": "the client that was to send it is gone"}
            if job is None:
                return {"state": "lost", "ending": "another client has stopped it"}
            known = job
            self._changed.wait_for(
                lambda: known.number > since or known.state not in UNDER_WAY, timeout=seconds
            )
            return {
                "state": "running" if job.state == "awaited" else job.state,
                "events": [event for number, event in job.events if number > since],
                "number": job.number,
                "ending": job.ending,
                "status": job.status,
            }

    def cancel(self, client: str, name: str) -> None:
        """Stop the batch, unless another client that is there follows it too."""
        self._hear(client)
        job = self._jobs.get(name)
        if job is not None:
            self._let_go(client, job)
        self._end_if_unwanted()

    def results(self, client: str, name: str) -> str:
        """Return the folder of a batch's results where it is shared, else ""."""
        self._hear(client)
        return str(self._jobs[name].place / "results") if self._shares else ""

    def names(self, client: str, name: str, path: str) -> list[str]:
        """Return the relative paths of the files of a result."""
        self._hear(client)
        folder = self._jobs[name].place / "results" / path
        return [file.relative_to(folder).as_posix() for file in files_below(folder)]

    def read(self, client: str, name: str, path: str, offset: int, size: int) -> bytes:
        """Return a piece of a file of the results; b"" behind its end, and of an absent file."""
        self._hear(client)
        with (
            suppress(FileNotFoundError),
            (self._jobs[name].place / "results" / path).open("rb") as file,
        ):
            file.seek(offset)
            return file.read(size)
        return b""

    def fetched(self, client: str, name: str) -> None:
        """Hear that the client wants no more of a batch; the last one's word drops it."""
        self._hear(client)
        job = self._jobs.get(name)
        if job is not None:
            job.clients.discard(client)
            if not job.clients:
                self._drop(job)
        self._end_if_unwanted()

    def leave(self, client: str) -> None:
        """Hear that a client goes, for good: it wants no more of any batch."""
        self._left.add(client)
        self._heard.pop(client, None)
        for job in list(self._jobs.values()):
            self._let_go(client, job)
        self._end_if_unwanted()

    def _hear(self, client: str) -> None:
        if client not in self._left:  # calls of one client may overtake each other
            self._heard[client] = time.monotonic()

    def _present(self) -> set[str]:
        """Return the clients that spoke lately."""
        since = time.monotonic() - GONE_SECONDS
        return {client for client, heard in list(self._heard.items()) if heard > since}

    def _work(self, job: _Job) -> None:
        """Do the batch, alone among the workers that share the storage."""
        status, state, ending = 1, "ended", ""
        try:
            while not job.stop.is_set():
                with lock_if_free(self._home / "locks" / job.name) as held:
                    if held:
                        status = 0 if self._run(job) else 1
                        ending = f"ended with exit code {status}"
                        break
                time.sleep(WAIT_SECONDS)  # a worker that was thought dead still ends
        except KeyboardInterrupt:
            state, ending = "lost", "another client has stopped it"
        except BaseException as fault:  # noqa: BLE001  whatever it is, the client must hear of it
            traceback.print_exc()  # into Ray's log of this worker
            ending = f"failed: {type(fault).__name__}: {fault}"
        with self._changed:
            job.state, job.status, job.ending = state, status, ending
            self._changed.notify_all()

    def _run(self, job: _Job) -> bool:
        def send(event: dict[str, Any]) -> None:
            with self._changed:
                if event["event"] in LATEST_ONLY:
                    told = (event["event"], event["step"])
                    job.events[:] = [
                        (number, each)
                        for number, each in job.events
                        if (each["event"], each["step"]) != told
                    ]
                job.number += 1
                job.events.append((job.number, event))
                self._changed.notify_all()

        return run_steps(
            self._executor,
            bundle=job.place / "bundle",
            inputs=job.inputs,
            results=job.place / "results",
            work=self._home / "work",
            send=send,
            stopped=job.stop.is_set,
        )

    def _let_go(self, client: str, job: _Job) -> None:
        """Stop a batch for a client, unless another one that is there follows it."""
        job.clients.discard(client)
        never_sent = job.state == "awaited" and job.sender == client
        if never_sent or not job.clients & self._present():
            self._drop(job)

    def _drop(self, job: _Job) -> None:
        """Stop a batch, wait until it writes no more, and forget it."""
        job.stop.set()
        if job.thread is not None:
            job.thread.join()
        with self._changed:
            self._jobs.pop(job.name, None)
        remove_tree(job.place)

    def _end_if_unwanted(self) -> None:
        """End when the call that is served is answered, if there is nobody to work for.

        Those who have what they came for do not count, however lately they spoke.
        """
        present = self._present()
        followed = any(job.clients & present for job in list(self._jobs.values()))
        if self._owner in self._left and not followed:
            threading.Timer(WAIT_SECONDS, self._end).start()

    def _end_when_left(self) -> None:
        """End once no client is there: soon where nothing is kept for one, else after a while."""
        begun = time.monotonic()
        while True:
            time.sleep(min(self._idle_seconds / 4, 5.0))
            silent = time.monotonic() - max([begun, *self._heard.values()])
            running = any(job.state == "running" for job in self._jobs.values())
            patience = self._idle_seconds if self._jobs else min(GONE_SECONDS, self._idle_seconds)
            if running:
                begun = time.monotonic()
            elif silent > patience:
                self._end()

    def _end(self) -> None:
        if not self._ending.acquire(blocking=False):
            return
        try:  # whatever cannot be tidied up, the cores are to be free
            self._executor.__exit__()
            for job in list(self._jobs.values()):
                remove_tree(job.place)
            if not self._shares:
                remove_tree(self._home)
        finally:
            os._exit(0)
