"""A data file that is written some rows at a time: resumed, checked, in little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from drupe.core.errors import DrupeError, Refused
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export import native, stream
from drupe.export.passes import ExportGenAI
from drupe.export.weighted_graph import DATA_FILE
from tests.make_decoders import make_decoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder("llama", tmp_path_factory.mktemp("stream") / "checkpoint")


@pytest.fixture(autouse=True)
def _in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WEIGHTS_AT_A_TIME", 2**11)


def export(checkpoint: Path, out: Path, scratch: Path, **fields: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    step = ExportGenAI.model_validate({"precision": "int4", "target": Target(threads=2), **fields})
    job = Job(scratch, threads=2, send=events.append)
    native.export(step, Model("hf", checkpoint, ""), out, job)
    return events


class Power(stream._Journal):
    """Goes out after so many lines of the journal."""

    lines_left = 20

    def add(self, work: stream.Work, sums: list[int]) -> None:
        if not type(self).lines_left:
            raise KeyboardInterrupt
        type(self).lines_left -= 1
        super().add(work, sums)


@pytest.fixture
def torn(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch folder of an export that was ended in its middle."""
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_Journal", Power)
        patch.setattr(Power, "lines_left", 20)
        with pytest.raises(KeyboardInterrupt):
            export(checkpoint, tmp_path / "out", tmp_path / "scratch")
    assert list((tmp_path / "out").iterdir()) == [], "nothing half-written"
    return tmp_path / "scratch"


def notes(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "note"]


@pytest.mark.parametrize("exclude", ["int4", "fp32"])
def test_the_planned_size_is_that_of_the_file_and_bytes_are_the_same_by_any_pieces(
    checkpoint: Path, tmp_path: Path, exclude: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(checkpoint, tmp_path / "pieces", tmp_path / "scratch", precision=exclude)
    monkeypatch.setattr(stream, "WEIGHTS_AT_A_TIME", 2**30)
    export(checkpoint, tmp_path / "whole", tmp_path / "scratch", precision=exclude)
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    assert {DATA_FILE, "model.onnx", "genai_config.json", "tokenizer.json"} <= names
    for name in names:
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_ended_goes_on(checkpoint: Path, tmp_path: Path, torn: Path) -> None:
    events = export(checkpoint, tmp_path / "out", torn)
    [told] = notes(events)
    assert told.startswith("20 of ")
    export(checkpoint, tmp_path / "unbroken", tmp_path / "other scratch")
    assert (tmp_path / "out" / DATA_FILE).read_bytes() == (
        tmp_path / "unbroken" / DATA_FILE
    ).read_bytes()
    assert not (torn / "export").exists()


def test_what_was_damaged_meanwhile_is_done_again(
    checkpoint: Path, tmp_path: Path, torn: Path
) -> None:
    data = torn / "export" / DATA_FILE
    content = bytearray(data.read_bytes())
    content[-1] ^= 255  # of a part that was not done: nobody cares
    content[0] ^= 255  # of the first part
    data.write_bytes(content)
    journal = data.with_name(stream.JOURNAL)
    journal.write_text(journal.read_text() + "[99, 1")  # and a line that was cut off
    events = export(checkpoint, tmp_path / "out", torn)
    assert notes(events)[0].startswith("19 of ")
    export(checkpoint, tmp_path / "unbroken", tmp_path / "other scratch")
    assert (tmp_path / "out" / DATA_FILE).read_bytes() == (
        tmp_path / "unbroken" / DATA_FILE
    ).read_bytes()


def test_a_journal_of_another_layout_is_not_believed(
    checkpoint: Path, tmp_path: Path, torn: Path
) -> None:
    assert notes(export(checkpoint, tmp_path / "out", torn, int4_block_size=64)) == []


def changed(checkpoint: Path, folder: Path, name: str, value: torch.Tensor | None) -> Path:
    """Return a copy of the checkpoint with another tensor, or without it."""
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


DOWN = "model.layers.3.mlp.down_proj.weight"


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_named_with_its_tensor(
    checkpoint: Path, tmp_path: Path, precision: str, bad: float
) -> None:
    weight = load_file(checkpoint / "model.safetensors")[DOWN].clone()
    weight[5, 7] = bad
    damaged = changed(checkpoint, tmp_path / "damaged", DOWN, weight)
    with pytest.raises(DrupeError, match=rf"{DOWN}: holds "):
        export(damaged, tmp_path / "out", tmp_path / "scratch", precision=precision)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_value_that_float16_cannot_hold_is_named(checkpoint: Path, tmp_path: Path) -> None:
    weight = load_file(checkpoint / "model.safetensors")[DOWN].clone()
    weight[5, 7] = 70000.0
    damaged = changed(checkpoint, tmp_path / "damaged", DOWN, weight)
    target = Target(provider="CUDAExecutionProvider")
    with pytest.raises(DrupeError, match=rf"{DOWN}: holds 7e\+04, more than F16 can hold"):
        export(damaged, tmp_path / "out", tmp_path / "scratch", precision="fp16", target=target)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, f'lacks the tensor "{DOWN}", which its config.json asks for'),
        (torch.zeros(64, 64), rf'has "{DOWN}" of the shape \[64, 64\]; .* asks for \[64, 128\]'),
        (torch.zeros(64, 128, dtype=torch.int8), f'has "{DOWN}" in I8; drupe exports F32, BF16'),
    ],
)
def test_what_the_headers_show_is_refused_before_the_run(
    checkpoint: Path, tmp_path: Path, value: torch.Tensor | None, words: str
) -> None:
    damaged = changed(checkpoint, tmp_path / "damaged", DOWN, value)
    step = ExportGenAI(precision="int4", target=Target(), exporter="native")
    with pytest.raises(Refused, match=f"ModelBuilder: {words}"):
        raise step.refusal_of_source(Model("hf", damaged, "")) or AssertionError("not refused")
    with pytest.raises(Refused, match=f"ModelBuilder: {words}"):
        export(damaged, tmp_path / "out", tmp_path / "scratch")


def test_a_head_that_is_not_tied_has_to_be_there(tmp_path: Path) -> None:
    whole = make_decoder("llama", tmp_path / "whole", tie_word_embeddings=False)
    damaged = changed(whole, tmp_path / "damaged", "lm_head.weight", None)
    step = ExportGenAI(precision="int4", target=Target(), exporter="native")
    refused = step.refusal_of_source(Model("hf", damaged, ""))
    assert refused is not None
    assert refused.what.startswith('lacks the tensor "lm_head.weight"')


def test_blocks_that_do_not_divide_an_embedding_are_refused_with_those_that_do(
    tmp_path: Path,
) -> None:
    checkpoint = make_decoder("llama", tmp_path / "odd", hidden_size=96)
    step = ExportGenAI(
        precision="int4",
        target=Target(),
        exporter="native",
        quantize_embeddings=True,
        int4_block_size=64,
    )
    refused = step.refusal_of_source(Model("hf", checkpoint, ""))
    assert refused is not None
    assert refused.what.startswith("is 64, which does not divide the 96 columns of the embedding")
    assert refused.remedy == "Choose one of 16, 32, or leave quantize_embeddings out."


def test_what_is_quantized_already_is_the_builders(checkpoint: Path, tmp_path: Path) -> None:
    quantized = shutil.copytree(checkpoint, tmp_path / "gptq")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (quantized / "config.json").write_text(json.dumps(config))
    step = ExportGenAI(precision="int4", target=Target())
    settled, note = step.settled(Model("hf", quantized, ""))
    assert settled.exporter == "genai"
    assert note.startswith("LlamaForCausalLM is exported by ONNX Runtime GenAI's builder")
    assert step.settled(Model("hf", checkpoint, ""))[0].exporter == "native"
    own = step.model_copy(update={"exporter": "native"})
    refused = own.refusal_of_source(Model("hf", quantized, ""))
    assert refused is not None
    assert "is quantized already (gptq)" in refused.what


def test_a_tensor_that_is_not_in_the_graph_is_told(checkpoint: Path, tmp_path: Path) -> None:
    more = changed(checkpoint, tmp_path / "more", "model.extra.weight", torch.zeros(2))
    more = changed(more, tmp_path / "old", "model.layers.0.rotary_emb.inv_freq", torch.zeros(2))
    events = export(more, tmp_path / "out", tmp_path / "scratch")
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    assert warnings == ["not in the graph: 1 of the checkpoint's tensors (model.extra.weight)"]


def test_eight_bits_at_a_slow_level_are_refused() -> None:
    step = ExportGenAI(precision="int8", target=Target(), int4_accuracy_level=0)
    refused = step.refusal("hf", Target())
    assert refused is not None
    assert "86 times as long" in refused.what


LIMITED = """
import json, resource, sys
from pathlib import Path
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export.families import read_decoder
from drupe.export.form import form_of
from drupe.export.graph import build
from drupe.checkpoint.tensors import open_checkpoint
from drupe.checkpoint.mapped import MappedTensors
from drupe.export.parts import Parts
from drupe.export.passes import ExportGenAI
from drupe.export.stream import write_data
from drupe.quantize.rtn import round_to_nearest

checkpoint, data, allowed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
status = Path("/proc/self/status").read_text()
before = next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (before + allowed, before + allowed))
step = ExportGenAI(precision="int4", target=Target())
decoder = read_decoder(json.loads((checkpoint / "config.json").read_text()))
stored = open_checkpoint(checkpoint).stored
parts = Parts(decoder, {name: tensor.spec for name, tensor in stored.items()})
built = build(decoder, parts, form_of(step, decoder, "BF16"))
with MappedTensors(stored) as weights:
    write_data(built.layout, weights, round_to_nearest, data, Job(data.parent, threads=1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")
def test_memory_is_of_a_few_rows_however_large_the_model(tmp_path: Path) -> None:
    """Tensors of 34 MB, 67 MB in float32, with 40 MB above the imports."""
    checkpoint = make_decoder(
        "llama",
        tmp_path / "large",
        dtype=torch.bfloat16,
        hidden_size=1024,
        intermediate_size=16384,
        num_hidden_layers=1,
        num_attention_heads=8,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    assert (checkpoint / "model.safetensors").stat().st_size > 100 * 10**6
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(checkpoint), str(tmp_path / "data"), str(40 * 2**20)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data").stat().st_size > 30 * 10**6
