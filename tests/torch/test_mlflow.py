"""A config in Olive's words for an MLflow folder, through ModelBuilder by the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime_genai

from tests.make_models import make
from tests.plain.mlflow_folders import split


def run(folder: Path, model: str, output: str) -> subprocess.CompletedProcess[str]:
    """Run ModelBuilder on `model`, both relative to `folder`."""
    config = {
        "input_model": {
            "type": "PyTorchModel",
            "config": {"model_path": model, "model_file_format": "PyTorch.MLflow"},
        },
        "passes": {"builder": {"type": "ModelBuilder", "config": {"precision": "int4"}}},
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": output},
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "drupe", "run", "--config", "config.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_an_mlflow_folder_is_exported_as_its_checkpoint_is(tmp_path: Path) -> None:
    checkpoint = make("qwen2-tied", tmp_path / "checkpoint")
    flavour, other = "hftransformersv2", "transformers"
    split(checkpoint, tmp_path / "model", flavour)
    done = run(tmp_path, "model", "output")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"model is an MLflow model ({flavour})" in done.stdout
    report = json.loads((tmp_path / "output" / "report.json").read_text())
    assert report["stages"][1]["proof"]["passed"] is True
    assert report["input_model"]["name"] == "model"
    exported = tmp_path / "output" / "builder" / "cpu-cpu_model"
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(exported)))
    assert tokenizer.encode("Hello there").size > 1
    for file in exported.iterdir():
        assert b"drupe-mlflow-" not in file.read_bytes(), "no path of this machine is delivered"
    # The same files in one folder, or in another flavour's parts, are the same model.
    shutil.rmtree(tmp_path / "model")
    split(checkpoint, tmp_path / "model", other)
    for model in ("checkpoint", "model"):
        again = run(tmp_path, model, f"again-{model}")
        assert again.returncode == 0, again.stderr
        assert "0 of 2 steps to run" in again.stdout
    assert f"model is an MLflow model ({other})" in again.stdout
