"""The one contract of every place where steps run: submit, poll, cancel, fetch, log.

    submit -> queued -> running -> ended         each step's own end is an event of it:
                 |          |                    "done" or "failed"
                 +--> lost <+                    its machine is gone: submit again

`systems.follow` is the client's side of it: it submits, tells what comes, tries again what is
transient, and cancels on Ctrl-C. An executor is idempotent: to submit a batch that is known by its
name attaches to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from drupe.core.digest import value_digest
from drupe.core.errors import DrupeError
from drupe.core.step import StepSpec

State = Literal["queued", "running", "ended", "lost"]


class Transient(DrupeError):  # noqa: N818  reads as what it is
    """A call that failed and may well succeed when it is made again.

    after_seconds: how long the other side asks to be left alone (HTTP's Retry-After), if it does.
    """

    def __init__(
        self, where: str, what: str, remedy: str, after_seconds: float | None = None
    ) -> None:
        super().__init__(where, what, remedy)
        self.after_seconds = after_seconds


@dataclass(frozen=True)
class Batch:
    """Steps that run one after the other as one job.

    folder(key): where a step's files are to lie on this machine: spec.json, out/, scratch/, log.
    """

    steps: tuple[StepSpec, ...]
    folder: Callable[[str], Path]

    @property
    def name(self) -> str:
        """The job's name: the key of its step, of several the digest of theirs."""
        keys = [step.key for step in self.steps]
        return keys[0] if len(keys) == 1 else value_digest(keys)


@dataclass(frozen=True)
class Polled:
    """What is new of a batch.

    events: of its steps, each with "step", the step's key. ending: of a batch that ended or was
    lost, how its process did, in words ("was killed (SIGKILL)"). status: its exit code or -signal.
    peak_bytes: what the operating system told at the end of the process; 0 where it tells nothing.
    """

    state: State
    events: tuple[dict[str, Any], ...] = ()
    ending: str = ""
    status: int = 0
    peak_bytes: int = 0


class Executor(Protocol):
    """Runs batches somewhere. A context manager; what fails on the way raises `Transient`.

    slots: how many batches may run at once. joins: whether consecutive steps travel as one job.
    here: whether steps write to the folders of the batch themselves, on this machine's disk.
    """

    slots: int
    joins: bool
    here: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def warm_up(self) -> None:
        """Begin with what takes long before the first step, and return at once."""

    def submit(self, batch: Batch) -> None:
        """Start the batch, or attach to the one of its name that is there."""

    def poll(self, batch: Batch, seconds: float) -> Polled:
        """Return what is new since the last call; wait up to `seconds` for something."""

    def cancel(self, batch: Batch) -> None:
        """Stop the batch; when this returns it writes no more."""

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring the result of a finished step to folder/out, each byte checked."""

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        """Bring what a step printed to folder/log."""
