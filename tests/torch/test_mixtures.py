"""A mixture of experts goes to the builder where that knows it; else it is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import PretrainedConfig

from drupe.cli import main
from drupe.core.errors import Refused
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export.families import FAMILIES, mixture_of_experts
from drupe.export.passes import ARCHITECTURES, MIXTURES, Exporter, ExportGenAI

# Class of the model: experts in a layer, as the class's own configuration has them.
NEITHER_KNOWS = {
    "MixtralForCausalLM": 8,
    "Qwen2MoeForCausalLM": 60,
    "Qwen3MoeForCausalLM": 128,
    "OlmoeForCausalLM": 64,
    "DeepseekV3ForCausalLM": 256,
    "GraniteMoeForCausalLM": 8,
    "DbrxForCausalLM": 4,
    "Ernie4_5_MoeForCausalLM": 64,
    "Llama4ForConditionalGeneration": 16,
}
THE_BUILDER_KNOWS = {"GptOssForCausalLM": 128, "PhiMoEForCausalLM": 16, "Lfm2MoeForCausalLM": 32}
CLASSES_OF_TRANSFORMERS = {"PhiMoEForCausalLM": "PhimoeForCausalLM"}  # else by the same name


def config_of(name: str, **changed: Any) -> dict[str, Any]:
    """Return what transformers writes to config.json for a model of a class."""
    found = getattr(transformers, CLASSES_OF_TRANSFORMERS.get(name, name)).config_class()
    assert isinstance(found, PretrainedConfig)
    return {**found.to_dict(), "architectures": [name], **changed}


def model_of(folder: Path, config: dict[str, Any]) -> Model:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return Model("hf", folder, "")


def refused(source: Model, exporter: Exporter = "auto") -> Refused | None:
    """Return why an export of `source` is refused, as a plan asks."""
    step = ExportGenAI(precision="int4", target=Target(), exporter=exporter)
    return step.settled(source)[0].refusal_of_source(source)


@pytest.mark.parametrize(("name", "count"), NEITHER_KNOWS.items())
def test_what_neither_knows_is_refused_by_name(name: str, count: int, tmp_path: Path) -> None:
    source = model_of(tmp_path, config_of(name))
    fault = refused(source)
    assert fault is not None
    assert fault.where == "ModelBuilder"
    assert fault.what == (
        f"cannot export {name}: it is a mixture of experts ({count} in a layer), which neither "
        "drupe nor ONNX Runtime GenAI's builder knows"
    )
    assert fault.remedy == (
        f"Choose a model without experts, of {', '.join(FAMILIES)}, or a mixture that the "
        "builder knows: GptOssForCausalLM, GraniteMoeHybridForCausalLM, Lfm2MoeForCausalLM, "
        "PhiMoEForCausalLM."
    )


@pytest.mark.parametrize(("name", "count"), THE_BUILDER_KNOWS.items())
def test_what_the_builder_knows_goes_there(name: str, count: int, tmp_path: Path) -> None:
    source = model_of(tmp_path, config_of(name))
    step = ExportGenAI(precision="int4", target=Target())
    settled, note = step.settled(source)
    assert settled.exporter == "genai"
    assert note.startswith(f"{name} is exported by ONNX Runtime GenAI's builder")
    assert refused(source) is None
    fault = refused(source, "native")
    assert fault is not None
    assert fault.what == (
        f"cannot export {name}: it is a mixture of experts ({count} in a layer), which drupe's "
        "own exporter does not do"
    )
    assert fault.remedy == ('Leave "exporter" out: ONNX Runtime GenAI\'s builder does this one.')


def test_the_native_exporter_is_not_told_to_leave_it_to_who_does_not_know(tmp_path: Path) -> None:
    fault = refused(model_of(tmp_path, config_of("MixtralForCausalLM")), "native")
    assert fault is not None
    assert fault.remedy.startswith("Choose a model without experts")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_dense_family_is_no_mixture(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    assert mixture_of_experts(config) == ""
    stray = model_of(tmp_path, {**config, "num_local_experts": 8})  # which its class does not read
    fault = refused(stray)
    assert fault is None or "experts" not in fault.what


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_experts": None}, ""),
        ({"num_local_experts": 0}, ""),
        ({"num_experts": 1}, ""),
        ({"num_experts": True}, ""),
        ({"text_config": {"num_experts": 4}}, "a mixture of experts (4 in a layer)"),
        ({"text_config": None}, ""),
        ({"architectures": ["HunYuanMoEV1ForCausalLM"]}, "a mixture of experts"),
        ({"architectures": ["GraniteMoeHybridForCausalLM"], "num_local_experts": 0}, ""),
    ],
)
def test_how_a_config_tells_of_experts(config: dict[str, Any], words: str) -> None:
    assert mixture_of_experts(config) == words


def test_the_mixtures_that_the_builder_knows_are_among_its_models() -> None:
    assert {f"{name}ForCausalLM" for name in MIXTURES} <= set(ARCHITECTURES)


def test_a_plan_refuses_a_mixture(
    tmp_path: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_phi3, tmp_path / "model")
    small = transformers.MixtralConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    transformers.MixtralForCausalLM(small).save_pretrained(tmp_path / "model")
    job = {
        "input_model": {"type": "HfModel", "model_path": "model"},
        "passes": {"builder": {"type": "ModelBuilder", "precision": "int4"}},
        "engine": {"evaluate": "none"},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert main(["plan", str(tmp_path / "job.json")]) == 2
    told = capsys.readouterr().err
    assert "cannot export MixtralForCausalLM: it is a mixture of experts (4 in a layer)" in told
    assert main(["inspect", str(tmp_path / "model")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "cannot be exported: it is a mixture of experts (4 in a layer)" in told
