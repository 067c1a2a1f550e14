"""The processes of a test's clusters, found by a mark in their environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import waiting

MARK = "DRUPE_TEST_CLUSTER"


def processes(words: str, mark: str | None = None) -> list[int]:
    """Return our processes whose command line has these words."""
    known = f"{MARK}={mark or os.environ[MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words in command and known in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def commands() -> list[str]:
    """Return the command lines of all processes of tests."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if f"{MARK}=".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def until(true: Callable[[], Any]) -> Any:
    """Wait for something, and return it; tell the processes that are there if it does not come."""
    return waiting.until(true, commands)
