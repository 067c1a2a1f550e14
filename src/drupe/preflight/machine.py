"""Whether the disk and the memory of this machine hold what is planned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from drupe.core.process import free_memory_bytes, total_memory_bytes
from drupe.output import output_folder
from drupe.plan import Plan
from drupe.preflight.estimates import Estimate
from drupe.preflight.finding import Finding
from drupe.report.words import size

# An estimate is that: what comes close is told, what is out of reach is refused.
CLOSE = 0.8
HOPELESS = 1.2


def machine(planned: Plan, estimates: Mapping[str, Estimate]) -> Iterator[Finding]:
    """Yield what the disk of the cache and the memory are too small for."""
    cache, output = planned.cache.folder, output_folder(planned)
    yield from disk("engine.cache_dir", cache, _results(estimates), _free_bytes(cache))
    delivered = estimates.get(planned.stages[-1])
    one = (delivered.output_bytes or 0) if delivered else 0
    packages = planned.workflow.engine.packaging_config
    copies = sum(package.type == "Zipfile" for package in packages)
    if _there(cache).stat().st_dev != _there(output).stat().st_dev:  # else it is linked
        copies += 1
    yield from disk("engine.output_dir", output, copies * one, _free_bytes(output))
    here = {step.name for step in planned.steps if not step.system.system.elsewhere}
    ours = {name: each for name, each in estimates.items() if name in here}
    yield from memory(ours, free_memory_bytes(), total_memory_bytes())


def disk(where: str, folder: Path, needed: int, free: int) -> Iterator[Finding]:
    """Yield whether `needed` bytes fit into the `free` ones of the folder's disk."""
    if needed <= CLOSE * free:
        return
    yield Finding(
        "blocker" if needed > free else "warning",
        where,
        f"about {size(needed)} will be written, and the disk of {folder} has {size(free)} left",
        "Make room (drupe cache gc drops results), or name a folder on a larger disk.",
    )


def _results(estimates: Mapping[str, Estimate]) -> int:
    return sum(each.output_bytes or 0 for each in estimates.values())


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
    return shutil.disk_usage(_there(folder)).free


def _there(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
