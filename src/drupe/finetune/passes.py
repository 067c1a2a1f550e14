"""The passes of fine-tuning, declared: LoRA and the merging of its adapter.  Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from drupe.core.dataset import Dataset, HeldOut, Names
from drupe.core.operation import Metric, Pass
from drupe.finetune.training_args import TrainingArgs

TRAINING_PRELOAD = (
    "torch",
    "transformers:Trainer",
    "transformers:AutoModelForCausalLM",
    "transformers:AutoTokenizer",
    "peft",
    "datasets",
)


class LoRA(Pass):
    """Train a low-rank adapter: W + (alpha / r) * B A (Hu et al. 2021, arXiv:2106.09685, 4.1)."""

    takes, gives = ("hf",), "hf-adapter"
    libraries = ("torch", "transformers", "tokenizers", "peft", "accelerate", "datasets")
    extra = "finetune"
    preload = TRAINING_PRELOAD
    work = "drupe.finetune.lora:train"

    train_data_config: Dataset
    """The rows to train on."""
    eval_data_config: Dataset | None = None
    """Rows to measure the loss on while training."""
    eval_dataset_size: HeldOut | None = None
    """Without eval_data_config: rows held out, as a fraction (below 1) or a count."""
    r: int = Field(default=64, ge=1)
    """Rank of the adapter."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapter, divided by r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: Names | None = None
    """Names of the linear layers to adapt; None: what PEFT knows for the model's type, else all."""
    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Computing type; auto: bfloat16 where the hardware computes in it, else float32."""
    training_args: TrainingArgs = TrainingArgs()

    @model_validator(mode="after")
    def _one_source_of_evaluation_rows(self) -> LoRA:
        if self.eval_data_config and self.eval_dataset_size:
            raise ValueError("give eval_data_config or eval_dataset_size, not both")
        return self


class MergeAdapterWeights(Pass):
    """Fold a LoRA adapter into its base weights, one tensor at a time, in float32, cast once."""

    takes, gives = ("hf-adapter",), "hf"
    libraries = ("torch", "safetensors")
    extra = "finetune"
    preload = TRAINING_PRELOAD
    work = "drupe.finetune.merge:merge"
    proof = "MergeProof"


class MergeProof(Metric):
    """Show on probe text that the merged model is base + adapter, and is not the base.

    One linear layer's weights are in memory at a time, whatever the size of the model.
    """

    takes, compares = ("hf",), True
    libraries = ("torch", "transformers", "peft", "accelerate", "safetensors")
    extra = "finetune"
    preload = TRAINING_PRELOAD
    work = "drupe.finetune.merge_proof:prove"
