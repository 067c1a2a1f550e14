"""What each step will take: fitted to what this machine measured, else by a rule of thumb.

| measured on this machine    | the estimate                                                  |
|-----------------------------|---------------------------------------------------------------|
| steps of about this size    | in proportion to them: time to the work, memory to what       |
|                             | importing takes and a share of the model, the output to it    |
| steps of another size alone | the operation's rule of thumb, its time at this machine's     |
|                             | pace: a tiny model's memory says nothing of a large one's     |
| nothing                     | the rule of thumb; without one, nothing                       |

Of the steps measured here, the five nearest in size decide, by their median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from drupe.chain import INPUT, Step
from drupe.core.journal import Measured, journal_file, read_journal
from drupe.core.model import KINDS
from drupe.core.operation import Operation
from drupe.plan import Plan

NEAREST = 5
ALIKE = math.log(4)  # steps within this factor, in work and in model, are of about one size
PACE_MOST = 4.0  # what sets a machine apart from the one of the rules; more is the step's size
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
        estimate = fitted(same, work, model_bytes) or by_rule(
            step.operation, work, model_bytes, same
        )
        if step.role == "pass":
            # An adapter is worked on with its base.
            has_base = KINDS[step.operation.gives].has_base
            made = estimate.output_bytes or (0 if has_base else model_bytes)
            sizes[step.stage] = made + (model_bytes if has_base else 0)
        if not step.hit:
            found[step.name] = estimate
    return found


def fitted(known: Sequence[Measured], work: float, model_bytes: int) -> Estimate | None:
    """Return the estimate that those of `known` give that are of about this size, or None."""
    if work <= 0 or model_bytes <= 0:
        return None
    alike = [
        each
        for each in known
        if max(_distance(each.work, work), _distance(each.model_bytes, model_bytes)) <= ALIKE
    ]
    if not alike:
        return None
    nearest = sorted(alike, key=lambda each: _distance(each.work, work))[:NEAREST]

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    shares = [model_bytes / max(each.model_bytes, 1) for each in nearest]
    peaks = [
        min(each.peak_bytes, IMPORTS_BYTES) + max(0, each.peak_bytes - IMPORTS_BYTES) * share
        for each, share in zip(nearest, shares, strict=True)
    ]
    return Estimate(
        seconds=median([each.seconds * work / max(each.work, 1e-9) for each in nearest]),
        peak_bytes=int(median(peaks)),
        output_bytes=int(
            median([each.output_bytes * share for each, share in zip(nearest, shares, strict=True)])
        ),
        basis=f"{_runs(len(nearest))} here",
        measured=True,
    )


def by_rule(
    operation: Operation, work: float, model_bytes: int, known: Sequence[Measured] = ()
) -> Estimate:
    """Return what the operation itself says of its cost, at the pace of `known` ones here."""
    seconds, peak_bytes, output_bytes = operation.rule_of_thumb(work, model_bytes)
    if seconds is None and peak_bytes is None:
        elsewhere = f"{_runs(len(known))} here, of another size" if known else UNKNOWN.basis
        return replace(UNKNOWN, basis=elsewhere)
    basis = "rule of thumb"
    nearest = sorted(known, key=lambda each: _distance(each.work, work))[:NEAREST]
    if nearest and seconds is not None:
        seconds *= _pace(operation, nearest)
        basis += f", at the pace of {_runs(len(nearest))} here"
    return Estimate(seconds, peak_bytes, output_bytes, basis)


def _pace(operation: Operation, known: Sequence[Measured]) -> float:
    """Return how much longer than its rule says an operation took here, within reason."""
    ratios = []
    for each in known:
        expected, _, _ = operation.rule_of_thumb(each.work, each.model_bytes)
        ratios.append(each.seconds / expected if expected else 1.0)
    return min(max(statistics.median(ratios), 1 / PACE_MOST), PACE_MOST)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _distance(one: float, other: float) -> float:
    return abs(math.log(max(one, 1e-9)) - math.log(max(other, 1e-9)))
