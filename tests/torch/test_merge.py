"""Merging an adapter, against PEFT's own merge, and the proof that catches a wrong one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapters import TARGETS, change_tensors, copied, make_adapter
from safetensors.torch import load_file
from tiny_models import make_tiny_phi3
from transformers import AutoModelForCausalLM

from drupe import plan
from drupe.checkpoint.tensors import open_checkpoint, tensor_bytes
from drupe.checkpoint.writer import CheckpointWriter
from drupe.config.load import load
from drupe.core.errors import DrupeError, Refused
from drupe.core.files import files_below
from drupe.core.job import Job
from drupe.core.model import Model, model_files
from drupe.finetune.merge import merge
from drupe.finetune.merge_proof import prove, rounding_bound
from drupe.finetune.passes import MergeAdapterWeights, MergeProof

O_PROJ = "base_model.model.model.layers.1.self_attn.o_proj"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def adapter(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Plain LoRA of the float32 model: read it only."""
    return make_adapter(tiny_phi3, tmp_path_factory.mktemp("adapters") / "plain")


def run_merge(adapter: Model, folder: Path) -> tuple[Model, Job, list[dict[str, Any]]]:
    folder.mkdir(parents=True)
    events: list[dict[str, Any]] = []
    job = Job(folder, send=events.append)
    merge(MergeAdapterWeights(), adapter, folder, job)
    return Model("hf", folder, ""), job, events


def run_proof(merged: Model, adapter: Model, folder: Path) -> tuple[dict[str, Any], list[str]]:
    folder.mkdir()
    events: list[dict[str, Any]] = []
    prove(MergeProof(), merged, adapter, folder, Job(folder, send=events.append))
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    return json.loads((folder / "score.json").read_text()), warnings


def merged_by_peft(adapter: Model, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    assert adapter.base is not None
    base = AutoModelForCausalLM.from_pretrained(adapter.base.path, dtype=dtype)
    merged = peft.PeftModel.from_pretrained(base, adapter.path).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def refused(adapter: Model, folder: Path, match: str) -> None:
    """Check that merging is refused in these words, and that nothing is written."""
    folder.mkdir()
    with pytest.raises(DrupeError, match=match) as caught:
        merge(MergeAdapterWeights(), adapter, folder, Job(folder))
    assert caught.value.where == "MergeAdapterWeights"
    assert list(folder.iterdir()) == []


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 8},
    "patterns": {
        "rank_pattern": {"o_proj": 2, "^model.layers.0.mlp.down_proj": 3, "gate_up_proj": 6},
        "alpha_pattern": {r"layers\.1\..*qkv_proj": 32, "down_proj": 1},
        "use_rslora": True,
    },
    "head": {"target_modules": [*TARGETS, "lm_head"]},
    "dora": {"use_dora": True},
    "dora and patterns": {"use_dora": True, "rank_pattern": {"o_proj": 2}, "use_rslora": True},
    "one layer": {"target_modules": ["o_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_merges_as_peft_does_in_float32(variant: str, tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_phi3, tmp_path / "adapter", **VARIANTS[variant])
    merged, job, _ = run_merge(adapter, tmp_path / "out")
    ours, theirs = open_checkpoint(merged.path), merged_by_peft(adapter, torch.float32)
    assert set(ours.names) == set(theirs)
    # Measured with peft 0.21.2: no difference at all; the order of sums is nobody's promise.
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours.read(name), tensor, rtol=1e-6, atol=1e-7)
    score, warnings = run_proof(merged, adapter, tmp_path / "proof")
    assert score["passed"] is True
    assert score["value"] < score["bound"] < score["effect"]
    assert warnings == []
    assert job.facts["dtype"] == "float32"
    assert job.facts["merged_tensors"] == score["layers"]
    assert 0.01 < job.facts["largest_relative_change"] < 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounds_once(dtype: torch.dtype, tmp_path: Path) -> None:
    base = make_tiny_phi3(tmp_path / "base", dtype=dtype)
    adapter = make_adapter(base, tmp_path / "adapter")
    merged, _, _ = run_merge(adapter, tmp_path / "out")
    ours = open_checkpoint(merged.path)
    # Merged in float32 PEFT's is exact but for the order of sums, so that a value of ours may at
    # most be on the other side of a tie.
    exact = merged_by_peft(adapter, torch.float32)
    rounded_by_peft = merged_by_peft(adapter, dtype)
    ours_off = theirs_off = 0.0
    for name, tensor in exact.items():
        assert ours.read(name).dtype == dtype
        error = (ours.read(name).float() - tensor).abs()
        assert bool((error <= rounding_bound(tensor, dtype) + 1e-6 * tensor.abs() + 1e-7).all())
        ours_off += float(error.square().sum())
        theirs_off += float((rounded_by_peft[name].float() - tensor).square().sum())
    # Measured with peft 0.21.2, which adds in float32 too: the same bits (relative rms error
    # 1.7e-3 in bfloat16, 2.1e-4 in float16). Never worse than PEFT's is what we promise.
    assert ours_off <= theirs_off * 1.0001 + 1e-9
    score, _ = run_proof(merged, adapter, tmp_path / "proof")
    assert score["passed"] is True


def test_shards_and_other_tensors(adapter: Model, tmp_path: Path) -> None:
    assert adapter.base is not None
    base = tmp_path / "base"
    shutil.copytree(adapter.base.path, base)
    source = open_checkpoint(adapter.base.path)
    (base / "model.safetensors").unlink()
    with CheckpointWriter(base, source.specs, 60_000) as writer:
        for spec in writer.order:
            writer.write(spec.name, [tensor_bytes(source.read(spec.name))])
    assert len(list(base.glob("*.safetensors"))) > 3
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    sharded = Model("hf-adapter", adapter.path, "", Model("hf", base, ""))
    merged, _, events = run_merge(sharded, tmp_path / "out")
    whole, _, _ = run_merge(adapter, tmp_path / "whole")
    first, second = load_file(merged.path / "model.safetensors"), open_checkpoint(whole.path)
    assert all(torch.equal(tensor, second.read(name)) for name, tensor in first.items())
    assert torch.equal(first["model.norm.weight"], source.read("model.norm.weight"))
    assert not (merged.path / "pytorch_model.bin").exists()
    assert not (merged.path / "model.safetensors.index.json").exists()
    assert (events[-1]["what"], events[-1]["done"]) == ("merging", source.size_bytes)


def test_adapters_tokenizer_wins(adapter: Model, tmp_path: Path) -> None:
    tuned = copied(adapter, tmp_path / "adapter")
    (tuned.path / "tokenizer_config.json").write_text('{"of": "the adapter"}')
    (tuned.path / "chat_template.jinja").write_text("{{ messages }}")
    (tuned.path / "training_args.bin").write_bytes(b"pickle")
    merged, _, _ = run_merge(tuned, tmp_path / "out")
    names = {file.name for file in merged.path.iterdir()}
    assert names == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert "the adapter" in (merged.path / "tokenizer_config.json").read_text()


def test_tied_embeddings(tmp_path: Path) -> None:
    base = make_tiny_phi3(tmp_path / "base", tie_word_embeddings=True)
    adapter = make_adapter(base, tmp_path / "adapter")
    merged, _, _ = run_merge(adapter, tmp_path / "out")
    assert "lm_head.weight" not in open_checkpoint(merged.path)
    assert run_proof(merged, adapter, tmp_path / "proof")[0]["passed"] is True
    head = make_adapter(base, tmp_path / "head", target_modules=["lm_head"])
    refused(head, tmp_path / "refused", "weights are tied to the embedding")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "LOHA"}, 'peft_type="LOHA"'),
        ({"bias": "lora_only"}, 'bias="lora_only"'),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=true"),
        ({"use_dora": True}, r"is DoRA, but lacks .*lora_magnitude_vector"),
        ({"lora_bias": True}, "lora_bias=true"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"a_field_of_tomorrow": 0.5}, "a_field_of_tomorrow=0.5"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base weights"),
        ({"r": 5}, "its rank 5 and the base's weight"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    settings: dict[str, Any], words: str, adapter: Model, tmp_path: Path
) -> None:
    refused(copied(adapter, tmp_path / "adapter", **settings), tmp_path / "out", words)


def test_refuses_what_peft_saves_of_other_methods(tiny_phi3: Path, tmp_path: Path) -> None:
    dora = make_adapter(tiny_phi3, tmp_path / "dora", use_dora=True)
    plain = copied(dora, tmp_path / "plain", use_dora=False)
    refused(plain, tmp_path / "out-dora", r"lora_magnitude_vector.*neither LoRA of a linear layer")
    saved = make_adapter(tiny_phi3, tmp_path / "saved", modules_to_save=["lm_head"])
    refused(saved, tmp_path / "out-saved", "modules_to_save")
    embedding = make_adapter(tiny_phi3, tmp_path / "embedding", target_modules=["embed_tokens"])
    refused(embedding, tmp_path / "out-embedding", "neither LoRA of a linear layer")


def test_trained_output_layer_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    """PEFT saves the adapted layer's own weights too: a copy is harmless, another weight is not."""
    head = make_adapter(tiny_phi3, tmp_path / "head", target_modules=["lm_head"])
    key = "base_model.model.lm_head.base_layer.weight"
    tensors = change_tensors(
        head.path / "adapter_model.safetensors", lambda tensors: tensors[key].add_(1)
    )
    assert key in tensors
    refused(head, tmp_path / "out", "nor a copy of the base's tensor")


def test_quantized_base_is_refused(adapter: Model, tmp_path: Path) -> None:
    assert adapter.base is not None
    shutil.copytree(adapter.base.path, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    quantized = Model("hf-adapter", adapter.path, "", Model("hf", tmp_path / "base", ""))
    refused(quantized, tmp_path / "out", "the base model is quantized")


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    for side in "AB":
        tensors[f"base_model.model.model.layers.9.o_proj.lora_{side}.weight"] = tensors.pop(
            f"{O_PROJ}.lora_{side}.weight"
        )


def _no_b(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{O_PROJ}.lora_B.weight"]


def _all_b_zero(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.zero_()


def _not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{O_PROJ}.lora_A.weight"][0, 0] = float("nan")


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{O_PROJ}.lora_A.weight"] = torch.ones(4, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename, r'has no tensor "model\.layers\.9\.o_proj\.weight": it is an adapter of another'),
        (_no_b, "holds only lora_A of"),
        (_all_b_zero, "has learnt nothing"),
        (_not_a_number, "no numbers"),
        (_narrow, r"A \[4, 32\]"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    change: Callable[[dict[str, torch.Tensor]], None], words: str, adapter: Model, tmp_path: Path
) -> None:
    bad = copied(adapter, tmp_path / "adapter")
    change_tensors(bad.path / "adapter_model.safetensors", change)
    refused(bad, tmp_path / "out", words)


def test_change_below_rounding(tmp_path: Path) -> None:
    base = make_tiny_phi3(tmp_path / "base", dtype=torch.float16)
    adapter = make_adapter(base, tmp_path / "adapter", size=1e-12)
    with pytest.raises(DrupeError, match=r"smaller than the rounding of float16\n.*float32"):
        run_merge(adapter, tmp_path / "out")


def test_values_that_the_type_cannot_hold(tmp_path: Path) -> None:
    base = make_tiny_phi3(tmp_path / "base", dtype=torch.float16)
    adapter = make_adapter(base, tmp_path / "adapter", size=1e6)
    with pytest.raises(DrupeError, match=r"torch\.float16 cannot hold"):
        run_merge(adapter, tmp_path / "out")


NAME = "model.layers.1.self_attn.o_proj.weight"


def _fault(fault: str, tensors: dict[str, torch.Tensor], adapter: Model) -> None:
    """Do to merged tensors what a wrong merge would do to them. The layer is square (64, 64)."""
    assert adapter.base is not None
    base = open_checkpoint(adapter.base.path)
    matrices = load_file(adapter.path / "adapter_model.safetensors")
    down, up = (matrices[f"{O_PROJ}.lora_{side}.weight"] for side in "AB")
    wrong_changes = {
        "one layer unmerged": torch.zeros(64, 64),
        "transposed": 2 * (up @ down).T,
        "A and B swapped": 2 * (down.view(64, 4) @ up.view(4, 64)),
        "merged twice": 4 * (up @ down),
        "not a number": torch.full((64, 64), float("nan")),
    }
    if fault in wrong_changes:
        changed = base.read(NAME).float() + wrong_changes[fault]
        tensors[NAME] = changed.to(tensors[NAME].dtype)
    elif fault == "another tensor":
        tensors["model.norm.weight"][3] += 0.5
    factor = {"the base": 0, "double scale": 2}.get(fault, 1)
    for name in tensors if factor != 1 else ():
        before = base.read(name).float()
        changed = before + factor * (tensors[name].float() - before)
        tensors[name] = changed.to(tensors[name].dtype)


FAULTS = {
    "one layer unmerged": r"o_proj\.weight.*further",
    "transposed": r"o_proj\.weight.*further",
    "A and B swapped": r"o_proj\.weight.*further",
    "double scale": "further",
    "merged twice": r"o_proj\.weight.*further",
    "not a number": r"4096 of 4096 values of a block of .*o_proj",
    "another tensor": r"model\.norm\.weight.* is not the base's",
    "the base": "further",
}


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def merged_and_adapter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Model]:
    folder = tmp_path_factory.mktemp("proof")
    base = make_tiny_phi3(folder / "base", dtype=request.param)
    adapter = make_adapter(base, folder / "adapter", size=0.01)
    return run_merge(adapter, folder / "merged")[0], adapter


@pytest.mark.parametrize("fault", FAULTS)
def test_proof_catches(fault: str, merged_and_adapter: tuple[Model, Model], tmp_path: Path) -> None:
    merged, adapter = merged_and_adapter
    shutil.copytree(merged.path, tmp_path / "wrong")
    change_tensors(
        tmp_path / "wrong" / "model.safetensors", lambda tensors: _fault(fault, tensors, adapter)
    )
    with pytest.raises(DrupeError, match=FAULTS[fault]) as caught:
        run_proof(Model("hf", tmp_path / "wrong", ""), adapter, tmp_path / "proof")
    assert caught.value.where == "MergeAdapterWeights"
    assert not (tmp_path / "proof" / "score.json").exists()


@pytest.mark.parametrize("fault", ["double scale", "the base", "one layer unmerged"])
def test_logits_alone_catch(
    fault: str,
    merged_and_adapter: tuple[Model, Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end-to-end comparison is no ornament: it finds faults with the weights' turned off."""
    merged, adapter = merged_and_adapter
    shutil.copytree(merged.path, tmp_path / "wrong")
    change_tensors(
        tmp_path / "wrong" / "model.safetensors", lambda tensors: _fault(fault, tensors, adapter)
    )
    monkeypatch.setattr("drupe.finetune.merge_proof._prove_layer", lambda *_: (1.0, 1.0))
    with pytest.raises(DrupeError, match=r"relative error of the logits .* bound"):
        run_proof(Model("hf", tmp_path / "wrong", ""), adapter, tmp_path / "proof")


def test_proof_sees_a_changed_config(adapter: Model, tmp_path: Path) -> None:
    merged, _, _ = run_merge(adapter, tmp_path / "out")
    shutil.copytree(merged.path, tmp_path / "wrong")
    config = json.loads((merged.path / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 100.0
    (tmp_path / "wrong" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DrupeError, match="relative error of the logits"):
        run_proof(Model("hf", tmp_path / "wrong", ""), adapter, tmp_path / "proof")


def test_effect_below_rounding_is_no_proof(tmp_path: Path) -> None:
    base = make_tiny_phi3(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", size=1e-5)
    merged, _, _ = run_merge(adapter, tmp_path / "out")
    score, warnings = run_proof(merged, adapter, tmp_path / "proof")
    assert score["passed"] is None
    assert "not proven by logits" in warnings[0]


def test_proof_without_tokenizer(adapter: Model, tmp_path: Path) -> None:
    merged, _, _ = run_merge(adapter, tmp_path / "out")
    for file in merged.path.glob("tokenizer*"):
        file.unlink()
    score, _ = run_proof(merged, adapter, tmp_path / "proof")
    assert score["passed"] is True
    assert score["positions"] == 4 * 48


def test_what_is_delivered_is_in_the_models_digest(adapter: Model, tmp_path: Path) -> None:
    """Whatever merging copies is what `model_files` says that the model is."""
    assert adapter.base is not None
    base = tmp_path / "base"
    shutil.copytree(adapter.base.path, base)
    (base / "additional_chat_templates").mkdir()
    for name in ("LICENSE", "NOTICE.md", "source.spm", "vocab.bpe", "tokenizer.own", "own.py"):
        (base / name).write_text("x")
    (base / "additional_chat_templates" / "tool.jinja").write_text("x")
    for name in ("README.md", "tokenizer.pkl", "picture.png"):
        (base / name).write_text("x")
    on_base = Model("hf-adapter", adapter.path, "", Model("hf", base, ""))
    merged, _, _ = run_merge(on_base, tmp_path / "out")
    delivered = {file.relative_to(merged.path) for file in files_below(merged.path)}
    known = {file.relative_to(base) for file in model_files(base)}
    assert delivered == known


def plan_without_tokenizer(adapter: Model, folder: Path, passes: dict[str, Any]) -> plan.Plan:
    """Return the plan of `passes` on the adapter's base, which is given no tokenizer."""
    assert adapter.base is not None
    base = folder / "base"
    shutil.copytree(adapter.base.path, base, ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(adapter.path, folder / "adapter")
    config = {
        "input_model": {"type": "HfModel", "model_path": "base", "adapter_path": "adapter"},
        "passes": passes,
        "engine": {"evaluate": "none"},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return plan.make(load(file))


def test_a_tokenizer_is_asked_for_where_text_is_read(adapter: Model, tmp_path: Path) -> None:
    merging = {"merge": {"type": "MergeAdapterWeights"}}
    exporting = {**merging, "builder": {"type": "ModelBuilder", "precision": "fp32"}}
    (tmp_path / "merging").mkdir()
    (tmp_path / "exporting").mkdir()
    planned = plan_without_tokenizer(adapter, tmp_path / "merging", merging)
    assert [step.name for step in planned.steps] == ["merge", "merge: proof"]
    with pytest.raises(Refused, match=r"base: has no tokenizer \(tokenizer\.json, "):
        plan_without_tokenizer(adapter, tmp_path / "exporting", exporting)
