"""What a run looks like while it runs: on a terminal, and without one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time

import pytest

from drupe.chain import Step
from drupe.cli import progress
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def slow(workspace: Workspace) -> Step:
    """Return a planned step, whatever it is: only its name is shown."""
    return workspace.plan().steps[0]


def told(done: float, **also: object) -> dict[str, object]:
    return {
        "event": "progress",
        "what": "training",
        "done": done,
        "total": 100,
        "unit": "steps",
        **also,
    }


def test_a_running_step_tells_rate_time_left_and_memory(
    slow: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    running = progress._Running(slow.name, 0.0, 0.0)
    running.hear(told(0))
    assert "training 0 steps of 100 steps" in running.line()
    running.hear(told(20, loss=0.5))
    running.hear({"event": "memory", "now": 2e6, "peak": 3e6})
    line = running.line()
    assert "training 20 steps of 100 steps  2 steps/s  40 s left  loss 0.500" in line
    assert line.endswith("memory 2 MB, at peak 3 MB")


def test_a_resumed_step_counts_what_this_run_did(
    slow: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1.0, 6.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    running = progress._Running(slow.name, 0.0, 0.0)
    running.hear(told(80))
    running.line()
    running.hear(told(90))
    assert "2 steps/s  5.0 s left" in running.line()


def test_on_a_terminal_one_line_lives(workspace: Workspace) -> None:
    gate = workspace.folder / "gate"
    workspace.passes(slow={"type": "Slow", "ticks": 8, "seconds": 0.05, "gate": str(gate)})
    ours, theirs = pty.openpty()
    workspace.write()
    client = subprocess.Popen(
        workspace.command("run", "config.json"),
        cwd=workspace.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.1)[0]:
            if client.poll() is not None:
                break
            continue
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
        if b"of 8 ticks" in shown:
            gate.touch()
    assert client.wait(MOST_SECONDS) == 0
    text = ESCAPES.sub("", shown.decode())
    assert re.search(r"slow  counting \d ticks of 8 ticks", text)
    assert "✓ slow" in text
    assert "Traceback" not in text
