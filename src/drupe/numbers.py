"""The numbers of a stage that a search looks at: by themselves, and beside the input model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drupe.core.goal import Number
from drupe.core.paired import difference
from drupe.outcome import Stage
from drupe.search.constraints import Objective


def numbers_of(stage: Stage, objectives: Sequence[Objective]) -> dict[str, Number]:
    """Return the numbers of a stage that are looked at, as far as they were measured."""
    found = {}
    for objective in objectives:
        score = stage.scores.get(objective.metric)
        number = None if score is None else score.number(objective.number)
        if number is not None:
            found[objective.name] = number
    return found


def paired_numbers(
    stages: Sequence[Stage], objectives: Sequence[Objective], baseline: Mapping[str, Number]
) -> dict[str, Number]:
    """Return the last stage's numbers; of a relative goal's, the interval is the difference's.

    stages: of a chain, the input model first. Both were asked the same rows, so that what both
    find hard does not blur the difference: the interval of the number is then the input model's
    number and the ends of the difference, and so is judged against the limit.
    """
    first, last = stages[0], stages[-1]
    numbers = numbers_of(last, objectives)
    for objective in objectives:
        base, own = baseline.get(objective.name), numbers.get(objective.name)
        if base is None or own is None or last is first:
            continue
        if not any(goal.needs_baseline for goal in objective.goals):
            continue
        (how, ours), (other, theirs) = (
            stage.rows_of(objective.metric, objective.number) for stage in (last, first)
        )
        found = difference(how, ours, theirs) if how == other else None
        if found is not None and found.low is not None and found.high is not None:
            ends = (base.value + found.low, base.value + found.high)
            numbers[objective.name] = Number(own.value, *ends)
    return numbers
