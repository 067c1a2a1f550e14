"""Which trial is better: hard limits first, then the declared priorities.

    keeps every limit  >  undecided  >  breaks one  >  not eligible: a number is missing

Within one of these the best by the first priority leads; those whose intervals overlap with its
own are alike in it, and the next priority decides among them. What is alike in all goes by the
values themselves, and at last by the order in which points were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drupe.core.goal import Number
from drupe.search.constraints import (
    Limit,
    Objective,
    Standing,
    missing,
    ranked_by,
    standing_of,
)
from drupe.search.trial import Trial

BEST_FIRST: tuple[Standing, ...] = ("keeps", "undecided", "breaks")


def is_eligible(trial: Trial, objectives: Iterable[Objective]) -> bool:
    """Return whether a trial can be compared at all: all that is asked for was measured."""
    return trial.state == "measured" and not missing(trial.numbers, objectives)


def ranked(
    trials: Iterable[Trial], objectives: Sequence[Objective], limits: Sequence[Limit]
) -> list[Trial]:
    """Return the eligible trials, the best first."""
    eligible = [trial for trial in trials if is_eligible(trial, objectives)]
    found: list[Trial] = []
    for standing in BEST_FIRST:
        alike = [each for each in eligible if standing_of(each.numbers, limits) == standing]
        while alike:
            best = _best(alike, ranked_by(objectives))
            alike.remove(best)
            found.append(best)
    return found


def _best(trials: list[Trial], objectives: Sequence[Objective]) -> Trial:
    left = trials
    for objective in objectives:
        leader = max(left, key=lambda trial: _by_value(trial, [objective]))
        number = leader.numbers[objective.name]
        left = [each for each in left if _overlap(each.numbers[objective.name], number)]
    return max(left, key=lambda trial: _by_value(trial, objectives))


def _by_value(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    values = (each.sign * trial.numbers[each.name].value for each in objectives)
    return (*values, -trial.number)


def _overlap(one: Number, other: Number) -> bool:
    (low, high), (other_low, other_high) = _ends(one), _ends(other)
    return low <= other_high and other_low <= high


def _ends(number: Number) -> tuple[float, float]:
    if number.low is None or number.high is None:
        return number.value, number.value
    return number.low, number.high
