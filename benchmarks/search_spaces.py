"""Spaces to search with a known optimum, each made of its seed alone: nothing but the standard
library, so that any program can be measured on the same ones.

A point chooses one option of each of five to seven axes, 500 to 3000 points in all. Three numbers
follow: a loss (less is better), a size and a latency, each a sum of what every option gives and of
what pairs of options give together (interactions). Large options lose less. Some pairs of options
are refused when they are run (infeasible islands). The size is known exactly, its limit leaves 60 %
of the points; the latency is measured, its limit leaves half of those. In each tenth space one of
the limits is kept by no point.

A proxy of loss and latency is given whose correlation with the truth is stated. With noise a
measurement is off by a share of its value (loss 0.3 %, latency 2 %), its interval is of 95 %.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import dataclass, field

Choice = tuple[int, ...]
LOSS_NOISE, LATENCY_NOISE = 0.003, 0.02
BASE, DAMAGE = 10.0, 0.5  # the loss of what is left as it was; what the middle option adds
OPTIONS = (2, 3, 4, 5, 6)
LEAST, MOST = 500, 3000


@dataclass
class Problem:
    """One space. points: every choice, in order. refused: those that cannot be run."""

    seed: int
    correlation: float
    noisy: bool
    axes: tuple[int, ...] = ()
    points: list[Choice] = field(default_factory=list)
    loss: dict[Choice, float] = field(default_factory=dict)
    size: dict[Choice, float] = field(default_factory=dict)
    latency: dict[Choice, float] = field(default_factory=dict)
    loss_proxy: dict[Choice, float] = field(default_factory=dict)
    latency_proxy: dict[Choice, float] = field(default_factory=dict)
    refused: set[Choice] = field(default_factory=set)
    size_limit: float = 0.0
    latency_limit: float = 0.0

    def __post_init__(self) -> None:
        chance = random.Random(f"space {self.seed}")
        self.axes = _axes(chance)
        self.points = list(itertools.product(*map(range, self.axes)))
        weight = [[sorted(chance.random() for _ in range(n)) for n in self.axes]][0]
        part = [chance.uniform(0.5, 1.5) for _ in self.axes]
        pace = [chance.uniform(0.2, 1.5) for _ in self.axes]
        own = [[chance.gauss(0, 0.25) for _ in range(n)] for n in self.axes]
        pairs = chance.sample(list(itertools.combinations(range(len(self.axes)), 2)), 4)
        together = {
            (a, b, i, j): (chance.gauss(0, 0.35), chance.gauss(0, 0.2))
            for a, b in pairs
            for i in range(self.axes[a])
            for j in range(self.axes[b])
        }
        islands = [
            tuple((a, chance.randrange(self.axes[a])) for a in pair)
            for pair in chance.sample(list(itertools.combinations(range(len(self.axes)), 2)), 3)
        ]
        for point in self.points:
            given = [together.get((a, b, point[a], point[b]), (0.0, 0.0)) for a, b in pairs]
            strong = sum(p * w[o] for p, w, o in zip(part, weight, point, strict=True))
            mine = sum(each[o] for each, o in zip(own, point, strict=True))
            worse = mine - strong + sum(loss for loss, _ in given)
            self.loss[point] = BASE * (1 + DAMAGE * math.exp(worse))
            self.size[point] = 1.0 + strong
            slow = sum(p * w[o] for p, w, o in zip(pace, weight, point, strict=True))
            self.latency[point] = 10.0 + 3 * slow + 3 * sum(time for _, time in given)
            if any(all(point[a] == option for a, option in island) for island in islands):
                self.refused.add(point)
        runs = [point for point in self.points if point not in self.refused]
        self.size_limit = _quantile([self.size[each] for each in runs], 0.6)
        small = [each for each in runs if self.size[each] <= self.size_limit]
        self.latency_limit = _quantile([self.latency[each] for each in small], 0.5)
        if self.seed % 10 == 9:  # every tenth has no answer
            if self.seed % 20 == 9:
                self.size_limit = 0.95 * min(self.size.values())
            else:
                self.latency_limit = 0.9 * min(self.latency.values())
        self.loss_proxy = self._proxy(self.loss, "loss")
        self.latency_proxy = self._proxy(self.latency, "latency")
        self._chance = random.Random(f"noise {self.seed}")

    def keeps(self, point: Choice) -> bool:
        """Return whether a point keeps both limits, in truth, and can be run."""
        kept = self.size[point] <= self.size_limit and self.latency[point] <= self.latency_limit
        return kept and point not in self.refused

    @property
    def optimum(self) -> float | None:
        """The least loss of the points that keep both limits; None where none does."""
        return min((self.loss[point] for point in self.points if self.keeps(point)), default=None)

    def regret(self, point: Choice) -> float:
        """Return how much worse than the optimum a point is, 0.01 for 1 %."""
        best = self.optimum
        assert best is not None
        return self.loss[point] / best - 1

    def measure(self, point: Choice) -> tuple[tuple[float, float, float], ...] | None:
        """Return (value, low, high) of loss and latency; None where the point is refused."""
        if point in self.refused:
            return None
        return (
            self._measured(self.loss[point], LOSS_NOISE),
            self._measured(self.latency[point], LATENCY_NOISE),
        )

    def _measured(self, truth: float, share: float) -> tuple[float, float, float]:
        if not self.noisy:
            return truth, truth, truth
        value = truth * (1 + self._chance.gauss(0, share))
        reach = 1.96 * share * value
        return value, value - reach, value + reach

    def _proxy(self, truth: dict[Choice, float], name: str) -> dict[Choice, float]:
        """Return what has exactly the stated correlation with the truth, in its own unit."""
        chance = random.Random(f"proxy {name} {self.seed}")
        wanted = _standard([truth[point] for point in self.points])
        noise = _standard([chance.gauss(0, 1) for _ in self.points])
        along = statistics.fmean(a * b for a, b in zip(noise, wanted, strict=True))
        apart = _standard([n - along * w for n, w in zip(noise, wanted, strict=True)])
        rest = math.sqrt(1 - self.correlation**2)
        mean = statistics.fmean(truth.values())
        spread = statistics.pstdev(truth.values())
        return {
            point: mean + spread * (self.correlation * w + rest * a)
            for point, w, a in zip(self.points, wanted, apart, strict=True)
        }


def _axes(chance: random.Random) -> tuple[int, ...]:
    while True:
        found = tuple(chance.choice(OPTIONS) for _ in range(chance.randint(5, 7)))
        if LEAST <= math.prod(found) <= MOST:
            return found


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def _standard(values: list[float]) -> list[float]:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(each - mean) / spread for each in values]
