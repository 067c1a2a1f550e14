"""The best adapter, early stopping, and what else training_args asks of the Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from training import adapter_bytes, lora_step, told, trained
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState

from drupe.checkpoint.load import load_tokenizer
from drupe.core.job import Job
from drupe.core.libraries import Here
from drupe.core.model import Model
from drupe.core.target import Target
from drupe.finetune import passes
from drupe.finetune.best import Best, best_of
from drupe.finetune.lora import samples_of
from drupe.finetune.training_args import TrainingArgs

# So high a rate that the loss on other rows falls and rises again.
OVERFIT = {
    "max_steps": 16,
    "learning_rate": 0.05,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "logging_steps": 2,
}


@given(st.lists(st.floats(0, 9), min_size=1), st.floats(0, 1))
def test_the_best_measurement(losses: list[float], threshold: float) -> None:
    history = [{"step": 2 * place, "eval_loss": loss} for place, loss in enumerate(losses)]
    step, since = best_of([{"step": 1, "loss": 0.0}, *history], threshold)
    place = step // 2
    assert since == len(losses) - 1 - place
    assert all(loss >= losses[place] - threshold for loss in losses[place:])
    assert all(loss > losses[place] for loss in losses[:place])


def eval_loss(step: passes.LoRA, model: Path, adapter: Path, folder: Path) -> float:
    """Return the loss on the evaluation rows, by transformers and PEFT alone."""
    _, held_out = step.data()
    assert held_out is not None
    samples, _ = samples_of(held_out, load_tokenizer(Model("hf", model, "")), Job(folder))
    network = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter
    ).eval()
    losses = []
    for sample in samples:
        ids = torch.tensor([sample["input_ids"]])
        losses.append(float(network(input_ids=ids, labels=ids).loss))
    return sum(losses) / len(losses)


def test_the_best_adapter_is_kept(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"eval_dataset_size": 0.3, "torch_dtype": "float32"}
    step = lora_step(phrases, OVERFIT | {"load_best_model_at_end": True}, **fields)
    best, job, _ = trained(step, tiny_phi3, tmp_path, "best")
    losses = dict(job.facts["eval_losses"])
    assert job.facts["best_step"] == min(losses, key=losses.__getitem__)
    assert job.facts["best_step"] < 16, "the loss rises again: the last is not the best"
    found = eval_loss(step, tiny_phi3, best, tmp_path)
    assert found == pytest.approx(job.facts["best_eval_loss"], rel=1e-4), "measured 4e-8"
    last, _, _ = trained(lora_step(phrases, OVERFIT, **fields), tiny_phi3, tmp_path, "last")
    assert adapter_bytes(last) != adapter_bytes(best)
    assert eval_loss(step, tiny_phi3, last, tmp_path) > found


def test_it_stops_when_nothing_gets_better(tiny_phi3: Path, phrases: Path, tmp_path: Path) -> None:
    step = lora_step(
        phrases, OVERFIT | {"max_steps": 60, "early_stopping_patience": 2}, eval_dataset_size=0.3
    )
    _, job, events = trained(step, tiny_phi3, tmp_path)
    steps = [place for place, _ in job.facts["eval_losses"]]
    assert steps[-1] == job.facts["best_step"] + 4, "two measurements later"
    assert steps[-1] < 60
    assert any(
        line.startswith(f"Stopped at step {steps[-1]}: no lower loss") for line in told(events)
    )


def test_killed_and_resumed_it_keeps_the_same_best(
    tiny_phi3: Path,
    phrases: Path,
    killed: Any,
    tmp_path: Path,
) -> None:
    training = OVERFIT | {"load_best_model_at_end": True, "save_steps": 4}
    step = lora_step(phrases, training, eval_dataset_size=0.3)
    whole, _, _ = trained(step, tiny_phi3, tmp_path, "whole")
    fault = killed(10)
    with pytest.raises(fault):
        trained(step, tiny_phi3, tmp_path, "broken")
    killed(None)
    resumed, job, _ = trained(step, tiny_phi3, tmp_path, "broken")
    assert job.facts["resumed_from"] == 8
    assert adapter_bytes(resumed) == adapter_bytes(whole)


def test_killed_at_its_end_it_keeps_the_same_best(
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    training = OVERFIT | {"load_best_model_at_end": True, "save_steps": 4}
    step = lora_step(phrases, training, eval_dataset_size=0.3)
    whole, _, _ = trained(step, tiny_phi3, tmp_path)
    before = adapter_bytes(whole)
    again, job, _ = trained(step, tiny_phi3, tmp_path)  # in the same scratch: a kill before commit
    assert job.facts["resumed_from"] == 12, "from before the end: it measures the loss again"
    assert adapter_bytes(again) == before


def test_killed_after_it_stopped_early_it_stops_there_again(
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    training = OVERFIT | {"max_steps": 60, "early_stopping_patience": 2, "save_steps": 2}
    step = lora_step(phrases, training, eval_dataset_size=0.3)
    whole, first, _ = trained(step, tiny_phi3, tmp_path)
    before = adapter_bytes(whole)
    again, job, _ = trained(step, tiny_phi3, tmp_path)
    assert job.facts["resumed_from"] == first.facts["eval_losses"][-1][0] - 2
    assert job.facts["eval_losses"] == first.facts["eval_losses"]
    assert adapter_bytes(again) == before


def test_the_threshold_is_about_stopping_alone(tmp_path: Path) -> None:
    arguments = TrainingArgs(
        eval_strategy="steps", early_stopping_patience=1, early_stopping_threshold=0.1
    )
    job = Job(tmp_path)
    best = Best.of(arguments, job)
    assert best is not None
    control = TrainerControl(should_save=True)
    history = [{"step": 1, "eval_loss": 1.0}, {"step": 2, "eval_loss": 0.95}]
    best.on_evaluate(None, TrainerState(log_history=history, global_step=2), control)
    best.finish(torch.nn.Linear(1, 1))
    assert control.should_training_stop, "it got better by less than the threshold"
    assert not control.should_save, "nothing goes on from there"
    assert job.facts == {"best_step": 2, "best_eval_loss": 0.95}, "the lowest, all the same"


def test_losses_go_to_tensorboard(
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorboardX")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    folder = tmp_path / "runs"
    training = {"max_steps": 2, "report_to": ("tensorboard",), "logging_dir": folder}
    reported, _, _ = trained(lora_step(phrases, training), tiny_phi3, tmp_path, "reported")
    (file,) = folder.rglob("events.out.tfevents.*")
    assert b"train/loss" in file.read_bytes()
    plain, _, _ = trained(lora_step(phrases, {"max_steps": 2}), tiny_phi3, tmp_path, "plain")
    assert adapter_bytes(reported) == adapter_bytes(plain), "what is told changes no result"


def test_what_is_told_and_where_is_not_in_the_key(phrases: Path, tmp_path: Path) -> None:
    def key(**training: Any) -> Any:
        return lora_step(phrases, training).key_form(lambda path: path.name)

    plain = key()
    assert key(report_to=("mlflow",), run_name="mine", logging_dir=tmp_path) == plain
    assert key(label_smoothing_factor=0.1) != plain


def test_a_tracker_that_is_not_installed(
    phrases: Path,
) -> None:
    class WithoutWandb(Here):
        def version(self, library: str) -> str | None:
            return None if library == "wandb" else super().version(library)

    refusal = lora_step(phrases, {"report_to": ("wandb",)}).refusal_in(WithoutWandb())
    assert refusal is not None
    assert str(refusal) == (
        "training_args.report_to: names wandb, which is not installed\n  pip install wandb"
    )
    assert lora_step(phrases, {"report_to": ()}).refusal("hf", Target()) is None


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"load_best_model_at_end": True}, "need eval_strategy"),
        ({"early_stopping_patience": 3}, "need eval_strategy"),
        ({"early_stopping_patience": 3, "eval_strategy": "epoch"}, "need rows to measure on"),
        ({"report_to": ("comet",)}, 'report_to names "comet"; known are tensorboard, mlflow'),
        ({"report_to": ("tensorboard",)}, "tensorboard needs logging_dir"),
    ],
)
def test_what_does_not_fit_together(training: Any, words: str, phrases: Path) -> None:
    with pytest.raises(ValueError, match=words):
        lora_step(phrases, training)


@pytest.mark.parametrize(
    "training",
    [
        {"label_smoothing_factor": 0.1},
        {"neftune_noise_alpha": 5.0},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}},
    ],
)
def test_arguments_that_change_what_is_learnt(
    training: dict[str, Any],
    tiny_phi3: Path,
    phrases: Path,
    tmp_path: Path,
) -> None:
    steps = {"max_steps": 4, "learning_rate": 5e-3}
    plain, _, _ = trained(lora_step(phrases, steps), tiny_phi3, tmp_path, "plain")
    found, _, _ = trained(lora_step(phrases, steps | training), tiny_phi3, tmp_path, "found")
    assert adapter_bytes(found) != adapter_bytes(plain)
    names = set(load_file(found / "adapter_model.safetensors"))
    assert names == set(load_file(plain / "adapter_model.safetensors"))
