"""Which passes of a search are searched together."""

from __future__ import annotations

from drupe.config.schema import Search


def levels_of(search: Search) -> list[tuple[int, int]]:
    """Return which passes are searched together: (first, behind the last), in their order.

    joint is one level. In pass-by-pass a level ends behind a pass that leaves something open, if
    what it gives can be judged; the passes behind the last of these belong to it.
    """
    count = len(search.passes)
    if search.strategy.execution_order == "joint":
        return [(0, count)]
    ends = [
        number
        for number, each in enumerate(search.passes, 1)
        if each.space.axes and _is_judged(search, number)
    ]
    ends = [*ends[:-1], count] if ends else [count]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _is_judged(search: Search, count: int) -> bool:
    gives = {each.schema.gives for each in search.passes[count - 1].alternatives}
    return all(gives <= set(kinds) for kinds in search.judged)
