"""Few real evaluations: what is known beforehand chooses the next point to measure.

    1. what is exact (a size by arithmetic) and breaks a limit is never run
    2. the next point is the one of which most is expected: by how much it may be better than the
       best that keeps every limit, times how likely it keeps them and runs at all
    3. what was measured corrects the predictions (`proxy.py`), and 2 is asked again

It ends when `most` points were measured, or when nothing worth measuring is left. It is a sampler
like the others; the predictions are given by whoever knows the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from drupe.core.goal import Number
from drupe.search.constraints import Limit, Objective, missing, ranked_by
from drupe.search.proxy import Belief, Proxy, shared
from drupe.search.ranking import ranked
from drupe.search.space import Point, Space
from drupe.search.trial import Trial

MOST = 6
WORTH = 1e-4  # of the best value: less improvement is expected of no point that is measured
MOST_POINTS = 20_000  # that are predicted; of a larger space every n-th
RUNS = 0.95  # how likely a point runs of which nothing like it was tried
TWICE_A_DEVIATION = 1.96  # an interval of 95 % reaches so far to each side
UNKNOWN = Belief(0.0, float("inf"))  # as likely to keep a limit as not


@dataclass(frozen=True)
class Prediction:
    """What is known of a point before it is run, by the objectives' names.

    exact: what needs no measuring. rough: about what it will be, in the number's own unit.
    """

    exact: Mapping[str, float] = field(default_factory=dict)
    rough: Mapping[str, float] = field(default_factory=dict)


def points_of(space: Space) -> Iterator[Point]:
    """Yield the points that are predicted: of a large space every n-th."""
    for number in range(0, space.size, -(-space.size // MOST_POINTS)):
        yield space.point(number)


class Economy:
    """Measures few points of a space, those that predictions and measurements speak for."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        limits: Sequence[Limit],
        predict: Callable[[Point], Prediction],
        most: int = MOST,
    ) -> None:
        self.excluded: list[tuple[Point, dict[str, Number]]] = []
        self._points: list[Point] = []
        self._exact: list[Mapping[str, float]] = []
        rough: list[Mapping[str, float]] = []
        for point in points_of(space):
            known = predict(point)
            if any(
                limit.excess(known.exact[limit.objective.name]) > 0
                for limit in limits
                if limit.objective.name in known.exact
            ):
                numbers = {name: Number(value) for name, value in known.exact.items()}
                self.excluded.append((point, numbers))
                continue
            self._points.append(point)
            self._exact.append(known.exact)
            rough.append(known.rough)
        self._objectives, self._limits, self._most = objectives, limits, most
        self._first = ranked_by(objectives)[0]
        names = {self._first.name, *(limit.objective.name for limit in limits)}
        self._proxies = {
            name: Proxy([each[name] for each in rough], self._points)
            for name in sorted(names)
            if rough and all(name in each for each in rough)
        }
        self._places = {point: place for place, point in enumerate(self._points)}
        self._left = dict.fromkeys(range(len(self._points)))
        self._ran = [RUNS] * len(self._points)
        self._refused = [1 - RUNS] * len(self._points)
        self._trials: list[Trial] = []

    @property
    def points(self) -> list[Point]:
        """The points that are not excluded."""
        return self._points

    @property
    def is_exhausted(self) -> bool:
        """Whether every point was tried or is known to break a limit."""
        return not self._left

    def ask(self, count: int) -> list[Point]:
        """Return the points that are worth measuring next."""
        found: list[Point] = []
        while len(found) < count and self._left and len(self._trials) + len(found) < self._most:
            place = self._best()
            if place is None:
                break
            del self._left[place]
            found.append(self._points[place])
        return found

    def tell(self, trial: Trial) -> None:
        """Hear what came of a point, and mend the predictions by it."""
        self._trials.append(trial)
        place = self._places[trial.point]
        self._left.pop(place, None)  # where somebody else has asked for it
        counted = self._ran if trial.state == "measured" else self._refused
        mine = dict(trial.point.choices)
        for other, point in enumerate(self._points):
            counted[other] += shared(mine, dict(point.choices))
        if trial.state != "measured":
            return
        for name, proxy in self._proxies.items():
            number = trial.numbers.get(name)
            if number is not None:
                proxy.measure(place, number.value, _deviation(number))

    def _best(self) -> int | None:
        """Return the place of the point of which most is expected, or None if that is nothing."""
        beliefs = {name: proxy.beliefs() for name, proxy in self._proxies.items()}
        sign = -self._first.sign  # times it, less is better
        best = self._best_so_far()
        means = [sign * self._belief(beliefs, self._first.name, place).mean for place in self._left]
        aim = max(means) if best is None else sign * best  # to keep the limits is worth all
        top, most = None, 0.0
        for place in self._left:
            score = self._score(place, beliefs, aim)
            if top is None or score > most:
                top, most = place, score
        if best is not None and most < WORTH * abs(best):
            return None
        return top

    def _score(self, place: int, beliefs: Mapping[str, list[Belief]], aim: float) -> float:
        """Return how much a point is expected to better `aim`, if it runs and keeps the limits."""
        value = self._belief(beliefs, self._first.name, place)
        if value is UNKNOWN:
            score = 1.0
        else:
            mean = -self._first.sign * value.mean
            score = Belief(mean, value.deviation).expected_below(aim)
        for limit in self._limits:
            keeps = self._belief(beliefs, limit.objective.name, place).below(limit.value)
            score *= 1 - keeps if limit.objective.higher_is_better else keeps
        return score * self._runs(place)

    def _belief(self, beliefs: Mapping[str, list[Belief]], name: str, place: int) -> Belief:
        if name in self._exact[place]:
            return Belief(self._exact[place][name], 0.0)
        return beliefs[name][place] if name in beliefs else UNKNOWN

    def _best_so_far(self) -> float | None:
        """Return the first number of the best trial that keeps every limit."""
        kept = [
            trial
            for trial in self._trials
            if trial.state == "measured" and not missing(trial.numbers, self._objectives)
        ]
        order = ranked(kept, self._objectives, self._limits)
        if not order:
            return None
        numbers = order[0].numbers
        if any(limit.standing(numbers[limit.objective.name]) != "keeps" for limit in self._limits):
            return None
        return numbers[self._first.name].value

    def _runs(self, place: int) -> float:
        """Return how likely a point runs: as those did that are like it."""
        return self._ran[place] / (self._ran[place] + self._refused[place])


def _deviation(number: Number) -> float:
    if number.low is None or number.high is None:
        return 0.0
    return (number.high - number.low) / 2 / TWICE_A_DEVIATION
