"""`--set`: in the file's words or ours, checked like the file, and going before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import main
from drupe.config.load import load
from drupe.core.errors import ConfigError, Fault
from tests.plain.conftest import Workspace

DEMO = Path(__file__).parents[2] / "examples" / "phi3-emotion" / "olive-config.json"


def lora(*settings: str) -> Any:
    return load(DEMO, settings=settings).passes[0].step


def faults(*settings: str) -> list[Fault]:
    with pytest.raises(ConfigError, match="Nothing was run") as caught:
        load(DEMO, settings=settings)
    return list(caught.value.faults)


@pytest.mark.parametrize(
    "setting",
    ["passes.lora.lora_r=16", "passes.lora.r=16", "passes.lora.config.lora_r=16"],
)
def test_a_name_is_ours_or_olives_nested_or_flat(setting: str) -> None:
    assert lora(setting).r == 16
    assert lora().r == 64


def test_several_settings_and_what_lies_below() -> None:
    step = lora(
        "passes.lora.training_args.max_steps=3",
        "passes.lora.training_args.evaluation_strategy=no",
        'passes.lora.target_modules=["o_proj"]',
    )
    assert step.training_args.max_steps == 3
    assert step.training_args.eval_strategy == "no"
    assert step.training_args.learning_rate == 0.005, "the file's"
    assert step.target_modules == ("o_proj",)


@pytest.mark.parametrize(
    "entry", ["data_configs.dataset_default_train", "data_configs[0]", "data_configs.0"]
)
@pytest.mark.parametrize(
    "field",
    ["pre_process_data_config.params.source_max_len", "pre_process_data_config.max_seq_len"],
)
def test_an_item_is_meant_by_its_name_or_number(entry: str, field: str) -> None:
    rows = lora(f"{entry}.{field}=99").train_data_config
    assert rows.pre_process_data_config.max_seq_len == 99


def test_an_object_takes_the_place_of_what_stood_there() -> None:
    assert load(DEMO, settings=["passes={}"]).passes == ()
    arguments = lora("passes.lora.training_args={}").training_args
    assert arguments.learning_rate == 2e-4, "the default, not the file's"
    [named] = load(DEMO, settings=['passes={"m": {"type": "MergeAdapterWeights"}}']).passes
    assert named.name == "m"


def test_a_number_is_no_name_of_a_pass() -> None:
    [fault] = faults("passes.0.r=8")
    assert fault.what == 'passes.0 is not there: passes has no "0"'


def test_the_last_of_two_settings_wins() -> None:
    assert lora("passes.lora.r=16", "passes.lora.r=8").r == 8


@pytest.mark.parametrize(
    ("written", "value"),
    [("some text", "some text"), ('"16"', "16"), ("models/äö", "models/äö"), ("a=b", "a=b")],
)
def test_a_value_is_json_or_text(written: str, value: str) -> None:
    assert load(DEMO, settings=[f"engine.output_dir={written}"]).engine.output_dir == value


def test_what_the_file_leaves_out_is_added(workspace: Workspace) -> None:
    del workspace.config["engine"]
    loaded = load(workspace.write(), settings=["engine.evaluate=none"])
    assert loaded.engine.evaluate == "none"


def test_a_default_of_2024_is_not_told_of_what_is_set() -> None:
    said = load(DEMO, settings=['data_configs[0].pre_process_data_config.joiner="x"']).notes
    assert not [each.text for each in said if "no joiner" in each.text]


@pytest.mark.parametrize(
    ("setting", "where", "what", "remedy"),
    [
        ("passes.lora.r", "--set", '"passes.lora.r" is not a path and a value', "Write: --set "),
        ("=3", "--set", '"=3" is not a path and a value', "Write: --set passes.lora.r=16"),
        (
            "passes.lroa.r=1",
            "--set",
            'passes.lroa is not there: passes has no "lroa"; did you mean "lora"?',
            "Known: lora, merge_adapter_weights, builder.",
        ),
        (
            "data_configs[7].name=x",
            "--set",
            'data_configs.7 is not there: the list has 2 items, no "7"',
            "Name an item, or give its number from 0.",
        ),
        (
            "passes.lora.lora_rr=1",
            "--set",
            'passes.lora.lora_rr is unknown; did you mean "r" (formerly "lora_r")?',
            "Known here: train_data_config,",
        ),
        (
            "passes.lora.r=many",
            "--set",
            'passes.lora.r: input should be a valid integer (found "many")',
            "Change the value.",
        ),
        ("engin.cache_dir=x", "--set", 'engin is unknown; did you mean "engine"?', "Known here:"),
    ],
)
def test_a_setting_is_checked_like_the_file(
    setting: str, where: str, what: str, remedy: str
) -> None:
    [fault] = faults(setting)
    assert (fault.where, fault.what) == (where, what)
    assert fault.remedy.startswith(remedy)


def test_faults_of_the_file_and_of_settings_are_told_together() -> None:
    assert len(faults("passes.lora.r=0", "passes.builder.precision=int5", "x")) == 3


def test_settings_are_recorded_in_the_lock(workspace: Workspace) -> None:
    done = workspace.drupe("run", "config.json", "--set", "passes.more.text=?")
    assert (done.returncode, done.stderr) == (0, "")
    [lock] = workspace.output.rglob("config.lock.json")
    written = json.loads(lock.read_text())
    assert written["set"] == ["passes.more.text=?"]
    assert written["config"]["passes"]["more"]["text"] == "?"
    assert (workspace.output / "back-more" / "cpu-cpu_model" / "a.txt").read_text() == "eno?"


def test_strict_on_the_command_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    del workspace.config["engine"]["evaluator"]
    file = str(workspace.write())
    assert main(["run", file, "--dry-run"]) == 0
    assert "! no evaluator is used" in capsys.readouterr().out
    assert main(["run", file, "--dry-run", "--strict"]) == 2
    assert "engine.evaluator names none of `evaluators`" in capsys.readouterr().err
