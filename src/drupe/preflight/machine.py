"""Whether the disk and the memory of this machine hold what is planned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from drupe.core.process import free_memory_bytes, total_memory_bytes
from drupe.plan import Plan
from drupe.preflight.estimates import Estimate
from drupe.preflight.finding import Finding
from drupe.report.words import size

# An estimate is that: what comes close is told, what is out of reach is refused.
CLOSE = 0.8
HOPELESS = 1.2


def machine(planned: Plan, estimates: Mapping[str, Estimate]) -> Iterator[Finding]:
    """Yield what the disk of the cache and the memory are too small for."""
    yield from disk(planned, estimates, _free_bytes(planned.cache.folder))
    yield from memory(estimates, free_memory_bytes(), total_memory_bytes())


def disk(planned: Plan, estimates: Mapping[str, Estimate], free: int) -> Iterator[Finding]:
    """Yield whether the results fit into `free` bytes."""
    needed = sum(each.output_bytes or 0 for each in estimates.values())
    if needed <= CLOSE * free:
        return
    yield Finding(
        "blocker" if needed > free else "warning",
        "engine.cache_dir",
        f"the results take about {size(needed)}, and {planned.cache.folder} has {size(free)} left",
        "Make room (drupe cache gc), or name a folder on a larger disk.",
    )


def memory(estimates: Mapping[str, Estimate], free: int, total: int) -> Iterator[Finding]:
    """Yield each step that needs more memory than there is (0: the system does not tell)."""
    for name, estimate in estimates.items():
        peak = estimate.peak_bytes or 0
        if total and peak > HOPELESS * total:
            what = f"takes about {size(peak)} of memory ({estimate.basis}), of {size(total)} in all"
            yield Finding("blocker", name, what, "Use a larger machine, or a smaller model.")
        elif free and peak > CLOSE * free:
            what = (
                f"takes about {size(peak)} of memory ({estimate.basis}), and {size(free)} are free"
            )
            yield Finding("warning", name, what, "Close what else is running here.")


def _free_bytes(folder: Path) -> int:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free
