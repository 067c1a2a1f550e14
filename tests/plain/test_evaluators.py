"""Evaluators: Olive's read as drupe's metrics; ranks and goals refused where they make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import canonical, load
from drupe.core.errors import ConfigError, DrupeError
from drupe.plan import draft

from .checkpoints import make_checkpoint
from .conftest import Workspace

ROWS = [{"name": "rows", "load_dataset_config": {"data_name": "json", "data_files": "rows.json"},
         "pre_process_data_config": {"text_template": "{phrase} {tone}"}}]  # fmt: skip


def olive(folder: Path, *metrics: dict[str, Any], **also: Any) -> dict[str, Any]:
    """Return the evaluator `e` of a config with these metrics, in today's words."""
    file = folder / "config.json"
    evaluator = {"metrics": list(metrics), **also}
    file.write_text(json.dumps({"evaluators": {"e": evaluator}}, indent=1))
    root, notes, faults = canonical(file)
    return {
        **root["evaluators"]["e"],
        "notes": [note.text for note in notes],
        "faults": [(fault.what, fault.remedy) for fault in faults],
    }


def faults(workspace: Workspace) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as raised:
        load(workspace.write())
    return [(fault.what, fault.remedy) for fault in raised.value.faults]


def with_metrics(workspace: Workspace, *metrics: dict[str, Any], evaluate: str = "ends") -> None:
    workspace.config["data_configs"] = ROWS
    workspace.config["evaluators"] = {"all": {"metrics": list(metrics)}}
    workspace.config["engine"]["evaluate"] = evaluate
    (workspace.folder / "rows.json").write_text('{"phrase": "a", "tone": "b"}\n')


def accuracy(*sub_types: dict[str, Any], **also: Any) -> dict[str, Any]:
    return {"type": "Accuracy", "data_config": "rows", "sub_types": list(sub_types), **also}


# Olive's words


def test_an_accuracy_of_olive_is_read_with_its_arguments(tmp_path: Path) -> None:
    read = olive(
        tmp_path,
        {
            "name": "acc",
            "type": "accuracy",
            "backend": "torch_metrics",
            "data_config": "rows",
            "user_config": {"batch_size": 8},
            "sub_types": [
                {"name": "accuracy_score", "priority": 1,
                 "metric_config": {"task": "multiclass", "num_classes": 4},
                 "goal": {"type": "max-degradation", "value": 0.01}},
                {"name": "f1_score", "metric_config": {"average": "macro"}},
            ],
        },
    )  # fmt: skip
    assert read["metrics"] == [
        {
            "name": "acc",
            "type": "Accuracy",
            "data_config": "rows",
            "sub_types": [
                {"name": "accuracy_score", "priority": 1,
                 "goal": {"type": "max-degradation", "value": 0.01}},
                {"name": "f1_score"},
            ],
            "metric_config": {
                "accuracy_score": {"task": "multiclass", "num_classes": 4},
                "f1_score": {"average": "macro"},
            },
        }
    ]  # fmt: skip
    assert 'metric "accuracy" is read as Accuracy' in read["notes"]


def test_perplexity_was_a_sub_type_of_accuracy(tmp_path: Path) -> None:
    alone = {"name": "p", "type": "accuracy", "data_config": "rows",
             "sub_types": [{"name": "perplexity"}]}  # fmt: skip
    both = {"name": "q", "type": "accuracy", "data_config": "rows",
            "sub_types": [{"name": "accuracy_score"}, {"name": "perplexity"}]}  # fmt: skip
    read = olive(tmp_path, alone, both)
    found = [(each["name"], each["type"], each["sub_types"]) for each in read["metrics"]]
    assert found == [
        ("p", "Perplexity", [{"name": "perplexity"}]),
        ("q_perplexity", "Perplexity", [{"name": "perplexity"}]),
        ("q", "Accuracy", [{"name": "accuracy_score"}]),
    ]


def test_latency_is_measured_once_for_all_its_sub_types(tmp_path: Path) -> None:
    often = {"metric_config": {"repeat_test_num": 5, "warmup_num": 1}}
    listed = [{"name": "avg", **often}, {"name": "p95", "priority": 1, **often}]
    entry = {"name": "l", "type": "latency", "data_config": "rows", "sub_types": listed}
    read = olive(tmp_path, {**entry, "user_config": {"io_bind": True}})
    assert read["metrics"] == [
        {
            "name": "l",
            "type": "Latency",
            "sub_types": [{"name": "avg"}, {"name": "p95", "priority": 1}],
            "repeat_test_num": 5,
            "warmup_num": 1,
        }
    ]
    listed[1]["metric_config"] = {"repeat_test_num": 6}
    [(what, remedy)] = olive(tmp_path, entry)["faults"]
    assert "repeat_test_num is 6, but" in what
    assert remedy == "Measure once: keep one of them, or write two metrics."


def test_a_custom_metric_has_its_functions_as_fields(tmp_path: Path) -> None:
    read = olive(
        tmp_path,
        {"name": "c", "type": "custom", "sub_types": [{"name": "x", "higher_is_better": True}],
         "user_config": {"user_script": "eval.py", "evaluate_func": "judge", "io_bind": True}},
        {"name": "s", "type": "size_on_disk"},
        {"name": "t", "type": "throughput", "sub_types": [{"name": "avg"}]},
    )  # fmt: skip
    custom, size, throughput = read["metrics"]
    assert custom["type"] == "Custom"
    assert (custom["user_script"], custom["evaluate_func"]) == ("eval.py", "judge")
    assert "io_bind" not in custom
    assert (size["type"], throughput["type"]) == ("Size", "Throughput")


def test_an_evaluator_of_tasks_is_a_metric(tmp_path: Path) -> None:
    read = olive(tmp_path, type="LMEvaluator", tasks=["arc"], limit=64, model_class="ortgenai")
    assert read["metrics"] == [{"name": "lm_eval", "type": "LmEval", "tasks": ["arc"], "limit": 64}]
    assert any("what is judged is what is deployed" in note for note in read["notes"])


def test_what_is_not_done_of_an_evaluator_is_refused_by_name(tmp_path: Path) -> None:
    entry = {"name": "a", "type": "accuracy", "data_config": "rows"}
    [(what, remedy)] = olive(tmp_path, {**entry, "backend": "huggingface_metrics"})["faults"]
    assert what == (
        'evaluators.e.metrics[0].backend asks for "huggingface_metrics", and torchmetrics judges '
        "here"
    )
    assert remedy.startswith("Leave it out, and name numbers of torchmetrics")
    code = {"user_config": {"user_script": "u.py", "post_processing_func": "post"}}
    told = olive(tmp_path, {**entry, **code})["faults"]
    assert [what for what, _ in told] == [
        'evaluators.e.metrics[0].user_config.user_script gives data by code ("u.py")',
        'evaluators.e.metrics[0].user_config.post_processing_func names code to run ("post")',
    ]
    assert all("type Custom" in remedy for _, remedy in told)


# Ranks


def test_a_number_alone_is_the_one_to_rank_by(workspace: Workspace) -> None:
    with_metrics(workspace, accuracy({"name": "accuracy_score"}))
    [named] = load(workspace.write()).metrics
    assert [(each.name, each.priority) for each in named.sub_types] == [("accuracy_score", 1)]
    other = {"type": "Perplexity", "data_config": "rows", "sub_types": [{"name": "perplexity"}]}
    with_metrics(workspace, accuracy({"name": "accuracy_score"}), other)
    found = [each.priority for named in load(workspace.write()).metrics for each in named.sub_types]
    assert found == [-1, -1]


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ((1, 1), 'priority is 1, and so is that of "accuracy_score"'),
        ((1, 3), "priority is 3, where 2 numbers have a rank"),
        ((0, 1), "priority is 0, where 2 numbers have a rank"),
    ],
)
def test_ranks_are_one_to_n_each_once(
    ranks: tuple[int, int], told: str, workspace: Workspace
) -> None:
    perplexity = {"name": "perplexity", "priority": ranks[1]}
    with_metrics(
        workspace,
        accuracy({"name": "accuracy_score", "priority": ranks[0]}),
        {"type": "Perplexity", "data_config": "rows", "sub_types": [perplexity]},
    )
    [(what, _)] = faults(workspace)
    assert what.endswith(told)


# Goals


@pytest.mark.parametrize(
    ("sub_type", "told", "remedy"),
    [
        (
            {"name": "accuracy", "goal": {"value": 0.9}},
            'is no number of this metric: "accuracy"; did you mean "accuracy_score"?',
            "Known: accuracy_score",
        ),
        (
            {"name": "accuracy_score", "goal": {"value": 90}},
            "goal.value is 90, and accuracy_score is 0 to 1",
            "Write 0.9 for 90 %.",
        ),
        (
            {"name": "accuracy_score", "goal": {"type": "min-improvement", "value": 2}},
            "goal.value is 2: accuracy_score is 0 to 1, and cannot grow by that much",
            "Write 0.02 for 2 %.",
        ),
        (
            {"name": "accuracy_score", "higher_is_better": False},
            "higher_is_better is false, but accuracy_score is better where it is higher",
            "Leave it out.",
        ),
        (
            {"name": "accuracy_score", "goal": {"type": "max-degradation", "value": -1}},
            "max-degradation is a size: 0 or more",
            "Change the value.",
        ),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(
    sub_type: dict[str, Any], told: str, remedy: str, workspace: Workspace
) -> None:
    with_metrics(workspace, accuracy(sub_type))
    [(what, mended)] = faults(workspace)
    assert told in what
    assert mended.startswith(remedy)


def test_a_number_has_one_rank(workspace: Workspace) -> None:
    twice = [{"name": "accuracy_score", "priority": rank} for rank in (1, 1)]
    with_metrics(workspace, accuracy(*twice))
    [(what, remedy)] = faults(workspace)
    assert what.endswith('sub_types[1] is the second rank of "accuracy_score" in this metric')
    assert remedy == "Keep one of them; goals it may have several."


def test_ranks_that_contradict_each_other_are_refused(workspace: Workspace) -> None:
    more, fewer = (
        {"name": "words", "higher_is_better": higher, "priority": rank}
        for higher, rank in ((True, 1), (False, 2))
    )
    with_metrics(
        workspace,
        {"name": "a", "type": "Length", "sub_types": [more]},
        {"name": "b", "type": "Length", "sub_types": [fewer]},
    )
    [(what, remedy)] = faults(workspace)
    assert what.endswith(
        'contradicts another entry for the same number "words": there higher_is_better is true'
    )
    assert remedy == "Keep one of them."


def test_the_direction_of_a_number_of_ones_own_has_to_be_said(workspace: Workspace) -> None:
    with_metrics(workspace, {"type": "Length", "sub_types": [{"name": "words", "priority": 1}]})
    [(what, remedy)] = faults(workspace)
    assert what.endswith("higher_is_better is missing: whether more is better cannot be known here")
    assert remedy == "Write true or false."


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("threshold", "nothing is measured"),
        ("percent-max-degradation", "nothing is measured, not even the input model"),
    ],
)
def test_a_goal_where_nothing_is_measured(kind: str, told: str, workspace: Workspace) -> None:
    goal = {"type": kind, "value": 0.5}
    with_metrics(workspace, accuracy({"name": "accuracy_score", "goal": goal}), evaluate="none")
    [(what, remedy)] = faults(workspace)
    assert what == (
        f'engine.evaluate is "none", and the evaluator "all" has goals (accuracy_score): {told}'
    )
    assert remedy == 'Write "ends" or "every-step".'


def test_a_metric_without_data_is_refused(workspace: Workspace) -> None:
    with_metrics(workspace, {"type": "Accuracy"})
    [(what, remedy)] = faults(workspace)
    assert what == "evaluators.all.metrics[0].data_config is missing"
    assert remedy.startswith('Add "data_config".')


# Kinds of models


def refused(workspace: Workspace) -> list[DrupeError]:
    return list(draft(load(workspace.write())).blockers)


def test_a_metric_that_can_be_run_on_no_stage_is_refused(workspace: Workspace) -> None:
    with_metrics(workspace, accuracy())
    [fault] = refused(workspace)
    assert fault.what == (
        "cannot be run on what this job measures (folder of files): Accuracy measures Hugging Face "
        "checkpoint, PEFT adapter, ONNX model for ONNX Runtime GenAI"
    )
    assert fault.where == "Accuracy (Accuracy)"


def test_a_goal_for_a_final_model_that_cannot_be_judged(workspace: Workspace) -> None:
    make_checkpoint(workspace.input)
    (workspace.input / "tokenizer.json").write_text("{}")
    workspace.config["input_model"]["type"] = "HfModel"
    workspace.passes(weigh={"type": "Weigh"})
    with_metrics(workspace, accuracy({"name": "accuracy_score"}))
    [fault] = refused(workspace)
    assert "has a goal or a rank (accuracy_score), and the final model is a folder of files" in (
        fault.what
    )
    workspace.config["evaluators"]["all"]["metrics"][0]["sub_types"] = []
    assert refused(workspace) == []


def test_a_relative_goal_needs_an_input_model_that_can_be_judged(workspace: Workspace) -> None:
    make_checkpoint(workspace.input)
    (workspace.input / "tokenizer.json").write_text("{}")
    workspace.config["input_model"]["type"] = "HfModel"
    workspace.passes(weigh={"type": "Weigh"})
    goal = {"type": "max-degradation", "value": 1}
    sub_type = {"name": "words", "higher_is_better": True, "goal": goal}
    with_metrics(workspace, {"type": "Length", "sub_types": [sub_type]})
    [fault] = refused(workspace)
    assert fault.what == (
        "has a goal relative to the input model (words: max-degradation), which it cannot be run "
        "on: Length measures folder of files"
    )
    assert fault.remedy == "Write a threshold."


# A metric that compares


def test_a_divergence_is_measured_behind_the_input_model(workspace: Workspace) -> None:
    make_checkpoint(workspace.input)
    (workspace.input / "tokenizer.json").write_text("{}")
    workspace.config["input_model"]["type"] = "HfModel"
    workspace.passes()
    kl = {"name": "kl", "type": "KLDivergence", "data_config": "rows"}
    with_metrics(workspace, kl)
    [fault] = refused(workspace)
    assert fault.what == "compares with the input model, and no pass makes another"
    workspace.passes(builder={"type": "ModelBuilder", "precision": "int4"})
    steps = {step.name: step.reads for step in draft(load(workspace.write())).steps}
    assert steps["builder: kl"] == ("builder", "input model")
    assert "input model: kl" not in steps


def test_a_relative_goal_for_what_is_relative_already(workspace: Workspace) -> None:
    goal = {"type": "max-degradation", "value": 0.1}
    kl = {
        "type": "KLDivergence",
        "data_config": "rows",
        "sub_types": [{"name": "kl", "goal": goal}],
    }
    with_metrics(workspace, kl)
    [(what, remedy)] = faults(workspace)
    assert what.endswith(
        "is max-degradation, and KLDivergence compares with the input model itself"
    )
    assert remedy == "Write a threshold."


def test_numbers_that_are_named_are_wanted(workspace: Workspace) -> None:
    kl = {"type": "KLDivergence", "data_config": "rows", "sub_types": [{"name": "flips"}]}
    with_metrics(workspace, accuracy({"name": "auroc"}), kl)
    first, second = load(workspace.write()).metrics
    assert list(dict(first.metric)["metric_config"]) == ["auroc"]
    assert dict(second.metric)["flips"] is True
    with_metrics(workspace, accuracy({"name": "auroc"}, answer="generated"))
    [(what, remedy)] = faults(workspace)
    assert what.endswith(
        'answer is "generated", which gives accuracy_score alone, and auroc is wanted'
    )
    assert remedy == 'Write "likelihood", which gives each choice a probability.'
