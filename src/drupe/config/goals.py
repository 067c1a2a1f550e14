"""The numbers of metrics that have a rank or a goal: each checked, then all of an evaluator's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drupe.config.document import Document
from drupe.config.faults import Place
from drupe.core.errors import nearest
from drupe.core.goal import SubType
from drupe.core.operation import Metric


@dataclass(frozen=True)
class Wanted:
    """A number that an evaluator names: where, of which metric, and what it has to reach."""

    place: Place
    metric: Metric
    sub_type: SubType


def numbers_wanted(document: Document, metric: Metric, place: Place) -> list[Wanted]:
    """Return the numbers that the entry at `place` names; faults are collected."""
    known = metric.numbers
    found: list[Wanted] = []
    for index, _ in enumerate(document.at((*place, "sub_types")) or []):
        inner = (*place, "sub_types", index)
        sub_type = document.section(SubType, inner, required=True)
        if sub_type is None:
            continue
        if known and sub_type.name not in known:
            what = f'is no number of this metric: "{sub_type.name}"'
            what += nearest(sub_type.name, known)
            document.fault((*inner, "name"), what, f"Known: {', '.join(known)}.")
            continue
        ranks = [each.sub_type.name for each in found if each.sub_type.priority >= 0]
        if sub_type.priority >= 0 and sub_type.name in ranks:
            what = f'is the second rank of "{sub_type.name}" in this metric'
            document.fault(inner, what, "Keep one of them; goals it may have several.")
            continue
        direction = _direction(document, metric, sub_type, inner)
        sub_type = sub_type.model_copy(update={"higher_is_better": direction})
        _check_reachable(document, metric, sub_type, inner)
        found.append(Wanted(inner, metric, sub_type))
    return found


def _direction(document: Document, metric: Metric, sub_type: SubType, place: Place) -> bool | None:
    """Return which direction of a number is better."""
    known, said = metric.direction(sub_type.name), sub_type.higher_is_better
    if said is None and known is None and (sub_type.goal or sub_type.priority >= 0):
        what = "is missing: whether more is better cannot be known here"
        document.fault((*place, "higher_is_better"), what, "Write true or false.")
    if said is not None and known is not None and said != known:
        what = f"is {str(said).lower()}, but {sub_type.name} is better where it is "
        what += "higher" if known else "lower"
        document.fault((*place, "higher_is_better"), what, "Leave it out.")
        return known
    return known if said is None else said


def _check_reachable(document: Document, metric: Metric, sub_type: SubType, place: Place) -> None:
    """Refuse a goal that no model can reach, since the number never gets there."""
    goal = sub_type.goal
    if goal is not None and goal.needs_baseline and metric.compares:
        what = f"is {goal.type}, and {type(metric).__name__} compares with the input model itself"
        document.fault((*place, "goal", "type"), what, "Write a threshold.")
    low, high = metric.bounds.get(sub_type.name, (None, None))
    if goal is None or (low is None and high is None):
        return
    value: Place = (*place, "goal", "value")
    within = f"{low:g} or more" if high is None else f"{low or 0:g} to {high:g}"
    percent = high == 1 and 1 < goal.value <= 100
    remedy = f"Write {goal.value / 100:g} for {goal.value:g} %." if percent else "Mend the value."
    if goal.type == "threshold":
        beyond = (low is not None and goal.value < low) or (high is not None and goal.value > high)
        if beyond:
            what = f"is {goal.value:g}, and {sub_type.name} is {within}"
            document.fault(value, what, remedy)
    elif goal.type == "min-improvement" and high is not None and goal.value > high - (low or 0):
        what = f"is {goal.value:g}: {sub_type.name} is {within}, and cannot grow by that much"
        document.fault(value, what, remedy)


def settled(
    document: Document, evaluator: str, wanted: Sequence[Wanted], evaluate: str
) -> dict[Place, SubType]:
    """Return the numbers of one evaluator by their places, their ranks checked together.

    A number that stands alone is the one to rank by, as in Olive.
    """
    _check_ranks(document, wanted)
    _check_directions(document, wanted)
    aimed = [each for each in wanted if each.sub_type.goal is not None]
    if evaluate == "none" and aimed:
        names = ", ".join(dict.fromkeys(each.sub_type.name for each in aimed))
        what = f'is "none", and the evaluator "{evaluator}" has goals ({names}): nothing is '
        relative = any(each.sub_type.goal and each.sub_type.goal.needs_baseline for each in aimed)
        what += "measured, not even the input model" if relative else "measured"
        document.fault(("engine", "evaluate"), what, 'Write "ends" or "every-step".')
    found = {each.place: each.sub_type for each in wanted}
    if len(wanted) == 1 and wanted[0].sub_type.priority == -1:
        only = wanted[0]
        if only.sub_type.higher_is_better is not None:
            found[only.place] = only.sub_type.model_copy(update={"priority": 1})
    return found


def _check_ranks(document: Document, wanted: Sequence[Wanted]) -> None:
    """Refuse priorities that are not 1, 2, ... each once."""
    ranked = [each for each in wanted if each.sub_type.priority >= 0]
    taken: dict[int, str] = {}
    for each in ranked:
        rank, name = each.sub_type.priority, each.sub_type.name
        place: Place = (*each.place, "priority")
        if rank in taken:
            what = f'is {rank}, and so is that of "{taken[rank]}"'
            document.fault(place, what, "Give each its own rank: 1 is compared first.")
        elif not 1 <= rank <= len(ranked):
            what = f"is {rank}, where {len(ranked)} number{'s' * (len(ranked) > 1)} "
            what += "have a rank" if len(ranked) > 1 else "has a rank"
            listed = ", ".join(map(str, range(1, len(ranked) + 1)))
            document.fault(place, what, f"Rank them {listed}, without a gap; -1 is no rank.")
        taken.setdefault(rank, name)


def _check_directions(document: Document, wanted: Sequence[Wanted]) -> None:
    """Refuse a number that models are ranked by in both directions.

    It may have a goal above and one below: those that exclude each other are told apart.
    """
    ranked = [each for each in wanted if each.sub_type.priority >= 0]
    for index, each in enumerate(ranked):
        for other in ranked[:index]:
            same = each.metric == other.metric and each.sub_type.name == other.sub_type.name
            if same and each.sub_type.higher_is_better != other.sub_type.higher_is_better:
                what = (
                    f'contradicts another entry for the same number "{each.sub_type.name}": there '
                    f"higher_is_better is {str(other.sub_type.higher_is_better).lower()}"
                )
                document.fault(each.place, what, "Keep one of them.")
