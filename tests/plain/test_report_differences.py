"""Differences to the input model, in the table, on the page, in report.json; numbers asked for."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from drupe.core.goal import SubType
from drupe.outcome import Outcome, Score
from drupe.output import report
from drupe.report import table
from drupe.report.page import page
from tests.plain.conftest import Workspace

BASE = [["a", "a"]] * 30 + [["b", "a"]] * 70
TUNED = [["a", "a"]] * 90 + [["b", "a"]] * 10


def score(items: list[list[str]], **also: Any) -> Score:
    share = sum(one == truth for one, truth in items) / len(items)
    content = {"metric": "accuracy", "value": share, "low": share - 0.1, "high": share + 0.1}
    return Score.from_json({**content, "count": len(items), "paired": "answers", **also})


@pytest.fixture
def outcome(workspace: Workspace) -> Outcome:
    found = workspace.run()
    stages = [
        dataclasses.replace(stage, scores={"accuracy": score(items)}, answers={"accuracy": items})
        for stage, items in zip(found.stages, (BASE, TUNED, BASE), strict=True)
    ]
    return dataclasses.replace(found, stages=tuple(stages))


def test_each_stage_tells_its_difference_to_the_input_model(outcome: Outcome) -> None:
    base, back, more = (row[1] for row in table.rows(outcome))
    assert base == "30.0 % (20.0-40.0)"
    assert back == "90.0 % (80.0-100.0)\n+60.0 points [+48.9, +68.8]"
    assert more == "30.0 % (20.0-40.0)\n+0.0 points [-2.7, +2.7]"
    assert "[+48.9, +68.8]" in table.markdown(outcome).splitlines()[3]
    assert table.markdown(outcome).endswith(table.LEGEND)


def test_the_page_and_the_report_tell_it_too(outcome: Outcome) -> None:
    told = report(outcome)
    assert told["stages"][0]["differences"] == {}
    found = told["stages"][1]["differences"]["accuracy"]
    assert (found["value"], found["rows"]) == (0.6, 100)
    assert found["low"] < 0.6 < found["high"]
    assert found["p"] < 1e-15
    html = page(outcome, {**told, "written": "2026-01-02T03:04:05Z"})
    assert "to the input model +60.0 points [+48.9, +68.8]" in html
    assert "<small> +60.0 points [+48.9, +68.8]</small>" in html


def test_other_rows_have_no_difference(outcome: Outcome) -> None:
    others = [["a", "b"]] * 100
    last = dataclasses.replace(outcome.final, answers={"accuracy": others})
    changed = dataclasses.replace(outcome, stages=(*outcome.stages[:-1], last))
    assert changed.difference(last, "accuracy") is None
    assert table.rows(changed)[-1][1] == "30.0 % (20.0-40.0)"
    unpaired = dataclasses.replace(outcome.final, scores={"accuracy": score(BASE, paired="mean")})
    assert outcome.difference(unpaired, "accuracy") is None


def test_a_number_without_an_interval_is_marked(outcome: Outcome) -> None:
    bare = Score.from_json({"metric": "length", "value": 12})
    last = dataclasses.replace(outcome.final, scores={"length": bare}, answers={})
    changed = dataclasses.replace(outcome, stages=(*outcome.stages[:-1], last))
    assert table.rows(changed)[-1][2] == "12 (no interval)"
    html = page(changed, {**report(changed), "written": "2026-01-02T03:04:05Z"})
    assert "<small> (no interval)</small>" in html


def test_numbers_that_a_config_asks_for_have_columns(outcome: Outcome) -> None:
    named = outcome.plan.workflow.metrics[0]
    named = dataclasses.replace(
        named,
        name="accuracy",
        sub_types=(SubType(name="f1_score"), SubType(name="accuracy_score"), SubType(name="no")),
    )
    workflow = dataclasses.replace(outcome.plan.workflow, metrics=(named,))
    numbers = {"accuracy_score": {"value": 0.9}, "f1_score": {"value": 0.8, "low": 0.7, "high": 1}}
    last = dataclasses.replace(outcome.final, scores={"accuracy": score(TUNED, sub_types=numbers)})
    changed = dataclasses.replace(
        outcome,
        plan=dataclasses.replace(outcome.plan, workflow=workflow),
        stages=(*outcome.stages[:-1], last),
    )
    assert table.header(changed)[:3] == ["stage", "accuracy", "f1_score"]
    assert table.rows(changed)[-1][2] == "0.8 (0.7-1)"
    assert json.dumps(report(changed))
