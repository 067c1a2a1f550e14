"""What of a machine may show in a result's bytes, and what decides how fast it is.

Training and matrix products choose their kernels by the processor's instructions and the threads,
so the same bytes are promised for the same class of machine alone; which it was is recorded beside
each result. How long something takes is the machine's own: its speed class is part of the key of
whatever measures time or memory.
"""

from __future__ import annotations

import functools
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from drupe.core.process import usable_cores

# Of the instructions that a processor offers, those by which kernels are chosen.
DECIDING = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)


def machine_class(threads: int, libraries: dict[str, str | None]) -> dict[str, Any]:
    """Return this machine's class as JSON values, for a step that ran on `threads` threads.

    libraries: the versions of those that decide the step's result.
    """
    return {
        "processor": platform.machine(),
        "instructions": list(_instructions()),
        "threads": threads,
        "system": sys.platform,
        "python": platform.python_version(),
        "libraries": libraries,
    }


def speed_class() -> dict[str, Any]:
    """Return what of this machine decides how fast a model runs on it, as JSON values."""
    return {
        "processor": platform.machine(),
        "name": processor_name(),
        "instructions": list(_instructions()),
        "cores": usable_cores(),
        "system": sys.platform,
    }


@functools.cache
def processor_name() -> str:
    """Return what the processor calls itself; where nobody tells, its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


@functools.cache
def _instructions() -> tuple[str, ...]:
    """Return those of DECIDING that are here, in their order; none where Linux is not."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                offered = set(value.split())
                return tuple(name for name in DECIDING if name in offered)
    return ()
