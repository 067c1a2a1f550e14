"""Predictions set right by a first measurement, then an economy of evaluations on them.

How points compare is foretold better than what they come to: how much a model minds rounded
weights, or how busy the machine is, one real measurement tells. What is foretold of a number is
then moved so that it meets what was measured: by its distance from the baseline where there is one
(a loss), else by its own size (a time).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from drupe.core.goal import Number
from drupe.search.constraints import Limit, Objective, ranked_by
from drupe.search.economy import MOST, Economy, Prediction, points_of
from drupe.search.space import Point, Space
from drupe.search.trial import Trial

LEAST, GREATEST = (
    0.02,
    50.0,
)  # by which a prediction is moved at most: what is beyond is an accident


class Calibrated:
    """Asks for the most promising point first; then for those that the economy chooses.

    predict: what is known of a point beforehand. baseline: the numbers, by the objectives' names,
    from which a prediction is a distance; of the others it is a size. most: how many are measured.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        limits: Sequence[Limit],
        predict: Callable[[Point], Prediction],
        baseline: Mapping[str, float],
        most: int = MOST,
    ) -> None:
        self._known = {point: predict(point) for point in points_of(space)}
        self._space, self._objectives, self._limits = space, objectives, limits
        self._baseline, self._most = baseline, most
        self._scales: dict[str, float] = {}
        self._economy = self._made()
        self._is_calibrated = False

    @property
    def excluded(self) -> list[tuple[Point, dict[str, Number]]]:
        """The points that are not run, with the exact numbers that break a limit."""
        return self._economy.excluded

    def ask(self, count: int) -> list[Point]:
        """Return the points that are worth measuring next; the first one stands alone."""
        if self._is_calibrated:
            return self._economy.ask(count)
        left = self._economy.points
        return [min(left, key=self._rank)] if left and self._most else []

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point."""
        if not self._is_calibrated:
            self._is_calibrated = True
            self._calibrate(trial)
            self._economy = self._made()
        self._economy.tell(trial)

    def _made(self) -> Economy:
        return Economy(self._space, self._objectives, self._limits, self._moved, self._most)

    def _calibrate(self, trial: Trial) -> None:
        """Set the scale of each number by what a point was foretold and what it came to."""
        for name, foretold in self._known[trial.point].rough.items():
            number, base = trial.numbers.get(name), self._baseline.get(name, 0.0)
            if number is None or foretold == base:
                continue
            scale = (number.value - base) / (foretold - base)
            if scale > 0:  # else it is better than the baseline, which tells nothing of others
                self._scales[name] = min(max(scale, LEAST), GREATEST)

    def _moved(self, point: Point) -> Prediction:
        known = self._known[point]
        rough = {
            name: base + self._scales.get(name, 1.0) * (value - base)
            for name, value in known.rough.items()
            for base in [self._baseline.get(name, 0.0)]
        }
        return replace(known, rough=rough)

    def _rank(self, point: Point) -> tuple[float, float, int]:
        """Return what the most promising point has the least of: broken limits, then its number."""
        known = self._known[point]
        numbers = {**known.rough, **known.exact}
        broken = sum(
            max(0.0, limit.excess(numbers[limit.objective.name])) / (abs(limit.value) or 1.0)
            for limit in self._limits
            if limit.objective.name in numbers
        )
        first = ranked_by(self._objectives)[0]
        value = -first.sign * numbers[first.name] if first.name in numbers else 0.0
        return broken, value, self._space.number(point)
