"""Faults of a config in words: the nearest name, what there is, and what the data lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.errors import ConfigError, nearest
from tests.plain.conftest import Workspace

TEMPLATE = "{phrase} {tone}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A config with a LoRA on rows of which nothing is wrong."""
    made = Workspace(tmp_path / "workspace")
    (made.folder / "rows.json").write_text('{"phrase": "a", "tone": "b"}\n')
    made.config["data_configs"] = [
        {
            "name": "rows",
            "load_dataset_config": {"data_files": "rows.json"},
            "pre_process_data_config": {"text_template": TEMPLATE},
        }
    ]
    made.passes(lora={"type": "LoRA", "train_data_config": "rows"})
    return made


def faults(workspace: Workspace) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError, match="Nothing was run") as told:
        load(workspace.write())
    return [(fault.what, fault.remedy) for fault in told.value.faults]


def fault_at(workspace: Workspace, text: str) -> tuple[str, str]:
    """Return the one fault, which is told on the line that holds `text`."""
    with pytest.raises(ConfigError, match="Nothing was run") as told:
        load(workspace.write())
    [fault] = told.value.faults
    lines = workspace.file.read_text().split("\n")
    assert text in lines[int(fault.where.removeprefix("config.json:")) - 1]
    return fault.what, fault.remedy


def data(workspace: Workspace, content: str, **source: Any) -> None:
    name = "rows.csv" if source.get("data_name") == "csv" else "rows.json"
    (workspace.folder / name).write_text(content, encoding="utf-8")
    workspace.config["data_configs"][0]["load_dataset_config"] = {"data_files": name, **source}


# Names


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [("Lora", ["LoRA", "Merge"], "LoRA"), ("LORA_R", ["lora_r"], "lora_r"), ("x", ["LoRA"], None)],
)
def test_upper_and_lower_case_are_near(name: str, known: list[str], told: str | None) -> None:
    assert nearest(name, known) == (f'; did you mean "{told}"?' if told else "")


def test_a_misspelt_pass(workspace: Workspace) -> None:
    workspace.passes(lora={"type": "Lora"})
    [(what, _)] = faults(workspace)
    assert what.endswith('did you mean "LoRA"?')


def test_older_names_are_near_too(workspace: Workspace) -> None:
    workspace.config["passes"]["lora"]["lora_rank"] = 4
    workspace.config["data_configs"][0]["pre_process_data_config"]["source_max_length"] = 4
    told = [what.partition(" is unknown")[2] for what, _ in faults(workspace)]
    assert told[0] == '; did you mean "max_seq_len" (formerly "source_max_len")?'
    assert told[-1] == '; did you mean "r" (formerly "lora_r")?'


def test_a_misspelt_key_in_a_system(workspace: Workspace) -> None:
    workspace.config["systems"] = {"s": {"type": "LocalSystem", "accelerator": ["gpu"]}}
    what, remedy = fault_at(workspace, '"accelerator"')
    assert what == 'systems.s.accelerator is unknown; did you mean "accelerators"?'
    assert remedy == "Known here: type, accelerators, hf_token, environment_variables."


@pytest.mark.parametrize(
    ("system", "what"),
    [
        ({"type": "Docker"}, 'systems.s.type is "Docker", which this version does not have'),
        ({"type": "LocalSytem"}, 'does not have; did you mean "LocalSystem"?'),
        ({"type": 3}, "systems.s.type is 3, which this version does not have"),
        ({}, "systems.s.type is missing"),
    ],
)
def test_a_system_that_is_not_there(
    system: dict[str, Any], what: str, workspace: Workspace
) -> None:
    workspace.config["systems"] = {"s": system}
    [(told, remedy)] = faults(workspace)
    assert told.endswith(what)
    assert '"LocalSystem" (this machine)' in remedy


def test_a_key_that_is_named_like_a_class_keeps_its_place(workspace: Workspace) -> None:
    workspace.config["engine"]["HostConfig"] = {}
    [(what, _)] = faults(workspace)
    assert what.startswith("engine.HostConfig is unknown")


# Metrics


@pytest.mark.parametrize("count", [0, -1])
def test_no_rows_are_no_measurement(count: int, workspace: Workspace) -> None:
    metrics = [
        {"type": "Accuracy", "data_config": "rows", "max_samples": count},
        {"type": "Perplexity", "data_config": "rows", "max_samples": count},
        {"type": "Answers", "data_config": "rows", "count": count},
    ]
    workspace.config["evaluators"] = {"all": {"metrics": metrics}}
    told = faults(workspace)
    assert len(told) == 3
    assert all("input should be greater than or equal to 1" in what for what, _ in told)


@pytest.mark.parametrize("name", ["MergeProof", "ExportProof"])
def test_a_proof_is_no_metric_of_an_evaluator(name: str, workspace: Workspace) -> None:
    workspace.config["evaluators"] = {"all": {"metrics": [{"type": name}]}}
    what, remedy = fault_at(workspace, f'"{name}"')
    assert what == (
        f'evaluators.all.metrics[0].type "{name}" compares two models, and a metric judges one'
    )
    assert remedy == "Leave it out: a pass whose result it proves has it run by itself."


# The target


@pytest.mark.parametrize("roles", [{"host": "s"}, {"target": "s"}, {}])
def test_the_providers_of_older_configs_reach_the_target(
    roles: dict[str, str], workspace: Workspace
) -> None:
    workspace.config["systems"] = {"s": {"type": "LocalSystem", "accelerators": ["gpu"]}}
    workspace.config["engine"] |= {"execution_providers": ["CUDAExecutionProvider"], **roles}
    assert load(workspace.write()).target.provider == "CUDAExecutionProvider"


def test_of_two_systems_that_nobody_names_none_is_the_target(workspace: Workspace) -> None:
    gpu = {"type": "LocalSystem", "accelerators": ["gpu"]}
    workspace.config["systems"] = {"one": gpu, "two": gpu}
    assert load(workspace.write()).target.provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("system", "engine", "text"),
    [
        ({"accelerators": [{"device": "npu"}]}, {}, '"s"'),
        ({}, {"execution_providers": ["CudaExecutionProvider"]}, '"execution_providers"'),
    ],
)
def test_a_provider_that_is_not_supported(
    system: dict[str, Any], engine: dict[str, Any], text: str, workspace: Workspace
) -> None:
    workspace.config["systems"] = {"s": {"type": "LocalSystem", **system}}
    workspace.config["engine"] |= engine
    what, _ = fault_at(workspace, text)
    assert "which is not supported" in what


# Templates and rows


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{phrase", 'text_template has a "{" without its partner at character 1'),
        ("{} x", "text_template has braces without a name at character 1"),
        ("a text", "text_template names no column: every row would be the same text"),
    ],
)
def test_a_template_that_cannot_work(template: str, words: str, workspace: Workspace) -> None:
    workspace.config["data_configs"][0]["pre_process_data_config"]["text_template"] = template
    assert words in fault_at(workspace, '"text_template"')[0]


ROW = {"phrase": "a", "ton": "b"}


@pytest.mark.parametrize(
    ("content", "source"),
    [
        (json.dumps([ROW]), {}),
        (json.dumps([ROW], indent=1), {}),
        (json.dumps(ROW) + "\n" + json.dumps(ROW), {}),
        ("\ufeff" + json.dumps(ROW), {}),
        (json.dumps([ROW, {"phrase": "x" * 2**21}]), {}),
        ("phrase,ton\na,b\n", {"data_name": "csv"}),
    ],
)
def test_a_column_that_the_data_lack(
    content: str, source: dict[str, str], workspace: Workspace
) -> None:
    data(workspace, content, **source)
    what, remedy = fault_at(workspace, '"text_template"')
    assert what == (
        "data_configs[0].pre_process_data_config.text_template names the column "
        '"tone", but the data have "phrase", "ton"; did you mean "ton"?'
    )
    assert remedy == "Mend the name, or the data."


def test_without_a_template_the_columns_are_looked_for(workspace: Workspace) -> None:
    workspace.config["data_configs"][0]["pre_process_data_config"] = {"text_cols": ["tone"]}
    data(workspace, json.dumps(ROW))
    assert 'text_cols names the column "tone"' in fault_at(workspace, '"text_cols"')[0]


@pytest.mark.parametrize(
    ("content", "source"),
    [
        (json.dumps({"phrase": "a", "tone": "b"}), {}),
        (json.dumps([{"phrase": "x" * 2**21, "ton": "b"}]), {}),  # more than a glance
        (json.dumps(ROW), {"split": "train[1:]"}),
        ("any", {"data_name": "parquet"}),
        ('"phrase","tone"\n"a\n","b"', {"data_name": "csv"}),
    ],
)
def test_what_a_glance_does_not_tell_is_left_to_the_step(
    content: str, source: dict[str, str], workspace: Workspace
) -> None:
    data(workspace, content, **source)
    load(workspace.write())


@pytest.mark.parametrize(
    ("content", "source", "words"),
    [
        ("", {}, "data_files has no rows"),
        ("[ ]\n", {}, "data_files has no rows"),
        (" \n", {"data_name": "csv"}, "data_files has no rows"),
        ("phrase,tone", {}, "which cannot be read as json: it begins with 'phrase,tone'"),
        ('{"phrase": "a",\n "tone" "b"}', {}, "which cannot be read as json: Expecting ':' deli"),
        ('{"phrase": "a"', {}, "which cannot be read as json: Expecting ',' delimiter in line 1"),
    ],
)
def test_a_file_that_cannot_be_read(
    content: str, source: dict[str, str], words: str, workspace: Workspace
) -> None:
    data(workspace, content, **source)
    assert words in fault_at(workspace, '"data_files"')[0]


def test_another_encoding(workspace: Workspace) -> None:
    (workspace.folder / "rows.json").write_bytes('{"phrase": "ä"}'.encode("latin-1"))
    assert "it is not UTF-8" in fault_at(workspace, '"data_files"')[0]


def test_a_folder_is_no_file_of_rows(workspace: Workspace) -> None:
    (workspace.folder / "rows.json").unlink()
    (workspace.folder / "rows.json").mkdir()
    assert "which is a folder" in fault_at(workspace, '"data_files"')[0]


def test_data_that_nobody_uses_are_not_looked_at(workspace: Workspace) -> None:
    data(workspace, "no json")
    workspace.passes(back={"type": "Reverse"})
    load(workspace.write())
