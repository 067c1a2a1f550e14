"""Execution providers that really load: each makes a session in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from drupe.core.process import death
from drupe.core.silence import SILENT
from drupe.core.target import PROVIDERS
from drupe.doctor.finding import Finding

PROBE = ("-m", "drupe.evaluate.provider_probe")
SECONDS = 20.0


def providers(probe: tuple[str, ...] = PROBE, seconds: float = SECONDS) -> Iterator[Finding]:
    """Look at the providers that the installed ONNX Runtime lists; all at once, each by itself.

    probe: the words for Python that list the providers, or load the one that is added.
    """
    listing = _start(probe)
    ended, told = _end(listing, time.monotonic() + seconds)
    if ended:
        remedy = 'Install it anew: pip install --force-reinstall "drupe[cpu]"'
        yield Finding("ONNX Runtime", "broken", f"cannot be imported: {ended}", remedy)
        return
    names = [name for name in json.loads(told.splitlines()[-1]) if name in PROVIDERS]
    deadline = time.monotonic() + seconds
    started = {name: _start((*probe, name)) for name in names}
    for name, process in started.items():
        ended, _ = _end(process, deadline)
        if ended:
            remedy = f"Mend its driver and libraries, or leave {PROVIDERS[name][1]} as a target."
            yield Finding(name, "broken", f"is listed, but does not load: {ended}", remedy)
        else:
            yield Finding(name, "fine", "loads and runs")


def _start(words: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, **SILENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _end(process: subprocess.Popen[str], deadline: float) -> tuple[str, str]:
    """Return how a process failed (an empty string: it did not), and what it wrote."""
    try:
        told, complained = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "it was still not done when its time was over", ""
    if process.returncode == 0:
        return "", told
    last = complained.strip().splitlines()[-1:]
    return ": ".join([f"its process {death(process.returncode)}", *last]), told
