"""Whether a config's search can be done: what it chooses among, by which numbers and goals.

All that can be known to go wrong is told here: a choice that nobody makes, a search over nothing,
nothing that ranks, goals that exclude each other, a relative goal without the input model's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drupe.config.choices import Choices
from drupe.config.document import Document
from drupe.config.faults import Place
from drupe.config.open_passes import OpenPass
from drupe.config.schema import EngineConfig, InputModel, NamedMetric, Said, Search
from drupe.config.source import origin_of
from drupe.core.errors import Fault
from drupe.core.goal import SubType
from drupe.search.constraints import Objective

STRATEGY: Place = ("engine", "search_strategy")
UNITS = {"Accuracy": "share", "Size": "bytes", "PeakMemory": "bytes", "Latency": "ms"}
TO_SEARCH = 'Write "search_strategy": true under engine, or keep one of them.'


def kind_of_input(model: InputModel) -> str:
    """Return the kind of model that a config starts from."""
    if model.type == "Files":
        return "files"
    return "hf" if model.adapter_path is None else "hf-adapter"


def search_of(
    document: Document,
    engine: EngineConfig,
    passes: Sequence[OpenPass],
    choices: Choices,
    metrics: Sequence[NamedMetric],
    kind: str,
) -> Search | None:
    """Return the search that a config asks for, or None with whatever is wrong collected."""
    strategy = engine.search_strategy
    if strategy is None:
        document.faults += [
            Fault(origin.where, f"{origin.path} is a choice, and nothing is searched", TO_SEARCH)
            for origin in choices.origins
        ]
        if any(sub_type.goal for named in metrics for sub_type in named.sub_types):
            text = "goals choose nothing here: engine.search_strategy asks for no search"
            document.notes.append(Said(text, "warning"))
        return None
    if not choices.origins:
        what = "searches over nothing: no pass has alternatives, no field values to choose from"
        remedy = 'List alternatives of a pass, or write {"search": [...]} as a field\'s value.'
        document.fault(STRATEGY, what, remedy)
        return None
    if strategy.sampler == "economy" and strategy.execution_order == "pass-by-pass":
        what = 'is "pass-by-pass", and the economy foretells whole chains'
        place = (*STRATEGY, "execution_order")
        document.fault(place, what, 'Write "joint", or choose another sampler.')
        return None
    if engine.evaluate == "none" or not metrics:
        what = "compares by nothing: no metric is measured"
        remedy = "Name an evaluator in engine.evaluator."
        if engine.evaluate == "none":
            remedy = 'Leave "evaluate": "none" out.'
        document.fault(STRATEGY, what, remedy)
        return None
    objectives = objectives_of(metrics)
    if not any(objective.priority is not None for objective in objectives):
        what = "compares by nothing: no number of the evaluator has a priority"
        remedy = 'Write "sub_types": [{"name": ..., "priority": 1}] in a metric.'
        document.fault(STRATEGY, what, remedy)
    if strategy.stop_when_goals_met and not any(objective.goals for objective in objectives):
        text = "engine.search_strategy.stop_when_goals_met has no effect: no number has a goal"
        document.notes.append(Said(text, "warning"))
    for place, what, remedy in _blind(document, engine, passes, metrics, objectives, kind):
        document.fault(place, what, remedy)
    wanted = {objective.metric for objective in objectives}
    judged = tuple(named.metric.takes for named in metrics if named.name in wanted)
    return Search(strategy, tuple(passes), tuple(objectives), judged, document.folder)


def objectives_of(metrics: Sequence[NamedMetric]) -> list[Objective]:
    """Return the numbers that rank or have goals, the latter of one number together.

    Where nothing is given a priority, metrics of which no number is picked rank by their own,
    in their order.
    """
    found: dict[tuple[str, str], Objective] = {}
    for named in metrics:
        for sub_type in named.sub_types:
            number = _number(named, sub_type.name)
            known = found.get((named.name, number))
            goals = (known.goals if known else ()) + ((sub_type.goal,) if sub_type.goal else ())
            priority = sub_type.priority if sub_type.priority >= 1 else None
            if known is not None and priority is None:
                priority = known.priority
            name = named.name if number in ("", named.name) else f"{named.name} {number}"
            higher = bool(sub_type.higher_is_better)
            unit = UNITS.get(named.type, "")
            objective = Objective(name, named.name, number, higher, priority, goals, unit)
            found[named.name, number] = objective
    if not any(objective.priority is not None for objective in found.values()):
        own = [named for named in metrics if not named.sub_types]
        ranked = [(named, _direction(named)) for named in own]
        for named, higher_is_better in ranked:
            if higher_is_better is not None:
                priority = len(found) + 1
                unit = UNITS.get(named.type, "")
                found[named.name, ""] = Objective(
                    named.name, named.name, "", higher_is_better, priority, unit=unit
                )
    return list(found.values())


def _number(named: NamedMetric, name: str) -> str:
    """Return under which name a score has a number: "" for the metric's own."""
    known = list(named.metric.numbers)
    return "" if name in known[:1] else name


def _direction(named: NamedMetric) -> bool | None:
    directions = list(named.metric.numbers.values())
    return directions[0] if directions else None


def _blind(
    document: Document,
    engine: EngineConfig,
    passes: Sequence[OpenPass],
    metrics: Sequence[NamedMetric],
    objectives: Sequence[Objective],
    kind: str,
) -> Iterator[tuple[Place, str, str]]:
    """Yield what asks for a number that cannot be measured."""
    for objective in objectives:
        index, named = next(
            (number, each) for number, each in enumerate(metrics) if each.name == objective.metric
        )
        place: Place = ("evaluators", engine.evaluator or "", "metrics", index)
        relative = [goal.type for goal in objective.goals if goal.needs_baseline]
        if relative and kind not in named.metric.takes:
            what = (
                f"has the goal {relative[0]}, which is relative to the input model, and "
                f"{named.type} does not measure that ({kind})"
            )
            yield place, what, 'Write a goal of the type "threshold".'
        last = passes[-1].alternatives if passes else ()
        gives = {each.schema.gives for each in last} - set(named.metric.takes)
        if gives:
            what = f"ranks or limits the results, and {named.type} does not measure them "
            what += f"({', '.join(sorted(gives))})"
            yield place, what, f"It measures {', '.join(named.metric.takes)}."


def goals_checked(document: Document, engine: EngineConfig, metrics: Sequence[NamedMetric]) -> None:
    """Tell goals of one number that no value can keep together."""
    bounds: dict[str, list[tuple[Place, SubType]]] = {}
    for index, named in enumerate(metrics):
        for number, sub_type in enumerate(named.sub_types):
            place: Place = ("evaluators", engine.evaluator or "", "metrics", index, "sub_types")
            same = f"{named.type} {named.metric.model_dump_json()} {sub_type.name}"
            bounds.setdefault(same, []).append(((*place, number), sub_type))
    for entries in bounds.values():
        goals = [(place, each, each.goal) for place, each in entries if each.goal is not None]
        told = [(p, each, goal.value) for p, each, goal in goals if goal.type == "threshold"]
        least = max((one for one in told if one[1].higher_is_better), key=_value, default=None)
        most = min((one for one in told if not one[1].higher_is_better), key=_value, default=None)
        if least and most and least[2] > most[2]:
            other = origin_of(document.root, least[0])
            what = (
                f"wants {most[1].name} to be at most {most[2]:g}, and {other.path} "
                f"({other.where}) at least {least[2]:g}: nothing keeps both"
            )
            document.fault(most[0], what, "Mend one of the goals.")


def _value(told: tuple[Place, SubType, float]) -> float:
    return told[2]
