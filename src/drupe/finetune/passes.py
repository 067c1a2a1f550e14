"""The passes of fine-tuning, declared: LoRA and its kin, and the merging.  Light: no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from drupe.checkpoint.quantized_base import quantized_base
from drupe.core.accelerator import has_bitsandbytes_optimizers
from drupe.core.dataset import Dataset, HeldOut, Names, Part
from drupe.core.effects import Idle
from drupe.core.errors import DrupeError, Refused
from drupe.core.libraries import HERE, Environment
from drupe.core.merging import Base
from drupe.core.model import Model
from drupe.core.operation import Metric, Operation, Pass
from drupe.finetune.adapter_config import (
    check_base,
    check_settings,
    check_tensors,
    read_settings,
)
from drupe.finetune.target_modules import (
    OUTPUT_LAYERS,
    matrices,
    missing_module,
    tied_module,
)
from drupe.finetune.training_args import BITSANDBYTES_OPTIMIZERS, TrainingArgs

CHARACTERS_A_TOKEN = 4  # of English; what else a file of rows holds evens out the rest
# Whichever of these is there serves the tracker of that name.
DISTRIBUTIONS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "wandb": ("wandb",),
}
TRAINING_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "datasets")
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

    version = 3
    takes, gives = ("hf",), "hf-adapter"
    libraries: ClassVar[tuple[str, ...]] = TRAINING_LIBRARIES
    extra = "finetune"
    preload: ClassVar[tuple[str, ...]] = TRAINING_PRELOAD
    work = "drupe.finetune.lora:train"
    preview = "drupe.finetune.preview"

    train_data_config: Dataset
    """The rows to train on."""
    eval_data_config: Dataset | None = None
    """Rows to measure the loss on while training."""
    eval_dataset_size: HeldOut | None = None
    """Without eval_data_config: rows held out, as a fraction (below 1) or a count."""
    r: int = Field(default=64, ge=1, le=65536)
    """Rank of the adapter."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapter, divided by r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of what enters the adapter that each training step leaves out by chance."""
    target_modules: Annotated[Names, Field(min_length=1)] | None = None
    """Names of the linear layers to adapt; None: what PEFT knows for the model's type, else all."""
    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Computing type; auto: bfloat16 where the hardware computes in it, else float32."""
    training_args: TrainingArgs = TrainingArgs()
    """How it is trained."""

    @model_validator(mode="after")
    def _one_source_of_evaluation_rows(self) -> LoRA:
        if self.eval_data_config and self.eval_dataset_size:
            raise ValueError("give eval_data_config or eval_dataset_size, not both")
        arguments = self.training_args
        chooses = arguments.load_best_model_at_end or arguments.early_stopping_patience is not None
        if chooses and not (self.eval_data_config or self.eval_dataset_size):
            raise ValueError(
                "load_best_model_at_end and early_stopping_patience need rows to measure on: give "
                "eval_data_config or eval_dataset_size"
            )
        return self

    def deciding_libraries(self) -> tuple[str, ...]:
        """Return the libraries, with bitsandbytes where the optimizer is its."""
        its_own = self.training_args.optim in BITSANDBYTES_OPTIMIZERS
        more = ("bitsandbytes",) if its_own and "bitsandbytes" not in self.libraries else ()
        return (*self.libraries, *more)

    def refusal_in(self, environment: Environment) -> Refused | None:
        """Refuse trackers that are not installed, and optimizers that do not run here, too."""
        optimizer = self.training_args.optim
        here = environment is HERE
        if here and optimizer in BITSANDBYTES_OPTIMIZERS and not has_bitsandbytes_optimizers():
            return Refused(
                "training_args.optim",
                f'is "{optimizer}", which needs an NVIDIA GPU, a torch for it and bitsandbytes',
                'Write "auto", or train where they are.',
            )
        for name in self.training_args.report_to:
            if not any(map(environment.version, DISTRIBUTIONS[name])):
                what = f"names {name}, which is not installed"
                remedy = environment.remedy or f"pip install {DISTRIBUTIONS[name][0]}"
                return Refused("training_args.report_to", what, remedy)
        return super().refusal_in(environment)

    def refusal_elsewhere(self) -> Refused | None:
        """Refuse to write into a folder of this machine."""
        if self.training_args.logging_dir is None:
            return None
        return Refused(
            "training_args.logging_dir",
            "is a folder of this machine, and the step runs on another",
            "Leave it out, with the trackers that write there, or run with --system local.",
        )

    def refusal_of_source(self, source: Model) -> Refused | None:
        """Refuse target modules that are not there, or not apart, by names and config."""
        if source.kind != "hf" or not self.target_modules:
            return None
        stored = [name for name in self.target_modules if name not in OUTPUT_LAYERS]
        modules = matrices(source.path) if stored else ()
        missing = missing_module(stored, modules) if modules else None
        return missing or tied_module(self.target_modules, source.path)

    def without_effect(self) -> list[Idle]:
        """Return the measuring of the loss, where no rows are named to measure it on."""
        measures = self.training_args.eval_strategy != "no"
        if not measures or self.eval_data_config or self.eval_dataset_size:
            return []
        why = "has no rows to measure on: name eval_data_config or eval_dataset_size"
        return [Idle(("training_args", "eval_strategy"), why)]

    def variant(self) -> str:
        """Return the shape of a batch, on which the memory depends."""
        rows = self.train_data_config.pre_process_data_config
        return f"-{self.training_args.per_device_train_batch_size}x{rows.max_seq_len}"

    def data(self) -> tuple[Dataset, Dataset | None]:
        """Return the rows to train on, and those to measure the loss on."""
        rows = self.train_data_config
        if not self.eval_dataset_size:
            return rows, self.eval_data_config
        size, seed = self.eval_dataset_size, self.training_args.data_seed
        train, held_out = (
            rows.model_copy(update={"part": Part(eval_size=size, seed=seed, side=side)})
            for side in ("train", "eval")
        )
        return train, held_out

    def training_rows(self) -> Dataset | None:
        """Return the rows to train on."""
        return self.data()[0]

    def evaluation_rows(self) -> Dataset | None:
        """Return the rows to measure the loss on."""
        return self.data()[1]

    def work_units(self, model_bytes: int) -> float:
        """Return about how many tokens are trained on, times the bytes of the model."""
        arguments = self.training_args
        rows = self.train_data_config
        longest = rows.pre_process_data_config.max_seq_len
        if arguments.max_steps > 0:
            batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
            tokens: float = arguments.max_steps * batch * longest
        else:
            files = [file for file in rows.load_dataset_config.local_files if file.is_file()]
            characters = sum(file.stat().st_size for file in files)
            tokens = arguments.num_train_epochs * characters / CHARACTERS_A_TOKEN
        return tokens * model_bytes

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what the demo (2.4M parameters) and a model of 98M took on two cores."""
        tokens = work / max(model_bytes, 1)
        seconds = 4 + tokens * (1.3e-4 + 7e-12 * model_bytes)
        rows = self.train_data_config.pre_process_data_config
        batch = self.training_args.per_device_train_batch_size * rows.max_seq_len
        # What a token leaves for the way back grows with the width: about a root of the size.
        activations = int(min(batch, max(tokens, 1)) * 55 * math.sqrt(model_bytes))
        return seconds, 330 * 10**6 + 2 * model_bytes + activations, None


class DoRA(LoRA):
    """Train magnitude and direction apart: m * (W + s B A) / ||W + s B A||, row by row.

    Liu et al. 2024, arXiv:2402.09353, 4.1. In PEFT's own comparison it takes about a quarter more
    time than LoRA.
    """


class QLoRA(LoRA):
    """Train a low-rank adapter on a base in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

    The base takes a quarter of its memory; the adapter and the products stay as in LoRA.
    """

    libraries = (*TRAINING_LIBRARIES, "bitsandbytes")
    preload = (*TRAINING_PRELOAD, "bitsandbytes")

    target_modules: Annotated[Names, Field(min_length=1)] | None = None
    """Names of the linear layers to adapt; None: all but the output layer."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values of a weight: the quantiles of a normal distribution, or 4-bit floats."""
    double_quant: bool = False
    """Quantize the scales too: 0.37 bits a weight less."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Type of the products; None: that of torch_dtype."""

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what a base in 4 bits takes: 219 s and 3.33 GB for one of 7.64 GB, one step."""
        seconds, peak, output = super().rule_of_thumb(work, model_bytes)
        seconds = None if seconds is None else seconds + 2.7e-8 * model_bytes  # to round them all
        return seconds, None if peak is None else peak - int(1.62 * model_bytes), output


class LoftQ(QLoRA):
    """QLoRA whose adapter begins as what the rounding to 4 bits took away.

    Li et al. 2023, arXiv:2310.08659, 3.1, one step of it: the base stays the plain 4-bit one.
    """

    quant_type: Literal["nf4"] = "nf4"
    """The 16 values of a weight: the quantiles of a normal distribution."""


class MergeAdapterWeights(Pass):
    """Fold an adapter into its base weights, one tensor at a time, in float32, cast once."""

    takes, gives = ("hf-adapter",), "hf"
    version = 2
    libraries = ("torch", "safetensors")
    extra = "finetune"
    preload = TRAINING_PRELOAD
    work = "drupe.finetune.merge:merge"
    proof = "MergeProof"

    base: Base = "auto"
    """The weights to fold into: the checkpoint's (original), or those 4-bit ones that QLoRA
    trained on, read back (dequantized). auto: what the adapter was trained on."""

    def proof_fields(self) -> dict[str, Any]:
        """Return what the proof has to know: which base the adapter was folded into."""
        return {"base": self.base}

    def refusal_of_source(self, source: Model) -> Refused | None:
        """Refuse an adapter of the config's that cannot be merged, or not in this way."""
        if source.kind != "hf-adapter":
            return None
        try:
            check_settings(read_settings(source.path / "adapter_config.json"))
            base = quantized_base(source.path)
            check_base(self.base, four_bit=base is not None, start=base.start if base else None)
            if source.base is not None:
                check_tensors(source.path, source.base.path)
        except DrupeError as fault:
            return Refused(fault.where, fault.what, fault.remedy)
        return None

    def refusal_behind(self, before: Operation, source: Model) -> Refused | None:
        """Refuse to fold an adapter into a base that it was not made for."""
        if not isinstance(before, LoRA):
            return None
        try:
            start = "loftq" if isinstance(before, LoftQ) else None
            check_base(self.base, four_bit=isinstance(before, QLoRA), start=start)
        except DrupeError as fault:
            return Refused(
                fault.where.removeprefix("MergeAdapterWeights."), fault.what, fault.remedy
            )
        return None

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what 3.8B parameters took on two cores: the disk's speed, one tensor."""
        return 0.1 + 3.8e-9 * work, 340 * 10**6, model_bytes


class MergeProof(Metric):
    """Show on probe text that the merged model is base + adapter, and is not the base.

    In place of a merged model, an adapter that is merged while it is read.
    One linear layer's weights are in memory at a time, whatever the size of the model.
    """

    takes, compares = ("hf", "hf-adapter"), True
    libraries = ("torch", "transformers", "peft", "accelerate", "safetensors")
    extra = "finetune"
    preload = TRAINING_PRELOAD
    work = "drupe.finetune.merge_proof:prove"

    base: Base = "auto"
    """The base that the adapter was folded into, as MergeAdapterWeights has it."""

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what 3.8B parameters took on two cores."""
        return 0.3 + 1.6e-8 * work, 340 * 10**6 + model_bytes // 10, 0
