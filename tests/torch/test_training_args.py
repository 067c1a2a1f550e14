"""training_args: all of transformers' Trainer is honoured or spoken of, and nothing is lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from training import lora_step

from drupe.config.dialects.trainer import TRAINING
from drupe.core.errors import DrupeError
from drupe.core.libraries import HERE
from drupe.finetune import lora
from drupe.finetune.training_args import BITSANDBYTES_OPTIMIZERS, TrainingArgs


def test_every_training_argument_is_one_of_transformers() -> None:
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    # What Best and tell_trackers do: transformers has no argument for it.
    ours = {"early_stopping_patience", "early_stopping_threshold", "logging_dir"}
    assert set(TrainingArgs.model_fields) - known == ours
    assert known - set(TrainingArgs.model_fields) - set(TRAINING) == set(), "each has its sentence"


def test_every_training_argument_is_handed_on(phrases: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "seed": 7,
        "data_seed": 8,
        "num_train_epochs": 2.0,
        "max_steps": 9,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 3,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": True,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "warmup_steps": 2.0,
        "optim": "sgd",
        "weight_decay": 0.1,
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 0.5,
        "label_smoothing_factor": 0.1,
        "neftune_noise_alpha": 5.0,
        "train_sampling_strategy": "group_by_length",
        "logging_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 5,
        "save_steps": 7,
        "report_to": ["tensorboard"],
        "run_name": "mine",
    }
    ours = {"early_stopping_patience", "early_stopping_threshold", "load_best_model_at_end"}
    assert set(asked) == set(TrainingArgs.model_fields) - ours - {"logging_dir"}
    step = lora_step(phrases, asked | {"logging_dir": tmp_path})
    handed = lora.training_arguments(step, tmp_path, torch.float32, evaluates=True)
    without = transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none")
    for name, value in asked.items():
        assert getattr(handed, name) == value, name
        assert getattr(without, name) != value, f"{name} could be lost and not be missed"


def test_arguments_that_are_left_out(phrases: Path, tmp_path: Path) -> None:
    step = lora_step(phrases, {"eval_strategy": "epoch"})
    handed = lora.training_arguments(step, tmp_path, torch.float32, evaluates=False)
    assert (handed.optim, handed.report_to) == ("adamw_torch_fused", [])
    assert (handed.eval_strategy, handed.save_strategy) == ("no", "no")
    assert TrainingArgs(report_to="none").report_to == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="they run on a GPU")
@pytest.mark.parametrize("name", BITSANDBYTES_OPTIMIZERS)
def test_an_optimizer_of_a_gpu_is_refused_without_one(
    name: str, phrases: Path, tmp_path: Path
) -> None:
    step = lora_step(phrases, {"optim": name})
    refused = step.refusal_in(HERE)
    assert refused is not None
    words = f'training_args.optim: is "{name}", which needs an NVIDIA GPU, a torch for it and bits'
    assert str(refused).startswith(words)
    with pytest.raises(DrupeError, match=f'is "{name}", which needs a GPU, and torch finds none'):
        lora.training_arguments(step, tmp_path, torch.float32, evaluates=False)


@pytest.mark.parametrize("name", BITSANDBYTES_OPTIMIZERS)
def test_transformers_knows_each_optimizer(name: str) -> None:
    assert name in {each.value for each in transformers.training_args.OptimizerNames}
