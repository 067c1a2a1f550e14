"""The child processes of this machine in which steps run: forked from a server, or started anew."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from drupe.core.errors import StepError
from drupe.core.process import death, kill_group

KILL_SECONDS, CLOSE_SECONDS = 2.0, 0.3


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs the steps.

    variables: what its environment has beside, or in place of, this process's.
    """

    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `python -m WORDS...` in a session of its own, so that Ctrl-C reaches us alone."""
        return subprocess.Popen(
            [self.python, "-m", *words],
            start_new_session=True,
            env={**os.environ, **self.variables},
            **options,
        )


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code or -signal, and the most memory that it held."""

    status: int
    peak_bytes: int


class Processes(Protocol):
    """A way to run one step at a time in a process of its own."""

    def start(self, spec: Path, out: Path) -> int:
        """Start the step of a spec file; return its process's number."""

    def wait(self, seconds: float) -> Ended | None:
        """Return how the process ended, or None if it did not within `seconds`."""

    def kill(self) -> None:
        """Kill the step, and wait until it writes no more: its lock is given up next."""

    def close(self) -> None:
        """Give up what is held."""


class ForkServer:
    """The client's end of `fork_server`.

    where: what it is called in an error.
    """

    def __init__(self, preload: tuple[str, ...], interpreter: Interpreter, where: str) -> None:
        self._where = where
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = interpreter.start(
            "drupe.systems.fork_server",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._last_words,
            bufsize=0,
        )
        self._pid = 0
        self._lines: list[bytes] = []
        self._rest = b""
        self._ask({"preload": list(preload)})

    def start(self, spec: Path, out: Path) -> int:
        """Have a child forked for the step."""
        self._pid = 0
        self._ask({"run": {"spec": str(spec), "out": str(out)}})
        message = self._answer(None)
        assert message is not None
        self._pid = message["started"]
        return self._pid

    def wait(self, seconds: float) -> Ended | None:
        """Return how the child ended, or None."""
        message = self._answer(seconds)
        return Ended(message["ended"], message["peak_bytes"]) if message else None

    def kill(self) -> None:
        """Kill the child and all that it started."""
        if self._pid == 0:  # asked for, and not known to be started: it dies with the server
            kill_group(self._process.pid)
            self._process.wait()
            return
        with suppress(StepError):  # a dead server has no child
            self._ask({"kill": self._pid})
            self._answer(KILL_SECONDS)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # it is still importing: no step runs
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._last_words.close()

    def _dead(self) -> StepError:
        ending = death(self._process.wait())
        self._last_words.seek(0)
        lines = self._last_words.read().decode(errors="replace").strip().splitlines()
        return StepError(
            self._where,
            f"its fork server {ending}{': ' + lines[-1] if lines else ''}",
            "Run again: what was finished is kept.",
        )

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError as fault:
            raise self._dead() from fault

    def _answer(self, timeout: float | None) -> dict[str, Any] | None:
        """Return the server's next message, or None when none came in time."""
        assert self._process.stdout
        while not self._lines:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                return None
            data = self._process.stdout.read(65536)
            if not data:
                raise self._dead()
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
        return json.loads(self._lines.pop(0))  # type: ignore[no-any-return]


class Fresh:
    """One `drupe step` process a step, started anew."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def start(self, spec: Path, out: Path) -> int:
        """Start the step's process."""
        self._log = (spec.parent / "log").open("ab")
        self._process = self._interpreter.start(
            *("drupe", "step", "--spec", str(spec), "--out", str(out)),
            *("--with-parent", str(os.getpid())),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        return self._process.pid

    def wait(self, seconds: float) -> Ended | None:
        """Return how the process ended, or None."""
        assert self._process
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(seconds)
            self.close()
            return Ended(status, 0)
        return None

    def kill(self) -> None:
        """Kill the process and all that it started."""
        if self._process:
            kill_group(self._process.pid)
            self._process.wait()
        self.close()

    def close(self) -> None:
        """Close the log."""
        if self._log:
            self._log.close()
