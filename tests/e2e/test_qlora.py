"""The page says that QLoRA followed by the int4 builder is not supported: here it is one config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from drupe.config.load import load
from drupe.export.passes import ExportGenAI
from drupe.plan import make
from tests.e2e.conftest import EXAMPLES, Job


@pytest.fixture
def qlora(tmp_path: Path) -> Job:
    """Return a copy of the example, beside the model and the phrases that it names."""
    for name in ("phi3-emotion", "phi3-qlora"):
        ignored = shutil.ignore_patterns("models", "cache", "make")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored)
    return Job(tmp_path / "phi3-qlora", tmp_path / "phi3-qlora" / "olive-config.json")


@pytest.mark.parametrize("example", ["phi3-emotion", "phi3-qlora"])
def test_the_examples_are_planned_for_the_native_exporter(example: str, tmp_path: Path) -> None:
    config = load(
        EXAMPLES / example / "olive-config.json", settings=[f"engine.cache_dir={tmp_path}"]
    )
    plan = make(config)
    found = [step.operation for step in plan.steps if isinstance(step.operation, ExportGenAI)]
    assert [(each.exporter, each.precision) for each in found] == [("native", "int4")]
    assert not [note for note in plan.notes if "builder" in note]


def test_qlora_then_int4_in_one_config(qlora: Job) -> None:
    shown = qlora.run().stdout
    assert "Accuracy on 600 rows went from 25.0 %" in shown
    report = qlora.report("models/phi3-qlora")
    base, tuned, merged, exported = report["stages"]
    assert [stage["kind"] for stage in report["stages"]] == ["hf", "hf-adapter", "hf", "onnx-genai"]
    assert base["scores"]["accuracy"]["value"] < 0.35
    for stage in (tuned, merged, exported):
        assert stage["scores"]["accuracy"]["low"] > 0.85, "measured 0.928"
    assert merged["facts"]["base"] == "dequantized"
    assert exported["facts"]["exporter"] == "native"
    assert exported["proof"]["arithmetic"] < 1e-5, "asked of drupe's own layout alone; 1e-6"
    assert merged["proof"]["passed"] is True
    # What was trained is what was merged: perplexity differs by the rounding to bfloat16 alone.
    ratio = merged["scores"]["perplexity"]["value"] / tuned["scores"]["perplexity"]["value"]
    assert abs(ratio - 1) < 0.01, "measured 0.0002"
    # The other base, from the cache up to the adapter: another model, proven too.
    settings = ("passes.merge.base=original", "engine.evaluate=none")
    qlora.run(*(word for each in settings for word in ("--set", each)), "-o", "models/original")
    other = qlora.report("models/original")["stages"]
    assert other[1]["digest"] == tuned["digest"]
    assert other[2]["digest"] != merged["digest"]
    assert other[2]["facts"]["base"] == "original"
    assert other[2]["within"] == "builder", "nothing is measured, so it is merged while exporting"
    assert merged["within"] is None
    assert other[2]["proof"]["passed"] is True
    adapter = json.loads((qlora.folder / "olive-config.json").read_text())["passes"]["qlora"]
    assert adapter["config"]["double_quant"] is True
