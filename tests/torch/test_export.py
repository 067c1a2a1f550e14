"""Export by drupe and by ONNX Runtime GenAI's builder, and the proof of what they wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime_genai
import pytest
import torch
from tiny_models import make_tiny_phi3
from transformers import AutoModelForCausalLM, AutoTokenizer

from drupe.checkpoint.streamed import NamesDifferError
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export import reference
from drupe.export.export_proof import Exported, prove, read_precision
from drupe.export.exporter import export
from drupe.export.folder import check_no_path_left
from drupe.export.passes import LOADABLE, ExportGenAI, ExportProof, Precision
from drupe.export.reference import round_in_place
from drupe.quantize.grid import Grid
from tests.greedy import greedy
from tests.make_models import FAMILIES, make

CUDA = Target(provider="CUDAExecutionProvider")


def exported(
    checkpoint: Path, out: Path, precision: Precision, target: Target | None = None, **fields: Any
) -> tuple[Model, Job, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    job = Job(out.parent / "scratch", threads=1, send=events.append)
    step = ExportGenAI(precision=precision, target=target or Target(threads=2), **fields)
    out.mkdir()
    export(step, Model("hf", checkpoint, ""), out, job)
    return Model("onnx-genai", out, ""), job, events


def proven(model: Model, checkpoint: Path, out: Path) -> tuple[dict[str, Any], list[Any]]:
    events: list[dict[str, Any]] = []
    out.mkdir(exist_ok=True)
    job = Job(out, threads=1, send=events.append)
    prove(ExportProof(), model, Model("hf", checkpoint, ""), out, job)
    return json.loads((out / "score.json").read_text()), events


def damaged(model: Model, folder: Path, names: tuple[str, str] | tuple[str]) -> Model:
    """Copy an export with the tensor names[0] zeroed, or swapped with names[1]."""
    shutil.copytree(model.path, folder)
    tensors = onnx_ir.load(folder / "model.onnx").graph.initializers
    data = bytearray((folder / "model.onnx.data").read_bytes())
    places = []
    for name in names:
        tensor = tensors[name].const_value
        assert isinstance(tensor, onnx_ir.ExternalTensor)
        places.append(slice(tensor.offset, tensor.offset + tensor.length))
    if len(places) == 1:
        data[places[0]] = bytes(len(data[places[0]]))
    else:
        data[places[0]], data[places[1]] = data[places[1]], data[places[0]]
    (folder / "model.onnx.data").write_bytes(data)
    return Model("onnx-genai", folder, "")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 checkpoint with the habits of a chat model."""
    folder = make_tiny_phi3(
        tmp_path_factory.mktemp("export") / "checkpoint", dtype=torch.bfloat16, begin=True
    )
    (folder / "chat_template.jinja").write_text(
        "<s>{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}answer: {% endif %}"
    )
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    settings |= {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
    file.write_text(json.dumps(settings))
    return folder


# Measured: fp32 2e-7, int8 0.0097 (rounding alone 0.0071), int4 0.1124 (rounding alone 0.1124).
@pytest.mark.parametrize("exporter", ["native", "genai"])
@pytest.mark.parametrize("precision", LOADABLE["cpu"])
def test_every_cpu_precision_loads_answers_and_is_proven(
    checkpoint: Path, tmp_path: Path, precision: Precision, exporter: str
) -> None:
    model, job, events = exported(checkpoint, tmp_path / "out", precision, exporter=exporter)
    assert "probe_tokens" in job.facts
    kinds = {event["event"] for event in events}
    assert kinds <= {"progress"}, "no warning about the tokenizer"
    settings = json.loads((model.path / "genai_config.json").read_text())
    assert settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] == 2
    score, _ = proven(model, checkpoint, tmp_path / "proof")
    assert score["passed"]
    assert score["precision"] == precision
    assert score["value"] <= score["bound"]


@pytest.mark.parametrize("exporter", ["native", "genai"])
def test_the_settings_of_the_checkpoint_arrive_and_its_path_does_not(
    checkpoint: Path, tmp_path: Path, exporter: str
) -> None:
    model, _, _ = exported(checkpoint, tmp_path / "out", "fp32", Target(), exporter=exporter)
    settings = json.loads((model.path / "genai_config.json").read_text())
    search = settings["search"]
    assert (search["do_sample"], search["temperature"]) == (True, 0.7)
    assert (search["top_p"], search["repetition_penalty"]) == (0.9, 1.1)
    assert "intra_op_num_threads" not in settings["model"]["decoder"]["session_options"]
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(model.path)))
    said = tokenizer.apply_chat_template('[{"role": "user", "content": "hi"}]')
    assert said == "<s>user: hi\nanswer: "
    for file in model.path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(checkpoint).encode() not in file.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_two_exports_have_the_same_bytes(
    checkpoint: Path, tmp_path: Path, precision: Precision
) -> None:
    first, _, _ = exported(checkpoint, tmp_path / "first", precision)
    second, _, _ = exported(checkpoint, tmp_path / "second", precision)
    names = sorted(file.name for file in first.path.iterdir())
    assert names == sorted(file.name for file in second.path.iterdir())
    for name in names:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert "GIT_DIR" not in os.environ


@pytest.mark.parametrize("family", ["phi3", *FAMILIES])
def test_greedy_answers_are_those_of_transformers(
    tiny_phi3: Path, tmp_path: Path, family: str
) -> None:
    checkpoint = tiny_phi3 if family == "phi3" else make(family, tmp_path / "checkpoint")
    model, _, _ = exported(checkpoint, tmp_path / "out", "fp32")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer("### Text: They shouted at us", return_tensors="pt")["input_ids"]
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    theirs = network.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    ours = greedy(model.path, ids[0].tolist(), 24, to_the_end=True)
    assert ours == theirs[: len(ours)].tolist()
    assert len(ours) > 4


def test_fields_reach_the_graph(checkpoint: Path, tmp_path: Path) -> None:
    model, _, _ = exported(
        checkpoint, tmp_path / "out", "int4", int4_block_size=64, int4_accuracy_level=1
    )
    assert read_precision(model.path / "model.onnx") == Exported("int4", Grid(4, 64), "fp32")
    nodes = list(onnx_ir.load(model.path / "model.onnx").graph)
    levels = {n.attributes["accuracy_level"].as_int() for n in nodes if n.op_type == "MatMulNBits"}
    assert levels == {1}


def test_a_model_without_embeddings_and_head_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    model, job, events = exported(
        checkpoint, tmp_path / "out", "fp32", exclude_embeds=True, exclude_lm_head=True
    )
    inputs = [value.name for value in onnx_ir.load(model.path / "model.onnx").graph.inputs]
    assert "input_ids" not in inputs
    assert "probe_tokens" not in job.facts
    assert "not run" in events[-1]["text"]
    score, warnings = proven(model, checkpoint, tmp_path / "proof")
    assert "takes no token ids" in score["skipped"]
    assert warnings[-1]["event"] == "warning"
    assert score["weights"]["layers"][1]["mlp"]["bytes"] > 0, "the weights are proven all the same"


def test_another_provider_is_checked_but_not_run(checkpoint: Path, tmp_path: Path) -> None:
    model, job, events = exported(checkpoint, tmp_path / "out", "int4", CUDA)
    assert "probe_tokens" not in job.facts
    assert "not run: CUDAExecutionProvider" in events[-1]["text"]
    score, _ = proven(model, checkpoint, tmp_path / "proof")
    assert score["passed"]
    assert score["ran_on"] == "CPUExecutionProvider"


def test_pairs_that_no_runtime_loads_are_refused_before_the_run() -> None:
    refused = ExportGenAI(precision="bf16", target=Target()).refusal("hf", Target())
    assert refused is not None
    assert "bf16 for CPUExecutionProvider" in refused.what
    assert refused.remedy == "Choose one of fp32, int8, int4."
    assert ExportGenAI(precision="fp32", target=CUDA).refusal("hf", CUDA) is not None
    assert ExportGenAI(precision="int4", target=Target()).refusal("hf", Target()) is None


@pytest.mark.parametrize(("precision", "target"), [("bf16", Target()), ("fp32", CUDA)])
def test_what_was_written_but_does_not_run_is_an_error(
    checkpoint: Path, tmp_path: Path, precision: Precision, target: Target
) -> None:
    with pytest.raises(DrupeError, match=f"{precision} for {target.provider} was written, but"):
        exported(checkpoint, tmp_path / "out", precision, target, exporter="genai")


def test_an_unknown_architecture_is_named(tiny_phi3: Path, tmp_path: Path) -> None:
    strange = shutil.copytree(tiny_phi3, tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(
        json.dumps(config | {"architectures": ["PlumForCausalLM"]})
    )
    with pytest.raises(DrupeError, match="does not export PlumForCausalLM"):
        exported(strange, tmp_path / "out", "int4")


def test_a_checkpoint_without_tokenizer_is_an_error(tiny_phi3: Path, tmp_path: Path) -> None:
    mute = shutil.copytree(tiny_phi3, tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mute / name).unlink()
    with pytest.raises(DrupeError, match="has no tokenizer that can be read"):
        exported(mute, tmp_path / "out", "int4")


LAST_MLP = "layers.1.mlp.down"
LAST_OUTPUT = "layers.1.attention.output"
FIRST_OUTPUT = "layers.0.attention.output"


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("fp32", (f"{LAST_OUTPUT}.weight",)),
        ("fp32", (f"{FIRST_OUTPUT}.weight", f"{LAST_OUTPUT}.weight")),
        ("fp32", ("model.layers.0.input_layernorm.weight",)),
        ("int8", (f"{LAST_MLP}.scales",)),
        ("int4", (f"{LAST_MLP}.scales",)),
        ("int4", (f"{FIRST_OUTPUT}.codes", f"{LAST_OUTPUT}.codes")),
    ],
)
def test_a_broken_export_fails(
    tiny_phi3: Path, tmp_path: Path, precision: Precision, names: tuple[str]
) -> None:
    model, _, _ = exported(tiny_phi3, tmp_path / "out", precision)
    broken = damaged(model, tmp_path / "broken", names)
    named = re.escape(names[0].removesuffix(".codes").removesuffix(".scales"))
    with pytest.raises(DrupeError, match=f'does not hold what its checkpoint does: in "{named}'):
        proven(broken, tiny_phi3, tmp_path / "proof")


def test_an_export_of_another_checkpoint_fails(tiny_phi3: Path, tmp_path: Path) -> None:
    model, _, _ = exported(tiny_phi3, tmp_path / "out", "int4")
    other = make_tiny_phi3(tmp_path / "other", seed=1)
    with pytest.raises(DrupeError, match="does not hold what its checkpoint does"):
        proven(model, other, tmp_path / "proof")


def test_tied_embeddings_are_proven(tmp_path: Path) -> None:
    tied = make_tiny_phi3(tmp_path / "tied", tie_word_embeddings=True, dtype=torch.bfloat16)
    model, _, _ = exported(tied, tmp_path / "out", "int4")
    score, _ = proven(model, tied, tmp_path / "proof")
    assert score["passed"]


def test_the_proof_is_skipped_where_a_checkpoint_can_be_neither_streamed_nor_loaded(
    tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = exported(tiny_phi3, tmp_path / "out", "int4", exporter="genai")
    monkeypatch.setattr(reference, "streamed_model", _names_differ)
    score, _ = proven(model, tiny_phi3, tmp_path / "whole")
    assert score["passed"], "loaded whole"
    monkeypatch.setattr(reference, "total_memory_bytes", lambda: 1000)
    score, events = proven(model, tiny_phi3, tmp_path / "proof")
    assert score["passed"] is None
    assert "does not fit in the memory" in events[-1]["text"]


def _names_differ(*_: Any, **__: Any) -> Any:
    """Stand for what transformers does to the names of a mixture of experts."""
    raise NamesDifferError("folder", "holds other names", "")


@pytest.mark.parametrize(("bits", "block_size"), [(4, 32), (4, 128), (8, 32)])
def test_rounding_is_that_of_the_exported_weights(
    tiny_phi3: Path, tmp_path: Path, bits: int, block_size: int
) -> None:
    """Dequantize the graph's own weight: (q - zero) * scale, block by block."""
    precision: Precision = "int4" if bits == 4 else "int8"
    model, _, _ = exported(tiny_phi3, tmp_path / "out", precision, int4_block_size=block_size)
    tensors = onnx_ir.load(model.path / "model.onnx").graph.initializers
    packed = tensors[f"{LAST_OUTPUT}.codes"].const_value.numpy()  # (out, blocks, bytes)
    scales = tensors[f"{LAST_OUTPUT}.scales"].const_value.numpy().reshape(*packed.shape[:2], 1)
    pairs = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
    values = pairs if bits == 4 else packed
    theirs = (values.astype(np.float32) - 2 ** (bits - 1)) * scales
    network = AutoModelForCausalLM.from_pretrained(tiny_phi3, dtype=torch.float32)
    weight = network.model.layers[1].self_attn.o_proj.weight.detach().clone()
    round_in_place(weight, Grid(bits, block_size))
    ours = weight.numpy()
    theirs = theirs.reshape(len(ours), -1)[:, : ours.shape[1]]
    assert np.array_equal(ours, theirs)


def test_a_folder_right_below_the_root_is_no_path_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("a node /model/layers.0/q_proj, made in /home/me/model")
    check_no_path_left(tmp_path, (Path("/model"),))
    with pytest.raises(DrupeError, match=r"model\.onnx holds a path of this machine \(/home/me"):
        check_no_path_left(tmp_path, (Path("/model"), Path("/home/me/model")))
