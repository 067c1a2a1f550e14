"""Intervals and paired differences, each against a plainer way to the same figure."""

from __future__ import annotations

import math
import random

import pytest

from drupe.core.intervals import bootstrap, exponential, percentiles, ratio, wilson
from drupe.core.paired import difference, mcnemar


def rows_of(seed: int, count: int = 400) -> list[tuple[float, int]]:
    chance = random.Random(seed)
    return [(chance.uniform(1, 3) * size, size) for size in chance.choices(range(5, 30), k=count)]


def test_the_interval_of_a_ratio_is_that_of_the_bootstrap() -> None:
    items = rows_of(0)
    value, low, high = ratio(items)
    drawn = bootstrap(items, lambda rows: sum(a for a, _ in rows) / sum(b for _, b in rows))
    assert (low, high) == pytest.approx(drawn, rel=0.01)
    assert exponential(items) == pytest.approx([math.exp(each or 0) for each in (value, low, high)])
    assert ratio(items[:1])[1:] == exponential(items[:1])[1:] == (None, None)


def test_a_wider_quantile_gives_a_wider_interval() -> None:
    assert wilson(8, 10, 3.0)[0] < wilson(8, 10)[0]
    low, wider = ratio(rows_of(0))[1], ratio(rows_of(0), 3.0)[1]
    assert low is not None
    assert wider is not None
    assert wider < low


def test_percentiles_leave_out_a_fortieth_on_each_side() -> None:
    assert percentiles(range(1001)) == (25, 975)


def answers(seed: int, right: float, count: int = 300) -> list[list[str]]:
    """Answers that are right where a row is easy, or by chance."""
    easy, chance = random.Random(7), random.Random(seed)
    return [
        ["yes" if easy.random() < right or chance.random() < 0.05 else "no", "yes"]
        for _ in range(count)
    ]


def share(items: list[list[str]]) -> float:
    return sum(one == truth for one, truth in items) / len(items)


def test_answers_are_compared_row_by_row() -> None:
    theirs, ours = answers(1, 0.8), answers(2, 0.84)
    found = difference("answers", ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(share(ours) - share(theirs))
    assert found.rows == 300
    pairs = list(zip(ours, theirs, strict=True))
    drawn = bootstrap(
        pairs, lambda rows: share([one for one, _ in rows]) - share([other for _, other in rows])
    )
    assert (found.low, found.high) == pytest.approx(drawn, abs=0.01)  # measured: 0.002
    apart = wilson(round(share(ours) * 300), 300)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low < apart[1] - apart[0], "the pairs tell more than either"


def test_a_difference_knows_whether_it_is_clear() -> None:
    better, same = answers(1, 0.95), answers(1, 0.6)
    clear = difference("answers", better, same)
    assert clear is not None
    assert clear.is_clear
    nothing = difference("answers", same, same)
    assert nothing is not None
    assert not nothing.is_clear
    assert (nothing.value, nothing.p) == (0, 1)


def test_mcnemar() -> None:
    # scipy.stats.binomtest(min(gained, lost), gained + lost).pvalue
    assert mcnemar(2, 9) == pytest.approx(0.06542968750)
    assert mcnemar(15, 40) == pytest.approx(0.00101584719412530, rel=1e-9)
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 0) == 1


@pytest.mark.parametrize("how", ["mean", "exp_mean"])
def test_means_are_compared_row_by_row(how: str) -> None:
    theirs = rows_of(0)
    chance = random.Random(1)
    ours = [(nats * chance.uniform(0.9, 1.05), count) for nats, count in theirs]

    def plainly(pairs: list[tuple[tuple[float, int], tuple[float, int]]]) -> float:
        means = [sum(pair[side][0] for pair in pairs) / sum(pair[side][1] for pair in pairs)
                 for side in (0, 1)]  # fmt: skip
        one, other = map(math.exp, means) if how == "exp_mean" else means
        return one - other

    pairs = list(zip(ours, theirs, strict=True))
    found = difference(how, ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(plainly(pairs))
    width = bootstrap(pairs, plainly)  # type: ignore[arg-type]
    assert (found.low, found.high) == pytest.approx(width, rel=0.05)
    assert found.is_clear
    one = difference(how, ours[:1], theirs[:1])
    assert one is not None
    assert (one.low, one.high, one.is_clear) == (None, None, False)


def test_other_rows_are_not_compared() -> None:
    theirs = rows_of(0)
    assert difference("mean", theirs[1:], theirs) is None
    assert difference("mean", [(1.0, 99), *theirs[1:]], theirs) is None, "another tokenizer"
    assert difference("answers", [["a", "b"]], [["a", "c"]]) is None
    assert difference("another", theirs, theirs) is None
    assert difference("answers", [], []) is None


def test_rows_that_were_not_asked_are_left_out() -> None:
    ours, theirs = [["a", "a"], None, ["b", "a"]], [["b", "a"], ["a", "a"], ["b", "a"]]
    found = difference("answers", ours, theirs)
    assert found is not None
    assert (found.value, found.rows) == (0.5, 2)
