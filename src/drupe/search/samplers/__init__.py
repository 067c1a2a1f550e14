"""Samplers: which points of a space are tried, and in which order; each deterministic by its seed.

| name         | order                                                                  |
|--------------|------------------------------------------------------------------------|
| `sequential` | the points' own: neighbours share the passes in front                  |
| `random`     | shuffled by the seed, each point once                                  |
| `tpe`        | what Optuna's TPE expects most of, told every trial and every limit    |
"""

from __future__ import annotations

import importlib
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


class Sampler(Protocol):
    """What proposes points. All that it proposed is told before it is asked again."""

    def ask(self, count: int) -> list[Point]:
        """Return at most `count` points that were not asked yet; none: there are no more."""

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point."""


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
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as fault:
        raise Refused(
            "engine.search_strategy.sampler",
            f'is "{name}", which needs {fault.name}',
            'pip install "drupe[search]"',
        ) from fault
    made: Sampler = found(space, objectives, limits, seed, **options)
    return made
