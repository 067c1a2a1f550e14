"""What a search would do, for `drupe plan`: its points as one plan, the shared steps once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drupe.chain import Step
from drupe.config.schema import Search, Workflow
from drupe.core.errors import DrupeError, Refused
from drupe.plan import Plan
from drupe.search.samplers import refusal_of
from drupe.search.space import Point, short, told
from drupe.shared_plan import merged
from drupe.trials import draft_point

MOST = 64  # points that are planned: each takes a fraction of a second


@dataclass(frozen=True)
class Foresight:
    """The first points of a search, planned.

    plan: of all that can be run, what they share once; None where each is refused. alone: how many
    steps they would have by themselves. refused: points with the reason. blockers: what is in the
    way of every point.
    """

    search: Search
    plan: Plan | None
    first: Plan
    planned: int
    alone: int
    refused: tuple[tuple[Point, str], ...]
    blockers: tuple[DrupeError, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all planned points, what they share once."""
        return self.plan.steps if self.plan else ()

    @property
    def words(self) -> list[str]:
        """What there is to say, a line each."""
        space = self.search.space
        told_of = "all of them" if self.planned == space.size else f"the first {self.planned}"
        shared = f"{len(self.steps)} steps for {told_of}, {self.alone} if each ran by itself"
        lines = [f"{space.size} points: {self.search.strategy.words}.", f"{shared}."]
        for axis in dict.fromkeys(axis.name for axis in space.every_axis()):
            values = [
                told(option.value)
                for each in space.every_axis()
                if each.name == axis
                for option in each.options
            ]
            lines.append(f"  {short(axis)}: {', '.join(values)}")
        if self.refused:
            point, reason = self.refused[0]
            count = len(self.refused)
            lines.append(f"{count} cannot be run, {point.words} for one: {reason}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        return {
            "points": self.search.space.size,
            "planned": self.planned,
            "strategy": self.search.strategy.model_dump(),
            "steps": len(self.steps),
            "steps_alone": self.alone,
            "refused": [
                {"point": point.values, "reason": reason} for point, reason in self.refused
            ],
        }


def foresee(
    workflow: Workflow, search: Search, warn: Callable[[str], None], note: Callable[[str], None]
) -> Foresight:
    """Return what a search would do. Reads files, writes nothing."""
    plans: list[tuple[Point, Plan]] = []
    refused = []
    blockers: tuple[DrupeError, ...] = ()
    first = None
    count = min(MOST, search.space.size)
    for number in range(count):
        point = search.space.point(number)
        try:
            planned = draft_point(workflow, point, len(search.passes), warn, note)
        except Refused as fault:
            refused.append((point, f"{fault.where}: {fault.what}"))
            continue
        first = first or planned
        blockers = tuple(f for f in planned.blockers if f not in planned.refusals)
        if blockers:
            break
        if planned.blockers:
            own = planned.blockers[0]
            refused.append((point, f"{own.where}: {own.what}"))
            continue
        plans.append((point, planned))
    if first is None:
        first = draft_point(workflow, Point(), 0, warn, note)
    refusal = refusal_of(search.strategy.sampler)
    blockers += (refusal,) if refusal else ()
    whole = merged(plans)[0] if plans else None
    alone = sum(len(planned.steps) for _, planned in plans)
    return Foresight(search, whole, first, count, alone, tuple(refused), blockers)
