"""A transformers model whose weights come from disk just in time and go right after.

A module's parameters are read, in float32, when it is called, and given up when it returns: the
memory is that of the largest layer, whatever the size of the model. Built on torch's module hooks
(https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html, register_forward_pre_hook).
Heavy file: the worker imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from drupe.checkpoint.tensors import Checkpoint, open_checkpoint
from drupe.core.errors import DrupeError


class NamesDiffer(DrupeError):
    """The names in the files are not those of transformers' modules; the model may still be sound.

    transformers renames and joins the tensors of some architectures while it loads them.
    """


def streamed_model(folder: Path, remote_code: bool = False) -> nn.Module:
    """Return the causal language model in `folder`, for inference in float32 on the CPU.

    remote_code: the model's own Python code may run.
    Raises NamesDiffer when a parameter's name or shape is not found in the checkpoint.
    """
    checkpoint = open_checkpoint(folder)
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=remote_code
    )
    # Buffers (the rotary frequencies) are computed, not stored, so they are real from the start.
    with init_empty_weights(include_buffers=False):
        network: nn.Module = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=remote_code
        )
    aliases = _aliases(network, config, checkpoint)
    _check_names(network, checkpoint, aliases, folder)
    _load_buffers(network, checkpoint)
    for module_name, module in network.named_modules():
        if module_name and module_name in aliases_modules(aliases):
            pass
        _stream(module, module_name, checkpoint, aliases)
    return network.eval()
