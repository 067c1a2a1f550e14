"""What tensorboard, mlflow and wandb need besides what the Trainer sends them.

Losses, arguments and the run's name arrive by transformers' own callbacks. Tried with MLflow 3.17
(mlflow-skinny, a store in SQLite) and wandb 0.31 (offline).  Heavy file: the worker imports it.
"""

from __future__ import annotations

import os
from importlib import import_module

from drupe.finetune.training_args import TrainingArgs


def begin(arguments: TrainingArgs) -> None:
    """Say by their own variables where tensorboard and mlflow write: no argument does."""
    if arguments.logging_dir is not None:
        folder = arguments.logging_dir.absolute()
        folder.mkdir(parents=True, exist_ok=True)  # mlflow's database makes none
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")


def end(arguments: TrainingArgs) -> None:
    """Have wandb write what it holds and say that the run is over.

    It would do so as Python ends; a step's process, forked, ends without Python's own end.
    """
    if "wandb" in arguments.report_to:
        import_module("wandb").finish()
