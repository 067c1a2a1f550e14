"""The local system: each step in a child process, forked from a server or started anew."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from drupe.core.cache import Run
from drupe.core.errors import StepError
from drupe.core.files import full_disk, is_disk_full, write_atomic
from drupe.core.process import anonymous_bytes, death, kill_group
from drupe.core.secrets import redact_file
from drupe.core.step import StepSpec

POLL_SECONDS = 0.05
KILL_SECONDS, CLOSE_SECONDS = 2.0, 0.3
Tell = Callable[[dict[str, Any]], None]


@dataclass
class _Ended:
    status: int
    peak_bytes: int


class LocalSystem:
    """Runs steps on this machine, one at a time.

    fork: whether a fork server is used (20 ms a step); without one each step is a fresh
        `drupe step`, which is the way of systems that cannot fork, Windows among them.
    preload: modules that the server imports once, before the first step.
    """

    def __init__(self, preload: tuple[str, ...] = (), fork: bool = hasattr(os, "fork")) -> None:
        self._preload = preload
        self._fork = fork
        self._server: _ForkServer | None = None

    def __enter__(self) -> LocalSystem:
        return self

    def __exit__(self, *fault: object) -> None:
        if self._server:
            self._server.close()
            self._server = None

    def warm_up(self) -> None:
        """Start the fork server's imports now, while the client still does other things."""
        if self._fork and self._server is None:
            self._server = _ForkServer(self._preload)

    def run(self, spec: StepSpec, folder: Path, tell: Tell) -> Run:
        """Do the step in a child process: reads and writes below `folder`, the result in out/.

        `tell` receives the step's events, and {"event": "memory", "now": N, "peak": N} beside
        them. Raises StepError with what the step said, or with how its process died.
        """
        spec_file = folder / "spec.json"
        write_atomic(spec_file, json.dumps(spec.to_json()).encode())
        for name in ("events", "log"):
            (folder / name).unlink(missing_ok=True)
        self.warm_up()
        process = self._server or _Fresh()
        watch = _Watch(folder / "events", tell)
        try:
            pid = process.start(spec_file, folder / "out")
            ended = process.wait(POLL_SECONDS, lambda: watch.look(pid))
            watch.look(pid)
        except BaseException:
            process.kill()
            raise
        finally:
            watch.close()
            redact_file(folder / "log")
        if ended.status != 0 or watch.done is None:
            raise _with_full_disk(_error(spec, folder, ended, watch), folder)
        peak = watch.peak_bytes or ended.peak_bytes
        return Run(watch.done["seconds"], peak, watch.done["facts"])


@dataclass
class _Watch:
    """Reads a step's events as they come, and its memory."""

    events: Path
    tell: Tell
    done: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    peak_bytes: int = 0
    _file: IO[bytes] | None = None
    _rest: bytes = field(default=b"")

    def look(self, pid: int) -> None:
        now = anonymous_bytes(pid)
        if now:
            self.peak_bytes = max(self.peak_bytes, now)
            self.tell({"event": "memory", "now": now, "peak": self.peak_bytes})
        if self._file is None:
            if not self.events.exists():
                return
            self._file = self.events.open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "done":
                self.done = event
            elif event["event"] == "failed":
                self.failed = event
            else:
                self.tell(event)

    def close(self) -> None:
        if self._file:
            self._file.close()


def _error(spec: StepSpec, folder: Path, ended: _Ended, watch: _Watch) -> StepError:
    log = folder / "log"
    remedy = f"Steps before it are kept; its log: {log}"
    if watch.failed:
        remedy = watch.failed.get("remedy", remedy)
        where = watch.failed.get("where")
        where = (
            f"{spec.operation}, {where}" if where and where != spec.operation else spec.operation
        )
        return StepError(where, watch.failed["what"], remedy)
    if ended.status == -9 and watch.peak_bytes:
        held = f" (it held {watch.peak_bytes / 10**9:.1f} GB at its peak)"
    else:
        held = ""
    unsaid = " without having done the step" if ended.status == 0 else ""
    last = _last_line(log) if ended.status > 0 else ""
    return StepError(
        spec.operation, f"its process {death(ended.status)}{held}{unsaid}{last}", remedy
    )


def _with_full_disk(error: StepError, folder: Path) -> StepError:
    """Return the step's error, with the full disk that is behind it: not every library says so."""
    if not is_disk_full(folder) and os.strerror(errno.ENOSPC) not in error.what:
        return error
    full = full_disk(folder)
    return StepError(error.where, f"{error.what}; {full.where}: {full.what}", full.remedy)


def _last_line(log: Path) -> str:
    """Return what a process that could not say why it failed wrote last: the disk may be full."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""


class _ForkServer:
    """The client's end of `fork_server`."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "drupe.systems.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._last_words,
            start_new_session=True,
            bufsize=0,
        )
        self._pid = 0
        self._lines: list[bytes] = []
        self._rest = b""
        self._ask({"preload": list(preload)})

    def start(self, spec: Path, out: Path) -> int:
        self._pid = 0
        self._ask({"run": {"spec": str(spec), "out": str(out)}})
        message = self._answer(None)
        assert message is not None
        self._pid = message["started"]
        return self._pid

    def wait(self, poll_seconds: float, look: Callable[[], None]) -> _Ended:
        while True:
            message = self._answer(poll_seconds)
            if message is not None:
                return _Ended(message["ended"], message["peak_bytes"])
            look()

    def kill(self) -> None:
        """Kill the step, and wait until it writes no more: its lock is given up next."""
        if self._pid == 0:  # asked for, and not known to be started: it dies with the server
            kill_group(self._process.pid)
            self._process.wait()
            return
        with suppress(StepError):  # a dead server has no child
            self._ask({"kill": self._pid})
            self._answer(KILL_SECONDS)

    def close(self) -> None:
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
            "the local system",
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


class _Fresh:
    """One `drupe step` process, started anew."""

    def start(self, spec: Path, out: Path) -> int:
        self._log = (spec.parent / "log").open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "drupe",
                "step",
                "--spec",
                str(spec),
                "--out",
                str(out),
                "--with-parent",
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self._process.pid

    def wait(self, poll_seconds: float, look: Callable[[], None]) -> _Ended:
        while self._process.poll() is None:
            look()
            time.sleep(poll_seconds)
        self._log.close()
        return _Ended(self._process.returncode, 0)

    def kill(self) -> None:
        kill_group(self._process.pid)
        self._process.wait()
        self._log.close()
