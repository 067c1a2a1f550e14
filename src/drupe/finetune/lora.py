"""LoRA: transformers' Trainer and PEFT around a checkpoint, a data set and a seed.

The same seed, files, threads and library versions give the same bytes of adapter on one machine,
also when the training was killed and went on from a checkpoint.  Heavy file: the worker imports
it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

from drupe.checkpoint.load import load_causal_lm, load_tokenizer
from drupe.core.dataset import Dataset, Part
from drupe.core.errors import DrupeError, nearest
from drupe.core.files import files_below, remove_tree, sync_file, write_atomic
from drupe.core.job import Job
from drupe.core.model import Model
from drupe.data import corpus, load
from drupe.finetune.passes import LoRA
from drupe.finetune.training_args import TrainingArgs

WHERE = "LoRA"
MANIFEST = "complete.json"
SECONDS_BETWEEN_CHECKPOINTS = 30.0
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
# Flags of processors that multiply bfloat16 in hardware (x86; `bf16` is Arm's).
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer but the output's


def train(step: LoRA, model: Model, out: Path, job: Job) -> None:
    """Train an adapter for `model` and write it, with the tokenizer, into `out`.

    Raises DrupeError for weights that are no safetensors, target modules that the model lacks,
    data that give no sample, a loss that is no number, and an adapter that did not change.
    """
    dtype = computing_type(step.torch_dtype)
    tokenizer = load_tokenizer(model)
    trains, evals = _samples(step, model, tokenizer, job)
    adapted = _adapted(step, model, dtype, job)
    torch.set_num_threads(job.threads)
    job.facts |= {
        "samples": len(trains),
        "eval_samples": len(evals),
        "tokens": sum(len(sample["input_ids"]) for sample in trains),
        "trainable_parameters": adapted.get_nb_trainable_parameters()[0],
        "dtype": str(dtype).removeprefix("torch."),
        "threads": job.threads,
    }
    checkpoints = job.scratch / "checkpoints"
    trainer = transformers.Trainer(
        model=adapted,
        args=training_arguments(step, checkpoints, dtype, evaluates=bool(evals)),
        train_dataset=trains,
        eval_dataset=evals or None,
        processing_class=tokenizer,
        data_collator=corpus.padding(tokenizer, step.train_data_config.pre_process_data_config),
        callbacks=[_Voice(job), _Checkpoints(step.training_args.save_steps)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    _tell_about_lengths(step, len(trains), has_evals=bool(evals), job=job)
    last = last_whole_checkpoint(checkpoints)
    job.facts["resumed_from"] = int(last.name.rpartition("-")[2]) if last else None
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    history = trainer.state.log_history
    job.facts["losses"] = _points(history, "loss")
    job.facts["eval_losses"] = _points(history, "eval_loss")
    _check_learned(adapted, step.training_args)
    _save(adapted, tokenizer, model, out)


def computing_type(asked: str) -> torch.dtype:
    """Return the type to compute in; raises DrupeError for float16 without a GPU."""
    on_gpu = torch.cuda.is_available()
    if asked == "float16" and not on_gpu:
        raise DrupeError(
            f"{WHERE}.torch_dtype",
            "is float16, in which a CPU cannot train",
            'Write "auto": bfloat16 where the hardware computes in it, else float32.',
        )
    if asked != "auto":
        return DTYPES[asked]
    fast = torch.cuda.is_bf16_supported() if on_gpu else cpu_computes_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def cpu_computes_bfloat16(listing: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this processor multiplies bfloat16; False where it cannot be known."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return False
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return bool(BFLOAT16_FLAGS & set(next(flags, "").split()))


def _samples(
    step: LoRA, model: Model, tokenizer: Any, job: Job
) -> tuple[list[corpus.Sample], list[corpus.Sample]]:
    """Return the samples to train on and those to measure the loss on (none where none are)."""
    train_data, eval_data = step.train_data_config, step.eval_data_config
    if step.eval_dataset_size:
        part = Part(eval_size=step.eval_dataset_size, seed=step.training_args.data_seed, side="eval")
        eval_data = train_data.model_copy(update={"part": part})
        train_part = part.model_copy(update={"side": "train"})
        train_data = train_data.model_copy(update={"part": train_part})
    context = _context_length(model)

    def made(data: Dataset, job: Job) -> list[corpus.Sample]:
        preprocess = data.pre_process_data_config
        if context and preprocess.max_seq_len > context:
            job.note(
                f"max_seq_len {preprocess.max_seq_len} is longer than the model's context: "
                f"the samples have {context} tokens at most."
            )
            preprocess = preprocess.model_copy(update={"max_seq_len": context})
        texts = load.texts(data, load.rows(data, job.scratch))
        return corpus.samples(texts, tokenizer, preprocess, job)

    return made(train_data, job), made(eval_data, job) if eval_data else []


def _context_length(model: Model) -> int | None:
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _adapted(step: LoRA, model: Model, dtype: torch.dtype, job: Job) -> PeftModel:
    """Return the model with a fresh adapter.

    The frozen weights are in the computing type, the adapter in float32 under autocast: an
    update of 1e-4 of a weight is lost in bfloat16, whose steps are 2^-8 of it.
    """
    if not any(model.path.glob("*.safetensors")):
        raise DrupeError(
            str(model.path),
            "has no weights as safetensors; other formats can run code when they are read",
            "Convert them: load the model where you trust it, and save_pretrained() it again.",
        )
    base = load_causal_lm(model, dtype)
    modules = target_modules(step, base, job)
    transformers.set_seed(step.training_args.seed)  # the adapter's first weights are drawn next
    adapted = get_peft_model(
        base,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=step.r,
            lora_alpha=int(step.alpha) if step.alpha.is_integer() else step.alpha,
            lora_dropout=step.lora_dropout,
            target_modules=modules,
            bias="none",
        ),
    )
    return adapted


def target_modules(step: LoRA, base: torch.nn.Module, job: Job) -> list[str] | str | None:
    """Return what LoraConfig takes; raises DrupeError for a name that no linear layer has."""
    if step.target_modules is None:
        known = transformers_types_of_peft()
        kind = base.config.model_type
        if kind in known:
            return None
        job.note(f"PEFT has no default target_modules for {kind}: all linear layers are adapted.")
        return ALL_LINEAR
    if step.target_modules == (ALL_LINEAR,):
        return ALL_LINEAR
    linear = [
        name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    for wanted in step.target_modules:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in linear):
            short = sorted({name.rpartition(".")[2] for name in linear})
            raise DrupeError(
                f"{WHERE}.target_modules",
                f'names "{wanted}", but the model has the linear layers '
                f"{', '.join(short)}{nearest(wanted, short)}",
                f'Name some of them, or "{ALL_LINEAR}".',
            )
    return list(step.target_modules)
