"""A trial: one point that was tried, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from drupe.core.goal import Number
from drupe.search.space import Point

# measured: its passes gave a model. infeasible: a pass refuses the point. failed: one raised.
State = Literal["measured", "infeasible", "failed"]


@dataclass(frozen=True)
class Trial:
    """What came of a point.

    number: its place in the order in which points were asked, from 1. passes: how many passes of
    the chain were applied. numbers: what was measured, by the objectives' names. reason: why it
    is infeasible or failed. size_bytes: of the model. seconds: what its steps took when they ran,
    those that it shares with others included.
    """

    number: int
    point: Point
    passes: int
    state: State
    numbers: Mapping[str, Number] = field(default_factory=dict)
    reason: str = ""
    size_bytes: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return {
            "number": self.number,
            "point": self.point.values,
            "passes": self.passes,
            "state": self.state,
            "numbers": {name: _told(number) for name, number in self.numbers.items()},
            "reason": self.reason,
            "size_bytes": self.size_bytes,
            "seconds": self.seconds,
        }


def _told(number: Number) -> dict[str, float]:
    return {name: value for name, value in asdict(number).items() if value is not None}
