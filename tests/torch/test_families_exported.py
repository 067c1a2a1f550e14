"""Every family that drupe exports itself computes in ONNX Runtime what transformers computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM

from drupe.core.job import Job
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.export import blueprint, native
from drupe.export.families import FAMILIES
from drupe.export.passes import ExportGenAI
from tests.greedy import greedy
from tests.make_decoders import DECODERS, ORIGINAL, SCALED_TWICE, make_decoder

LENGTH = 100  # several windows, and beyond the original length of those that are scaled
Values = dict[str, np.ndarray[Any, Any]]


def exported(checkpoint: Path, out: Path, target: Target | None = None, **fields: Any) -> Path:
    out.mkdir()
    step = ExportGenAI.model_validate(
        {"precision": "fp32", "target": target or Target(threads=2), **fields}
    )
    native.export(step, Model("hf", checkpoint, ""), out, Job(out.parent / "scratch", threads=2))
    return out


class Session:
    """An exported graph on the CPU, asked as ONNX Runtime GenAI asks it."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._model = json.loads((folder / "genai_config.json").read_text())["model"]

    def logits(self, ids: list[int], past: Mapping[str, Any] | None = None) -> Values:
        """Return logits and caches for `ids`, behind what `past` holds."""
        decoder = self._model["decoder"]
        shape = (1, decoder["num_key_value_heads"], 0, decoder["head_size"])
        caches = {
            f"past_key_values.{layer}.{side}": past[f"present.{layer}.{side}"]
            if past
            else np.zeros(shape, np.float32)
            for layer in range(decoder["num_hidden_layers"])
            for side in ("key", "value")
        }
        before = caches["past_key_values.0.key"].shape[2]
        feeds = {
            "input_ids": np.asarray([ids]),
            "attention_mask": np.ones((1, before + len(ids)), np.int64),
            "position_ids": np.arange(before, before + len(ids))[None],
            **caches,
        }
        inputs = {each.name for each in self._session.get_inputs()}
        outputs = [each.name for each in self._session.get_outputs()]
        given = {name: value for name, value in feeds.items() if name in inputs}
        return dict(zip(outputs, self._session.run(outputs, given), strict=True))


def random_ids(vocabulary: int, length: int) -> list[int]:
    return np.random.default_rng(0).integers(0, vocabulary, length).tolist()  # type: ignore[no-any-return]


def distance(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.square(ours - theirs).mean()) / theirs.std())


def test_the_table_is_tested_whole() -> None:
    made = {f"{kind}ForCausalLM" for kind, _ in DECODERS.values()}
    assert made == set(FAMILIES)


@pytest.mark.parametrize("name", DECODERS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Measured: at most 5e-6, with and without what is inside the attention."""
    checkpoint = make_decoder(name, tmp_path / "checkpoint")
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = random_ids(network.config.vocab_size, LENGTH + 1)
    short = ORIGINAL // 2  # with other angles where they are scaled by the length
    with torch.inference_mode():
        whole, part = (
            network(torch.tensor([ids[:length]])).logits[0].numpy() for length in (LENGTH, short)
        )
        behind = network(torch.tensor([ids])).logits[0, -1].numpy()
    folder = exported(checkpoint, tmp_path / "joined")
    for each in (folder, apart(checkpoint, tmp_path / "apart")):
        session = Session(each)
        found = session.logits(ids[:LENGTH])
        assert distance(found["logits"][0], whole) < 2e-5
        assert distance(session.logits(ids[:short])["logits"][0], part) < 2e-5
        next_one = session.logits(ids[LENGTH:], found)
        assert distance(next_one["logits"][0, -1], behind) < 2e-5
    if name not in SCALED_TWICE:
        prompt = ids[:10]
        theirs = network.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=-1
        )[0, len(prompt) :].tolist()
        assert greedy(folder, prompt, 8) == theirs


def apart(checkpoint: Path, out: Path) -> Path:
    """Export the graph that DirectML gets, in the type that the CPU computes in."""
    with pytest.MonkeyPatch.context() as patch:
        usual = blueprint.form_of
        patch.setattr(blueprint, "form_of", lambda *words: replace(usual(*words), joined=False))
        return exported(checkpoint, out)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_quantized_embeddings_are_shared_where_they_are_tied(name: str, tmp_path: Path) -> None:
    checkpoint = make_decoder(name, tmp_path / "checkpoint", tie_word_embeddings=True)
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = random_ids(network.config.vocab_size, LENGTH)
    with torch.inference_mode():
        theirs = network(torch.tensor([ids])).logits[0].numpy()
    sizes, errors = [], []
    for quantized in (False, True):
        folder = exported(
            checkpoint, tmp_path / str(quantized), precision="int8", quantize_embeddings=quantized
        )
        sizes.append((folder / "model.onnx.data").stat().st_size)
        errors.append(distance(Session(folder).logits(ids)["logits"][0], theirs))
    vocabulary, hidden = network.config.vocab_size, network.config.hidden_size
    saved = vocabulary * hidden * 4
    assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.01), "written once"
    assert errors[1] < 0.1, "measured 0.01 to 0.05"
    graph = onnx_ir.load(tmp_path / "True" / "model.onnx").graph
    assert "GatherBlockQuantized" in {node.op_type for node in graph}
    unasked = exported(checkpoint, tmp_path / "unasked", precision="int8")
    assert (unasked / "model.onnx").read_bytes() == (tmp_path / "True/model.onnx").read_bytes()


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite"])
def test_floats_that_are_tied_are_written_once(name: str, tmp_path: Path) -> None:
    """Granite divides its logits, Gemma multiplies its embedding: neither is in the weights."""
    checkpoint = make_decoder(name, tmp_path / "checkpoint", tie_word_embeddings=True)
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = random_ids(network.config.vocab_size, LENGTH)
    with torch.inference_mode():
        theirs = network(torch.tensor([ids])).logits[0].numpy()
    folder = exported(checkpoint, tmp_path / "out", precision="fp32")
    assert distance(Session(folder).logits(ids)["logits"][0], theirs) < 1e-4, "measured 5e-6"
    parameters = sum(each.numel() for each in network.parameters())  # a tied one once
    written = (folder / "model.onnx.data").stat().st_size
    tables = written - 4 * parameters
    assert 0 <= tables < 4 * network.config.vocab_size * network.config.hidden_size


def test_an_embedding_of_its_own_stays_as_it_is(tmp_path: Path) -> None:
    checkpoint = make_decoder("llama", tmp_path / "checkpoint", tie_word_embeddings=False)
    folder = exported(checkpoint, tmp_path / "out", precision="int4")
    graph = onnx_ir.load(folder / "model.onnx").graph
    assert "GatherBlockQuantized" not in {node.op_type for node in graph}
