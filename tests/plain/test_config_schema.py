"""`drupe config`: the schema that editors read, a config checked, a config in today's words."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from drupe.catalog import PASSES
from drupe.cli import main
from drupe.config.json_schema import json_schema
from drupe.config.load import canonical, load
from drupe.core.dataset import Dataset
from tests.plain.conftest import Workspace, tree

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "phi3-emotion" / "olive-config.json"
FILES = [
    DEMO,
    EXAMPLES / "page" / "olive-config.json",
    EXAMPLES / "page" / "olive-config-cloud.json",
]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", PASSES.names())
def test_the_schema_of_a_pass_is_whole(name: str, capsys: Captured) -> None:
    """Its references lead to definitions of its own; what the engine fills in is not there."""
    assert main(["passes", name, "--json"]) == 0
    schema = json.loads(capsys.readouterr().out)[name]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert references == set(schema["$defs"])
    assert not references & {"Target", "Part"}
    errors = jsonschema.Draft202012Validator(schema).iter_errors({"type": name, "tpye": 1})
    assert any("'tpye' was unexpected" in error.message for error in errors)


def test_a_value_is_checked_by_the_schema_of_its_pass(capsys: Captured) -> None:
    assert main(["passes", "QLoRA", "--json"]) == 0
    schema = json.loads(capsys.readouterr().out)["QLoRA"]["schema"]
    check = jsonschema.Draft202012Validator(schema)
    data = {"name": "rows", "load_dataset_config": {"data_files": "rows.json"}}
    value = {"type": "QLoRA", "train_data_config": data, "training_args": {"max_steps": 3}}
    assert check.is_valid(value)
    assert check.is_valid({**value, "train_data_config": "rows"}), "by its name, as in a config"
    for wrong in (
        {"type": "LoRA"},
        {"quant_type": "int4"},
        {"training_args": {"max_step": 3}},
        {"train_data_config": {**data, "load_dataset_config": {"data_name": "xml"}}},
    ):
        assert not check.is_valid(value | wrong), wrong
    assert not check.is_valid({"type": "QLoRA"}), "without rows"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name + "/" + file.name)
def test_what_is_read_fits_the_schema(file: Path, validator: Any) -> None:
    root, _, faults = canonical(file)
    assert faults == []
    assert [error.message for error in validator.iter_errors(json.loads(json.dumps(root)))] == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("engin",), {}),
        (("engine", "cash_dir"), "x"),
        (("engine", "log_severity_level"), 9),
        (("input_model", "type"), "PyTorchModel"),
        (("passes", "lora", "lora_r"), 4),
        (("passes", "lora", "r"), "many"),
        (("passes", "lora", "type"), "Lora"),
        (("passes", "lora", "training_args", "learnin_rate"), 1e-4),
        (("passes", "builder", "target"), {}),
        (("data_configs", 0, "part"), {}),
        (("data_configs", 0, "load_dataset_config", "data_name"), "xml"),
        (("evaluators", "held_out_phrases", "metrics", 0, "type"), "MergeProof"),
    ],
)
def test_what_is_refused_does_not_fit_the_schema(
    place: tuple[Any, ...], value: Any, validator: Any
) -> None:
    root, _, _ = canonical(DEMO)
    config = copy.deepcopy(json.loads(json.dumps(root)))
    assert validator.is_valid(config)
    within = config
    for step in place[:-1]:
        within = within[step]
    within[place[-1]] = value
    assert not validator.is_valid(config)


def test_one_name_may_stand_for_a_list_of_one(validator: Any) -> None:
    root, _, _ = canonical(DEMO)
    config = json.loads(json.dumps(root))
    config["passes"]["lora"]["target_modules"] = "o_proj"
    config["data_configs"][0]["load_dataset_config"]["data_files"] = ["a.json", "b.json"]
    assert validator.is_valid(config)


def test_an_editor_is_told_what_a_field_is() -> None:
    schema = json_schema()
    *entries, alternatives = schema["properties"]["passes"]["additionalProperties"]["anyOf"]
    assert alternatives["items"] == {"anyOf": entries}
    assert [entry["properties"]["type"]["const"] for entry in entries] == PASSES.names()
    lora = entries[0]
    assert lora["properties"]["r"]["description"] == "Rank of the adapter."
    assert "low-rank adapter" in lora["description"]
    assert "target" not in entries[2]["properties"], "filled in, not written"
    assert Dataset.__name__ in schema["$defs"]


def test_choices_of_a_search_are_sound(validator: Any) -> None:
    root, _, _ = canonical(DEMO)
    config = json.loads(json.dumps(root))
    builder = config["passes"]["builder"]
    config["passes"]["builder"] = [builder | {"precision": {"search": ["int4", "int8"]}}, builder]
    config["engine"]["search_strategy"] = {"sampler": "tpe", "max_iter": 4}
    assert validator.is_valid(config)
    config["passes"]["builder"][0]["precision"] = {"search": []}
    assert not validator.is_valid(config)


def test_the_schema_is_printed_and_written(tmp_path: Path, capsys: Captured) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    file = tmp_path / "schema.json"
    assert main(["config", "schema", "-o", str(file)]) == 0
    assert json.loads(file.read_text()) == json_schema()


@pytest.mark.parametrize("name", ["new.json", "new.yaml"])
def test_an_upgraded_config_is_the_same_job(name: str, tmp_path: Path, capsys: Captured) -> None:
    file = DEMO.parent / f".{name}"
    try:
        assert main(["config", "upgrade", str(DEMO), "-o", str(file)]) == 0
        assert "source_max_len is read as max_seq_len" in capsys.readouterr().err
        upgraded, original = load(file), load(DEMO)
    finally:
        file.unlink(missing_ok=True)
    for part in ("input_model", "passes", "metrics", "engine", "target"):
        assert getattr(upgraded, part) == getattr(original, part)
    assert {said.text.partition(": ")[2] for said in upgraded.notes} == {
        "passes.lora.eval_dataset_size splits the rows, before tokenizing"
    }


def test_yaml_is_upgraded_as_yaml(workspace: Workspace, capsys: Captured) -> None:
    file = workspace.folder / "config.yaml"
    file.write_text(yaml.safe_dump(workspace.config))
    assert main(["config", "upgrade", str(file)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == workspace.config


def test_nothing_is_overwritten(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "mine.json"
    file.write_text("mine")
    assert main(["config", "upgrade", str(DEMO), "-o", str(file)]) == 2
    assert "mine.json: is there already\n  Give another name" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_sound_config_is_checked(workspace: Workspace, capsys: Captured) -> None:
    del workspace.config["engine"]["evaluator"]
    file = workspace.write()
    before = tree(workspace.folder)
    assert main(["config", "check", str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("! no evaluator is used")
    assert told.endswith("config.json: no fault, 1 warning\n")
    assert main(["config", "check", str(file), "--strict"]) == 2
    assert tree(workspace.folder) == before


def test_faults_are_told_for_programs(workspace: Workspace, capsys: Captured) -> None:
    workspace.config["engine"]["cash_dir"] = "x"
    file = workspace.write()
    assert main(["config", "check", str(file), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    [fault] = told["faults"]
    assert fault["what"] == 'engine.cash_dir is unknown; did you mean "cache_dir"?'
    assert fault["where"].startswith("config.json:")
    assert main(["config", "check", str(file)]) == 2
    assert fault["what"] in capsys.readouterr().err
