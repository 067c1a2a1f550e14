"""Ask rows until the verdict is clear: on which side of a limit a number lies.

Rows are asked in a drawn order, twice as many at each look. Looking again and again finds
something by chance, so each look spends a part of the 5 %: 1/2, 1/6, 1/12, ... of it (they add up
to 1), and the chance of a wrong verdict stays below 5 % over all looks (Bonferroni).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

from drupe.core.intervals import ratio, wilson

FIRST_LOOK = 64  # rows
ALPHA = 0.05
Item = TypeVar("Item")


def looks(count: int) -> list[int]:
    """Return after how many rows of `count` is looked: 64, 128, ..., all."""
    found, size = [], FIRST_LOOK
    while size < count:
        found.append(size)
        size *= 2
    return [*found, count]


def quantile(look: int) -> float:
    """Return the normal quantile for the look of this number, from 1."""
    return NormalDist().inv_cdf(1 - ALPHA / (look * (look + 1)) / 2)


def order_of(count: int) -> list[int]:
    """Return the order in which rows are asked: drawn, and the same each time."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    return order


def in_looks(
    count: int,
    ask: Callable[[Sequence[int]], Sequence[Item]],
    interval: Callable[[Sequence[Item], float], tuple[float | None, float | None]],
    limit: float,
) -> tuple[dict[int, Item], dict[str, Any]]:
    """Ask rows until `interval` leaves `limit` out; return {row: item} and what is told of it."""
    order = order_of(count)
    known: dict[int, Item] = {}
    verdict = "undecided"
    for number, size in enumerate(looks(count), 1):
        rows = order[len(known) : size]
        known.update(zip(rows, ask(rows), strict=True))
        low, high = interval(list(known.values()), quantile(number))
        if low is not None and high is not None and not low <= limit <= high:
            verdict = "above" if low > limit else "below"
            break
    return known, {"decided": {"at": limit, "verdict": verdict, "rows": len(known), "of": count}}


def decided(
    asked: Any, answer: Callable[[Any], list[tuple[str, str]]], limit: float
) -> tuple[list[tuple[str, str] | None], dict[str, Any]]:
    """Return (predicted, right) of each question, None of those that the verdict did not take."""

    def interval(pairs: Sequence[tuple[str, str]], z: float) -> tuple[float, float]:
        return wilson(sum(one == truth for one, truth in pairs), len(pairs), z)

    count = len(asked.right)
    found, told = in_looks(count, lambda rows: answer(asked.some(rows)), interval, limit)
    return [found.get(row) for row in range(count)], told


def mean_interval(items: Sequence[Sequence[float]], z: float) -> tuple[float | None, float | None]:
    """Return the interval of a mean a token of rows [(total, count, ...)]."""
    _, low, high = ratio([(item[0], item[1]) for item in items], z)
    return low, high
