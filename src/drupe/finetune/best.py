"""The best adapter so far, and when to stop looking for a better one.

The lowest loss on the evaluation rows decides what is kept; the threshold is about stopping
alone. The best adapter lies in the step's scratch folder,
so that a training that was killed knows it when it goes on; how long ago it was is read from the
Trainer's own history, which its checkpoints hold.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.finetune.training_args import TrainingArgs

FILE = "best-{step}.safetensors"


class Best(transformers.TrainerCallback):  # type: ignore[misc]
    """Keeps the adapter of the lowest loss; stops after `patience` measurements without one."""

    def __init__(
        self, folder: Path, job: Job, *, keeps: bool, patience: int | None, threshold: float
    ) -> None:
        self._folder = folder
        self._job = job
        self._keeps = keeps
        self._patience = patience
        self._threshold = threshold
        self._best: tuple[int, float] | None = None

    @classmethod
    def of(cls, arguments: TrainingArgs, job: Job) -> Best | None:
        """Return what the arguments ask for; None for nothing."""
        keeps, patience = arguments.load_best_model_at_end, arguments.early_stopping_patience
        if not keeps and patience is None:
            return None
        threshold = arguments.early_stopping_threshold
        return cls(job.scratch, job, keeps=keeps, patience=patience, threshold=threshold)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Keep the adapter if it is the best; ask for the end if there was none for long."""
        step, _ = best_of(state.log_history)
        measured = dict(_losses(state.log_history))
        self._best = (step, measured[step])
        if self._keeps and step == state.global_step:
            for old in self._folder.glob(FILE.format(step="*")):
                old.unlink()
            # Its own name when it is whole: a kill while writing leaves none of that name.
            half = self._folder / ".best-half"
            save_file(get_peft_model_state_dict(more["model"]), half)
            half.replace(self._folder / FILE.format(step=step))
        counted, since = best_of(state.log_history, self._threshold)
        if self._patience is not None and since >= self._patience:
            self._job.note(
                f"Stopped at step {state.global_step}: no lower loss on the evaluation rows in "
                f"{since} measurements since step {counted}."
            )
            control.should_training_stop = True
            control.should_save = False  # there is nothing to go on to

    def finish(self, adapted: PeftModel) -> None:
        """Take the best adapter in place of the last one; tell which it is."""
        if self._best is None:
            return
        step, loss = self._best
        self._job.facts |= {"best_step": step, "best_eval_loss": loss}
        if not self._keeps:
            return
        file = self._folder / FILE.format(step=step)
        if not file.is_file():
            raise DrupeError(str(file), "is gone: the best adapter is not there", "Run again.")
        set_peft_model_state_dict(adapted, load_file(file))


def best_of(history: list[dict[str, float]], threshold: float = 0.0) -> tuple[int, int]:
    """Return the step of the best measurement, and how many came after it.

    One is better if its loss is lower by more than `threshold`.
    """
    best_step, best_loss, since = 0, float("inf"), 0
    for step, loss in _losses(history):
        if loss < best_loss - threshold:
            best_step, best_loss, since = step, loss, 0
        else:
            since += 1
    return best_step, since


def _losses(history: list[dict[str, float]]) -> list[tuple[int, float]]:
    return [(int(entry["step"]), entry["eval_loss"]) for entry in history if "eval_loss" in entry]
