"""What each step will take: fitted to what this machine measured, else by a rule of thumb.

Time is taken as proportional to the work, memory as what importing takes plus a share of the
model, the output as a share of the model. Of the steps measured here, the five nearest in size
decide, by their median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drupe.core.journal import Measured, journal_file, read_journal
from drupe.core.model import KINDS
from drupe.core.operation import Operation
from drupe.plan import INPUT, Plan, Step

NEAREST = 5
IMPORTS_BYTES = 300 * 10**6  # what a worker holds before it reads a model: see ARCHITECTURE.md


@dataclass(frozen=True)
class Estimate:
    """What a step will take, or None where nothing tells.

    basis: where the numbers come from. measured: from runs on this machine.
    """

    seconds: float | None
    peak_bytes: int | None
    output_bytes: int | None
    basis: str
    measured: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)


UNKNOWN = Estimate(None, None, None, "nothing measured yet")


def operation_name(step: Step) -> str:
    """Return the name under which the journal knows a step's operation."""
    return f"{step.registered}/{step.operation.version}{step.operation.variant()}"


def estimates(planned: Plan) -> dict[str, Estimate]:
    """Return {step's name: estimate} of the steps that are to run."""
    if not planned.source.found:
        return {step.name: UNKNOWN for step in planned.to_run}
    known = read_journal(journal_file())
    sizes = {INPUT: planned.source.size_bytes}
    found = {}
    for step in planned.steps:
        model_bytes = sizes[step.reads[0]]
        work = step.operation.work_units(model_bytes)
        same = [each for each in known if each.operation == operation_name(step)]
        estimate = fitted(same, work, model_bytes) or by_rule(step.operation, work, model_bytes)
        if step.role == "pass":
            # An adapter is worked on with its base.
            has_base = KINDS[step.operation.gives].has_base
            made = estimate.output_bytes or (0 if has_base else model_bytes)
            sizes[step.stage] = made + (model_bytes if has_base else 0)
        if not step.hit:
            found[step.name] = estimate
    return found


def fitted(known: Sequence[Measured], work: float, model_bytes: int) -> Estimate | None:
    """Return the estimate that the nearest of `known` gives, or None where there are none."""
    if not known or work <= 0 or model_bytes <= 0:
        return None
    nearest = sorted(known, key=lambda each: _distance(each.work, work))[:NEAREST]

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    shares = [model_bytes / max(each.model_bytes, 1) for each in nearest]
    peaks = [
        min(each.peak_bytes, IMPORTS_BYTES) + max(0, each.peak_bytes - IMPORTS_BYTES) * share
        for each, share in zip(nearest, shares, strict=True)
    ]
    runs = "1 run" if len(nearest) == 1 else f"{len(nearest)} runs"
    far = "" if _distance(nearest[0].work, work) <= math.log(4) else ", of another size"
    return Estimate(
        seconds=median([each.seconds * work / max(each.work, 1e-9) for each in nearest]),
        peak_bytes=int(median(peaks)),
        output_bytes=int(
            median([each.output_bytes * share for each, share in zip(nearest, shares, strict=True)])
        ),
        basis=f"{runs} here{far}",
        measured=True,
    )


def by_rule(operation: Operation, work: float, model_bytes: int) -> Estimate:
    """Return what the operation itself says of its cost."""
    seconds, peak_bytes, output_bytes = operation.rule_of_thumb(work, model_bytes)
    if seconds is None and peak_bytes is None:
        return UNKNOWN
    return Estimate(seconds, peak_bytes, output_bytes, "rule of thumb")


def _distance(one: float, other: float) -> float:
    return abs(math.log(max(one, 1e-9)) - math.log(max(other, 1e-9)))
