"""A search in a config: what is open, by what it is chosen, and all that can be wrong with that."""

from __future__ import annotations

from typing import Any

import pytest

from drupe.config.load import load
from drupe.config.schema import Search
from drupe.core.errors import ConfigError, Refused
from drupe.core.goal import Goal
from drupe.search.constraints import Objective
from tests.plain.conftest import Workspace

LENGTH = {"name": "length", "higher_is_better": False, "priority": 1}


def searched(workspace: Workspace, **strategy: Any) -> Search:
    """Return the search of the config as it is now."""
    workspace.config["engine"]["search_strategy"] = strategy or True
    workspace.config["engine"].pop("evaluate", None)
    found = load(workspace.write()).search
    assert found is not None
    return found


def faults(workspace: Workspace) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError, match="Nothing was run") as caught:
        load(workspace.write())
    return [(fault.what, fault.remedy) for fault in caught.value.faults]


@pytest.fixture(autouse=True)
def _ranked_by_length(workspace: Workspace) -> None:
    metric = {"name": "length", "type": "Length", "sub_types": [dict(LENGTH)]}
    workspace.config["evaluators"]["all"]["metrics"] = [metric]


def test_values_of_a_field_and_alternatives_of_a_pass_are_axes(workspace: Workspace) -> None:
    workspace.passes(
        turn=[{"type": "Reverse"}, {"type": "Append", "text": {"search": ["a", "bb"]}}],
        more={"type": "Append", "text": ["", "!"]},
    )
    search = searched(workspace)
    assert [point.words for point in search.space] == [
        'turn: Reverse; more: text ""',
        "turn: Reverse; more: text !",
        'turn: Append, text a; more: text ""',
        "turn: Append, text a; more: text !",
        'turn: Append, text bb; more: text ""',
        "turn: Append, text bb; more: text !",
    ]
    turn, more = search.passes_at(search.space.point(5), 2)
    assert (turn.name, turn.type, turn.step.text) == ("turn", "Append", "bb")  # type: ignore[attr-defined]
    assert (more.name, more.step.text) == ("more", "!")  # type: ignore[attr-defined]
    assert len(search.passes_at(search.space.point(0), 1)) == 1
    first = load(workspace.file).passes
    assert [each.type for each in first] == ["Reverse", "Append"]
    assert search.objectives == (Objective("length", "length", "length", False, 1),)


def test_alternatives_of_one_type_are_told_apart_by_what_differs(workspace: Workspace) -> None:
    workspace.passes(more=[{"type": "Append", "text": "a b"}, {"type": "Append", "text": "!"}])
    assert [point.words for point in searched(workspace).space] == ["Append a b", "Append !"]


def test_alternatives_of_one_type_are_numbered(workspace: Workspace) -> None:
    workspace.passes(more=[{"type": "Append"}, {"type": "Append", "text": "!"}])
    assert [point.words for point in searched(workspace).space] == [
        "Append 1",
        "Append 2",
    ]


def test_every_value_that_a_type_has(workspace: Workspace) -> None:
    workspace.passes(b={"type": "Breaks", "how": "SEARCHABLE_VALUES"})
    assert searched(workspace).space.size == 11
    workspace.passes(b={"type": "Append", "text": {"search": "all"}})
    assert faults(workspace)[0] == (
        "passes.b.text has no values of its own",
        'Write them: {"search": [...]}.',
    )


def test_a_list_where_a_list_belongs_is_no_choice(workspace: Workspace) -> None:
    (workspace.input / "rows.json").write_text('[{"text": "a"}]')
    rows = {"load_dataset_config": {"data_files": "input/rows.json"}}
    rows["pre_process_data_config"] = {"text_cols": "text"}
    workspace.config["data_configs"] = [rows | {"name": name} for name in "ab"]
    workspace.passes(count={"type": "Count", "data_config": ["a", "b"]})
    search = searched(workspace)
    points = list(search.space)
    assert [point.words for point in points] == ["data_config a", "data_config b"]
    [chosen] = search.passes_at(points[1], 1)
    assert chosen.step.data_config.name == "b"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("passes", "what"),
    [
        ({"more": {"type": "Append", "text": ["a", "a"]}}, 'passes.more.text names "a" twice'),
        (
            {"more": {"type": "Append", "text": {"search": []}}},
            "passes.more.text has nothing to choose from",
        ),
        (
            {"more": {"type": "Append", "text": {"search": ["a", 3]}}},
            "passes.more.text.search[1]: input should be a valid string (found 3)",
        ),
        ({"more": []}, "passes.more is an empty list"),
        ({"more": [{"type": "Append"}, "Append"]}, "passes.more[1] must be an object: {...}"),
        (
            {"more": [{"type": "Append"}, {"type": "Apend"}]},
            'passes.more[1].type "Apend" is not one of drupe\'s passes; did you mean "Append"?',
        ),
        (
            {"more": [{"type": "Append"}, {"type": "Append", "txt": "!"}]},
            'passes.more[1].txt is unknown; did you mean "text"?',
        ),
    ],
)
def test_a_fault_of_a_choice_is_told_where_it_stands(
    passes: dict[str, Any], what: str, workspace: Workspace
) -> None:
    workspace.passes(**passes)
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    assert what in [told for told, _ in faults(workspace)]


def test_values_that_fit_only_together_are_no_fault_but_no_point_either(
    workspace: Workspace,
) -> None:
    """What a class refuses of its fields together is told of the point, with the reason."""
    workspace.passes(slow={"type": "Slow", "ticks": {"search": [1, 2]}, "seconds": [0.1, 0.2]})
    search = searched(workspace)
    assert search.space.size == 4
    point = search.space.point(3)
    assert search.passes_at(point, 1)[0].step.ticks == 2  # type: ignore[attr-defined]
    broken = search.passes[0].alternatives[0].fields | {"ticks": "many"}
    search.passes[0].alternatives[0].fields.clear()
    search.passes[0].alternatives[0].fields.update(broken | {"unknown": 1})
    with pytest.raises(Refused, match=r"passes\.slow\.unknown: extra inputs are not permitted"):
        search.passes_at(point, 1)


def test_a_choice_that_nobody_makes(workspace: Workspace) -> None:
    workspace.passes(
        turn=[{"type": "Reverse"}, {"type": "Append"}], more={"type": "Append", "text": ["", "!"]}
    )
    remedy = 'Write "search_strategy": true under engine, or keep one of them.'
    assert faults(workspace) == [
        ("passes.turn is a choice, and nothing is searched", remedy),
        ("passes.more.text is a choice, and nothing is searched", remedy),
    ]


def test_a_search_over_nothing(workspace: Workspace) -> None:
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    assert faults(workspace) == [
        (
            (
                "engine.search_strategy searches over nothing: no pass has alternatives, no field "
                "values to choose from"
            ),
            'List alternatives of a pass, or write {"search": [...]} as a field\'s value.',
        )
    ]


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (
            {"engine": {"evaluate": "none"}},
            "compares by nothing: no metric is measured",
            'Leave "evaluate": "none" out.',
        ),
        (
            {"engine": {"evaluator": None, "evaluate": "ends"}},
            "compares by nothing: no metric is measured",
            "Name an evaluator in engine.evaluator.",
        ),
        (
            {"sub_types": [LENGTH | {"priority": -1}, LENGTH | {"priority": -1}]},
            "compares by nothing: no number of the evaluator has a priority",
            'Write "sub_types": [{"name": ..., "priority": 1}] in a metric.',
        ),
    ],
)
def test_a_search_that_compares_by_nothing(
    change: dict[str, Any], what: str, remedy: str, workspace: Workspace
) -> None:
    workspace.passes(more={"type": "Append", "text": ["", "!"]})
    engine = workspace.config["engine"]
    engine |= {"search_strategy": True, "evaluate": "ends"} | change.get("engine", {})
    metric = workspace.config["evaluators"]["all"]["metrics"][0]
    metric["sub_types"] = change.get("sub_types", metric["sub_types"])
    assert (f"engine.search_strategy {what}", remedy) in faults(workspace)


def test_a_goal_without_a_search_is_told(workspace: Workspace) -> None:
    goal = {"type": "threshold", "value": 9}
    metric = workspace.config["evaluators"]["all"]["metrics"][0]
    metric["sub_types"] = [LENGTH | {"goal": goal}]
    workspace.config["engine"]["evaluate"] = "ends"
    text = "goals choose nothing here: engine.search_strategy asks for no search"
    assert text in [said.text for said in load(workspace.write()).notes]


def test_goals_that_exclude_each_other(workspace: Workspace) -> None:
    metric = workspace.config["evaluators"]["all"]["metrics"][0]
    least = {"name": "length", "higher_is_better": True, "goal": {"value": 12}}
    most = {"name": "length", "higher_is_better": False, "goal": {"value": 9}}
    metric["sub_types"] = [least, most]
    workspace.config["engine"]["evaluate"] = "ends"
    [(what, remedy)] = faults(workspace)
    assert what.startswith(
        "evaluators.all.metrics[0].sub_types[1] wants length to be at most 9, and "
        "evaluators.all.metrics[0].sub_types[0] (config.json:"
    )
    assert what.endswith(") at least 12: nothing keeps both")
    assert remedy == "Mend one of the goals."
    most["goal"] = {"value": 12}
    load(workspace.write())


def test_a_relative_goal_needs_a_metric_that_measures_the_input_model(
    workspace: Workspace,
) -> None:
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "input"}
    metric = workspace.config["evaluators"]["all"]["metrics"][0]
    goal = {"type": "percent-max-degradation", "value": 1}
    metric["sub_types"] = [LENGTH | {"goal": goal}]
    workspace.passes(weigh=[{"type": "Weigh"}, {"type": "Weigh"}])
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    assert faults(workspace) == [
        (
            (
                "evaluators.all.metrics[0] has the goal percent-max-degradation, which is relative "
                "to the input model, and Length does not measure that (hf)"
            ),
            'Write a goal of the type "threshold".',
        )
    ]


def test_what_ranks_has_to_measure_what_the_passes_give(workspace: Workspace) -> None:
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "input"}
    workspace.passes(merge=[{"type": "MergeAdapterWeights"}, {"type": "MergeAdapterWeights"}])
    workspace.config["engine"] |= {"search_strategy": True, "evaluate": "ends"}
    assert (
        (
            "evaluators.all.metrics[0] ranks or limits the results, and Length does not measure "
            "them (hf)"
        ),
        "It measures files.",
    ) in faults(workspace)


def test_metrics_of_which_nothing_is_picked_rank_in_their_order(workspace: Workspace) -> None:
    (workspace.input / "rows.json").write_text('[{"text": "a"}]')
    rows = {"name": "rows", "load_dataset_config": {"data_files": "input/rows.json"}}
    workspace.config["data_configs"] = [rows | {"pre_process_data_config": {"text_cols": "text"}}]
    workspace.config["evaluators"]["all"]["metrics"] = [
        {"name": "quality", "type": "Accuracy", "data_config": "rows"},
        {"name": "loss", "type": "Perplexity", "data_config": "rows"},
    ]
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "input"}
    workspace.passes(merge=[{"type": "MergeAdapterWeights"}, {"type": "MergeAdapterWeights"}])
    workspace.config["input_model"]["adapter_path"] = "input"
    assert searched(workspace).objectives == (
        Objective("quality", "quality", "", True, 1, unit="share"),
        Objective("loss", "loss", "", False, 2),
    )


def test_goals_of_one_number_stand_together(workspace: Workspace) -> None:
    metric = workspace.config["evaluators"]["all"]["metrics"][0]
    goals = [{"value": 20.0}, {"type": "max-degradation", "value": 2.0}]
    metric["sub_types"] = [
        LENGTH | {"goal": goals[0]},
        LENGTH | {"priority": -1, "goal": goals[1]},
    ]
    workspace.passes(more={"type": "Append", "text": ["", "!"]})
    [objective] = searched(workspace).objectives
    assert objective.priority == 1
    assert objective.goals == (Goal(value=20), Goal(type="max-degradation", value=2))


@pytest.mark.parametrize(
    ("strategy", "what"),
    [
        ({"execution_order": "both"}, "input should be 'joint' or 'pass-by-pass' (found \"both\")"),
        (
            {"sampler": "grid"},
            "input should be 'sequential', 'random', 'tpe' or 'economy' (found \"grid\")",
        ),
        ({"max_iter": 0}, "input should be greater than or equal to 1 (found 0)"),
        ({"max_time": 0}, "input should be greater than 0 (found 0)"),
        ({"output_model_num": 0}, "input should be greater than or equal to 1 (found 0)"),
        ({"max_iters": 3}, 'engine.search_strategy.max_iters is unknown; did you mean "max_iter"?'),
    ],
)
def test_a_fault_of_the_strategy(strategy: dict[str, Any], what: str, workspace: Workspace) -> None:
    workspace.passes(more={"type": "Append", "text": ["", "!"]})
    workspace.config["engine"] |= {"search_strategy": strategy, "evaluate": "ends"}
    assert any(told.endswith(what) for told, _ in faults(workspace))


def test_goals_that_are_waited_for_and_are_not_there(workspace: Workspace) -> None:
    workspace.passes(more={"type": "Append", "text": ["", "!"]})
    searched(workspace, stop_when_goals_met=True)
    text = "engine.search_strategy.stop_when_goals_met has no effect: no number has a goal"
    assert text in [said.text for said in load(workspace.file).notes]


def test_an_economy_foretells_whole_chains(workspace: Workspace) -> None:
    workspace.passes(more={"type": "Append", "text": ["", "!"]})
    strategy = {"sampler": "economy", "execution_order": "pass-by-pass"}
    workspace.config["engine"] |= {"search_strategy": strategy, "evaluate": "ends"}
    [(what, remedy)] = faults(workspace)
    assert what.endswith('is "pass-by-pass", and the economy foretells whole chains')
    assert remedy == 'Write "joint", or choose another sampler.'
