"""Two models on the same rows: the difference of a number, with its 95 % interval.

What a metric writes as items.json is a list of rows; "paired" in its score.json says how they are
read:

    "answers"    [predicted, right]     the share of right answers
    "mean"       [total, count]         sum(totals) / sum(counts)
    "exp_mean"   [nats, tokens]         exp of that: perplexity

A row that was not asked is null; what both were asked is compared.
Where two models are asked the same, what is hard about a row is hard for both, so the difference
is known far better than the two numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drupe.core.intervals import NORMAL_95

Items = Sequence[Any]


@dataclass(frozen=True)
class Difference:
    """How much larger a number is than the other model's on the same rows.

    low, high: the ends of the 95 % interval, None where one row tells nothing of others. p: of
    McNemar's exact test, for right and wrong answers. rows: how many both were asked.
    """

    value: float
    low: float | None
    high: float | None
    rows: int
    p: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0: one of the two is better."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def difference(how: str, ours: Items, theirs: Items) -> Difference | None:
    """Return our number less theirs; None where the rows are not the same, or nobody knows how.

    how: the "paired" of both scores.
    """
    if len(ours) != len(theirs):
        return None
    both = [
        (one, other)
        for one, other in zip(ours, theirs, strict=True)
        if one is not None and other is not None
    ]
    if not both or any(one[1] != other[1] for one, other in both):
        return None
    if how == "answers":
        return _of_answers([one for one, _ in both], [other for _, other in both])
    if how in ("mean", "exp_mean"):
        return _of_means(
            [one for one, _ in both], [other for _, other in both], exponential=how == "exp_mean"
        )
    return None


def _of_answers(ours: Items, theirs: Items) -> Difference:
    """Return the difference of two shares of right answers, of Bonett's and Price's interval.

    Theirs (2012) is Wald's with a row more in each of the two cells that count: right where the
    other is wrong.
    """
    gained = lost = 0
    for one, other in zip(ours, theirs, strict=True):
        right, was = one[0] == one[1], other[0] == other[1]
        gained += right and not was
        lost += was and not right
    rows = len(ours)
    more, less = (gained + 1) / (rows + 2), (lost + 1) / (rows + 2)
    middle = more - less
    half = NORMAL_95 * math.sqrt(max(0.0, more + less - middle**2) / (rows + 2))
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Difference((gained - lost) / rows, low, high, rows, mcnemar(gained, lost))


def mcnemar(gained: int, lost: int) -> float:
    """Return p of McNemar's exact test: both models are right equally often.

    Only rows on which one is right and the other wrong count; each is then a coin's toss.
    """
    tosses, fewer = gained + lost, min(gained, lost)
    if tosses == 0:
        return 1.0
    half = -tosses * math.log(2)
    terms = (
        math.lgamma(tosses + 1) - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1) + half
        for heads in range(fewer + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, terms)))


def _of_means(ours: Items, theirs: Items, *, exponential: bool) -> Difference | None:
    """Return the difference of two means a token (or of exp of them) by the delta method.

    A row's share in it is linear: what it adds to ours less what it adds to theirs.
    """
    counts = sum(count for _, count in ours)
    if not counts:
        return None
    mean, their_mean = (sum(total for total, _ in items) / counts for items in (ours, theirs))
    slope, their_slope = (math.exp(mean), math.exp(their_mean)) if exponential else (1.0, 1.0)
    value = slope - their_slope if exponential else mean - their_mean
    rows = len(ours)
    if rows < 2:
        return Difference(value, None, None, rows)
    squares = math.fsum(
        (slope * (one[0] - mean * one[1]) - their_slope * (other[0] - their_mean * other[1])) ** 2
        for one, other in zip(ours, theirs, strict=True)
    )
    half = NORMAL_95 * math.sqrt(squares * rows / (rows - 1)) / counts
    return Difference(value, value - half, value + half, rows)
