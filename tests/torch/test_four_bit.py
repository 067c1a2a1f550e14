"""QLoRA, LoftQ and DoRA: what they train on, and merging that gives the model that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from training import adapter_bytes, lora_step, trained
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from drupe.checkpoint.four_bit import Dequantized, load_four_bit, round_trip
from drupe.checkpoint.quantized_base import FILE, QuantizedBase, quantized_base
from drupe.checkpoint.tensors import open_checkpoint
from drupe.core.errors import DrupeError, Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.evaluate.runtimes import TorchRuntime
from drupe.finetune import lora
from drupe.finetune.merge import merge
from drupe.finetune.merge_proof import prove
from drupe.finetune.passes import DoRA, LoftQ, LoRA, MergeAdapterWeights, MergeProof, QLoRA

PROBE = torch.arange(40).view(2, 20) * 7
STEPS = {"max_steps": 4, "learning_rate": 5e-3}


def step_of(kind: type[LoRA], phrases: Path, **fields: Any) -> LoRA:
    plain = lora_step(phrases, STEPS)
    return kind(**{name: getattr(plain, name) for name in LoRA.model_fields} | fields)


def adapter_of(step: LoRA, model: Path, place: Path) -> Model:
    out, _, _ = trained(step, model, place)
    return Model("hf-adapter", out, "", Model("hf", model, ""))


def merged_of(adapter: Model, place: Path, base: Any = "auto") -> tuple[Model, dict[str, Any]]:
    """Return the merged model and the score of its proof."""
    out, proof = place / "merged", place / "proof"
    for folder in (out, proof):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    merge(MergeAdapterWeights(base=base), adapter, out, Job(place))
    merged = Model("hf", out, "")
    prove(MergeProof(base=base), merged, adapter, proof, Job(place))
    score: dict[str, Any] = json.loads((proof / "score.json").read_text())
    return merged, score


def logits(network: Any) -> torch.Tensor:
    """Return the logits as training computes them, without dropout.

    Without a gradient bitsandbytes 0.50 multiplies in bfloat16 on a CPU with AVX512-BF16, whatever
    the compute type: 3e-3 away, measured.
    """
    for module in network.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    embedded = network.get_input_embeddings()(PROBE).detach().requires_grad_()
    found: torch.Tensor = network(inputs_embeds=embedded).logits.detach().float()
    return found


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def network_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def as_trained(adapter: Model, quantized: QuantizedBase) -> Any:
    """Return the 4-bit base with the adapter, as transformers and PEFT load the two."""
    assert adapter.base is not None
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantized.quant_type,
        bnb_4bit_use_double_quant=quantized.double_quant,
        bnb_4bit_compute_dtype=torch.float32,
    )
    network = AutoModelForCausalLM.from_pretrained(
        adapter.base.path, dtype=torch.float32, quantization_config=config
    )
    return PeftModel.from_pretrained(network, adapter.path)


@pytest.fixture(scope="module")
def qlora(tiny_phi3: Path, phrases: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    step = step_of(QLoRA, phrases, double_quant=True, torch_dtype="float32", target_modules=None)
    return adapter_of(step, tiny_phi3, tmp_path_factory.mktemp("qlora"))


def test_the_adapter_tells_what_it_was_trained_on(qlora: Model) -> None:
    quantized = quantized_base(qlora.path)
    assert quantized is not None
    assert (quantized.quant_type, quantized.double_quant) == ("nf4", True)
    assert (quantized.dtype, quantized.compute_dtype) == ("float32", "float32")
    kinds = {name.rpartition(".")[2] for name in quantized.modules}
    assert kinds == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, "the output layer is not"
    adapted = json.loads((qlora.path / "adapter_config.json").read_text())["target_modules"]
    assert set(adapted) == set(quantized.modules), "without target_modules all are adapted"


def test_merged_into_the_base_of_its_training_it_is_the_model_that_was_trained(
    qlora: Model, tmp_path: Path
) -> None:
    quantized = quantized_base(qlora.path)
    assert quantized is not None
    expected = logits(as_trained(qlora, quantized))
    merged, score = merged_of(qlora, tmp_path)
    assert score["passed"] is True
    found = distance(logits(network_of(merged.path)), expected)
    assert found < 2e-5, "measured 3e-7: float32, summed in another order"
    original, score = merged_of(qlora, tmp_path / "original", "original")
    assert score["passed"] is True
    assert distance(logits(network_of(original.path)), expected) > 1e-2, "another base's weights"


def test_it_is_scored_as_it_was_trained(qlora: Model) -> None:
    quantized = quantized_base(qlora.path)
    assert quantized is not None
    found = TorchRuntime(qlora, 1).logits(PROBE.tolist())
    assert distance(found, logits(as_trained(qlora, quantized))) < 2e-5, "measured 0"


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_merged_into_a_base_of_half_precision(
    stored: torch.dtype,
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    half = tmp_path / "half"
    shutil.copytree(tiny_phi3, half)
    AutoModelForCausalLM.from_pretrained(half, dtype=stored).save_pretrained(half)
    types: Any = {"torch_dtype": "float32", "compute_dtype": "bfloat16"}
    step = step_of(QLoRA, phrases, **types, target_modules=("o_proj",))
    adapter = adapter_of(step, half, tmp_path)
    merged, score = merged_of(adapter, tmp_path)
    assert score["value"] <= score["bound"]
    quantized = quantized_base(adapter.path)
    assert quantized is not None
    assert (quantized.dtype, quantized.compute_dtype) == ("float32", "bfloat16")
    expected = round_trip(open_checkpoint(half).read(O_PROJ), quantized)
    assert not torch.equal(open_checkpoint(merged.path).read(O_PROJ).float(), expected)
    alone = open_checkpoint(merged.path).read(QKV_PROJ)
    assert torch.equal(
        alone, round_trip(open_checkpoint(half).read(QKV_PROJ), quantized).to(stored)
    )


O_PROJ = "model.layers.0.self_attn.o_proj.weight"
QKV_PROJ = "model.layers.0.self_attn.qkv_proj.weight"


@pytest.mark.parametrize("kind", [DoRA, LoftQ])
def test_what_is_merged_is_what_was_trained(
    kind: type[LoRA],
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    adapter = adapter_of(step_of(kind, phrases, torch_dtype="float32"), tiny_phi3, tmp_path)
    quantized = quantized_base(adapter.path)
    if quantized is None:
        expected = logits(PeftModel.from_pretrained(network_of(tiny_phi3), adapter.path))
    else:
        expected = logits(as_trained(adapter, quantized))
    merged, score = merged_of(adapter, tmp_path)
    assert score["passed"] is True
    found = distance(logits(network_of(merged.path)), expected)
    assert found < 2e-5, "measured 3e-7 for both"


def test_dora_changes_the_length_of_rows(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    adapter = adapter_of(step_of(DoRA, phrases, torch_dtype="float32"), tiny_phi3, tmp_path)
    stored = load_file(adapter.path / "adapter_model.safetensors")
    magnitudes = {name for name in stored if name.endswith("lora_magnitude_vector")}
    assert len(magnitudes) == 4, "two layers, two modules"
    merged, _ = merged_of(adapter, tmp_path)
    name = min(magnitudes)
    weight = open_checkpoint(merged.path).read(
        name.removeprefix("base_model.model.").replace("lora_magnitude_vector", "weight")
    )
    assert torch.allclose(weight.norm(dim=1), stored[name], rtol=1e-5), "measured 1e-7"


def test_a_wrong_magnitude_is_seen(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    adapter = adapter_of(step_of(DoRA, phrases, torch_dtype="float32"), tiny_phi3, tmp_path)
    merged, _ = merged_of(adapter, tmp_path)
    plain = json.loads((adapter.path / "adapter_config.json").read_text())
    (adapter.path / "adapter_config.json").write_text(json.dumps({**plain, "lora_alpha": 40}))
    with pytest.raises(DrupeError, match="is not base \\+ adapter"):
        prove(MergeProof(), merged, adapter, tmp_path / "proof", Job(tmp_path))


def test_loftq_begins_nearer_to_the_base_than_four_bits_do(
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    step = step_of(LoftQ, phrases, torch_dtype="float32", r=16)
    model = Model("hf", tiny_phi3, "")
    started, quantized = lora._adapted(step, model, torch.float32, Job(tmp_path))
    assert quantized is not None
    assert quantized.start == "loftq"
    layer = started.get_submodule("base_model.model.model.layers.0.self_attn.o_proj")
    original = open_checkpoint(tiny_phi3).read(O_PROJ)
    rounded = round_trip(original, quantized)
    begun = rounded + layer.get_delta_weight("default")
    assert distance(begun, original) < 0.9 * distance(rounded, original), "measured 0.6 of it"
    adapter = adapter_of(step, tiny_phi3, tmp_path)
    with pytest.raises(DrupeError, match=r'base: is "original".*it would be added twice'):
        merged_of(adapter, tmp_path, "original")


def test_dequantized_is_refused_for_an_adapter_of_a_plain_base(
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    adapter = adapter_of(lora_step(phrases, STEPS), tiny_phi3, tmp_path)
    words = r'MergeAdapterWeights\.base: is "dequantized", but nothing tells that the adapter was'
    with pytest.raises(DrupeError, match=words):
        merged_of(adapter, tmp_path, "dequantized")
    refusal = MergeAdapterWeights(base="dequantized").refusal_of_source(adapter)
    assert refusal is not None
    assert "train with QLoRA" in refusal.remedy, "told at plan time too"
    assert MergeAdapterWeights().refusal_of_source(adapter) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "does not say how the base was quantized: Expecting"),
        ("[]", "does not say how the base was quantized"),
        ('{"format": 1, "method": "bitsandbytes"}', "does not say .*modules"),
    ],
)
def test_a_record_that_is_none(text: str, words: str, qlora: Model, tmp_path: Path) -> None:
    shutil.copytree(qlora.path, tmp_path / "adapter")
    file = tmp_path / "adapter" / FILE
    record = json.loads(file.read_text())
    file.write_text(text)
    with pytest.raises(Refused, match=words):
        quantized_base(tmp_path / "adapter")
    file.write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(Refused, match="is of format 2, by bitsandbytes: this version reads 1"):
        quantized_base(tmp_path / "adapter")


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([32, 64, 96]),
    st.sampled_from(["nf4", "fp4"]),
    st.booleans(),
    st.sampled_from(["float32", "bfloat16"]),
    st.integers(0, 99),
)
def test_the_round_trip_is_that_of_the_layer_in_training(
    rows: int, columns: int, quant_type: str, double_quant: bool, dtype: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows * 64, columns, generator=generator)
    kind = getattr(torch, dtype)
    layer = bitsandbytes.nn.Linear4bit(columns, rows * 64, bias=False, compute_dtype=kind)
    layer.weight = bitsandbytes.nn.Params4bit(
        weight.to(kind),
        requires_grad=False,
        compress_statistics=double_quant,
        quant_type=quant_type,
    )
    layer = layer.to("cpu")
    base = QuantizedBase(quant_type, double_quant, dtype, dtype, ())
    seen = layer(torch.eye(columns, dtype=kind)).T
    assert torch.equal(seen, round_trip(weight, base)), "bit for bit: each product is with 1 and 0"


@pytest.mark.parametrize(("quant_type", "double_quant"), [("nf4", True), ("fp4", False)])
def test_the_layers_are_held_and_multiplied_as_it_was_asked(
    quant_type: str, double_quant: bool, tiny_phi3: Path
) -> None:
    model = Model("hf", tiny_phi3, "")
    held, products = torch.float32, torch.bfloat16
    network, told = load_four_bit(model, quant_type, double_quant, held, products)
    assert told.modules
    for name in told.modules:
        layer: Any = network.get_submodule(name)
        state = layer.weight.quant_state
        assert layer.weight.dtype == torch.uint8, "two weights a byte"
        assert (state.quant_type, state.nested) == (quant_type, double_quant)
        assert (state.dtype, layer.compute_dtype) == (held, products)


def test_dequantized_reads_other_tensors_as_they_are(qlora: Model) -> None:
    assert qlora.base is not None
    quantized = quantized_base(qlora.path)
    assert quantized is not None
    plain, view = open_checkpoint(qlora.base.path), Dequantized(qlora.base.path, quantized)
    assert view.names == plain.names
    for name in plain.names:
        same = b"".join(plain.chunks(name)) == b"".join(view.chunks(name))
        assert same == (name.removesuffix(".weight") not in quantized.modules)
        assert view.spec(name) == plain.spec(name)


def test_killed_and_resumed_it_gives_the_bytes_of_an_unbroken_run(
    tiny_phi3: Path,
    phrases: Path,
    killed: Any,
    tmp_path: Path,
) -> None:
    step = step_of(QLoRA, phrases)
    arguments = step.training_args.model_copy(
        update={"max_steps": 6, "logging_steps": 2, "save_steps": 2}
    )
    step = step.model_copy(update={"training_args": arguments})
    whole, _, _ = trained(step, tiny_phi3, tmp_path, "whole")
    fault = killed(4)
    with pytest.raises(fault):
        trained(step, tiny_phi3, tmp_path, "broken")
    killed(None)
    resumed, job, _ = trained(step, tiny_phi3, tmp_path, "broken")
    assert job.facts["resumed_from"] in (2, 4)
    assert adapter_bytes(resumed) == adapter_bytes(whole)
