"""What a search looks at of a stage: a relative goal is judged on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.core.goal import Goal, Number
from drupe.core.model import Model
from drupe.numbers import numbers_of, paired_numbers
from drupe.outcome import Score, Stage
from drupe.search.constraints import Objective, limits_of

ROWS = 200


def stage(name: str, wrong: set[int]) -> Stage:
    """Return a stage that answers all rows right but those."""
    answers = [["no" if row in wrong else "yes", "yes"] for row in range(ROWS)]
    share = 1 - len(wrong) / ROWS
    told = {"value": share, "low": share - 0.06, "high": share + 0.05, "paired": "answers"}
    score = Score.from_json({"metric": "accuracy", "count": ROWS, **told})
    model = Model("hf", Path(name), "")
    return Stage(name, "hf", model, 1, 0.0, 0, {}, {"quality": score}, {"quality": answers}, None)


def objective(*goals: Goal) -> Objective:
    return Objective("quality", "quality", "", True, 1, goals, "share")


@pytest.mark.parametrize(
    ("percent", "lost", "won", "standing"),
    [
        (5.0, 0, 0, "keeps"),  # the same answers: the intervals alone would leave it undecided
        (1.0, 0, 0, "undecided"),  # 200 rows do not show that no more than 1.6 of them are lost
        (5.0, 24, 0, "breaks"),
        (1.0, 2, 20, "keeps"),
    ],
)
def test_a_loss_is_judged_on_the_same_rows(
    percent: float, lost: int, won: int, standing: str
) -> None:
    first = stage("input", set(range(40)))
    last = stage("export", set(range(won, 40 + lost)))
    wanted = [objective(Goal(type="percent-max-degradation", value=percent))]
    baseline = numbers_of(first, wanted)
    [limit] = limits_of(wanted, baseline)
    assert limit.value == pytest.approx((1 - percent / 100) * 0.8)
    found = paired_numbers((first, last), wanted, baseline)["quality"]
    assert found.value == pytest.approx(1 - (40 + lost - won) / ROWS)
    assert limit.standing(found) == standing


def test_other_numbers_keep_their_own_interval() -> None:
    first, last = stage("input", set()), stage("export", {1, 2})
    wanted = [objective(Goal(value=0.9))]
    found = paired_numbers((first, last), wanted, numbers_of(first, wanted))
    own: dict[str, Any] = last.scores["quality"].to_json()
    assert found == {"quality": Number(own["value"], own["low"], own["high"])}
    assert json.dumps(own)
