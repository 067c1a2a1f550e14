"""Goals: what a number that a metric gives has to reach, and how numbers rank models.

A metric gives one number or several (`Metric.numbers`); a config picks some of them in Olive's
word, `sub_types`. Which priority and which goal they have decides no number, so it is in no key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RELATIVE = ("min-improvement", "max-degradation")
PERCENT = ("percent-min-improvement", "percent-max-degradation")
GoalType = Literal[
    "threshold",
    "min-improvement",
    "percent-min-improvement",
    "max-degradation",
    "percent-max-degradation",
]


@dataclass(frozen=True)
class Number:
    """One number of a score, with the ends of its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


class Goal(BaseModel):
    """What a number has to reach: a value of its own, or one relative to the input model's."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    type: GoalType = "threshold"
    """threshold: no worse than the value. The others are relative to the input model: better by at
    least, or worse by at most, the value, in its unit or in percent of the size of its number."""
    value: float

    @property
    def needs_baseline(self) -> bool:
        """Whether the input model has to be measured to know the limit."""
        return self.type != "threshold"

    @model_validator(mode="after")
    def _sizes(self) -> Goal:
        if self.type != "threshold" and self.value < 0:
            raise ValueError(f"{self.type} is a size: 0 or more")
        if self.type == "percent-max-degradation" and self.value > 100:
            raise ValueError(f"{self.type} is 0 to 100")
        return self

    def limit(self, baseline: float | None, *, higher_is_better: bool) -> float:
        """Return the worst number that keeps the goal.

        baseline: the input model's number. A percentage is of its absolute value, so that a
        degradation is one for negative numbers (log-likelihoods) too. Raises ValueError where
        the goal is relative and there is no baseline.
        """
        if self.type == "threshold":
            return self.value
        if baseline is None:
            raise ValueError(f"{self.type} needs the input model's number")
        size = abs(baseline) * self.value / 100 if self.type in PERCENT else self.value
        better = self.type.endswith("improvement")
        return baseline + size if better == higher_is_better else baseline - size


class SubType(BaseModel):
    """One of the numbers that a metric gives, picked by a config."""

    model_config = Goal.model_config

    name: str
    """What the metric calls it: accuracy_score, avg, p95, ..."""
    priority: int = Field(default=-1, ge=-1)
    """Rank among the numbers by which models are compared, 1 first; -1: told alone."""
    higher_is_better: bool | None = None
    """Which direction is better; None: as the metric knows it."""
    goal: Goal | None = None
