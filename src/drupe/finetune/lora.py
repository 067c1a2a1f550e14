"""LoRA: transformers' Trainer and PEFT around a checkpoint, a data set and a seed.

The same seed, files, threads and library versions give the same bytes of adapter on one machine,
also when the training was killed and went on from a checkpoint.  Heavy file: the worker imports
it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS

from drupe.checkpoint.load import load_causal_lm, load_tokenizer, tell_about_code
from drupe.checkpoint.quantized_base import QuantizedBase
from drupe.core.dataset import Dataset
from drupe.core.errors import DrupeError
from drupe.core.files import write_atomic
from drupe.core.job import Job
from drupe.core.model import Model, tokenizer_files
from drupe.data import corpus, load
from drupe.data.strategies import longest
from drupe.finetune import trackers
from drupe.finetune.best import Best
from drupe.finetune.passes import DoRA, LoftQ, LoRA, QLoRA
from drupe.finetune.target_modules import ALL_LINEAR, missing_module
from drupe.finetune.training_args import BITSANDBYTES_OPTIMIZERS, TrainingArgs
from drupe.finetune.training_checkpoints import Checkpoints, last_whole_checkpoint

WHERE = "LoRA"
# A last loss that is so much above the first says that the training has come apart.
DIVERGED = 1.5
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
# Flags of processors that multiply bfloat16 in hardware (x86; `bf16` is Arm's).
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def train(step: LoRA, model: Model, out: Path, job: Job) -> None:
    """Train an adapter for `model` and write it, with the tokenizer, into `out`.

    Raises DrupeError for weights that are no safetensors, target modules that the model lacks,
    data that give no sample, a loss that is no number, and an adapter that did not change.
    """
    _check_format(model)
    dtype = computing_type(step.torch_dtype)
    tell_about_code(model, job)
    tokenizer = load_tokenizer(model)
    train_data, eval_data = cut_to_context(step, model, job)
    trains, most = samples_of(train_data, tokenizer, job)
    evals, _ = samples_of(eval_data, tokenizer, job) if eval_data else ([], 0)
    adapted, quantized = _adapted(step, model, dtype, job)
    vocabulary = adapted.get_input_embeddings().weight.shape[0]
    corpus.check_vocabulary([*trains, *evals], tokenizer, vocabulary)
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
    best = Best.of(step.training_args, job)
    trackers.begin(step.training_args)
    trainer = transformers.Trainer(
        model=adapted,
        args=training_arguments(step, checkpoints, dtype, evaluates=bool(evals)),
        train_dataset=trains,
        eval_dataset=evals or None,
        processing_class=tokenizer,
        data_collator=corpus.padding(
            tokenizer, train_data.pre_process_data_config, most, vocabulary
        ),
        callbacks=[
            _Voice(job),
            Checkpoints(step.training_args.save_steps),
            *([best] if best else []),
        ],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    _tell_about_lengths(step, len(trains), has_evals=bool(evals), job=job)
    last = last_whole_checkpoint(checkpoints)
    job.facts["resumed_from"] = int(last.name.rpartition("-")[2]) if last else None
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trackers.end(step.training_args)
    history = trainer.state.log_history
    if best is not None:
        best.finish(adapted)
    job.facts["losses"] = _points(history, "loss")
    job.facts["eval_losses"] = _points(history, "eval_loss")
    _check_learned(adapted, step.training_args)
    _check_losses([loss for _, loss in job.facts["losses"]], job)
    # The tuned model is asked as it was taught: the template goes on with its tokenizer.
    _save(adapted, model, out, train_data.pre_process_data_config.chat_template)
    if quantized is not None:
        quantized.write(out)


def computing_type(asked: str) -> torch.dtype:
    """Return the type to compute in; raises DrupeError for float16 without a GPU.

    auto: bfloat16 where the hardware computes in it. Seconds of training on two cores with
    AVX512-BF16, float32 and bfloat16: 2.4M parameters 4.6 and 4.3, 6M 3.7 and 2.7.
    """
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


def _check_format(model: Model) -> None:
    """Raise DrupeError unless the weights are safetensors."""
    if not any(model.path.glob("*.safetensors")):
        raise DrupeError(
            str(model.path),
            "has no weights as safetensors; other formats can run code when they are read",
            "Convert them: load the model where you trust it, and save_pretrained() it again.",
        )


def cut_to_context(step: LoRA, model: Model, job: Job) -> tuple[Dataset, Dataset | None]:
    """Return the data to train on and to measure the loss on, cut to the model's context."""
    train_data, eval_data = step.data()
    context = _context_length(model)
    asked = train_data.pre_process_data_config.max_seq_len
    if context and asked > context:
        job.note(f"max_seq_len {asked} is cut to the model's context of {context} tokens.")
    return _cut(train_data, context), _cut(eval_data, context) if eval_data else None


def _cut(data: Dataset, context: int | None) -> Dataset:
    preprocess = data.pre_process_data_config
    if not context or preprocess.max_seq_len <= context:
        return data
    preprocess = preprocess.model_copy(update={"max_seq_len": context})
    return data.model_copy(update={"pre_process_data_config": preprocess})


def samples_of(data: Dataset, tokenizer: Any, job: Job) -> tuple[list[corpus.Sample], int]:
    """Return the samples of tokens that `data` gives, and the most tokens that one may have."""
    rows = load.rows(data, job.scratch)
    form, preprocess = load.form_of(data, rows), data.pre_process_data_config
    if form.recognised:
        job.note(f"The rows of {data.name} are read as {form.name}, by their columns.")
    examples = load.examples(data, rows, tokenizer)
    found = corpus.samples(examples, form, tokenizer, preprocess, job)
    return found, longest(form, preprocess)


def _context_length(model: Model) -> int | None:
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    length = config.get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _adapted(
    step: LoRA, model: Model, dtype: torch.dtype, job: Job
) -> tuple[PeftModel, QuantizedBase | None]:
    """Return the model with a fresh adapter, and how its base was quantized, if it was.

    The frozen weights are in the computing type, the adapter in float32 under autocast: an
    update of 1e-4 of a weight is lost in bfloat16, whose steps are 2^-8 of it.
    """
    base, quantized = _base(step, model, dtype)
    modules = target_modules(step, base, job)
    transformers.set_seed(step.training_args.seed)  # the adapter's first weights are drawn next
    adapted = get_peft_model(
        base,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=step.r,
            lora_alpha=int(step.alpha) if float(step.alpha).is_integer() else step.alpha,
            lora_dropout=step.lora_dropout,
            target_modules=modules,
            use_dora=isinstance(step, DoRA),
            bias="none",
        ),
    )
    if quantized is not None and isinstance(step, LoftQ):
        from drupe.finetune.loftq import start_from_rounding

        start_from_rounding(adapted, model.path, quantized)
        quantized = replace(quantized, start="loftq")
    return adapted, quantized


def _base(step: LoRA, model: Model, dtype: torch.dtype) -> tuple[Any, QuantizedBase | None]:
    if not isinstance(step, QLoRA):
        return load_causal_lm(model, dtype), None
    from drupe.checkpoint.four_bit import load_four_bit

    compute = DTYPES[step.compute_dtype] if step.compute_dtype else dtype
    return load_four_bit(model, step.quant_type, step.double_quant, dtype, compute)


def target_modules(step: LoRA, base: Any, job: Job) -> list[str] | str | None:
    """Return what LoraConfig takes; raises DrupeError for a name that no linear layer has."""
    if step.target_modules is None and isinstance(step, QLoRA):
        return ALL_LINEAR
    if step.target_modules is None:
        kind = base.config.model_type
        if kind in DEFAULT_TARGETS:
            return None
        job.note(f"PEFT has no default target_modules for {kind}: all linear layers are adapted.")
        return ALL_LINEAR
    if step.target_modules == (ALL_LINEAR,):
        return ALL_LINEAR
    linear = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)]
    fault = missing_module(step.target_modules, linear)
    if fault:
        raise DrupeError(f"{WHERE}.{fault.where}", fault.what, fault.remedy)
    return list(step.target_modules)


def training_arguments(
    step: LoRA, folder: Path, dtype: torch.dtype, *, evaluates: bool
) -> transformers.TrainingArguments:
    """Return the Trainer's arguments: the config's under their own names, and what is ours."""
    fields = step.training_args.model_dump()
    for ours in ("load_best_model_at_end", "logging_dir"):
        del fields[ours]
    for ours in ("early_stopping_patience", "early_stopping_threshold"):
        del fields[ours]
    fields["report_to"] = list(fields["report_to"]) or "none"
    fields["lr_scheduler_kwargs"] = fields["lr_scheduler_kwargs"] or None
    if fields["optim"] == "auto":
        fields["optim"] = "adamw_torch_fused"
    if not evaluates:
        fields["eval_strategy"] = "no"
    if fields.pop("save_steps"):
        fields |= {"save_strategy": "steps", "save_steps": step.training_args.save_steps}
    else:
        fields["save_strategy"] = "no"  # Checkpoints asks for one now and then
    on_gpu = torch.cuda.is_available()
    if fields["optim"] in BITSANDBYTES_OPTIMIZERS and not on_gpu:  # what the key says is what runs
        raise DrupeError(
            f"{WHERE}.training_args.optim",
            f'is "{fields["optim"]}", which needs a GPU, and torch finds none',
            'Write "auto", or look at what `drupe doctor` says of the machine.',
        )
    return transformers.TrainingArguments(
        **fields,
        output_dir=str(folder),
        save_total_limit=2,  # the last one may be torn
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=0,  # samples lie in memory, and the generator's state in one place
        remove_unused_columns=False,
        prediction_loss_only=True,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would put the mean in the place of a broken loss
        disable_tqdm=True,
    )


def _tell_about_lengths(step: LoRA, samples: int, *, has_evals: bool, job: Job) -> None:
    """Tell in a line each where the numbers of steps do not do what they seem to say."""
    arguments = step.training_args
    batches = math.ceil(samples / arguments.per_device_train_batch_size)
    an_epoch = math.ceil(batches / arguments.gradient_accumulation_steps)
    by_epochs = math.ceil(arguments.num_train_epochs * an_epoch)
    total = arguments.max_steps if arguments.max_steps > 0 else by_epochs
    if total != by_epochs:
        job.note(
            f"max_steps {total} outweighs num_train_epochs {arguments.num_train_epochs:g} "
            f"({by_epochs} steps)."
        )
    if arguments.eval_strategy == "no":
        return
    if not has_evals:
        job.note(
            f'eval_strategy is "{arguments.eval_strategy}", but there are no rows to measure on: '
            "give eval_dataset_size or eval_data_config."
        )
    elif arguments.eval_strategy == "steps" and (arguments.eval_steps or 0) > total:
        job.note(
            f"eval_steps {arguments.eval_steps} is more than the {total} steps there are: the "
            "loss on the held-out rows is measured once, at the end."
        )


class _Voice(transformers.TrainerCallback):  # type: ignore[misc]
    """Tell the progress, and stop where the loss is no number."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._loss: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        also = {} if self._loss is None else {"loss": self._loss}
        self._job.progress("training", state.global_step, state.max_steps, "steps", **also)
        if state.global_step >= state.max_steps:
            control.should_log = True  # however few the steps, the last loss is known

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for name in ("loss", "eval_loss", "train_loss"):
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                raise DrupeError(
                    f"{WHERE}, step {state.global_step}",
                    f"{name} is {value}, no number: the training has come apart",
                    "Lower learning_rate, or set torch_dtype to float32.",
                )
        self._loss = logs.get("loss", self._loss)


def _points(history: list[dict[str, float]], name: str) -> list[list[float]]:
    """Return [[step, value], ...] of one logged quantity, before and after a resumption."""
    return [[entry["step"], entry[name]] for entry in history if name in entry]


def _check_learned(adapted: PeftModel, arguments: TrainingArgs) -> None:
    """Raise DrupeError unless the adapter is all numbers and no longer where it began.

    B begins as zeros, so the adapter adds nothing while it is all zeros.
    """
    weights = {name: w for name, w in adapted.named_parameters() if w.requires_grad}
    if not all(bool(w.isfinite().all()) for w in weights.values()):
        raise DrupeError(
            WHERE, "the adapter has weights that are no numbers", "Lower learning_rate."
        )
    if not any(bool(w.any()) for name, w in weights.items() if "lora_B" in name):
        raise DrupeError(
            WHERE,
            "the adapter did not change: the tuned model would be the model before",
            f"Look at learning_rate ({arguments.learning_rate:g}), warmup_steps "
            f"({arguments.warmup_steps:g}) and the number of steps.",
        )


def _check_losses(losses: Sequence[float], job: Job) -> None:
    """Raise DrupeError where the loss has risen by far, warn where it did not fall."""
    if len(losses) < 2:
        return
    told = f"the loss was {losses[0]:.3g} at the first step and is {losses[-1]:.3g} at the last"
    if losses[-1] > DIVERGED * losses[0]:
        raise DrupeError(WHERE, f"the training has come apart: {told}", "Lower learning_rate.")
    if losses[-1] >= losses[0]:
        job.warn(f"The adapter has learnt nothing of use: {told}.")


def _save(adapted: PeftModel, model: Model, out: Path, template: str | None) -> None:
    """Write adapter and tokenizer: nothing that names this machine, nothing that varies.

    The tokenizer is the model's own, file by file: training adds nothing to it but the template
    of messages that the config gave.
    """
    adapted.save_pretrained(out, save_embedding_layers=False)
    for file in tokenizer_files(model.path):
        copied = out / file.relative_to(model.path)
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copied)
    if template is not None:  # before the one in tokenizer_config.json, if there is one
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    (out / "README.md").unlink(missing_ok=True)  # PEFT's model card, empty but for a path
    file = out / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model.path.name
    if isinstance(config["target_modules"], list):  # a set, written in the order of its hashes
        config["target_modules"].sort()
    write_atomic(file, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
