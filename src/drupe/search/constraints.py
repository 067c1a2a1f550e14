"""What is asked of a point: numbers that rank it, and limits that it has to keep.

A number with an interval keeps a limit when all of the interval does, breaks it when none of it
does, and else leaves it undecided; a number without one is taken for what it says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from drupe.core.goal import Goal, Number

Standing = Literal["keeps", "undecided", "breaks"]
WORST_FIRST: tuple[Standing, ...] = ("breaks", "undecided", "keeps")
Numbers = Mapping[str, Number]


@dataclass(frozen=True)
class Objective:
    """A number that is looked at.

    name: as people read it, and as points' numbers are told under. metric, number: the metric's
    name in the config, and what the metric calls the number. priority: 1 is compared first;
    None: it ranks nothing. goals: what it has to reach. unit: "share", "bytes", "ms" or "".
    """

    name: str
    metric: str
    number: str
    higher_is_better: bool
    priority: int | None = None
    goals: tuple[Goal, ...] = ()
    unit: str = ""

    @property
    def sign(self) -> int:
        """1 where more is better, else -1: times it, more is always better."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Limit:
    """The worst value of an objective that is allowed. goal: what of the config it comes from."""

    objective: Objective
    value: float
    goal: Goal

    def standing(self, number: Number) -> Standing:
        """Return whether a number keeps the limit."""
        ends = (number.value, number.value)
        if number.low is not None and number.high is not None:
            ends = (number.low, number.high)
        kept = [self.excess(end) <= 0 for end in ends]
        return "keeps" if all(kept) else "undecided" if any(kept) else "breaks"

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the limit; 0 or less where it keeps it."""
        return (self.value - value) * self.objective.sign


def ranked_by(objectives: Iterable[Objective]) -> tuple[Objective, ...]:
    """Return the objectives that rank, the most important first."""
    ranked = [(each.priority, each) for each in objectives if each.priority is not None]
    return tuple(each for _, each in sorted(ranked, key=lambda pair: pair[0]))


def limits_of(objectives: Iterable[Objective], baseline: Numbers) -> tuple[Limit, ...]:
    """Return every limit, each goal by itself. baseline: the input model's numbers.

    Raises ValueError where a relative goal's number is not among them.
    """
    found = []
    for objective in objectives:
        known = baseline.get(objective.name)
        base = None if known is None else known.value
        for goal in objective.goals:
            value = goal.limit(base, higher_is_better=objective.higher_is_better)
            found.append(Limit(objective, value, goal))
    return tuple(found)


def missing(numbers: Numbers, objectives: Iterable[Objective]) -> list[str]:
    """Return the names of the numbers that rank or have a goal and were not measured."""
    return [
        each.name
        for each in objectives
        if (each.priority is not None or each.goals) and not _is_told(numbers.get(each.name))
    ]


def _is_told(number: Number | None) -> bool:
    return number is not None and math.isfinite(number.value)


def standing_of(numbers: Numbers, limits: Iterable[Limit]) -> Standing:
    """Return how a point stands to all limits: as to the one that it keeps worst."""
    found = [limit.standing(numbers[limit.objective.name]) for limit in limits]
    return min(found, key=WORST_FIRST.index, default="keeps")
