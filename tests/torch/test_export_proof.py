"""The proof of an export: what it finds of damage in weights, graph and settings, and what it says.

That a sound export of every family is proven is tested with the families.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime_genai
import pytest
import torch
from test_export import damaged, exported, proven

from drupe.checkpoint.tensors import open_checkpoint
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export import export_proof, goldens, native
from drupe.export.deployed import DeployedWeights, read_stored
from drupe.export.families import read_decoder
from drupe.export.parts import Parts
from drupe.export.passes import ExportGenAI, ExportProof
from tests.make_decoders import make_decoder

ATTENTION, MLP = "layers.2.attention.qkv", "layers.1.mlp.gate"
CUDA = Target(provider="CUDAExecutionProvider")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder("llama", tmp_path_factory.mktemp("proof") / "llama", dtype=torch.bfloat16)


def changed(model: Model, folder: Path, tensor: str, change: Callable[[bytearray], None]) -> Model:
    """Copy an export with other bytes in one of its tensors."""
    shutil.copytree(model.path, folder)
    place = onnx_ir.load(folder / "model.onnx").graph.initializers[tensor].const_value
    assert isinstance(place, onnx_ir.ExternalTensor)
    assert place.offset is not None
    assert place.length is not None
    data = bytearray((folder / "model.onnx.data").read_bytes())
    part = data[place.offset : place.offset + place.length]
    change(part)
    data[place.offset : place.offset + place.length] = part
    (folder / "model.onnx.data").write_bytes(data)
    return Model("onnx-genai", folder, "")


# They differ in what is joined (Phi-3), tied, offset (norms of Gemma) or multiplied in (Granite).
@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3", "phi4-mini", "gemma3", "granite"])
@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "int4", "int4_is_symmetric": False, "quantize_embeddings": False},
        {"precision": "int8", "quantize_embeddings": True},
        {"precision": "int4", "int4_is_symmetric": False, "quantize_embeddings": True},
        {"precision": "int4", "target": CUDA, "int4_block_size": 128, "quantize_embeddings": False},
    ],
    ids=["asymmetric", "embedding", "both", "float16"],
)
def test_torch_computes_the_same_with_the_files_own_weights(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """Measured on all families: at most 6e-6, in 16 bits 0.015."""
    checkpoint = make_decoder(name, tmp_path / "checkpoint", dtype=torch.bfloat16)
    config = json.loads((checkpoint / "config.json").read_text())
    model, _, _ = exported(checkpoint, tmp_path / "out", **fields)
    score, _ = proven(model, checkpoint, tmp_path / "proof")
    assert score["passed"]
    assert score["arithmetic"] < (3e-2 if "target" in fields else 2e-5)
    assert score["arithmetic"] <= score["arithmetic_bound"]
    assert score["greedy_tokens"] > 0
    least, most = (0.003, 0.01) if fields["precision"] == "int8" else (0.05, 0.15)
    weights = score["weights"]
    parts = [weights[end] for end in ("head", "embedding") if end in weights]
    parts += [part for layer in weights["layers"] for part in layer.values()]
    exact = [] if fields.get("quantize_embeddings") else [weights["embedding"]]
    assert all(
        part["error"] == 0 if part in exact else least < part["error"] < most for part in parts
    )
    assert ("head" in weights) == (not read_decoder(config).tied or bool(exact)), "written once"
    assert len(score["layer_errors"]) == len(weights["layers"])


def test_a_searched_grid_is_proven_and_nearer(llama: Path, tmp_path: Path) -> None:
    errors = []
    for rounding in ("rtn", "mse"):
        model, _, _ = exported(
            llama, tmp_path / rounding, "int4", int4_is_symmetric=False, rounding=rounding
        )
        score, _ = proven(model, llama, tmp_path / f"{rounding}-proof")
        errors.append([layer["mlp"]["error"] for layer in score["weights"]["layers"]])
    assert all(mse < nearest for nearest, mse in zip(*errors, strict=True))


def test_the_bytes_of_all_parts_are_those_of_the_file(llama: Path, tmp_path: Path) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4", int4_is_symmetric=False)
    weights = proven(model, llama, tmp_path / "proof")[0]["weights"]
    parts = [weights["head"], weights["embedding"]]
    parts += [part for layer in weights["layers"] for part in layer.values()]
    told = sum(part["bytes"] for part in parts) + weights["other_bytes"]
    graph = onnx_ir.load(model.path / "model.onnx").graph
    held = {
        name: int(value.const_value.length or 0)
        for name, value in graph.initializers.items()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    }
    assert told == sum(size for name, size in held.items() if not name.startswith("rotary."))


def flip(part: bytearray) -> None:
    """Exchange the two codes of each byte of one block of 32."""
    at = 16 * 5
    part[at : at + 16] = bytes(byte >> 4 | (byte & 15) << 4 for byte in part[at : at + 16])


def add_to_one(part: bytearray) -> None:
    """Change the lowest bits of one value: of a scale, by a tenth or so."""
    part[4 * 7 + 2] ^= 0x10


@pytest.mark.parametrize("symmetric", [True, False])
def test_one_block_in_the_wrong_order_is_found(
    llama: Path, tmp_path: Path, symmetric: bool
) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4", int4_is_symmetric=symmetric)
    broken = changed(model, tmp_path / "broken", f"{ATTENTION}.codes", flip)
    with pytest.raises(
        DrupeError, match=f'in "{ATTENTION}" 1 blocks of rows 0 to 63 .* in row 2 from column 32 '
    ):
        proven(broken, llama, tmp_path / "proof")


@pytest.mark.parametrize(
    ("tensor", "change"),
    [
        ("lm_head.scales", add_to_one),
        ("lm_head.zero_points", lambda part: part.__setitem__(3, part[3] ^ 0x40)),
        ("model.embed_tokens.codes.flat", flip),
        ("model.layers.3.post_attention_layernorm.weight", add_to_one),
    ],
)
def test_one_wrong_value_is_found(
    llama: Path, tmp_path: Path, tensor: str, change: Callable[[bytearray], None]
) -> None:
    model, _, _ = exported(
        llama, tmp_path / "out", "int4", int4_is_symmetric=False, quantize_embeddings=True
    )
    graph = onnx_ir.load(model.path / "model.onnx").graph
    name = tensor if tensor in graph.initializers else tensor.removesuffix(".flat")
    broken = changed(model, tmp_path / "broken", name, change)
    stem = tensor.split(".codes")[0].removesuffix(".scales").removesuffix(".zero_points")
    with pytest.raises(DrupeError, match=f'does not hold .* in "{stem}" '):
        proven(broken, llama, tmp_path / "proof")


def test_scales_of_another_matrix_are_found(llama: Path, tmp_path: Path) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    names = (f"{MLP}.scales", "layers.2.mlp.gate.scales")
    broken = damaged(model, tmp_path / "broken", names)
    with pytest.raises(DrupeError, match=f'in "{MLP}" '):
        proven(broken, llama, tmp_path / "proof")


def test_an_error_all_over_a_matrix_is_found(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block is a little too coarse, none of them by much."""

    def coarse(*words: Any, **named: Any) -> Any:
        rounded = usual(*words, **named)
        rounded.scales.mul_(1.03)
        return rounded

    usual = native.ROUNDINGS["rtn"]
    monkeypatch.setitem(native.ROUNDINGS, "rtn", coarse)
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    with pytest.raises(
        DrupeError, match=r"its relative error is 0\.\d+, where rounding to nearest leaves 0\.08"
    ):
        proven(model, llama, tmp_path / "proof")


def test_a_file_that_is_cut_off_is_named(llama: Path, tmp_path: Path) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    data = model.path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(DrupeError, match=r"model.onnx.data is cut off: it has [\d,]+ bytes"):
        proven(model, llama, tmp_path / "proof")


def test_a_graph_that_computes_something_else_is_found(llama: Path, tmp_path: Path) -> None:
    """The weights are right; what is done with them is not, by less than rounding costs."""
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    file = model.path / "model.onnx"
    graph = onnx_ir.load(file)
    for node in graph.graph:
        if node.op_type == "GroupQueryAttention":
            scale = node.attributes["scale"].as_float()
            node.attributes["scale"] = onnx_ir.AttrFloat32("scale", scale * 1.001)
    onnx_ir.save(graph, file)
    with pytest.raises(DrupeError, match=r"with the same weights .* error of 0\.00.*bound 0.0001"):
        proven(model, llama, tmp_path / "proof")


def test_caches_that_are_read_wrongly_are_found_by_greedy_tokens(
    llama: Path, tmp_path: Path
) -> None:
    """Logits of a whole text are right: nothing is in a cache before it."""
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    file = model.path / "genai_config.json"
    settings = json.loads(file.read_text())
    outputs = settings["model"]["decoder"]["outputs"]
    names = ("present_key_names", "present_value_names")
    outputs[names[0]], outputs[names[1]] = outputs[names[1]], outputs[names[0]]
    file.write_text(json.dumps(settings))
    with pytest.raises(DrupeError, match=r"GenAI goes on with .* and torch, with the same weights"):
        proven(model, llama, tmp_path / "proof")


def misnamed_caches(model: Model, *providers: dict[str, Any]) -> None:
    """Have the settings name caches that the graph does not have: GenAI alone reads them."""
    file = model.path / "genai_config.json"
    settings = json.loads(file.read_text())
    decoder = settings["model"]["decoder"]
    decoder["inputs"]["past_key_names"] = "past.%d.keys"
    decoder["session_options"]["provider_options"] = list(providers)
    file.write_text(json.dumps(settings))


def test_what_genai_does_not_run_on_its_own_provider_fails(llama: Path, tmp_path: Path) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    misnamed_caches(model)
    with pytest.raises(DrupeError) as caught:
        proven(model, llama, tmp_path / "proof")
    told = caught.value
    assert told.where == "ExportProof"
    assert told.what.startswith(
        "the exported model does not run in ONNX Runtime GenAI on cpu, which it is for: "
    )
    assert told.what.endswith("Missing Input: past_key_values.0.key")
    assert told.remedy == (
        "Do not use this export: make it again. If that fails too, choose another precision or "
        "version of onnxruntime-genai."
    )
    job = Job(tmp_path, threads=1)
    with pytest.raises(DrupeError, match="does not run in ONNX Runtime GenAI on cpu"):
        goldens.greedy_on_floats(model, job, large=False)


def test_what_the_cpu_does_not_run_of_another_devices_model_is_no_fault(
    llama: Path, tmp_path: Path
) -> None:
    """No device but the CPU is here: what GenAI says of it on the CPU is no evidence."""
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    misnamed_caches(model, {"cuda": {}})
    score, events = proven(model, llama, tmp_path / "proof")
    assert score["passed"]
    assert score["greedy_tokens"] == 0
    assert [event for event in events if event["event"] == "warning"] == []
    told = json.loads((tmp_path / "proof" / "goldens.json").read_text())
    assert told["not_run"].endswith("Missing Input: past_key_values.0.key")


def test_prompts_that_the_context_has_no_room_for_are_left_out(tmp_path: Path) -> None:
    narrow = make_decoder("llama", tmp_path / "narrow", max_position_embeddings=20)
    model, _, _ = exported(narrow, tmp_path / "out", "int4")
    score, _ = proven(model, narrow, tmp_path / "proof")
    assert score["passed"]
    told = json.loads((tmp_path / "proof" / "goldens.json").read_text())
    assert told["not_run"] is None
    assert 0 < len(told["prompts"]) < len(goldens.PROMPTS)
    assert score["greedy_tokens"] > 0


# Relative errors measured of builder's folders: 0.40, 0.67 (bound 0.001); 0.166 (0.148).
@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("fp32", ("model.layers.1.attn.o_proj.MatMul.weight",)),
        ("int4", ("model.layers.1.mlp.down_proj.MatMul.weight_scales",)),
    ],
)
def test_a_broken_export_of_the_builder_is_found_by_its_logits(
    tiny_phi3: Path, tmp_path: Path, precision: Any, names: tuple[str]
) -> None:
    model, _, _ = exported(tiny_phi3, tmp_path / "out", precision, exporter="genai")
    score, _ = proven(model, tiny_phi3, tmp_path / "sound")
    assert score["passed"]
    assert "weights" not in score, "its layout is not ours"
    broken = damaged(model, tmp_path / "broken", names)
    with pytest.raises(DrupeError, match="does not compute what its checkpoint does: relative"):
        proven(broken, tiny_phi3, tmp_path / "proof")


def test_a_large_model_is_asked_less(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    usual, _ = proven(model, llama, tmp_path / "usual")
    monkeypatch.setattr(export_proof, "LARGE_BYTES", 1000)
    score, _ = proven(model, llama, tmp_path / "proof")
    assert score["positions"] < usual["positions"] / 2
    assert score["greedy_tokens"] < usual["greedy_tokens"]


def test_the_weights_of_an_export_are_read_by_transformers_names(
    llama: Path, tmp_path: Path
) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int8", quantize_embeddings=True)
    decoder = read_decoder(json.loads((llama / "config.json").read_text()))
    tensors = open_checkpoint(llama).stored
    parts = Parts(decoder, {name: each.spec for name, each in tensors.items()})
    stored = read_stored(model.path / "model.onnx", decoder, parts)
    assert stored is not None
    with DeployedWeights(model.path, decoder, stored) as deployed:
        for name, tensor in tensors.items():
            found = deployed.parameter(name)
            if len(tensor.spec.shape) == 1:
                assert found is None
                continue
            assert found is not None
            assert found.shape == tensor.spec.shape
        assert deployed.parameter("model.norm.weight") is None


def test_what_the_proof_takes_is_told_by_the_export() -> None:
    proof, floats = ExportProof(precision="int4"), ExportProof(precision="fp16")
    seconds, peak, output = proof.rule_of_thumb(2.5e9, 2_500_000_000)
    assert seconds is not None
    assert 100 < seconds < 300
    assert peak is not None
    assert 2.5e9 < peak < 3.8e9, "not the checkpoint, of 7.6 GB"
    assert output == 0
    assert (floats.rule_of_thumb(2.5e9, 2_500_000_000)[0] or 0) < seconds / 2, "fewer weights"
    assert proof.variant() == "-int4"
    assert ExportGenAI(precision="int8", target=CUDA).proof_fields() == {"precision": "int8"}


def test_a_model_that_does_not_fit_as_deployed_stays_in_its_file(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "int4")
    usual, _ = proven(model, llama, tmp_path / "usual")
    assert usual["value"] != pytest.approx(usual["rounding"], rel=1e-5), "activations in 8 bits"
    monkeypatch.setattr(goldens, "total_memory_bytes", lambda: 10**5)
    score, _ = proven(model, llama, tmp_path / "proof")
    assert score["passed"]
    assert score["value"] == pytest.approx(score["rounding"], rel=1e-5), "in float32"
    told = json.loads((tmp_path / "proof" / "goldens.json").read_text())
    assert told["not_run"] == "the model does not fit in the memory of this machine"
    assert told["files"]


def test_logits_that_are_no_numbers_are_no_answer(llama: Path, tmp_path: Path) -> None:
    model, _, _ = exported(llama, tmp_path / "out", "fp32")
    initializers = onnx_ir.load(model.path / "model.onnx").graph.initializers
    name = next(each for each in initializers if each.startswith("model.norm"))
    place = initializers[name].const_value
    assert isinstance(place, onnx_ir.ExternalTensor)
    with (model.path / "model.onnx.data").open("r+b") as data:
        data.seek(place.offset or 0)
        data.write(np.full(place.size, np.inf, np.float32).tobytes())
    with pytest.raises(FloatingPointError, match="its logits are not finite"):
        goldens.greedy(onnxruntime_genai.Model(str(model.path)), [5, 6, 7])
