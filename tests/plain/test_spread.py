"""What repeated measurements say: quantiles, intervals, and that intervals keep their word."""

from __future__ import annotations

import random

import pytest

from drupe.evaluate.answer_times import latency_numbers, ratios, throughput_numbers
from drupe.evaluate.spread import mean, median, numbers, quantile, quantile_estimate
from drupe.evaluate.timed import Generation


def test_quantiles_lie_between_the_values_as_numpy_has_them() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert quantile(values, 0) == 1
    assert quantile(values, 1) == 4
    assert quantile(values, 0.5) == 2.5
    assert quantile(values, 0.9) == pytest.approx(3.7)
    assert quantile([7.0], 0.99) == 7


@pytest.mark.parametrize(
    ("count", "ends"), [(5, (None, None)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15)), (40, (14, 27))]
)
def test_the_medians_interval_is_that_of_the_tables(
    count: int, ends: tuple[int | None, int | None]
) -> None:
    """David and Nagaraja, Order Statistics, 7.1: which values enclose the median at 95 %."""
    found = median([float(value) for value in range(1, count + 1)])
    assert (found.low, found.high) == ends


def test_an_end_that_so_few_values_cannot_tell_is_not_told() -> None:
    found = quantile_estimate([float(value) for value in range(20)], 0.99)
    assert found.low is not None
    assert found.high is None


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_nineteen_of_twenty_intervals_hold_the_true_quantile(share: float) -> None:
    """Times with a long tail: log-normal, 25 of them, 1000 times."""
    chance = random.Random(0)
    everything = sorted(chance.lognormvariate(0, 1) for _ in range(100_000))
    true = quantile(everything, share)
    held = 0
    for _ in range(1000):
        found = quantile_estimate([chance.lognormvariate(0, 1) for _ in range(25)], share)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true <= found.high
    assert 935 <= held <= 995


def test_a_mean_has_an_interval_by_the_bootstrap_the_same_each_time() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(100):
        found = mean([chance.gauss(10, 1) for _ in range(30)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 10 <= found.high
    assert held >= 88
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 60.0]
    assert mean(values) == mean(values)
    assert mean([1.0, 3.0]).low is None


def test_the_numbers_are_olives_the_median_first() -> None:
    found = numbers([float(value) for value in range(1, 101)])
    assert list(found) == ["p50", "avg", "min", "max", "p75", "p90", "p95", "p99", "p999"]
    assert found["min"].value == 1
    assert found["max"].value == 100
    assert found["p90"].value == pytest.approx(90.1)


def test_latency_is_of_the_whole_answer_and_throughput_of_what_follows_the_first_token() -> None:
    answers = [Generation(0.1, (0.02, 0.03)), Generation(0.2, (0.01, 0.01))]
    latency = latency_numbers(answers)
    assert latency["max"].value == pytest.approx(220)
    assert latency["min"].value == pytest.approx(150)
    assert latency["first_token"].value == pytest.approx(150)
    assert latency["per_token"].value == pytest.approx(17.5)
    throughput = throughput_numbers(answers, prompt_length=10)
    assert throughput["max"].value == pytest.approx(100)
    assert throughput["min"].value == pytest.approx(40)
    assert throughput["prompt"].value == pytest.approx(75)


def test_a_ratio_is_of_the_same_round_so_a_slow_machine_does_not_show() -> None:
    slowed = [1.0, 5.0, 1.0, 3.0, 2.0, 1.0, 9.0]
    ours = [Generation(0.1 * by, (0.01 * by,)) for by in slowed]
    theirs = [Generation(0.2 * by, (0.02 * by,)) for by in slowed]
    found = ratios(ours, theirs)
    for name in ("latency", "first_token", "per_token"):
        assert found[name].value == pytest.approx(0.5)
        assert found[name].low == pytest.approx(0.5)
        assert found[name].high == pytest.approx(0.5)
