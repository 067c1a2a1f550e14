"""Each step of the chain alone, by a verb of its own: tune, merge, export, talk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.conftest import EXAMPLES, Job


def test_one_step_after_the_other(tmp_path: Path) -> None:
    example = EXAMPLES / "phi3-emotion"
    shutil.copytree(example / "model", tmp_path / "model")
    rows = (example / "dataset" / "dataset-classification.json").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:60]))
    job = Job(tmp_path, tmp_path / "none")

    def done(*words: str) -> str:
        ended = job.drupe(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def digest_of(output: str) -> str:
        return str(json.loads((tmp_path / output / "report.json").read_text())["digest"])

    text = ["--text-template", "### Text: {phrase}\n### The tone is:\n{tone}"]
    short = ["--max-steps", "4", "--max-seq-len", "64", "--learning-rate", "5e-3"]
    data = ["--data", "rows.jsonl", *text, *short]
    tuned = done("finetune", "model", *data, "--method", "qlora", "-o", "tuned")
    assert "merge tuned -o merged\n" in tuned
    assert "export merged --precision int4 -o int4\n" in done("merge", "tuned", "-o", "merged")
    refused = job.drupe("chat", "merged", "--prompt", "The lamp went out.")
    assert refused.returncode == 2
    assert "\n  Export it: drupe export merged --precision int4 -o DIR" in refused.stderr
    done("export", "merged", "--precision", "int4", "--int4-block-size", "64", "-o", "int4")
    done("apply", "ModelBuilder", "merged", "--precision", "fp32", "-o", "fp32")
    done("quantize", "merged", "--int4-block-size", "64", "-o", "quantized")
    assert digest_of("quantized") == digest_of("int4"), "the same work by a shorter name"
    assert done("chat", "int4", "--prompt", "The lamp went out.", "--max-length", "24").strip()
    merged = json.loads((tmp_path / "merged" / "report.json").read_text())
    assert merged["stages"][-1]["facts"]["base"] == "dequantized"
    exported = json.loads((tmp_path / "int4" / "report.json").read_text())
    assert exported["input_model"]["name"] == "merged"
    for name in ("merged", "int4", "fp32"):
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["stages"][-1]["proof"]["passed"] is True, name
    # The same words again: nothing is worked twice, and nothing changes.
    before = (tmp_path / "int4" / "report.json").read_bytes()
    done("export", "merged", "--precision", "int4", "--int4-block-size", "64", "-o", "int4")
    assert (tmp_path / "int4" / "report.json").read_bytes() == before
