"""Batches placed on the workers of a Ray cluster, followed, and let go.

Workers are detached actors in the namespace "drupe": a client that dies leaves them at work, and
one that comes after it attaches to the batch by its name. One that closes leaves no worker, unless
another client follows its batch.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
)

from drupe.core.executor import Transient
from drupe.systems.ray.cluster import NAMESPACE, capacity, first_line, join, start_own
from drupe.systems.ray.desk import NAME, Desk
from drupe.systems.ray.files import Storage, bring_file, bring_folder, send_folder
from drupe.systems.ray.worker import Worker

ANSWER_SECONDS, ATTACH_SECONDS, BEAT_SECONDS, LEAVE_SECONDS = 30.0, 5.0, 10.0, 10.0
KILLED_SECONDS = 0.05
CALLS_AT_ONCE = 16  # of a worker


@dataclass
class _Slot:
    """A worker of ours. ready: its first answer. sent: the models that it has."""

    name: str
    worker: Any
    ready: Any
    sent: set[str] = field(default_factory=set)
    busy: bool = False


@dataclass
class _Job:
    """A batch that was submitted. worker: who has it, once it is started or attached to."""

    name: str
    bundle: Path
    inputs: dict[str, tuple[Path, str]]
    instead_of: str = ""
    slot: _Slot | None = None
    worker: Any = None
    holder: str = ""
    since: int = 0


class Placement:
    """What a client can ask for."""

    def __init__(self) -> None:
        self._client = uuid.uuid4().hex
        self._slots: list[_Slot] = []
        self._attached_to: dict[str, Any] = {}  # workers of other clients, by their names
        self._closing = False
        self._beat_seconds = BEAT_SECONDS
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._made = 0
        self._most = 0
        self._where = ""
        self.alone = False
        self._storage = Storage("", everywhere=False)
        self._options: dict[str, Any] = {}
        self._arguments: tuple[Any, ...] = ()

    def open(
        self,
        name: str,
        address: str,
        code: str,
        session: str | None,
        num_cpus: float,
        num_gpus: float,
        memory: int | None,
        max_parallel: int | None,
        storage: str,
        preload: list[str],
        idle_seconds: float,
    ) -> dict[str, Any]:
        """Connect, and start the workers; return how many batches may run at once."""
        self._where = f"systems.{name}"
        self.alone = address == "local"
        if self.alone:
            start_own(session)
        else:
            join(self._where, address, code)
        wanted = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory or 0}
        self._most = max_parallel or capacity(self._where, wanted)
        self._storage = Storage(storage, everywhere=self.alone)
        self._options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory}
        self._arguments = (self._client, preload, storage, idle_seconds)
        self._beat_seconds = min(BEAT_SECONDS, idle_seconds / 4)
        _desk()
        with self._lock:
            for _ in range(0 if self._closing else self._most):
                self._start_worker()
        threading.Thread(target=self._beat, daemon=True).start()
        return {"slots": self._most}

    def submit(self, batch: str, bundle: str, inputs: dict[str, list[str]]) -> None:
        """Take a batch on: `poll` places it."""
        lost = self._jobs.get(batch)
        models = {name: (Path(path), digest) for name, (path, digest) in inputs.items()}
        instead_of = lost.instead_of or lost.holder if lost else ""
        self._jobs[batch] = _Job(batch, Path(bundle), models, instead_of)

    def poll(self, batch: str, seconds: float) -> dict[str, Any]:
        """Return what is new of a batch."""
        job = self._jobs[batch]
        try:
            if job.worker is None:
                self._place(job, seconds)
            if job.worker is None:
                return {"state": "queued"}
            asked = job.worker.poll.remote(self._client, batch, job.since, seconds)
            told: dict[str, Any] = ray.get(asked, timeout=seconds + ANSWER_SECONDS)
        except (ActorUnavailableError, GetTimeoutError):
            return {"state": "running"}  # nothing is heard of it, and nothing is known
        except RayActorError as fault:
            self._give_up(job)
            return {"state": "lost", "ending": ending(fault)}
        job.since = told.get("number", job.since)
        if told["state"] != "running":
            self._free(job)
        if told["state"] == "lost":
            job.worker, job.instead_of = None, job.holder
        return told

    def cancel(self, batch: str) -> None:
        """Stop a batch."""
        job = self._jobs.pop(batch, None)
        if job is None:
            return
        worker = job.slot.worker if job.worker is None and job.slot else job.worker
        if worker is not None:
            self._call(worker.cancel.remote(self._client, batch))
        self._free(job)

    def fetch(self, batch: str, path: str, to: str, last: bool) -> None:
        """Bring a step's result; after the last one's the worker need not keep the batch."""
        job = self._jobs[batch]
        shared = self._call(job.worker.results.remote(self._client, batch))
        if shared:
            self._storage.bring(Path(shared) / path, Path(to))
        else:
            bring_folder(job.worker, self._client, batch, path, Path(to))
        if last:
            job.worker.fetched.remote(self._client, batch)
            del self._jobs[batch]

    def log(self, batch: str, path: str, to: str) -> None:
        """Bring what a step printed."""
        job = self._jobs[batch]
        if job.worker is not None:
            bring_file(job.worker, self._client, batch, path, Path(to))

    def close(self) -> None:
        """Let our workers go; one that nobody else follows ends, and all with our own cluster.

        Waits until that is known: this process ends next, and with it what it has not yet sent.
        """
        with self._lock:
            self._closing = True
            slots = list(self._slots)
        if self.alone:
            return
        end = time.monotonic() + LEAVE_SECONDS
        begun = [slot for slot in slots if _is_there(slot.ready)]
        # Those that wait for their cores, or start, hear nothing yet.
        others = [slot for slot in slots if slot not in begun]
        for slot in others:
            ray.kill(slot.worker)
        workers = [*(slot.worker for slot in begun), *self._attached_to.values()]
        left = [worker.leave.remote(self._client) for worker in workers]
        if left:
            ray.wait(left, num_returns=len(left), timeout=LEAVE_SECONDS)
        while any(_is_known(slot.name) for slot in others) and time.monotonic() < end:
            time.sleep(KILLED_SECONDS)

    def _start_worker(self) -> _Slot:
        self._made += 1
        name = f"worker-{self._client}-{self._made}"
        worker: Any = (
            ray.remote(Worker)
            .options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                max_concurrency=CALLS_AT_ONCE,
                scheduling_strategy="SPREAD",
                **self._options,
            )
            .remote(*self._arguments)
        )
        slot = _Slot(name, worker, worker.hello.remote(self._client, self._storage.mark))
        self._slots.append(slot)
        return slot

    def _beat(self) -> None:
        """Say now and then that we are there."""
        while True:
            time.sleep(self._beat_seconds)
            for slot in list(self._slots):
                if _is_there(slot.ready):
                    slot.worker.hello.remote(self._client)

    def _place(self, job: _Job, seconds: float) -> None:
        """Attach to who has the batch, else start it on a worker of ours that is ready."""
        holder = self._desk("holder", job.name)
        own = job.slot is not None and job.slot.name == holder
        if holder and holder != job.instead_of and not own and self._attached(job, holder):
            return
        slot = job.slot or self._free_slot()
        if slot is None:
            time.sleep(seconds)
            return
        job.slot = slot
        if not ray.wait([slot.ready], timeout=seconds)[0]:
            return
        self._storage.check(self._where, ray.get(slot.ready))
        try:
            self._call(slot.worker.expect.remote(self._client, job.name))
        except RayActorError:  # it died while it had nothing to do: another one is asked for
            self._discard(job)
            return
        holder = self._desk("claim", job.name, slot.name, job.instead_of)
        if holder == slot.name:
            self._send(job, slot)
        else:  # another client was first: attached to when next asked
            slot.worker.cancel.remote(self._client, job.name)

    def _attached(self, job: _Job, holder: str) -> bool:
        """Try to follow a batch on the worker that has it; say whether that is settled for now."""
        try:
            worker = ray.get_actor(holder, NAMESPACE)
            self._attached_to[holder] = worker
            asked = worker.attach.remote(self._client, job.name)
            if ray.get(asked, timeout=ATTACH_SECONDS):
                self._free(job)
                job.worker, job.holder = worker, holder
                return True
        except (ActorUnavailableError, GetTimeoutError):
            return True  # it waits for its cores, or is not heard: asked again
        except (ValueError, RayActorError):
            pass  # it is gone
        job.instead_of = holder
        return False

    def _send(self, job: _Job, slot: _Slot) -> None:
        """Bring what a batch needs to where a worker finds it, and start it."""
        place = f"jobs/{job.name}/bundle"
        inputs: dict[str, str] = {}
        if self._storage.folder:
            self._storage.take_in(job.bundle, place)
            for name, (path, digest) in job.inputs.items():
                inputs[name] = str(self._storage.model(path, digest))
        else:
            send_folder(slot.worker, self._client, job.bundle, place)
            for name, (path, digest) in job.inputs.items():
                inputs[name] = f"inputs/{digest}"
                if digest not in slot.sent:
                    send_folder(slot.worker, self._client, path, inputs[name])
                    slot.sent.add(digest)
        if self._call(slot.worker.start.remote(self._client, job.name, inputs)):
            job.worker, job.holder = slot.worker, slot.name

    def _free_slot(self) -> _Slot | None:
        with self._lock:
            slot = next((slot for slot in self._slots if not slot.busy), None)
            if slot is None and len(self._slots) < self._most and not self._closing:
                slot = self._start_worker()
            if slot is not None:
                slot.busy = True
            return slot

    def _free(self, job: _Job) -> None:
        if job.slot is not None:
            job.slot.busy, job.slot = False, None

    def _give_up(self, job: _Job) -> None:
        """Count on the worker of a batch no more."""
        job.instead_of = job.holder or (job.slot.name if job.slot else job.instead_of)
        job.worker = None
        self._discard(job)

    def _discard(self, job: _Job) -> None:
        gone, job.slot = job.slot, None
        with self._lock:
            self._slots = [slot for slot in self._slots if slot is not gone]

    def _desk(self, question: str, *words: str) -> str:
        """Ask the desk; it is made anew where it has just ended."""
        for last in (False, False, True):
            try:
                answer: str = self._call(getattr(_desk(), question).remote(*words))
                return answer
            except RayActorError:
                if last:
                    raise
        raise AssertionError("unreachable")

    def _call(self, asked: Any) -> Any:
        try:
            return ray.get(asked, timeout=ANSWER_SECONDS)
        except (ActorUnavailableError, GetTimeoutError) as fault:
            what = f"a worker does not answer: {first_line(fault)}"
            raise Transient(self._where, what, "Is the cluster well?") from fault


def _desk() -> Any:
    """Return the cluster's desk, which is made where there is none."""
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached"}
    return ray.remote(Desk).options(**options, get_if_exists=True, num_cpus=0).remote()


def _is_there(ready: Any) -> bool:
    return bool(ray.wait([ready], timeout=0)[0])


def _is_known(name: str) -> bool:
    """Return whether the cluster has an actor of this name, waiting ones included."""
    with suppress(ValueError):
        ray.get_actor(name, NAMESPACE)
        return True
    return False


def ending(fault: RayActorError) -> str:
    """Return in words how a worker was lost."""
    text = str(fault)
    if "memory" in text and "low" in text:
        return "its Ray worker was killed, for the node ran out of memory"
    if "node" in text and ("died" in text or "dead" in text) and "unexpectedly" not in text:
        return "the node of its Ray worker died"
    return "its Ray worker died"
