"""Load a Hugging Face folder with transformers: local files, safetensors, no foreign code."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model


def runs_remote_code(model: Model) -> bool:
    """Return whether the model's own code is to run: asked for, and there is no other way.

    Where transformers has the architecture itself, its code is used, whatever the config says.
    """
    config, _ = transformers.PretrainedConfig.get_config_dict(
        str(model.path), local_files_only=True
    )
    native = config.get("model_type") in transformers.CONFIG_MAPPING
    if not native and "auto_map" in config and not model.remote_code:
        raise DrupeError(
            str(model.path),
            f"has an architecture ({config.get('model_type')}) that transformers lacks, and brings "
            "code of its own",
            'If you trust that code, allow it: "load_kwargs": {"trust_remote_code": true}.',
        )
    return not native and model.remote_code


def tell_about_code(model: Model, job: Job) -> None:
    """Say in a line where the config allows foreign code and none is run."""
    if model.remote_code and not runs_remote_code(model):
        job.note("trust_remote_code changes nothing: transformers has this architecture itself")


def load_causal_lm(model: Model, dtype: torch.dtype | str = "auto", **options: Any) -> Any:
    """Return the checkpoint in model.path (kind hf) as a transformers model on the CPU.

    options: further arguments of from_pretrained.
    """
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(model.path),
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=runs_remote_code(model),
        **options,
    )


def load_tokenizer(model: Model) -> Any:
    """Return the tokenizer that lies with the model."""
    return transformers.AutoTokenizer.from_pretrained(
        str(model.path),
        local_files_only=True,
        trust_remote_code=model.kind == "hf" and runs_remote_code(model),
    )
