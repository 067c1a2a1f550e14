"""The machine that a model is to run on, read from this one.  Light."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from drupe.core.libraries import library_version
from drupe.core.machine import speed_class
from drupe.core.process import total_memory_bytes, usable_cores
from drupe.doctor.providers import providers as loaded_providers

CPU = "CPUExecutionProvider"
TOPOLOGY = Path("/sys/devices/system/cpu")
NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Machine:
    """What decides how a model is best made for a machine.

    processor: "x86_64", "aarch64", ... instructions: as `core.machine` names them. cores: that may
    be used, without those that share a core with another. memory_bytes: 0 where nobody tells.
    providers: execution providers that load, the CPU's among them.
    """

    processor: str
    instructions: frozenset[str]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    providers: tuple[str, ...] = (CPU,)

    def with_provider(self, provider: str) -> Machine:
        """Return the machine as if, of what computes, it had that provider alone."""
        return replace(self, providers=(provider,))

    @property
    def told(self) -> str:
        """The machine in a line."""
        known = ", ".join(sorted(self.instructions)) or "instructions not told"
        memory = f"{self.memory_bytes / 1e9:.3g} GB" if self.memory_bytes else "memory not told"
        gpus = ", ".join(self.gpus) or "no GPU"
        counted = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return f"{self.processor} ({known}), {counted}, {memory}, {gpus}"


def read_machine() -> Machine:
    """Return this machine; each provider is loaded in a process of its own, a second or two."""
    here = speed_class()
    found: tuple[str, ...] = (CPU,)
    if library_version("onnxruntime"):
        loaded = [each.subject for each in loaded_providers() if each.state == "fine"]
        found = tuple(dict.fromkeys([*loaded, CPU]))
    return Machine(
        processor=here["processor"],
        instructions=frozenset(here["instructions"]),
        cores=min(usable_cores(), physical_cores(TOPOLOGY) or usable_cores()),
        memory_bytes=total_memory_bytes(),
        gpus=nvidia_gpus(NVIDIA),
        providers=found,
    )


def physical_cores(topology: Path) -> int:
    """Return how many cores there are, of those that share one's arithmetic one; 0 if untold."""
    files = topology.glob("cpu[0-9]*/topology/thread_siblings_list")
    return len({file.read_text().strip() for file in files})


def nvidia_gpus(folder: Path) -> tuple[str, ...]:
    """Return the names of the GPUs that NVIDIA's driver tells."""
    names = []
    for file in sorted(folder.glob("*/information")):
        model = re.search(r"^Model:\s*(.+?)\s*$", file.read_text(), re.MULTILINE)
        names += [model[1]] if model else []
    return tuple(names)
