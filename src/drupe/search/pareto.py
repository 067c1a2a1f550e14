"""The Pareto front: the trials that no other beats in one number without losing in another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drupe.search.constraints import Objective, missing
from drupe.search.trial import Trial


def front(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the trials of the front, in their order; of equal ones each.

    objectives: the numbers that count; a trial that lacks one is not compared.
    """
    known = [
        trial
        for trial in trials
        if trial.state == "measured" and not missing(trial.numbers, objectives)
    ]
    places = [_place(trial, objectives) for trial in known]
    return [
        trial
        for trial, place in zip(known, places, strict=True)
        if not any(_beats(other, place) for other in places)
    ]


def _place(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(each.sign * trial.numbers[each.name].value for each in objectives)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
