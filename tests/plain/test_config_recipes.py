"""Configs in the style of Olive's public recipes: what each is read into, or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import canonical, load
from drupe.core.errors import ConfigError
from drupe.core.resource import Remote

RECIPES = Path(__file__).parent / "recipes"
MISSING = "that this version does not have"
NOT_DONE = "which is not done here"
# recipe -> the rules that fire, and the faults with which it ends
CASES: dict[str, tuple[str, list[str]]] = {
    "named-data-2023.json": ("N1 N14 N15 N2 N3 N4 N6", []),
    "components-061.json": ("N14 N15 N2 N4 N6 N8", []),
    "mlflow-062.json": ("N14 N4 N5", []),
    "entire-model.json": (
        "N5",
        ["input_model.config.model_file_format is PyTorch.StateDict, a format that is not read"],
    ),
    "today-flat.yaml": ("N14 N9", []),
    "older-arguments.yaml": ("N14 N6 N7 N9", []),
    "choice.json": (
        "",
        ["search_strategy compares by nothing: no metric is measured"],
    ),
    "search-2024.json": (
        "N14 N4 N6",
        [
            (
                "engine.search_strategy searches over nothing: no pass has alternatives, no field "
                "values to choose from"
            ),
            'pass_flows lists flows of passes ([["builder"]]), which is not done here',
        ],
    ),
    "onnx-passes.json": (
        "N19 N6",
        [
            f'passes.conversion.type "OnnxConversion" is one of Olive\'s passes {MISSING}',
            (
                'passes.transformers_optimization.type "OrtTransformersOptimization" is one of '
                f"Olive's passes {MISSING}"
            ),
            f'passes.quantization.type "OnnxMatMul4Quantizer" is one of Olive\'s passes {MISSING}',
            f'passes.tuning.type "OrtSessionParamsTuning" is one of Olive\'s passes {MISSING}',
            (
                'passes.misspelt.type "ModelBuilde" is not one of drupe\'s passes; did you mean '
                '"ModelBuilder"?'
            ),
        ],
    ),
    "elsewhere.json": (
        "N14",
        [
            "engine.enable_shared_cache asks for a shared cache (true), which is not done here",
            'systems.container.type is "Docker", which this version does not have',
        ],
    ),
    "auto.json": (
        "N14",
        [
            (
                'auto_optimizer_config asks for passes to be chosen ({"precisions": ["fp16"]}), '
                f"{NOT_DONE}"
            ),
        ],
    ),
    "resources.json": ("", []),
    "quantizers-today.json": ("N14 N17 N18", []),
    "pair.json": ("N15 N2 N4 N6", []),
}


def test_each_recipe_has_a_case() -> None:
    assert {file.name for file in RECIPES.iterdir() if file.is_file()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_a_recipe_is_read_into(name: str) -> None:
    rules, expected = CASES[name]
    _, notes, _ = canonical(RECIPES / name)
    assert sorted({note.rule for note in notes}) == rules.split()
    if not expected:
        load(RECIPES / name)
        return
    with pytest.raises(ConfigError, match="Nothing was run") as caught:
        load(RECIPES / name)
    assert sorted(fault.what for fault in caught.value.faults) == sorted(expected)
    for fault in caught.value.faults:
        file, _, line = fault.where.rpartition(":")
        assert (file, line.isdigit(), bool(fault.remedy)) == (name, True, True)


@pytest.mark.parametrize("name", [name for name, (_, faults) in CASES.items() if not faults])
def test_what_was_upgraded_is_read_as_the_same(name: str, tmp_path: Path) -> None:
    """As `drupe config upgrade` would write it."""
    root, _, _ = canonical(RECIPES / name)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(root))
    again, notes, _ = canonical(file)
    assert again == root
    assert {note.rule for note in notes} <= {"N7"}, "N7 tells what is done, and changes nothing"


def steps(name: str) -> dict[str, Any]:
    return {named.name: named.step for named in load(RECIPES / name).passes}


def test_the_values_of_params_config() -> None:
    rows = steps("named-data-2023.json")["lora"].train_data_config
    assert rows.name == "tones"
    assert rows.load_dataset_config.split == "train[:90%]"
    preprocess = rows.pre_process_data_config
    assert (preprocess.strategy, preprocess.max_seq_len, preprocess.joiner) == ("join", 1024, None)
    assert preprocess.pad_to_max_len is False
    workflow = load(RECIPES / "named-data-2023.json")
    assert workflow.target.provider == "CUDAExecutionProvider"
    assert workflow.passes[2].type == "ModelBuilder"


def test_params_config_outweighs_the_component() -> None:
    lora = steps("components-061.json")["lora"]
    rows = lora.train_data_config
    assert rows.load_dataset_config.local_files == (RECIPES / "data" / "rows.json",)
    assert rows.pre_process_data_config.max_seq_len == 256
    assert rows.pre_process_data_config.strategy == "line-by-line", "the default of 2024"
    assert lora.lora_dropout == 0.0, "the default of 2024"


def test_yaml_means_what_json_means() -> None:
    lora = steps("today-flat.yaml")["l"]
    assert lora.training_args.learning_rate == 1e-4
    assert lora.training_args.eval_strategy == "no"
    assert lora.training_args.optim == "auto"
    assert lora.lora_dropout == 0.05, "today's default"
    preprocess = lora.train_data_config.pre_process_data_config
    assert preprocess.text_template == "### Text: {phrase}\n### The tone is:\n{tone}"
    assert preprocess.joiner == "\n\n", "today's default"
    assert load(RECIPES / "today-flat.yaml").target.provider == "CUDAExecutionProvider"


def test_pairs_and_a_users_function() -> None:
    step = steps("pair.json")["qlora"]
    assert (step.r, step.double_quant, step.lora_dropout) == (8, True, 0.0)
    pairs = step.train_data_config.pre_process_data_config
    assert (pairs.pair_format, pairs.strategy) == ("custom", "line-by-line")
    assert (pairs.input_template, pairs.output_template) == ("{question}", "{answer}")
    assert (pairs.max_seq_len, pairs.target_max_len) == (64, 32)
    own = step.eval_data_config.pre_process_data_config
    assert own.user_script == RECIPES / "data" / "user_script.py"
    assert (own.text_formatting_func, own.random_seed) == ("text", 7)


def test_older_training_arguments() -> None:
    arguments = steps("older-arguments.yaml")["lora"].training_args
    assert arguments.per_device_train_batch_size == 2
    assert arguments.eval_strategy == "epoch"
    assert arguments.warmup_steps == 0.03
    assert arguments.train_sampling_strategy == "group_by_length"
    assert arguments.optim == "adafactor"


def test_what_lies_on_azureml_is_read() -> None:
    model = load(RECIPES / "mlflow-062.json").input_model.model_path
    assert isinstance(model, Remote)
    assert model.uri == "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/7"
    workflow = load(RECIPES / "resources.json")
    assert workflow.input_model.model_path == "model"
    rows: Any = workflow.passes[0].step
    files = rows.train_data_config.load_dataset_config.data_files
    assert files.uri == "azureml://datastores/d/paths/rows.json"


def test_what_is_asked_for_in_vain_is_a_warning() -> None:
    notes = load(RECIPES / "components-061.json").notes
    warned = [said.text.partition(": ")[2] for said in notes if said.level == "warning"]
    assert (
        "engine.clean_cache has no effect: run with --force to work again what is cached" in warned
    )
    assert (
        'engine.evaluate_input_model has no effect: engine.evaluate ("ends", "none") says it'
        in warned
    )
    assert any("double_quant has no effect under LoRA" in text for text in warned)


def test_a_warning_is_a_fault_under_strict() -> None:
    with pytest.raises(ConfigError, match="Mend it, or run without --strict") as caught:
        load(RECIPES / "components-061.json", strict=True)
    told = [(fault.where, fault.what) for fault in caught.value.faults]
    assert (
        "components-061.json:26",
        "passes.lora.config.double_quant has no effect under LoRA; for a 4-bit base write QLoRA",
    ) in told


def test_a_pass_that_rounds_weights_is_one_with_the_export() -> None:
    (export,) = steps("quantizers-today.json").values()
    assert (export.precision, export.int4_block_size, export.int4_accuracy_level) == ("int4", 32, 4)
    assert (export.rounding, export.int4_is_symmetric) == ("rtn", True)
    assert export.quantize_embeddings is True
