"""The anonymous memory and the seconds of a child's work, its imports apart."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

from drupe.core.process import anonymous_bytes
from drupe.systems.worker import ENVIRONMENT

SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Measured:
    """Bytes of anonymous memory after the imports and at most, and the seconds of the work."""

    imports: int
    peak: int
    seconds: float


def ready() -> None:
    """Tell the parent that all is imported, and wait for its word: for the child."""
    print("ready", flush=True)
    sys.stdin.readline()


def measure(command: list[str]) -> Measured:
    """Run a command that calls `ready` in a child, and sample its memory from there on."""
    # As in a worker, and alike for all: OpenMP threads that spin on busy cores are 5 times slower.
    environment = {**os.environ, **ENVIRONMENT}
    last_words = tempfile.TemporaryFile("w+")  # noqa: SIM115  it goes with this process
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=last_words,
        text=True,
        env=environment,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    samples = [anonymous_bytes(child.pid)]

    def sample() -> None:
        while child.poll() is None:
            samples.append(anonymous_bytes(child.pid))
            time.sleep(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample)
    begun = time.perf_counter()
    sampler.start()
    child.stdin.write("go\n")
    child.stdin.close()
    child.stdout.read()
    status = child.wait()
    seconds = time.perf_counter() - begun
    sampler.join()
    if status != 0:
        last_words.seek(0)
        raise SystemExit(f"{' '.join(command)} failed:\n{last_words.read()}")
    return Measured(samples[0], max(samples), seconds)
