"""Plans of several points as one: steps of one key are one step, so what is shared runs once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from drupe.chain import INPUT, Step
from drupe.plan import Plan
from drupe.search.space import Point


def merged(plans: Sequence[tuple[Point, Plan]]) -> tuple[Plan, list[dict[str, str]]]:
    """Return the plans of points as one, in which steps of one key are one step.

    Beside it, of each plan, {its step's name: that step's name in the one}. A stage is named by
    its pass and by what its point chose up to there, so that it reads the same in every batch.
    """
    steps: dict[str, Step] = {}  # by their keys
    names: list[dict[str, str]] = []
    taken: set[str] = set()
    for point, planned in plans:
        own: dict[str, str] = {}
        stages = {INPUT: INPUT}

        def named(stage: str, point: Point = point, planned: Plan = planned) -> str:
            name = _stage_name(stage, point, planned, taken)
            taken.add(name)
            return name

        for step in planned.steps:
            known = steps.get(step.key)
            if known is None:
                if step.role == "pass":
                    made = [step.inside.stage] if step.inside else []
                    stages |= {stage: named(stage) for stage in [*made, step.stage]}
                known = _renamed(step, stages)
                steps[step.key] = known
            elif step.role == "pass":
                stages[step.stage] = known.stage
                if step.inside is not None and known.inside is not None:
                    stages[step.inside.stage] = known.inside.stage
            own[step.name] = known.name
        names.append(own)
    first = plans[0][1]
    settings = {name: each for _, planned in plans for name, each in planned.settings.items()}
    fetched = frozenset().union(*(planned.fetched for _, planned in plans))
    whole = replace(first, steps=tuple(steps.values()), settings=settings, fetched=fetched)
    return whole, names


def _stage_name(stage: str, point: Point, planned: Plan, taken: set[str]) -> str:
    before = planned.stages[1 : planned.stages.index(stage) + 1]
    chosen = Point(
        tuple(
            (name, text)
            for name, text in point.choices
            if any(f"{name}.".startswith(f"passes.{each}.") for each in before)
        )
    )
    name = f"{stage} ({chosen.words})" if chosen.choices else stage
    return name if name not in taken else f"{name} #{len(taken)}"


def _renamed(step: Step, stages: Mapping[str, str]) -> Step:
    """Return a step under the names that its stages have in the one plan."""
    stage = stages[step.stage]
    return replace(
        step,
        name=stage + step.name.removeprefix(step.stage),
        stage=stage,
        reads=tuple(stages[read] for read in step.reads),
        inside=_renamed(step.inside, stages) if step.inside else None,
    )
