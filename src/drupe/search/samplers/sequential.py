"""Every point in its order: neighbours share the passes in front, which then run once."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.search.constraints import Limit, Objective
from drupe.search.space import Point, Space
from drupe.search.trial import Trial


class Sequential:
    """Goes through a space from its first point to its last."""

    def __init__(
        self, space: Space, objectives: Sequence[Objective], limits: Sequence[Limit], seed: int
    ) -> None:
        self._space = space
        self._next = 0

    def ask(self, count: int) -> list[Point]:
        """Return the next points."""
        first, self._next = self._next, min(self._next + count, self._space.size)
        return [self._space.point(number) for number in range(first, self._next)]

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point; the order is fixed."""
