"""What mlflow and wandb are told of a training, read from their own files.

The two that run a step ask for packages that the development environment lacks:
pip install mlflow-skinny sqlalchemy alembic wandb
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import drupe
from drupe.finetune import trackers
from drupe.finetune.training_args import TrainingArgs


def run(model: Path, rows: Path, folder: Path, tracker: str) -> None:
    """Train two steps in a step's own process, which ends as those of a run do."""
    data = {
        "name": "rows",
        "load_dataset_config": {"data_files": str(rows)},
        "pre_process_data_config": {"text_template": "{phrase} {tone}", "max_seq_len": 16},
    }
    training = {"max_steps": 2, "logging_steps": 1, "report_to": [tracker], "run_name": "mine"}
    step = {"type": "LoRA", "train_data_config": "rows"}
    config: dict[str, Any] = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "data_configs": [data],
        "passes": {"lora": {**step, "training_args": {**training, "logging_dir": "logs"}}},
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": "output"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    drupe.run(folder / "config.json")


def test_mlflow_has_the_losses_and_the_end(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run(tiny_phi3, phrases, tmp_path, "mlflow")
    with closing(sqlite3.connect(tmp_path / "logs" / "mlflow.db")) as store:
        assert store.execute("select name, status from runs").fetchall() == [("mine", "FINISHED")]
        losses = store.execute("select step from metrics where key = 'loss' order by step")
        assert losses.fetchall() == [(1,), (2,)]


def test_wandb_has_the_losses_and_the_end(
    tiny_phi3: Path, phrases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    run(tiny_phi3, phrases, tmp_path, "wandb")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content
    assert b"train_loss" in content, "what is told at the end"


@pytest.mark.parametrize(("report_to", "times"), [(("wandb",), 1), (("mlflow",), 0), ((), 0)])
def test_wandb_is_told_that_the_run_is_over(
    report_to: tuple[str, ...], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[None] = []
    module = ModuleType("wandb")
    monkeypatch.setattr(module, "finish", lambda: told.append(None), raising=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    trackers.end(TrainingArgs(report_to=report_to))
    assert len(told) == times
