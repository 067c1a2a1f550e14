"""Samplers: which points of a space are tried, and in which order; each deterministic by its seed.

| name         | order                                                                  |
|--------------|------------------------------------------------------------------------|
| `sequential` | the points' own: neighbours share the passes in front                  |
| `random`     | shuffled by the seed, each point once                                  |
| `tpe`        | what Optuna's TPE expects most of, told every trial and every limit    |
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

from drupe.core.errors import Refused
from drupe.search.constraints import Limit, Objective
from drupe.search.space import Point, Space
from drupe.search.trial import Trial

NAMES = {
    "sequential": "drupe.search.samplers.sequential:Sequential",
    "random": "drupe.search.samplers.shuffled:Shuffled",
    "tpe": "drupe.search.samplers.tpe:TPE",
}


NEEDS = {"tpe": "optuna"}


class Sampler(Protocol):
    """What proposes points. All that it proposed is told before it is asked again."""

    def ask(self, count: int) -> list[Point]:
        """Return at most `count` points that were not asked yet; none: there are no more."""

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point."""


def refusal_of(name: str) -> Refused | None:
    """Return why a sampler cannot be used here, or None. Imports nothing."""
    needed = NEEDS.get(name)
    if needed is None or importlib.util.find_spec(needed) is not None:
        return None
    what = f'is "{name}", which needs {needed}'
    return Refused("engine.search_strategy.sampler", what, 'pip install "drupe[search]"')


def make_sampler(
    name: str,
    space: Space,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    seed: int,
    options: dict[str, Any],
) -> Sampler:
    """Return a sampler by its name, imported when it is used. options: of that sampler alone."""
    module, _, attribute = NAMES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    made: Sampler = found(space, objectives, limits, seed, **options)
    return made
