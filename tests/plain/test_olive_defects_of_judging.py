"""Olive's defects that are about judging, by their numbers: drupe is free of them."""

from __future__ import annotations

import json

import pytest

from drupe.config.load import load
from drupe.core.errors import ConfigError
from drupe.core.goal import Goal
from drupe.plan import draft

from .conftest import Workspace
from .test_evaluators import with_metrics


def test_s2_a_number_without_a_goal_hides_none_behind_it(workspace: Workspace) -> None:
    relative = {"name": "auroc", "goal": {"type": "max-degradation", "value": 0.1}}
    metric = {"type": "Accuracy", "data_config": "rows",
              "sub_types": [{"name": "accuracy_score"}, relative]}  # fmt: skip
    with_metrics(workspace, metric)
    [named] = load(workspace.write()).metrics
    assert [each.goal is not None for each in named.sub_types] == [False, True]
    workspace.config["engine"]["evaluate"] = "none"
    with pytest.raises(ConfigError, match="not even the input model"):
        load(workspace.write())


def test_s13_tasks_and_perplexity_can_be_ranked_in_their_own_direction(
    workspace: Workspace,
) -> None:
    tasks = {"type": "LmEval", "tasks": ["arc_easy"],
             "sub_types": [{"name": "arc_easy.acc_norm", "priority": 1}]}  # fmt: skip
    perplexity = {"type": "Perplexity", "data_config": "rows",
                  "sub_types": [{"name": "perplexity", "priority": 2}]}  # fmt: skip
    with_metrics(workspace, tasks, perplexity)
    found = {
        each.name: (each.priority, each.higher_is_better)
        for named in load(workspace.write()).metrics
        for each in named.sub_types
    }
    assert found == {"arc_easy.acc_norm": (1, True), "perplexity": (2, False)}
    perplexity["sub_types"][0]["higher_is_better"] = True  # type: ignore[index]
    with_metrics(workspace, tasks, perplexity)
    with pytest.raises(ConfigError, match="perplexity is better where it is lower"):
        load(workspace.write())


def test_s16_the_input_models_number_belongs_to_its_metric_not_to_a_name(
    workspace: Workspace,
) -> None:
    workspace.config["engine"]["evaluate"] = "ends"
    slow = {"name": "length", "type": "SlowLength"}
    first = {step.name: step.key for step in draft(load(workspace.write())).steps}
    workspace.config["evaluators"] = {"other": {"metrics": [{"type": "Length", "name": "length"}]}}
    workspace.config["engine"]["evaluator"] = "other"
    renamed = {step.name: step.key for step in draft(load(workspace.write())).steps}
    assert renamed["input model: length"] == first["input model: length"]
    workspace.config["evaluators"] = {"other": {"metrics": [slow]}}
    another = {step.name: step.key for step in draft(load(workspace.write())).steps}
    assert another["input model: length"] != first["input model: length"]


def test_s18_a_percentage_of_a_negative_number_is_a_degradation_too() -> None:
    goal = Goal(type="percent-max-degradation", value=10)
    assert goal.limit(-20.0, higher_is_better=True) == -22.0
    assert json.loads(goal.model_dump_json())["value"] == 10
