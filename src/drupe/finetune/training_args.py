"""`training_args`: the fields of transformers' TrainingArguments that LoRA honours.

Each is handed on under its own name; what is not here is refused by name, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from drupe.core.dataset import Names
from drupe.core.declared import Declared
from drupe.core.effects import Idle

# How often is told and saved, and how many rows are measured at a time: the adapter is the same.
OF_NO_RESULT = (
    *("save_steps", "logging_steps", "per_device_eval_batch_size"),
    *("report_to", "logging_dir", "run_name"),
)
BITSANDBYTES_OPTIMIZERS = ("adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")
TRACKERS = ("tensorboard", "mlflow", "wandb")


class TrainingArgs(Declared):
    """Defaults suit a LoRA of a small model; `max_steps`, where given, outweighs the epochs."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the adapter's first values, and of dropout."""
    data_seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the order of the samples, and of the rows that are held out."""
    num_train_epochs: float = Field(default=3, gt=0)
    """How often all samples are gone through."""
    max_steps: int = -1
    """Steps of the optimizer, at least 1; -1: as the epochs give."""
    per_device_train_batch_size: int = Field(default=1, ge=1)
    """Samples that are computed at a time; more take more memory."""
    per_device_eval_batch_size: int = Field(default=1, ge=1)
    """Samples at a time when the loss is measured."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches whose gradients are added up before the optimizer takes a step."""
    gradient_checkpointing: bool = False
    """Compute activations twice in place of keeping them: less memory, more time."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Size of a step, at its largest."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "constant",
        "constant_with_warmup",
        "polynomial",
        "inverse_sqrt",
    ] = "constant"
    """How the learning rate goes on after the warm-up."""
    lr_scheduler_kwargs: dict[str, float] = Field(default_factory=dict)
    """Of the schedule: {"num_cycles": 3}, {"min_lr": 1e-5}."""
    warmup_steps: float = Field(default=0, ge=0)
    """Steps in which the learning rate rises from 0; below 1: the fraction of all steps."""
    optim: Literal[
        "auto",
        "adamw_torch",
        "adamw_torch_fused",
        "adafactor",
        "sgd",
        "adamw_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
    ] = "auto"
    """The optimizer; auto: fused AdamW. The last three are bitsandbytes', for an NVIDIA GPU."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of a weight that a step takes away, times the learning rate."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW: memory of the gradient's mean."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW: memory of the gradient's square."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """AdamW: what keeps its division from 0."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Longer gradients are cut to this length; 0: none is cut."""
    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the right token's weight that goes to all others."""
    neftune_noise_alpha: float | None = Field(default=None, gt=0)
    """Noise on the embeddings while training (Jain et al. 2023, arXiv:2310.05914)."""
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = "random"
    """The order of the samples; group_by_length: those of like length together."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps from one loss that is told to the next."""
    eval_strategy: Literal["no", "steps", "epoch"] = "no"
    """When the loss is measured on rows that are not trained on."""
    eval_steps: int | None = Field(default=None, ge=1)
    """eval_strategy steps: from one measuring to the next; None: logging_steps."""
    load_best_model_at_end: bool = False
    """Keep the adapter of the lowest loss on the evaluation rows, not the last one."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many measurements in which that loss was not lower."""
    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """By how much it has to be lower to count."""
    save_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints to go on from after a kill; None: about every 30 seconds."""
    report_to: Annotated[Names, BeforeValidator(lambda given: given or ())] = ()
    """tensorboard, mlflow, wandb: what the losses are sent to besides; "none" for nothing."""
    logging_dir: Path | None = None
    """Folder for tensorboard's and mlflow's files."""
    run_name: str | None = None
    """What mlflow and wandb call the run."""

    @field_validator("max_steps")
    @classmethod
    def _some_steps(cls, steps: int) -> int:
        if steps != -1 and steps < 1:
            raise ValueError("max_steps is at least 1, or -1 for as many as the epochs give")
        return steps

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        wanted = tuple(name for name in names if name != "none")
        for name in wanted:
            if name not in TRACKERS:
                raise ValueError(f'report_to names "{name}"; known are {", ".join(TRACKERS)}')
        return wanted

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingArgs:
        chooses = self.load_best_model_at_end or self.early_stopping_patience is not None
        if chooses and self.eval_strategy == "no":
            raise ValueError(
                "load_best_model_at_end and early_stopping_patience need eval_strategy: write "
                '"epoch" or "steps"'
            )
        if "tensorboard" in self.report_to and self.logging_dir is None:
            raise ValueError("report_to tensorboard needs logging_dir, a folder for its files")
        return self

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form without what changes no result."""
        named = self.model_copy(update={"logging_dir": None})  # written to, and never read
        form = super(TrainingArgs, named).key_form(digest)
        return {name: value for name, value in form.items() if name not in OF_NO_RESULT}

    def without_effect(self) -> list[Idle]:
        """Return what the schedule, the optimizer or the strategy that was chosen ignores."""
        idle = []
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            why = 'has no effect under lr_scheduler_type "constant"; write "constant_with_warmup"'
            idle.append(Idle(("warmup_steps",), why))
        if self.optim in ("sgd", "adafactor"):
            # weight_decay goes to every optimizer with the groups of its parameters
            idle += [
                Idle((name,), f'has no effect under optim "{self.optim}"')
                for name in ("adam_beta1", "adam_beta2", "adam_epsilon")
                if name in self.model_fields_set
            ]
        if self.eval_steps is not None and self.eval_strategy != "steps":
            why = f'has no effect under eval_strategy "{self.eval_strategy}"; write "steps"'
            idle.append(Idle(("eval_steps",), why))
        if self.max_steps != -1 and "num_train_epochs" in self.model_fields_set:
            idle.append(
                Idle(("num_train_epochs",), "has no effect beside max_steps: leave one out")
            )
        if self.early_stopping_threshold and self.early_stopping_patience is None:
            why = "has no effect without early_stopping_patience"
            idle.append(Idle(("early_stopping_threshold",), why))
        if self.eval_strategy == "steps" and 0 < self.max_steps < (self.eval_steps or 0):
            why = (
                f"is more than max_steps ({self.max_steps}): the loss is measured once, at the end"
            )
            idle.append(Idle(("eval_steps",), why))
        return idle
