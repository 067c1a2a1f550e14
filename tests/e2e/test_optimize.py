"""`drupe optimize` on the bundled model: limits kept, or which of them binds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLES, Job

ROWS = EXAMPLES / "phi3-emotion/dataset/heldout-classification.json"
TEMPLATE = r"### Text: {phrase}\n### The tone is:\n{tone}"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("optimize")
    shutil.copytree(EXAMPLES / "phi3-emotion/model", folder / "model")
    return Job(folder, folder / "none.json")


def report(job: Job, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.folder / name / "report.json").read_text())
    return found


def test_the_best_below_a_size(job: Job) -> None:
    done = job.drupe(
        "optimize", "model", "--max-size", "2.05MB", "--evaluations", "2", "-o", "best"
    )
    assert done.returncode == 0, done.stderr
    assert "provider CPUExecutionProvider: " in done.stdout, "the rules' choices are told"
    told = report(job, "best")["search"]
    assert told["verdict"] == "keeps"
    assert told["sampler"] == "economy"
    measured = [each for each in told["trials"] if each["state"] == "measured"]
    left_out = [each for each in told["trials"] if each["state"] == "infeasible"]
    assert 1 <= len(measured) <= 2
    assert all(each["numbers"]["size"]["value"] <= 2.05e6 for each in measured)
    assert all(each["numbers"]["size"]["value"] > 2.05e6 for each in left_out)
    assert len(left_out) >= 6
    [graph] = Path(job.folder, "best").rglob("model.onnx")
    weights = graph.stat().st_size + graph.with_name("model.onnx.data").stat().st_size
    [best] = [each for each in measured if each["rank"] == 1]
    assert weights < best["numbers"]["size"]["value"] <= 2.05e6, "with tokenizer and settings"


def test_infeasible_is_said_before_anything_is_exported(job: Job) -> None:
    done = job.drupe("optimize", "model", "--max-size", "1.5MB", "-o", "nothing")
    assert done.returncode == 3
    assert "infeasible: the size limit of 1.5 MB binds; the best reachable is 1.9" in done.stderr
    told = report(job, "nothing")["search"]
    assert {each["state"] for each in told["trials"]} == {"infeasible"}
    assert len(told["trials"]) == told["points"] == told["known"]
    assert not list(Path(job.folder, "nothing").rglob("*.onnx"))


def test_a_loss_on_rows_of_ones_own(job: Job) -> None:
    words = ("--data", str(ROWS), "--text-template", TEMPLATE, "--max-loss", "50%")
    done = job.drupe("optimize", "model", *words, "--evaluations", "1", "-o", "fast")
    assert done.returncode == 0, done.stderr
    [trial] = [each for each in report(job, "fast")["search"]["trials"] if each["rank"]]
    assert set(trial["numbers"]) == {"quality", "speed", "size"}
    [limit] = report(job, "fast")["search"]["limits"]
    assert limit["number"] == "quality"
    assert limit["goal"]["type"] == "percent-max-degradation"
