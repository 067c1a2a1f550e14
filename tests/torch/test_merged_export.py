"""A merge that is done while exporting: the same bytes and words as in two steps, and proven."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import change_tensors, copied, make_adapter
from safetensors.torch import load_file

from drupe.checkpoint.quantized_base import FILE, QuantizedBase
from drupe.checkpoint.tensors import open_checkpoint
from drupe.core.errors import DrupeError
from drupe.core.files import files_below
from drupe.core.job import INSIDE, Job
from drupe.core.merging import Base, Merging
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export import export_proof, native, stream
from drupe.export.passes import ExportGenAI, ExportProof
from drupe.export.weighted_graph import DATA_FILE
from drupe.finetune import merge_proof, merged, pairs
from drupe.finetune.merge import merge
from drupe.finetune.passes import MergeAdapterWeights, MergeProof
from tests.make_decoders import make_decoder

ALL = {"target_modules": "all-linear"}
NF4 = QuantizedBase("nf4", True, "bfloat16", "bfloat16", ())


@pytest.fixture(autouse=True)
def _in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the merge and pieces of the export that do not fit together."""
    monkeypatch.setattr(stream, "WEIGHTS_AT_A_TIME", 64 * 29)
    monkeypatch.setattr(merged, "BLOCK_ELEMENTS", 64 * 11)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Plain LoRA of a bfloat16 Llama: read it only."""
    folder = tmp_path_factory.mktemp("merging")
    base = make_decoder("llama", folder / "llama", dtype=torch.bfloat16)
    return make_adapter(base, folder / "adapter", **ALL)


def exported(
    model: Model, out: Path, merging: Merging | None = None, **fields: Any
) -> tuple[Model, Job, list[str]]:
    """Export with a scratch folder beside `out`; returns warnings too."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    events: list[dict[str, Any]] = []
    job = Job(out.with_name(f"{out.name} scratch"), threads=2, send=events.append)
    settings = {"precision": "int4", "target": Target(threads=2), "merging": merging, **fields}
    native.export(ExportGenAI.model_validate(settings), model, out, job)
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    return Model("onnx-genai", out, ""), job, warnings


def in_two_steps(
    adapter: Model, folder: Path, base: Base = "auto", **fields: Any
) -> tuple[Model, Job, Job]:
    """Return the export of a merged checkpoint that was written, and both jobs."""
    checkpoint = folder / "merged"
    checkpoint.mkdir(parents=True)
    job = Job(folder, threads=3)
    merge(MergeAdapterWeights(base=base), adapter, checkpoint, job)
    model, own, _ = exported(Model("hf", checkpoint, ""), folder / "onnx", **fields)
    return model, job, own


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in files_below(folder)}


def proven(model: Model, adapter: Model, folder: Path, base: Base = "auto") -> list[dict[str, Any]]:
    """Return the scores of both proofs of an export that was merged on the way."""
    scores = []
    merging = Merging(base=base)
    for name, prove, metric, of in (
        ("merge", merge_proof.prove, MergeProof(base=base), adapter),
        ("export", export_proof.prove, ExportProof(precision="int4", merging=merging), model),
    ):
        out = folder / name
        out.mkdir(parents=True)
        prove(metric, of, adapter, out, Job(out / "scratch", threads=2))  # type: ignore[operator]
        scores.append(json.loads((out / "score.json").read_text()))
    return scores


# Phi-3 joins what Llama keeps apart; Qwen 3 has tied embeddings, Granite factors, Gemma offsets.
# In float32 nothing is rounded that might hide another order of the sums.
@pytest.mark.parametrize(
    ("family", "config", "dtype", "fields"),
    [
        ("llama", {}, torch.bfloat16, {}),
        ("llama", {"use_rslora": True}, torch.float32, {"precision": "fp32"}),
        ("llama", {"use_dora": True}, torch.float16, {"int4_is_symmetric": False}),
        ("phi3", {}, torch.float16, {"int4_is_symmetric": False}),
        ("phi3", {"use_dora": True}, torch.float32, {"precision": "fp32"}),
        ("qwen3", {"use_rslora": True}, torch.bfloat16, {"quantize_embeddings": True}),
        ("granite", {"use_dora": True}, torch.float32, {"rounding": "mse"}),
        ("gemma3", {}, torch.float32, {"precision": "fp32"}),
    ],
)
def test_the_bytes_are_those_of_two_steps(
    family: str,
    config: dict[str, Any],
    dtype: torch.dtype,
    fields: dict[str, Any],
    tmp_path: Path,
) -> None:
    base = make_decoder(family, tmp_path / "base", dtype=dtype)
    adapter = make_adapter(base, tmp_path / "adapter", **ALL, **config)
    expected, merging, _ = in_two_steps(adapter, tmp_path / "two", **fields)
    found, job, warnings = exported(adapter, tmp_path / "one" / "onnx", Merging(), **fields)
    assert contents(found.path) == contents(expected.path)
    assert job.facts[INSIDE] == merging.facts
    assert warnings == []
    assert not list((tmp_path / "one" / "onnx scratch").iterdir()), "nothing merged is left"


@pytest.mark.parametrize(
    ("base", "double_quant", "columns"),
    [("auto", True, 128), ("auto", False, 128), ("auto", True, 96), ("original", True, 128)],
    ids=["scales in 8 bits", "scales in 32 bits", "rows share blocks", "original"],
)
def test_a_base_in_4_bits_is_read_in_rows(
    base: Base, double_quant: bool, columns: int, tmp_path: Path
) -> None:
    fields = {"intermediate_size": columns}
    folder = make_decoder("llama", tmp_path / "base", dtype=torch.bfloat16, **fields)
    # What is quantized and not adapted is dequantized too.
    modules = ["q_proj", "up_proj", "down_proj"]
    adapter = make_adapter(folder, tmp_path / "adapter", target_modules=modules)
    names = [name.removesuffix(".weight") for name in open_checkpoint(folder).names]
    linear = tuple(name for name in names if name.endswith("_proj"))
    quantized = {"double_quant": double_quant, "modules": linear}
    QuantizedBase(**{**NF4.__dict__, **quantized}).write(adapter.path)
    expected, merging, _ = in_two_steps(adapter, tmp_path / "two", base)
    found, job, _ = exported(adapter, tmp_path / "one" / "onnx", Merging(base=base))
    assert contents(found.path) == contents(expected.path)
    assert job.facts[INSIDE] == merging.facts
    assert merging.facts["base"] == ("original" if base == "original" else "dequantized")
    if double_quant and columns == 128:
        scores = proven(found, adapter, tmp_path / "proofs", base)
        assert [score["passed"] for score in scores] == [True, True]
    (adapter.path / FILE).unlink()
    plain, _, _ = exported(adapter, tmp_path / "plain" / "onnx", Merging())
    same = contents(plain.path)[DATA_FILE] == contents(found.path)[DATA_FILE]
    assert same == (base == "original")


def test_whoever_reads_and_by_however_many_threads_the_blocks_are_the_same(
    llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(merged, "BLOCK_ELEMENTS", 2**20)
    for threads in (1, 4):
        out = tmp_path / str(threads)
        out.mkdir()
        merge(MergeAdapterWeights(), llama, out, Job(out, threads=threads))
        written.append(load_file(out / "model.safetensors"))
    with merged.opened(llama, "auto") as view:
        for name, tensor in written[0].items():
            assert torch.equal(tensor, written[1][name])
            assert torch.equal(tensor, view.read(name))
            if tensor.ndim == 2:
                assert torch.equal(tensor[5:30], view.rows(name, 5, 30))


def test_both_proofs_pass_and_are_those_of_two_steps(llama: Model, tmp_path: Path) -> None:
    found, _, _ = exported(llama, tmp_path / "one" / "onnx", Merging())
    of_merge, of_export = proven(found, llama, tmp_path / "proofs")
    expected, _, _ = in_two_steps(llama, tmp_path / "two")
    written = Model("hf", tmp_path / "two" / "merged", "")
    out = tmp_path / "proof of two"
    out.mkdir()
    merge_proof.prove(MergeProof(), written, llama, out, Job(out, threads=2))
    assert of_merge == json.loads((out / "score.json").read_text())
    export_proof.prove(ExportProof(precision="int4"), expected, written, out, Job(out, threads=2))
    in_two = json.loads((out / "score.json").read_text())
    assert of_export["weights"] == in_two["weights"]
    assert of_export["value"] == pytest.approx(in_two["value"], rel=1e-3)
    assert of_export["greedy_tokens"] == in_two["greedy_tokens"]


def test_a_merge_that_computes_something_else_is_found_by_pefts_layers(
    llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export's own proof reads by the merge's code: alone it would be fooled by a wrong one."""
    read_pair = pairs._read_pair

    def half(*arguments: Any) -> pairs.Pair:
        pair = read_pair(*arguments)
        return pairs.Pair(pair.down, pair.up, pair.scale / 2, pair.magnitude)

    monkeypatch.setattr(pairs, "_read_pair", half)
    found, _, _ = exported(llama, tmp_path / "onnx", Merging())
    with pytest.raises(DrupeError, match=r"not base \+ adapter: .* values of a block"):
        proven(found, llama, tmp_path / "proofs")


def test_an_export_without_the_adapter_is_found_by_its_weights(
    llama: Model, tmp_path: Path
) -> None:
    assert llama.base is not None
    unmerged, _, _ = exported(llama.base, tmp_path / "onnx")
    with pytest.raises(DrupeError, match="does not hold what its checkpoint does"):
        proven(unmerged, llama, tmp_path / "proofs")


class Power(stream._Journal):
    """Goes out after so many lines of the journal."""

    lines_left = 0

    def add(self, work: stream.Work, sums: list[int]) -> None:
        if not type(self).lines_left:
            raise KeyboardInterrupt
        type(self).lines_left -= 1
        super().add(work, sums)


def test_what_was_ended_goes_on_and_tells_of_the_whole_merge(
    llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected, _ = exported(llama, tmp_path / "whole", Merging())
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_Journal", Power)
        patch.setattr(Power, "lines_left", 100)
        with pytest.raises(KeyboardInterrupt):
            exported(llama, tmp_path / "torn", Merging())
    assert list((tmp_path / "torn").iterdir()) == [], "nothing half-written"
    made: list[int] = []
    do = stream._Writer.do
    monkeypatch.setattr(
        stream._Writer, "do", lambda self, work: (made.append(work.number), do(self, work))[1]
    )
    found, job, _ = exported(llama, tmp_path / "torn", Merging())
    assert made, "something was left to do"
    assert min(made) >= 90, "what was done is not done again"
    assert contents(found.path) == contents(whole.path)
    assert job.facts == expected.facts, "rows that were exported before are counted too"


def _all_b_zero(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.zero_()


def _not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in tensors.items() if "lora_A" in name)[0, 0] = float("nan")


def _of_another(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name.replace("layers.1.", "layers.9.")] = tensors.pop(name)


def _lost(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in tensors if "lora_B" in name)]


def _tiny(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.mul_(1e-12)


def _huge(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.mul_(1e38)


@pytest.mark.parametrize(
    ("change", "settings", "early"),
    [
        (_all_b_zero, {}, True),
        (_not_a_number, {}, True),
        (_of_another, {}, True),
        (_lost, {}, True),
        (None, {"bias": "all"}, True),
        (None, {"init_lora_weights": "pissa"}, True),
        (_tiny, {}, False),
        (_huge, {}, False),
    ],
    ids=["nothing learnt", "nan", "wrong base", "half a pair", "bias", "pissa", "tiny", "huge"],
)
def test_what_cannot_be_merged_is_told_in_the_same_words(
    change: Callable[[dict[str, torch.Tensor]], None] | None,
    settings: dict[str, Any],
    early: bool,
    llama: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """early: before a byte of the export is written."""
    bad = copied(llama, tmp_path / "adapter", **settings)
    if change is not None:
        change_tensors(bad.path / "adapter_model.safetensors", change)
    with pytest.raises(DrupeError) as merging:
        in_two_steps(bad, tmp_path / "two")
    if early:
        monkeypatch.setattr(native, "write_data", None)
    with pytest.raises(DrupeError) as exporting:
        exported(bad, tmp_path / "one", Merging())
    words = [
        (fault.value.where, fault.value.what, fault.value.remedy) for fault in (merging, exporting)
    ]
    if change is not _huge:  # of several tensors that overflow, another may be the first
        assert words[0] == words[1]
    assert words[0][0] == words[1][0] == "MergeAdapterWeights"
    assert list((tmp_path / "one").iterdir()) == []


def test_a_base_that_cannot_be_asked_for_is_refused(llama: Model, tmp_path: Path) -> None:
    with pytest.raises(DrupeError, match="nothing tells that the adapter was trained on a 4-bit"):
        exported(llama, tmp_path / "one", Merging(base="dequantized"))


def test_an_output_layer_that_is_tied_is_refused(tmp_path: Path) -> None:
    base = make_decoder("qwen3", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    head = {f"base_model.model.lm_head.lora_{side}.weight": torch.ones(4, 4) for side in ("A", "B")}
    change_tensors(adapter.path / "adapter_model.safetensors", lambda each: each.update(head))
    with pytest.raises(DrupeError, match="tied to the embedding"):
        exported(adapter, tmp_path / "one", Merging())


def test_some_tensors_that_did_not_change_are_told(llama: Model, tmp_path: Path) -> None:
    weak = copied(llama, tmp_path / "adapter")
    change_tensors(
        weak.path / "adapter_model.safetensors",
        lambda tensors: [
            tensor.mul_(1e-12) for name, tensor in tensors.items() if "q_proj.lora_B" in name
        ],
    )
    _, job, warnings = exported(weak, tmp_path / "one", Merging())
    assert "4 of 28 adapted tensors did not change" in warnings[0]
    assert job.facts[INSIDE]["merged_tensors"] == 28


def test_the_tokenizer_that_was_trained_with_wins(llama: Model, tmp_path: Path) -> None:
    assert llama.base is not None
    tuned = copied(llama, tmp_path / "adapter")
    shutil.copy(llama.base.path / "tokenizer.json", tuned.path)
    settings = json.loads((llama.base.path / "tokenizer_config.json").read_text())
    (tuned.path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tuned.path / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    )
    expected, _, _ = in_two_steps(tuned, tmp_path / "two")
    found, _, _ = exported(tuned, tmp_path / "one", Merging())
    assert contents(found.path) == contents(expected.path)
    assert "<{{ m.content }}>" in (found.path / "chat_template.jinja").read_text()


def test_no_file_tells_where_the_adapter_lay(llama: Model, tmp_path: Path) -> None:
    tuned = copied(llama, tmp_path / "adapter")
    assert llama.base is not None
    settings = json.loads((llama.base.path / "tokenizer_config.json").read_text())
    settings["told"] = os.fspath(tuned.path)
    (tuned.path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DrupeError, match="holds a path of this machine"):
        exported(tuned, tmp_path / "one", Merging())


def test_the_template_that_was_trained_with_wins(llama: Model, tmp_path: Path) -> None:
    """transformers reads chat_template.jinja before what the settings hold."""
    assert llama.base is not None
    base = shutil.copytree(llama.base.path, tmp_path / "base")
    adapter = shutil.copytree(llama.path, tmp_path / "adapter")
    (base / "chat_template.jinja").write_text("of the base")
    model = Model("hf-adapter", adapter, "", Model("hf", base, ""))
    merged.copy_other_files(model, tmp_path / "kept")
    assert (tmp_path / "kept/chat_template.jinja").read_text() == "of the base"
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["chat_template"] = "of the adapter"
    (adapter / "tokenizer_config.json").write_text(json.dumps(settings))
    merged.copy_other_files(model, tmp_path / "out")
    assert not (tmp_path / "out/chat_template.jinja").exists()
    found = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert found["chat_template"] == "of the adapter"
