"""Which vector instructions the processor has, as far as the operating system tells."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

# Name -> the word by which Linux (x86: flags, ARM: Features) and macOS (sysctl) tell it.
LINUX = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AMX": "amx_tile",
    "NEON": "asimd",
    "dot product": "asimddp",
    "I8MM": "i8mm",
    "SVE": "sve",
}
MACOS = {
    "AVX2": "hw.optional.avx2_0",
    "AVX-512": "hw.optional.avx512f",
    "NEON": "hw.optional.neon",
    "dot product": "hw.optional.arm.FEAT_DotProd",
    "I8MM": "hw.optional.arm.FEAT_I8MM",
}
# Numbers of IsProcessorFeaturePresent in winnt.h; Windows tells of no AMX.
WINDOWS = {"AVX2": 40, "AVX-512": 41, "NEON": 19, "dot product": 43}


def instruction_sets() -> list[str]:
    """Return the names of the vector instruction sets that can be used; [] when untold."""
    if sys.platform == "linux":
        return from_cpuinfo(Path("/proc/cpuinfo").read_text())
    if sys.platform == "darwin":
        done = subprocess.run(["/usr/sbin/sysctl", "hw.optional"], capture_output=True, text=True)
        return from_sysctl(done.stdout)
    if sys.platform == "win32":
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return [name for name, number in WINDOWS.items() if present(number)]
    return []


def from_cpuinfo(text: str) -> list[str]:
    """Return the names that Linux's /proc/cpuinfo tells."""
    words: set[str] = set()
    for line in text.splitlines():
        field, _, value = line.partition(":")
        if field.strip() in ("flags", "Features"):
            words |= set(value.split())
    return [name for name, word in LINUX.items() if word in words]


def from_sysctl(text: str) -> list[str]:
    """Return the names that `sysctl hw.optional` tells on macOS."""
    lines = {line.strip() for line in text.splitlines()}
    return [name for name, word in MACOS.items() if f"{word}: 1" in lines]
