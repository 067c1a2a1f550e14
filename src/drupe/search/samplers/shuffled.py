"""Points by chance, each once: a prefix of a shuffled space, whose size costs nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

from drupe.search.constraints import Limit, Objective
from drupe.search.space import Point, Space
from drupe.search.trial import Trial


class Shuffled:
    """Draws points without putting them back."""

    def __init__(
        self, space: Space, objectives: Sequence[Objective], limits: Sequence[Limit], seed: int
    ) -> None:
        self._space = space
        self._chance = random.Random(seed)
        self._moved: dict[int, int] = {}  # Fisher and Yates, of a list that is never written out
        self._left = space.size

    def ask(self, count: int) -> list[Point]:
        """Return the next points that were drawn."""
        return [self._draw() for _ in range(min(count, self._left))]

    def _draw(self) -> Point:
        place = self._chance.randrange(self._left)
        self._left -= 1
        number = self._moved.get(place, place)
        self._moved[place] = self._moved.get(self._left, self._left)
        return self._space.point(number)

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point; the order is drawn already."""
