"""What differs between operating systems about processes: memory, death, sessions.

Nothing else in drupe reads a process's /proc, calls prctl or knows a signal's meaning.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its `parent` dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)


def is_alive(pid: int) -> bool:
    """Return whether there is a process of this number (True where that cannot be known)."""
    if pid <= 0 or os.name == "nt":  # there os.kill(pid, 0) would end it
        return pid > 0
    try:
        os.kill(pid, 0)  # asks, sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def kill_group(pid: int) -> None:
    """Kill the process `pid` with all that it has started (it leads a group of its own)."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)


def anonymous_bytes(pid: int) -> int:
    """Return the memory that process `pid` holds and nobody can take back: RssAnon.

    Mapped files (safetensors, an ONNX model's weights) are not in it: their pages are given up
    when others need them. 0 where the system does not tell (or the process is gone).
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def death(status: int) -> str:
    """Return in words how a process ended that left the wait status `exit code or -signal`."""
    if status >= 0:
        return f"ended with exit code {status}"
    name = signal.Signals(-status).name
    meanings = {
        "SIGKILL": "was killed (SIGKILL): by hand, or because the machine ran out of memory",
        "SIGSEGV": "crashed (SIGSEGV, a fault in a native library)",
        "SIGABRT": "was aborted (SIGABRT, a fault in a native library)",
        "SIGBUS": "crashed (SIGBUS, a file was cut short or the disk is full)",
        "SIGILL": "crashed (SIGILL, an instruction that this processor lacks)",
    }
    return meanings.get(name, f"was ended by {name}")


def usable_cores() -> int:
    """Return how many cores this process may use (container limits and affinity included)."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with suppress(OSError, ValueError):  # a container's share: "200000 100000" is two cores
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def total_memory_bytes() -> int:
    """Return the memory of the machine, or of the container if that has less."""
    total = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    )
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def free_memory_bytes() -> int:
    """Return the memory that can be had without swapping, within the container; 0 if untold."""
    free = 0
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    return max(free, 0)
