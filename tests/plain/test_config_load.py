"""A config file to a workflow: where each key lands, and every fault at once."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupe.config.load import load
from drupe.config.schema import EngineConfig, InputModel, LoadArguments, Workflow
from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.errors import ConfigError, Refused
from drupe.core.process import usable_cores
from drupe.core.resource import AzureMLClient, Remote
from drupe.core.target import Target
from drupe.export.passes import ExportGenAI
from drupe.finetune.passes import LoRA, MergeAdapterWeights
from drupe.finetune.training_args import TrainingArgs
from drupe.plan import make
from tests.plain.conftest import Workspace

PAGE = Path(__file__).parents[2] / "examples" / "page"


def test_every_key_of_the_page_lands_where_it_should() -> None:
    workflow = load(PAGE / "olive-config.json", system="local")
    target = Target(provider="CUDAExecutionProvider", threads=None)
    assert workflow.target == target
    assert workflow.input_model == InputModel(
        type="HfModel",
        model_path="model-cache/microsoft/phi-3-mini",
        task="text-generation",
        load_kwargs=LoadArguments(trust_remote_code=True),
    )
    assert workflow.engine == EngineConfig(
        host="aml",
        target="aml",
        log_severity_level=0,
        cache_dir="../model-cache/models/phi3-finetuned/cache",
        output_dir="../model-cache/models/phi3-finetuned",
    )
    rows = Dataset(
        name="dataset_default_train",
        load_dataset_config=LoadDataset(
            data_name="json",
            data_files=(PAGE / "dataset" / "dataset-classification.json",),
            split="train",
        ),
        pre_process_data_config=TextPreprocess(
            text_template="### Text: {phrase}\n### The tone is:\n{tone}",
            text_cols=("phrase", "tone"),
            strategy="join",
            max_seq_len=2048,
            pad_to_max_len=False,
            use_attention_mask=False,
            joiner=None,
        ),
    )
    assert [(named.name, named.type) for named in workflow.passes] == [
        ("lora", "LoRA"),
        ("merge_adapter_weights", "MergeAdapterWeights"),
        ("builder", "ModelBuilder"),
    ]
    assert workflow.passes[0].step == LoRA(
        train_data_config=rows,
        eval_dataset_size=0.3,
        target_modules=("o_proj", "qkv_proj"),
        r=64,
        alpha=64,
        lora_dropout=0.1,
        training_args=TrainingArgs(
            seed=0,
            data_seed=42,
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=4,
            gradient_checkpointing=False,
            learning_rate=0.0001,
            num_train_epochs=3,
            max_steps=10,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=187,
            train_sampling_strategy="group_by_length",
            adam_beta2=0.999,
            max_grad_norm=0.3,
        ),
    )
    assert workflow.passes[1].step == MergeAdapterWeights()
    assert workflow.passes[2].step == ExportGenAI(precision="int4", target=target)
    warned = [said.text for said in workflow.notes if said.level == "warning"]
    assert len(warned) == 4
    assert "double_quant has no effect under LoRA" in warned[0]
    words = 'engine.host "aml" runs no step under --system local; what it says of hf_token, '
    assert words + "aml_compute, aml_docker_config has no effect" in warned[1]
    assert "num_train_epochs has no effect beside max_steps: leave one out" in warned[2]
    assert (
        "eval_steps is more than max_steps (10): the loss is measured once, at the end" in warned[3]
    )


def test_the_page_as_it_stands_is_refused_with_the_remedy() -> None:
    words = (
        r"systems\.aml: has no workspace\n"
        r'  Write "azureml_client", or run with --system local\.'
    )
    with pytest.raises(Refused, match=words):
        make(load(PAGE / "olive-config.json"))


def test_every_key_of_the_pages_cloud_config_is_read() -> None:
    workflow = load(PAGE / "olive-config-cloud.json", system="local")
    assert workflow.input_model.model_path == Remote(
        type="azureml_registry_model",
        name="microsoft/Phi-3-mini-4k-instruct",
        registry_name="azureml-msr",
        version="11",
    )
    lora = workflow.passes[0].step
    assert isinstance(lora, LoRA)
    assert lora.train_data_config.load_dataset_config.data_files == Remote(
        type="azureml_datastore",
        azureml_client=AzureMLClient(
            subscription_id="Your Azure Subscrition ID",
            resource_group="Your Azure Resource Group",
            workspace_name="Your Azure ML Workspaces name",
        ),
        datastore_name="workspaceblobstore",
        relative_path="Your train_data.json Azure ML Location",
    )
    assert lora.train_data_config.load_dataset_config.local_files == ()


def test_a_missing_data_file_is_told_with_the_other_faults_or_by_the_plan(
    workspace: Workspace,
) -> None:
    data = {"name": "rows", "load_dataset_config": {"data_files": "absent.json"}}
    workspace.config["data_configs"] = [data]
    workspace.passes(lora={"type": "LoRA", "train_data_config": "rows", "lora_rr": 1})
    told = faults(workspace)
    place = "data_configs[0].load_dataset_config.data_files"
    file = workspace.folder / "absent.json"
    line = line_of(workspace, "absent.json")
    assert told[1] == (line, f"{place} names {file}, which is not there", "Mend the path.")
    assert len(told) == 2
    del workspace.config["passes"]["lora"]["lora_rr"]
    with pytest.raises(Refused, match=rf"config.json:\d+: {re.escape(place)}: names .*absent"):
        make(load(workspace.write()))


def faults(workspace: Workspace) -> list[tuple[int, str, str]]:
    """Return (line, what, remedy) of each fault of the config as it is now."""
    with pytest.raises(ConfigError, match="Nothing was run; mend the config and run again") as told:
        load(workspace.write())
    return [
        (int(fault.where.removeprefix("config.json:")), fault.what, fault.remedy)
        for fault in told.value.faults
    ]


def line_of(workspace: Workspace, text: str) -> int:
    lines = workspace.file.read_text().split("\n")
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_all_faults_at_once_each_with_its_line_and_the_nearest_name(workspace: Workspace) -> None:
    workspace.config["input_model"]["model_pth"] = "x"
    workspace.config["engin"] = {}
    workspace.config["engine"]["evaluator"] = "al"
    workspace.config["engine"]["cash_dir"] = "x"
    workspace.passes(
        back={"type": "Revers"},
        more={"type": "Append", "txt": "!"},
        even={"type": "Append", "text": 3},
        none={"text": "?"},
    )
    found = faults(workspace)
    whats = {what: (line, remedy) for line, what, remedy in found}
    expected = {
        'input_model.model_pth is unknown; did you mean "model_path"?': "model_pth",
        'engin is unknown; did you mean "engine"?': '"engin"',
        'engine.cash_dir is unknown; did you mean "cache_dir"?': "cash_dir",
        'passes.back.type "Revers" is not one of drupe\'s passes; did you mean "Reverse"?': "back",
        'passes.more.txt is unknown; did you mean "text"?': '"txt"',
        "passes.even.text: input should be a valid string (found 3)": '"text": 3',
        "passes.none.type is missing": '"none"',
    }
    for what, text in expected.items():
        assert what in whats, whats
        assert whats[what][0] in (line_of(workspace, text), line_of(workspace, text) + 1), what
        assert whats[what][1]


def test_a_data_config_is_checked_used_or_not(workspace: Workspace) -> None:
    workspace.config["data_configs"] = [
        {"name": "rows", "load_dataset_config": {"data_files": "rows.json"}},
        {"name": "rows", "load_dataset_config": {"data_fils": "rows.json"}},
    ]
    assert [what for _, what, _ in faults(workspace)] == [
        'data_configs[1].load_dataset_config.data_fils is unknown; did you mean "data_files"?',
        'data_configs[1].name "rows" is there twice',
    ]


def test_a_data_config_that_is_not_there(workspace: Workspace) -> None:
    workspace.config["data_configs"] = [
        {"name": "rows", "load_dataset_config": {"data_files": "rows.json"}}
    ]
    workspace.passes(lora={"type": "LoRA", "train_data_config": "row"})
    assert [(what, remedy) for _, what, remedy in faults(workspace)] == [
        (
            'passes.lora.train_data_config names no data config: "row"; did you mean "rows"?',
            "Known: rows.",
        )
    ]


def test_two_metrics_of_one_name_are_refused(workspace: Workspace) -> None:
    workspace.config["evaluators"]["all"]["metrics"] = [{"type": "Length"}, {"type": "Length"}]
    [(_, what, remedy)] = faults(workspace)
    assert what == 'evaluators.all.metrics[1] is the second that is named "Length"'
    assert remedy == 'Give each its own "name".'


def test_a_metric_among_the_passes_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe.catalog.PASSES._built_in", {"Length": "drupe_toys:Length"})
    workspace.passes(odd={"type": "Length"})
    [(_, what, _)] = faults(workspace)
    assert what == 'passes.odd.type "Length" is no pass'


def test_an_evaluator_that_nobody_names_is_a_warning(workspace: Workspace) -> None:
    del workspace.config["engine"]["evaluator"]
    said = [(said.level, said.text) for said in load(workspace.write()).notes]
    text = "no evaluator is used: engine.evaluator names none of `evaluators`"
    assert ("warning", text) in said


@pytest.mark.parametrize(
    ("asked", "provider"),
    [
        (None, "CPUExecutionProvider"),
        ("cpu", "CPUExecutionProvider"),
        ("cuda", "CUDAExecutionProvider"),
        ("gpu-cuda", "CUDAExecutionProvider"),
        ("dml", "DmlExecutionProvider"),
        ("WebGpuExecutionProvider", "WebGpuExecutionProvider"),
    ],
)
def test_the_target_that_is_asked_for(
    asked: str | None, provider: str, workspace: Workspace
) -> None:
    threads = usable_cores() if provider == "CPUExecutionProvider" else None
    target = load(workspace.write(), target=asked).target
    assert target == Target(provider=provider, threads=threads)


def test_an_unknown_target_or_system_is_refused(workspace: Workspace) -> None:
    with pytest.raises(Refused, match=r'--target: "cudo" is not a target; did you mean "cuda"\?'):
        load(workspace.write(), target="cudo")
    with pytest.raises(Refused, match=r'--system: "aml" is not there\n  Those that are: "local"'):
        load(workspace.write(), system="aml")


def test_the_output_that_is_asked_for_is_of_the_current_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(workspace.write(), output="out").engine.output_dir == str(tmp_path / "out")


# Any part of a config that works, replaced by anything: read, or refused in words; never a crash.

WHOLE: dict[str, Any] = {
    "input_model": {"type": "Files", "model_path": "input", "load_kwargs": {"revision": "r"}},
    "systems": {
        "here": {
            "type": "LocalSystem",
            "accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}],
        }
    },
    "data_configs": [
        {
            "name": "rows",
            "load_dataset_config": {"params": {"data_files": ["rows.json"]}},
            "pre_process_data_config": {"text_cols": ["a"], "dataset_type": "corpus"},
        }
    ],
    "evaluators": {"all": {"metrics": [{"name": "length", "type": "Length"}]}},
    "passes": {
        "lora": {
            "type": "LoRA",
            "config": {"train_data_config": "rows", "training_args": {"group_by_length": True}},
        },
        "more": {"type": "Append", "text": "!"},
    },
    "engine": {
        "host": "here",
        "target": "here",
        "evaluator": "all",
        "execution_providers": ["CUDAExecutionProvider"],
        "search_strategy": False,
    },
}


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where each part of a value stands."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield (*place, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*place, key))


ANYTHING = st.sampled_from(
    [None, True, 0, -1.5, "", "x", "rows", [], [1], ["x"], [None], [[]], [{}], {}, {"x": 1},
     {"type": 1}, {"type": "LoRA"}, {"type": {}}, {"config": {}}, {"x": {}}, {"params": 3}]
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(list(places(WHOLE))), ANYTHING), max_size=2))
def test_no_config_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[str | int, ...], Any]]
) -> None:
    config = json.loads(json.dumps(WHOLE))
    for place, value in changes:
        with suppress(KeyError, IndexError, TypeError):  # within what was replaced before
            within = config
            for step in place[:-1]:
                within = within[step]
            within[place[-1]] = copy.deepcopy(value)  # else a value may come to hold itself
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(config, indent=1))
    with suppress(Refused):
        assert isinstance(load(file), Workflow)


def test_the_whole_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "any.json").write_text(json.dumps(WHOLE))
    assert load(tmp_path / "any.json").target.provider == "CUDAExecutionProvider"
