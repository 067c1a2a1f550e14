"""What a number has to reach, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drupe.core.goal import Goal, GoalType

NUMBERS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("kind", "value", "higher", "baseline", "limit"),
    [
        ("threshold", 0.8, True, None, 0.8),
        ("threshold", 20.0, False, 7.0, 20.0),
        ("min-improvement", 0.1, True, 0.5, 0.6),
        ("min-improvement", 2.0, False, 10.0, 8.0),
        ("max-degradation", 0.1, True, 0.5, 0.4),
        ("max-degradation", 2.0, False, 10.0, 12.0),
        ("percent-min-improvement", 50.0, True, 0.4, 0.6),
        ("percent-max-degradation", 10.0, False, 20.0, 22.0),
        ("percent-max-degradation", 10.0, True, -20.0, -22.0),  # worse is more negative
        ("percent-min-improvement", 10.0, True, -20.0, -18.0),
        ("percent-max-degradation", 10.0, False, -20.0, -18.0),
    ],
)
def test_limits(
    kind: GoalType, value: float, higher: bool, baseline: float | None, limit: float
) -> None:
    goal = Goal(type=kind, value=value)
    assert goal.limit(baseline, higher_is_better=higher) == pytest.approx(limit)


@given(baseline=NUMBERS, value=st.floats(0, 100), higher=st.booleans())
def test_a_degradation_is_never_better_than_the_baseline(
    baseline: float, value: float, higher: bool
) -> None:
    for kind in ("max-degradation", "percent-max-degradation"):
        limit = Goal(type=kind, value=value).limit(baseline, higher_is_better=higher)
        assert limit <= baseline if higher else limit >= baseline


def test_a_relative_goal_needs_the_input_model() -> None:
    assert Goal(type="max-degradation", value=1.0).needs_baseline
    with pytest.raises(ValueError, match="max-degradation needs the input model's number"):
        Goal(type="max-degradation", value=1.0).limit(None, higher_is_better=True)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("max-degradation", -1.0, "max-degradation is a size: 0 or more"),
        ("percent-max-degradation", 101.0, "percent-max-degradation is 0 to 100"),
        ("threshold", float("nan"), "finite number"),
    ],
)
def test_what_is_no_goal(kind: GoalType, value: float, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Goal(type=kind, value=value)
