"""What is written without effect is told with its line; what contradicts itself is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.errors import ConfigError
from drupe.evaluate.metrics import Accuracy, Answers, Perplexity
from drupe.finetune.passes import LoRA, MergeProof
from drupe.finetune.training_args import TrainingArgs
from tests.plain.conftest import Workspace

CPU = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
GPU = {"device": "gpu", "execution_providers": ["CUDAExecutionProvider", "DmlExecutionProvider"]}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A config with a data config `rows`, and nothing to say about it."""
    made = Workspace(tmp_path / "workspace")
    (made.folder / "rows.json").write_text('[{"phrase": "a", "tone": "b"}]')
    made.config["data_configs"] = [
        {
            "name": "rows",
            "load_dataset_config": {"data_files": "rows.json"},
            "pre_process_data_config": {"text_template": "{phrase} {tone}"},
        }
    ]
    return made


def warnings(workspace: Workspace, **arguments: Any) -> list[str]:
    return [
        said.text for said in load(workspace.write(), **arguments).notes if said.level == "warning"
    ]


def faults(workspace: Workspace) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError, match="Nothing was run") as told:
        load(workspace.write())
    assert all(fault.where.startswith("config.json:") for fault in told.value.faults)
    return [(fault.what, fault.remedy) for fault in told.value.faults]


def lora(workspace: Workspace, **fields: Any) -> None:
    workspace.passes(lora={"type": "LoRA", "train_data_config": "rows", **fields})


def preprocess(workspace: Workspace, **fields: Any) -> None:
    workspace.config["data_configs"][0]["pre_process_data_config"] |= fields


def test_a_config_that_says_nothing_twice_is_no_warning(workspace: Workspace) -> None:
    lora(workspace, eval_dataset_size=0.5, training_args={"eval_strategy": "no"})
    preprocess(workspace, strategy="join", pad_to_max_len=False, text_cols=["phrase", "tone"])
    assert warnings(workspace) == []


@pytest.mark.parametrize(
    ("fields", "name", "why"),
    [
        ({"warmup_steps": 0.1}, "warmup_steps", 'write "constant_with_warmup"'),
        ({"optim": "sgd", "adam_beta1": 0.8}, "adam_beta1", 'no effect under optim "sgd"'),
        ({"optim": "adafactor", "adam_epsilon": 1e-6}, "adam_epsilon", 'optim "adafactor"'),
        ({"eval_steps": 5}, "eval_steps", 'under eval_strategy "no"; write "steps"'),
        ({"eval_steps": 5, "eval_strategy": "epoch"}, "eval_steps", 'eval_strategy "epoch"'),
        ({"num_train_epochs": 2, "max_steps": 9}, "num_train_epochs", "no effect beside max_steps"),
        ({"early_stopping_threshold": 0.1}, "early_stopping_threshold", "without early_stopping_p"),
    ],
)
def test_training_arguments(
    fields: dict[str, Any], name: str, why: str, workspace: Workspace
) -> None:
    lora(workspace, eval_dataset_size=0.5, training_args=fields)
    [told] = warnings(workspace)
    lines = workspace.file.read_text().split("\n")
    line = 1 + next(index for index, text in enumerate(lines) if f'"{name}"' in text)
    assert told.startswith(f"config.json:{line}: passes.lora.training_args.{name} has no effect")
    assert why in told


@pytest.mark.parametrize(
    "fields",
    [
        {"warmup_steps": 0.1, "lr_scheduler_type": "linear"},
        {"optim": "sgd", "weight_decay": 0.1},
        {"adam_beta1": 0.8},
        {"eval_steps": 5, "eval_strategy": "steps"},
    ],
)
def test_training_arguments_with_effect(fields: dict[str, Any], workspace: Workspace) -> None:
    lora(workspace, eval_dataset_size=0.5, training_args=fields)
    assert warnings(workspace) == []


def test_a_loss_that_there_are_no_rows_for(workspace: Workspace) -> None:
    lora(workspace, training_args={"eval_strategy": "epoch"})
    [told] = warnings(workspace)
    words = "has no rows to measure on: name eval_data_config or eval_dataset_size"
    assert told.endswith(f"passes.lora.training_args.eval_strategy {words}")


@pytest.mark.parametrize(
    ("fields", "name", "why"),
    [
        ({"pad_to_max_len": True}, "pad_to_max_len", 'under the strategy "join"'),
        ({"drop_short_sequences": True}, "drop_short_sequences", 'under the strategy "join"'),
        ({"strategy": "line-by-line", "joiner": "\n"}, "joiner", "nothing is joined"),
        (
            {"text_cols": ["phrase", "ton"]},
            "text_cols",
            '"ton" has no effect: the text is made by text_template, without it (it names "tone")',
        ),
    ],
)
def test_data(fields: dict[str, Any], name: str, why: str, workspace: Workspace) -> None:
    preprocess(workspace, **fields)
    lora(workspace)  # which uses the same data: told once
    [told] = warnings(workspace)
    assert f"data_configs[0].pre_process_data_config.{name} " in told
    assert why in told


def test_samples_are_no_rows(workspace: Workspace) -> None:
    preprocess(workspace, max_samples=5)
    metrics = [{"type": "Perplexity", "data_config": "rows"}]
    workspace.config["evaluators"] = {"all": {"metrics": metrics}}
    [told] = warnings(workspace)
    assert "max_samples has no effect on Perplexity, which reads rows: write max_samples be" in told


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_blocks_of_weights(precision: str, workspace: Workspace) -> None:
    options = {"int4_block_size": 64, "int4_accuracy_level": 4}
    workspace.passes(builder={"type": "ModelBuilder", "precision": precision, **options})
    told = warnings(workspace)
    assert len(told) == (2 if precision == "fp32" else 0)
    assert all("has no effect in fp32: it is about int4 and int8" in line for line in told)


def test_a_revision_of_a_local_folder(workspace: Workspace) -> None:
    model = {"type": "HfModel", "model_path": "input", "load_kwargs": {"revision": "main"}}
    workspace.config["input_model"] = model
    [told] = warnings(workspace)
    assert "input_model.load_kwargs.revision has no effect on a local folder (input)" in told


@pytest.mark.parametrize(
    ("accelerators", "engine", "words"),
    [
        ([CPU, GPU], {}, "made for CPUExecutionProvider alone; for CUDAExecutionProvider, Dml"),
        ([{"device": "cpu"}, {"device": "gpu"}], {}, "for CUDAExecutionProvider run again"),
        (["gpu"], {"execution_providers": GPU["execution_providers"]}, "CUDAExecutionProvider alo"),
        ([], {"execution_providers": GPU["execution_providers"]}, "for DmlExecutionProvider run"),
    ],
)
def test_what_is_made_for_the_first_alone(
    accelerators: list[Any], engine: dict[str, Any], words: str, workspace: Workspace
) -> None:
    workspace.config["systems"] = {"s": {"type": "LocalSystem", "accelerators": accelerators}}
    workspace.config["engine"] |= engine
    [told] = warnings(workspace)
    assert words in told
    assert warnings(workspace, target="cpu") == []


def test_a_system_that_is_not_used(workspace: Workspace) -> None:
    workspace.config["systems"] = {"far": {"type": "AzureML", "aml_compute": "big"}}
    workspace.config["engine"]["host"] = "far"
    [told] = warnings(workspace, system="local")
    words = 'engine.host "far" runs no step under --system local; what it says of aml_compute has'
    assert words in told


def test_what_drupe_fills_in_is_refused(workspace: Workspace) -> None:
    target = {"provider": "CUDAExecutionProvider"}
    workspace.passes(builder={"type": "ModelBuilder", "precision": "int4", "target": target})
    workspace.config["data_configs"][0]["part"] = {"eval_size": 0.1, "side": "eval"}
    metrics = [{"type": "Perplexity", "data_config": "rows", "target": target}]
    workspace.config["evaluators"] = {"all": {"metrics": metrics}}
    assert sorted(what for what, _ in faults(workspace)) == [
        "data_configs[0].part is filled in by drupe, not written",
        "evaluators.all.metrics[0].target is filled in by drupe, not written",
        "passes.builder.target is filled in by drupe, not written",
    ]


def test_what_drupe_fills_in_is_not_listed(workspace: Workspace) -> None:
    workspace.passes(builder={"type": "ModelBuilder", "precision": "int4", "targt": 1})
    [(what, remedy)] = faults(workspace)
    assert what == "passes.builder.targt is unknown"
    assert "target" not in remedy


@pytest.mark.parametrize("task", ["text-classification", ""])
def test_a_task_that_is_none_of_ours_is_refused(task: str, workspace: Workspace) -> None:
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "input", "task": task}
    [(what, _)] = faults(workspace)
    assert what.startswith("input_model.task: input should be 'text-generation' or")


def test_the_same_field_with_two_values_is_refused(workspace: Workspace) -> None:
    lora(workspace, r=4, alpha=8, config={"r": 64, "alpha": 8})
    preprocess(workspace, max_seq_len=5, params={"max_seq_len": 6})
    workspace.config["input_model"] = {
        "type": "PyTorchModel",
        "hf_config": {
            "model_name": "a/b",
            "model_loading_args": {"revision": "one", "trust_remote_code": True},
            "from_pretrained_args": {"revision": "two"},
        },
    }
    told = faults(workspace)

    def line(text: str) -> int:
        lines = workspace.file.read_text().split("\n")
        return 1 + next(index for index, each in enumerate(lines) if text in each)

    rank, length, revision = map(line, ('"r": 4', '"max_seq_len": 5', '"one"'))
    data = "data_configs[0].pre_process_data_config"
    model = "input_model.hf_config"
    assert [what for what, _ in told] == [
        f"passes.lora.config.r is 64, but passes.lora.r (config.json:{rank}) is 4",
        f"{data}.params.max_seq_len is 6, but {data}.max_seq_len (config.json:{length}) is 5",
        (
            f'{model}.from_pretrained_args.revision is "two", but '
            f'{model}.model_loading_args.revision (config.json:{revision}) is "one"'
        ),
    ]
    assert {remedy for _, remedy in told} == {"Keep one of them."}


# Keys


def digest(path: Path) -> str:
    return "0" * 64


def dataset(**fields: Any) -> Dataset:
    template = {"text_template": "{phrase}", **fields}
    return Dataset(
        name="rows",
        load_dataset_config=LoadDataset(data_files=(Path("rows.json"),)),
        pre_process_data_config=TextPreprocess(**template),
    )


@pytest.mark.parametrize("name", ["save_steps", "logging_steps", "per_device_eval_batch_size"])
def test_what_changes_no_adapter_is_in_no_key(name: str) -> None:
    assert TrainingArgs(**{name: 7}).key_form(digest) == TrainingArgs().key_form(digest)
    assert TrainingArgs(seed=7).key_form(digest) != TrainingArgs().key_form(digest)


@pytest.mark.parametrize("metric", [Accuracy, Perplexity, Answers])
def test_what_is_about_samples_is_in_no_metrics_key(metric: Any) -> None:
    def form(**fields: Any) -> str:
        made = metric(data_config=dataset(**fields), target={"provider": "CPUExecutionProvider"})
        return json.dumps(made.key_form(digest))

    for fields in ({"max_seq_len": 7}, {"strategy": "line-by-line"}, {"max_samples": 1}):
        assert form(**fields) == form()
    assert form(text_template="{tone}") != form()


def test_a_folder_that_is_written_to_is_no_input() -> None:
    arguments = TrainingArgs(report_to="tensorboard", logging_dir=Path("not there yet"))
    assert arguments.input_paths() == []
    assert arguments.key_form(str) == TrainingArgs().key_form(str)


def test_a_users_script_is_in_the_key_by_its_content() -> None:
    own = TextPreprocess(
        text_formatting_func="text", user_script=Path("mine.py"), script_dir=Path("beside")
    )
    form = own.key_form(lambda path: f"the content of {path}")
    assert form["user_script"] == {"content": "the content of mine.py"}
    assert form["script_dir"] == {"content": "the content of beside"}


def test_columns_beside_a_template_are_in_no_key() -> None:
    assert dataset(text_cols=("tone",)).key_form(digest) == dataset().key_form(digest)
    one, two = (dataset(text_template=None, text_cols=(name,)) for name in ("one", "two"))
    assert one.key_form(digest) != two.key_form(digest)


@pytest.mark.parametrize(
    ("operation", "libraries"),
    [
        (LoRA, {"tokenizers"}),
        (Accuracy, {"tokenizers", "datasets"}),
        (Perplexity, {"tokenizers", "datasets"}),
        (MergeProof, {"accelerate", "safetensors"}),
    ],
)
def test_what_decides_a_result_is_in_its_key(operation: Any, libraries: set[str]) -> None:
    assert libraries <= set(operation.libraries)
