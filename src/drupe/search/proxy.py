"""A prediction corrected by what was measured, and how far the rest of it is to be believed.

    measured(point) = shift + scale x predicted(point) + own(point) + noise

shift, scale and what is a point's own are Gaussian; points that share settings share part of
what is their own. How much of the truth the prediction holds is not known: a few degrees of trust
are weighed by how well each explains what was measured. Nothing measured yet is trust as given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drupe.search.space import Point

TRUSTS = (0.3, 0.5, 0.7, 0.9, 0.97, 0.999)  # correlation of prediction and truth
# How likely each is before anything was measured.
FIRST_GUESS = (0.08, 0.12, 0.2, 0.3, 0.2, 0.1)
SHARED = 0.5  # of what is a point's own: the part that it shares with points like it
SHIFT, SCALE_SPREAD = 0.5, 0.3  # how far the shift may be, in spreads, and the scale
Vector = list[float]


@dataclass(frozen=True)
class Belief:
    """What a number of a point is held to be: Gaussian."""

    mean: float
    deviation: float

    def below(self, value: float) -> float:
        """Return how likely the number is at most `value`."""
        if self.deviation <= 0:
            return float(self.mean <= value)
        return 0.5 * math.erfc((self.mean - value) / (self.deviation * math.sqrt(2)))

    def expected_below(self, value: float) -> float:
        """Return by how much the number is expected to lie below `value`, counted from 0."""
        if self.deviation <= 0:
            return max(0.0, value - self.mean)
        z = (value - self.mean) / self.deviation
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return (value - self.mean) * self.below(value) + self.deviation * density


class Proxy:
    """Predictions of one number for every point, and what was measured of some."""

    def __init__(self, predicted: Sequence[float], points: Sequence[Point]) -> None:
        self._centre = sum(predicted) / len(predicted)
        spread = math.sqrt(sum((each - self._centre) ** 2 for each in predicted) / len(predicted))
        self._spread = spread or abs(self._centre) or 1.0
        self._settings = [dict(point.choices) for point in points]
        from_centre = [(each - self._centre) / self._spread for each in predicted]
        self._fits = [_Fit(trust, from_centre) for trust in TRUSTS]

    def measure(self, place: int, value: float, deviation: float) -> None:
        """Hear the number of the point at `place`, measured with noise of that deviation."""
        mine = self._settings[place]
        alike = [shared(mine, each) for each in self._settings]
        for fit in self._fits:
            fit.measure(
                place, (value - self._centre) / self._spread, deviation / self._spread, alike
            )

    def beliefs(self) -> list[Belief]:
        """Return what is believed of each point."""
        best = max(fit.evidence for fit in self._fits)
        weights = [
            guess * math.exp(fit.evidence - best)
            for guess, fit in zip(FIRST_GUESS, self._fits, strict=True)
        ]
        weighed = [(w / sum(weights), fit) for w, fit in zip(weights, self._fits, strict=True)]
        found = []
        for place in range(len(self._settings)):
            mean = sum(weight * fit.means[place] for weight, fit in weighed)
            square = sum(w * (fit.variances[place] + fit.means[place] ** 2) for w, fit in weighed)
            deviation = math.sqrt(max(0.0, square - mean**2))
            found.append(Belief(self._centre + mean * self._spread, deviation * self._spread))
        return found


class _Fit:
    """What is believed with one degree of trust, in spreads from the centre.

    evidence: the logarithm of how likely this trust made what was measured.
    """

    def __init__(self, trust: float, from_centre: Vector) -> None:
        self._trust, self._from_centre = trust, from_centre
        own = 1 - trust**2
        self.means = [trust * each for each in from_centre]
        self.variances = [SHIFT**2 + (SCALE_SPREAD * each) ** 2 + own for each in from_centre]
        self.evidence = 0.0
        self._known: list[Vector] = []  # of each measurement: what every point shares with it

    def measure(self, place: int, value: float, deviation: float, alike: Vector) -> None:
        """Take in a measurement: what every point shares with it is now less uncertain."""
        own = 1 - self._trust**2
        slope = SCALE_SPREAD**2 * self._from_centre[place]
        common = [
            SHIFT**2 + slope * each + own * SHARED * near
            for each, near in zip(self._from_centre, alike, strict=True)
        ]
        common[place] += own * (1 - SHARED)
        for row in self._known:
            mine = row[place]
            common = [each - mine * known for each, known in zip(common, row, strict=True)]
        spread = math.sqrt(max(common[place], 0.0) + deviation**2 + 1e-9)
        gap = (value - self.means[place]) / spread
        row = [each / spread for each in common]
        self.means = [mean + each * gap for mean, each in zip(self.means, row, strict=True)]
        self.variances = [
            max(0.0, known - each**2) for known, each in zip(self.variances, row, strict=True)
        ]
        self.evidence -= gap**2 / 2 + math.log(spread)
        self._known.append(row)


def shared(one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """Return how much the settings of two points share, 0 to 1: each that differs halves it."""
    if one.keys() == other.keys():
        return float(0.5 ** sum(text != other[name] for name, text in one.items()))
    names = one.keys() | other.keys()
    return float(0.5 ** sum(one.get(name) != other.get(name) for name in names))
