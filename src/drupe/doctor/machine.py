"""Python, processor, memory, disk: what the steps have to work with."""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from drupe.core.process import free_memory_bytes, total_memory_bytes, usable_cores
from drupe.doctor.finding import Finding, looking_at
from drupe.doctor.processor import instruction_sets

OLDEST_PYTHON = (3, 11)
GB = 10**9  # decimal, as everywhere else in what drupe tells
LITTLE_DISK = 5 * GB


def machine(cache: Path) -> Iterator[Finding]:
    """Look at what this process runs on; `cache` is the folder whose disk matters."""
    yield python(sys.version_info[:2])
    yield command(shutil.which("drupe"), Path(sysconfig.get_path("scripts")))
    failed: list[Finding] = []
    with looking_at("processor", failed):
        sets = ", ".join(instruction_sets()) or "its instruction sets are not told"
        yield Finding("processor", "fine", f"{platform.machine()}: {sets}")
    yield Finding("cores", "fine", f"{usable_cores()} usable")
    yield memory(total_memory_bytes(), free_memory_bytes())
    for subject, folder in (("cache's disk", cache), ("temporary files", _temporary())):
        with looking_at(subject, failed):
            yield disk(subject, folder)
    yield from failed


def python(found: tuple[int, ...]) -> Finding:
    """Tell whether this Python is one that drupe runs on."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if found < OLDEST_PYTHON:
        return Finding("Python", "broken", platform.python_version(), f"Install {oldest} or newer.")
    return Finding("Python", "fine", f"{platform.python_version()} in {sys.prefix}")


def command(on_path: str | None, scripts: Path) -> Finding:
    """Tell whether the `drupe` that a shell finds is the one of this Python."""
    remedy = f"Put {scripts} first on the PATH, or write {scripts / 'drupe'}."
    if on_path is None:
        return Finding("command", "note", "no `drupe` on the PATH", remedy)
    if Path(on_path).parent.resolve() != scripts.resolve():
        return Finding("command", "note", f"`drupe` on the PATH is another: {on_path}", remedy)
    return Finding("command", "fine", on_path)


def memory(total: int, free: int) -> Finding:
    """Tell the memory of the machine or of its container."""
    if not total:
        return Finding("memory", "note", "the system does not tell how much there is")
    told = f"{free / GB:.1f} GB free of " if free else ""
    return Finding("memory", "fine", f"{told}{total / GB:.1f} GB")


def disk(subject: str, folder: Path) -> Finding:
    """Tell the room on the disk on which `folder` is, or will be."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GB:.1f} GB free at {folder}"
    if free < LITTLE_DISK:
        remedy = "Make room: a model of 4 billion parameters passes through with 30 GB."
        return Finding(subject, "note", found, remedy)
    return Finding(subject, "fine", found)


def _temporary() -> Path:
    return Path(tempfile.gettempdir())
