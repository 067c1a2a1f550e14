"""The client's side of a batch: submitted, watched, tried again, cancelled, its results fetched.

a call fails        transient: made again after 1, 2, 4, ... seconds (or what the other side
                    asks for), for up to a minute each and ATTEMPTS in all; else it is raised
a batch is lost     its machine is gone: submitted again, at most RESUBMITS times
Ctrl-C              the batch is cancelled first

An error of a step reads the same wherever it ran.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from drupe.core.cache import Run
from drupe.core.digest import file_digest
from drupe.core.errors import DrupeError, StepError, StepRefused
from drupe.core.executor import Batch, Executor, Polled, Transient
from drupe.core.files import files_below, full_disk, is_disk_full
from drupe.core.step import StepSpec

POLL_SECONDS = 0.05
ATTEMPTS, FIRST_SECONDS, MOST_SECONDS = 8, 1.0, 60.0
RESUBMITS = 3
Tell = Callable[[dict[str, Any]], None]
Given = TypeVar("Given")


def run(executor: Executor, spec: StepSpec, folder: Path, tell: Tell) -> Run:
    """Do one step: reads and writes below `folder`, the result in out/. See `Followed.step`."""
    return Followed(executor, Batch((spec,), lambda key: folder)).step(spec.key, tell)


class Followed:
    """A batch on its way. It is submitted when the first of its steps is asked for.

    stopped: asked now and then; where it answers True the batch is cancelled, as by Ctrl-C.
    """

    def __init__(
        self, executor: Executor, batch: Batch, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._executor = executor
        self._batch = batch
        self._stopped = stopped
        self._submits = 0
        self._cancelled = False
        self._last = Polled("queued")
        self._steps = {spec.key: _Step() for spec in batch.steps}

    def step(self, key: str, tell: Tell) -> Run:
        """Follow a step of the batch to its end, and return what it took; its result is here.

        `tell` receives the step's events, and {"event": "memory", "now": N, "peak": N} beside
        them. Raises StepError with what the step said, or with how its process died.
        """
        [spec] = [step for step in self._batch.steps if step.key == key]
        folder = self._batch.folder(key)
        try:
            if not self._submits:
                self._submit(tell)
            step = self._watch(key, tell)
            if step.done is not None:
                self._again(tell, lambda: self._executor.fetch(self._batch, key, folder))
                check_arrived(spec.operation, folder / "out", step.done.get("files"))
                told = step.done.get("peak_bytes", 0)
                peak = max(step.peak_bytes, told) or self._last.peak_bytes
                return Run(step.done["seconds"], peak, step.done["facts"], step.done["machine"])
            self._again(tell, lambda: self._executor.log(self._batch, key, folder))
        except BaseException:
            self.cancel(tell)
            raise
        error = _error(spec, folder, step, self._last)
        raise _with_full_disk(error, folder) if self._executor.here else error

    def cancel(self, tell: Tell) -> None:
        """Stop the batch, unless it was never submitted or has ended.

        Where it cannot be stopped that is told, and not raised: it is cancelled for a reason,
        which is what the caller raises.
        """
        if self._submits and self._last.state != "ended" and not self._cancelled:
            self._cancelled = True
            try:
                self._executor.cancel(self._batch)
            except DrupeError as fault:
                tell({"event": "warning", "text": f"It may still run: {fault}"})

    def _submit(self, tell: Tell) -> None:
        self._submits += 1  # before: what was half submitted is to be cancelled too
        self._again(tell, lambda: self._executor.submit(self._batch))

    def _watch(self, key: str, tell: Tell) -> _Step:
        """Follow the batch until the end of a step is known.

        A result is whole once its step says so, but the last step's is believed when the process
        has ended well: what fails then (a full disk, a crash of a library) is no result.
        """
        step, last = self._steps[key], key == self._batch.steps[-1].key
        while True:
            while step.untold:
                tell(step.untold.pop(0))
            ended = self._last.state == "ended"
            if step.done and (not last or (ended and not self._last.status)):
                return step
            if ended:
                return replace(step, done=None)
            if self._stopped():
                raise KeyboardInterrupt
            self._poll(tell)

    def _poll(self, tell: Tell) -> None:
        self._last = self._again(tell, lambda: self._executor.poll(self._batch, POLL_SECONDS))
        for event in self._last.events:
            said = {name: value for name, value in event.items() if name != "step"}
            self._steps[event["step"]].hear(said)
        if self._last.state == "lost":
            if self._submits > RESUBMITS:
                raise StepError(
                    self._batch.steps[0].operation,
                    f"its machine was lost {self._submits} times: {self._last.ending}",
                    "Run again: what was finished is kept. Has that machine enough memory?",
                )
            text = f"{self._last.ending}: it is submitted again"
            tell({"event": "warning", "text": text})
            self._submit(tell)

    def _again(self, tell: Tell, call: Callable[[], Given]) -> Given:
        """Return what `call` does; what is transient is tried again after a while."""
        seconds = FIRST_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except Transient as fault:
                if attempt == ATTEMPTS:
                    raise
                wait = min(fault.after_seconds or seconds, MOST_SECONDS)
                text = f"{fault.where}: {fault.what}; tried again in {wait:.0f} s"
                tell({"event": "note", "text": text})
                self._sleep(wait)
                seconds *= 2
        raise AssertionError("unreachable")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._stopped():
                raise KeyboardInterrupt
            time.sleep(min(POLL_SECONDS, seconds))


def check_arrived(where: str, folder: Path, digests: dict[str, str] | None) -> None:
    """Raise StepError unless `folder` holds what was sent: each file, byte for byte.

    digests: {relative posix path: content digest} as told where they were made; None: made here.
    """
    if digests is None:
        return
    found = {file.relative_to(folder).as_posix(): file for file in files_below(folder)}
    for name in sorted(found.keys() | digests.keys()):
        if name not in found or name not in digests or file_digest(found[name]) != digests[name]:
            state = "damaged" if name in found and name in digests else "missing"
            state = "foreign" if name not in digests else state
            raise StepError(
                where,
                f"its result did not arrive whole: {name} is {state}",
                "Run again: what was finished is kept.",
            )


@dataclass
class _Step:
    """What is known of a step of a batch that runs."""

    done: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    peak_bytes: int = 0
    untold: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "done":
            self.done = event
        elif event["event"] == "failed":
            self.failed = event
        else:
            if event["event"] == "memory":
                self.peak_bytes = max(self.peak_bytes, event["peak"])
            self.untold.append(event)


def _error(spec: StepSpec, folder: Path, step: _Step, last: Polled) -> StepError:
    log = folder / "log"
    remedy = f"Steps before it are kept; its log: {log}"
    if step.failed:
        remedy = step.failed.get("remedy", remedy)
        where = step.failed.get("where") or spec.operation
        if where != spec.operation and not where.startswith(f"{spec.operation}, "):
            where = f"{spec.operation}, {where}"  # a job has said it already
        kind = StepRefused if step.failed.get("refused") else StepError
        return kind(where, step.failed["what"], remedy)
    if last.status == -9 and step.peak_bytes:
        held = f" (it held {step.peak_bytes / 10**9:.1f} GB at its peak)"
    else:
        held = ""
    unsaid = " without having done the step" if last.status == 0 else ""
    said = _last_line(log) if last.status > 0 else ""
    return StepError(spec.operation, f"its process {last.ending}{held}{unsaid}{said}", remedy)


def _with_full_disk(error: StepError, folder: Path) -> StepError:
    """Return the step's error, with the full disk that is behind it: not every library says so."""
    if not is_disk_full(folder) and os.strerror(errno.ENOSPC) not in error.what:
        return error
    full = full_disk(folder)
    return type(error)(error.where, f"{error.what}; {full.where}: {full.what}", full.remedy)


def _last_line(log: Path) -> str:
    """Return what a process that could not say why it failed wrote last: the disk may be full."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""
