"""What repeated measurements say: quantiles, and how far they can be trusted.  Light.

Times are not normal: they have a floor and a long tail. So the interval of a quantile is made of
the measured values themselves (order statistics, which suppose nothing of their distribution), and
that of a mean by drawing from them anew (bootstrap). Where there are too few values for 95 %, an
end is None: it is not known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
DRAWS = 2000
FEWEST = 6  # below, a median has no interval of 95 %, and a mean none that is worth the name
# Beside the plain ones (avg, min, max), as Olive names them.
QUANTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval, None where they are not known."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Return the number as score.json has it."""
        return {"value": self.value, "low": self.low, "high": self.high}


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile of `values`, between two of them as numpy's default has it."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def quantile_estimate(values: Sequence[float], share: float) -> Estimate:
    """Return the quantile of `values` with its interval by order statistics.

    How many of n values lie below the true quantile is binomial: the ends are those values that
    leave at most 2.5 % on each side.
    """
    ordered, count = sorted(values), len(values)
    tail, low, high = (1 - CONFIDENCE) / 2, None, None
    below = 0.0  # the chance that fewer than `index` values lie below the quantile
    for index in range(count + 1):
        if below <= tail and index:
            low = ordered[index - 1]
        if below >= 1 - tail:
            high = ordered[index - 1]
            break
        below += math.comb(count, index) * share**index * (1 - share) ** (count - index)
    return Estimate(quantile(values, share), low, high)


def median(values: Sequence[float]) -> Estimate:
    """Return the median of `values` with its interval (from six values on)."""
    return quantile_estimate(values, 0.5)


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean of `values` with its interval by the bootstrap, the same for a seed."""
    average = math.fsum(values) / len(values)
    if len(values) < FEWEST:
        return Estimate(average)
    chance = random.Random(seed)
    drawn = [math.fsum(chance.choices(values, k=len(values))) / len(values) for _ in range(DRAWS)]
    tail = (1 - CONFIDENCE) / 2
    return Estimate(average, quantile(drawn, tail), quantile(drawn, 1 - tail))


def numbers(values: Sequence[float]) -> dict[str, Estimate]:
    """Return the numbers of repeated measurements by their names: the median first."""
    return {
        "p50": median(values),
        "avg": mean(values),
        "min": Estimate(min(values)),
        "max": Estimate(max(values)),
        **{
            name: quantile_estimate(values, share)
            for name, share in QUANTILES.items()
            if name != "p50"
        },
    }
