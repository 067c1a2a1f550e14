"""Optuna's tree-structured Parzen estimator, told every trial and every limit.

Its value is the number of the first priority; how far each limit is broken goes to it as a
constraint, so that a point that breaks one is never held for better than one that keeps all.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import optuna

from drupe.search.constraints import Limit, Objective, missing, ranked_by
from drupe.search.samplers.shuffled import Shuffled
from drupe.search.space import Axis, Point, Space
from drupe.search.trial import Trial

AGAIN = 20  # asked at most so often for a point that was not asked yet


class TPE:
    """Asks Optuna for points, and tells it of each that it proposed, a known one too."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        limits: Sequence[Limit],
        seed: int,
        multivariate: bool = True,
        group: bool = True,
    ) -> None:
        self._space = space
        self._objectives, self._limits = objectives, limits
        self._first = ranked_by(objectives)[0]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                multivariate=multivariate,
                group=group and multivariate,
                constant_liar=True,  # points that are tried side by side are not proposed twice
            )
        directions = optuna.study.StudyDirection
        better = directions.MAXIMIZE if self._first.higher_is_better else directions.MINIMIZE
        self.study = optuna.create_study(direction=better, sampler=sampler)
        self._asked: dict[Point, optuna.Trial] = {}
        self._known: dict[Point, Trial] = {}
        self._fallback = Shuffled(space, objectives, limits, seed)

    def ask(self, count: int) -> list[Point]:
        """Return points that were not asked yet, as Optuna likes them."""
        found: list[Point] = []
        while len(found) < count and len(self._asked) < self._space.size:
            found.append(self._ask())
        return found

    def _ask(self) -> Point:
        for _ in range(AGAIN):
            trial = self.study.ask()
            point = _suggested(trial, self._space.axes)
            if point not in self._asked:
                self._asked[point] = trial
                return point
            self._tell(trial, self._known.get(point))
        # Optuna is sure of itself: what was not tried yet is drawn.
        while True:
            [point] = self._fallback.ask(1)
            if point not in self._asked:
                break
        self.study.enqueue_trial({name: json.dumps(value) for name, value in point.values.items()})
        trial = self.study.ask()
        _suggested(trial, self._space.axes)
        self._asked[point] = trial
        return point

    def tell(self, trial: Trial) -> None:
        """Tell Optuna what came of a point."""
        self._known[trial.point] = trial
        if trial.point in self._asked:
            self._tell(self._asked[trial.point], trial)

    def _tell(self, asked: optuna.Trial, trial: Trial | None) -> None:
        state: Any = optuna.trial.TrialState
        if trial is None:  # proposed twice at once
            self.study.tell(asked, state=state.FAIL)
        elif trial.state != "measured" or missing(trial.numbers, self._objectives):
            # Worse than whatever was measured and keeps the limits.
            for place in range(len(self._limits)):
                asked.set_constraint(str(place), 1.0)
            self.study.tell(asked, state=state.PRUNED)
        else:
            for place, limit in enumerate(self._limits):
                excess = limit.excess(trial.numbers[limit.objective.name].value)
                asked.set_constraint(str(place), excess)
            self.study.tell(asked, trial.numbers[self._first.name].value)


def _suggested(trial: optuna.Trial, axes: Sequence[Axis]) -> Point:
    found = Point()
    for axis in axes:
        options = {json.dumps(option.value): option for option in axis.options}
        text = str(trial.suggest_categorical(axis.name, list(options)))
        found += Point(((axis.name, text),)) + _suggested(trial, options[text].axes)
    return found
