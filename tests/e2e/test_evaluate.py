"""A model judged beside its baseline, and two results compared, by the command line alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.conftest import EXAMPLES, Job


def test_an_export_is_judged_beside_its_checkpoint(tmp_path: Path) -> None:
    example = EXAMPLES / "phi3-emotion"
    shutil.copytree(example / "model", tmp_path / "model")
    rows = (example / "dataset" / "heldout-classification.json").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:40]))
    job = Job(tmp_path, tmp_path / "none")

    def done(*words: str) -> str:
        ended = job.drupe(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    data = [
        "--data",
        "rows.jsonl",
        "--text-template",
        "### Text: {phrase}\n### The tone is:\n{tone}",
    ]
    done("quantize", "model", "-o", "int4")
    told = json.loads(
        done("evaluate", "int4", "--baseline", "model", *data, "--metrics", "accuracy,kl", "--json")
    )
    assert told["model"] is None, "nothing is delivered: the model is there"
    report = json.loads((tmp_path / "drupe-evaluation" / "report.json").read_text())
    base, judged = report["stages"]
    assert (base["kind"], judged["kind"]) == ("hf", "onnx-genai")
    assert "kl" not in base["scores"]
    assert 0 < judged["scores"]["kl"]["value"] < 0.5
    found = judged["differences"]["accuracy"]
    value = judged["scores"]["accuracy"]["value"] - base["scores"]["accuracy"]["value"]
    assert abs(found["value"] - value) < 1e-9
    assert found["low"] <= found["value"] <= found["high"]
    # Each by itself: the same rows, so that the two results can be compared.
    done("evaluate", "model", *data, "--metrics", "accuracy", "-o", "one")
    done("evaluate", "int4", *data, "--metrics", "accuracy", "-o", "two")
    compared = json.loads(done("compare", "one", "two", "--json"))
    assert compared["numbers"][0]["difference"] == found
    assert {"one", "two", "int4", "drupe-evaluation"} == {
        each["output"] for each in json.loads(done("ls", "--json"))
    }
