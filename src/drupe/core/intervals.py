"""95 % intervals of what was measured on rows: of a share, of a mean a token, by resampling.

Rows are the sample: tokens of one row hang together. Standard library alone, for the client
compares what the worker measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

NORMAL_95 = 1.959963984540054  # quantile of the normal distribution for a two-sided 95 %
Row = TypeVar("Row")


def wilson(hits: int, count: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Return the interval of a share of `hits` in `count` (Wilson 1927).

    Unlike the textbook's interval it is right for few rows and for shares near 0 and 1.
    """
    share, square = hits / count, z**2
    middle = share + square / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    scale = 1 + square / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def ratio(
    items: Sequence[tuple[float, float]], z: float = NORMAL_95
) -> tuple[float, float | None, float | None]:
    """Return sum(totals) / sum(counts) of rows [(total, count)] and its interval.

    The variance of a ratio by the delta method (Cochran, Sampling Techniques, section 6.4). A
    single row tells nothing about others: it has no interval.
    """
    counts = sum(count for _, count in items)
    mean = sum(total for total, _ in items) / counts
    half = _half([total - mean * count for total, count in items], counts, z)
    return (mean, None, None) if half is None else (mean, mean - half, mean + half)


def exponential(
    items: Sequence[tuple[float, float]], z: float = NORMAL_95
) -> tuple[float, float | None, float | None]:
    """Return exp of `ratio` (a perplexity, of rows [(nats, tokens)]) and exp of both its ends."""
    mean, low, high = ratio(items, z)
    if low is None or high is None:
        return math.exp(mean), None, None
    return math.exp(mean), math.exp(low), math.exp(high)


def _half(deviations: Sequence[float], counts: float, z: float) -> float | None:
    """Return half the width of a ratio's interval, of the deviations of its rows."""
    rows = len(deviations)
    if rows < 2:
        return None
    squares = sum(deviation**2 for deviation in deviations)
    return z * math.sqrt(squares * rows / (rows - 1)) / counts


def bootstrap(
    rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float], draws: int = 1000
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of rows drawn with replacement (Efron 1979).

    The same rows give the same interval.
    """
    chance = random.Random(0)
    found = sorted(statistic(chance.choices(rows, k=len(rows))) for _ in range(draws))
    return percentiles(found)


def percentiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th of a hundred parts of values in order."""
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]
