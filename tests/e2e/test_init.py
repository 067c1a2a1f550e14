"""What `drupe init` writes runs as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.conftest import DRUPE, EXAMPLES, Job


def test_a_new_job_from_its_template_to_the_end(tmp_path: Path) -> None:
    model = str(EXAMPLES / "phi3-emotion" / "model")
    words = [DRUPE, "init", "phi3-emotion", "--model", model, "-o", "job"]
    subprocess.run(words, cwd=tmp_path, check=True)
    job = Job(tmp_path / "job", tmp_path / "job" / "config.yaml")
    done = job.run("--set", "passes.lora.training_args.max_steps=2", "--strict")
    assert done.stderr == ""
    assert "\nAccuracy on 100 rows " in done.stdout
    stages = job.report("output")["stages"]
    assert [stage["kind"] for stage in stages] == ["hf", "hf-adapter", "hf", "onnx-genai"]
    for stage in stages:
        assert set(stage["scores"]) >= {"accuracy", "perplexity"}
    assert len(stages[-1]["scores"]["answers"]["samples"]) == 3
    answer = job.drupe("chat", "output", "--prompt", "A spider!", "--choices", "joy,fear")
    assert (answer.returncode, len(answer.stdout.splitlines())) == (0, 2), answer.stderr
