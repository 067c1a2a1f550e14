"""Content digest of a large file against `sha256sum` of the same and plain reading.

    python benchmarks/digest.py [--gigabytes 7.6] [--folder DIR]

Writes a file of random bytes, measures each way with the file's pages dropped from memory, and
prints seconds, GB/s and the ratio to plain reading.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drupe.core.digest import file_digest

BLOCK = 64 * 2**20


def make(file: Path, size: int) -> None:
    """Write `size` random bytes."""
    with file.open("wb") as target:
        block = os.urandom(BLOCK)
        for start in range(0, size, BLOCK):
            target.write(block[: min(BLOCK, size - start)])
        target.flush()
        os.fsync(target.fileno())


def forget(file: Path) -> None:
    """Drop the file's pages from memory, so that the disk is measured."""
    with file.open("rb") as source:
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(file: Path) -> None:
    """Read the file and do nothing with it."""
    with file.open("rb", buffering=0) as source:
        while source.read(4 * 2**20):
            pass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=7.6)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        file = Path(folder) / "large"
        size = int(arguments.gigabytes * 1e9)
        make(file, size)
        ways: dict[str, Callable[[Path], object]] = {
            "reading alone": read,
            "drupe's digest": file_digest,
            "sha256sum": lambda path: subprocess.run(
                ["sha256sum", str(path)], check=True, capture_output=True
            ),
        }
        first = 0.0
        for name, way in ways.items():
            forget(file)
            started = time.perf_counter()
            way(file)
            seconds = time.perf_counter() - started
            first = first or seconds
            print(
                f"{name:<16} {seconds:6.2f} s  {size / seconds / 1e9:5.2f} GB/s  "
                f"x{seconds / first:.2f}"
            )


if __name__ == "__main__":
    main()
