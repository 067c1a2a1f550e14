"""What of a machine may show in a result's bytes: its processor's instructions, its threads.

Training and matrix products choose their kernels by them, so the same bytes are promised for the
same class of machine alone; which it was is recorded beside each result.
"""

from __future__ import annotations

import functools
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

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
