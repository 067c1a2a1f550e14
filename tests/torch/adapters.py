"""Adapters with random matrices, as PEFT writes them, and ways to spoil one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from drupe.core.model import Model

TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]  # of Phi-3


def make_adapter(
    base: Path, folder: Path, *, size: float = 0.05, seed: int = 0, **config: Any
) -> Model:
    """Write a PEFT adapter with random matrices, as PEFT itself writes it."""
    torch.manual_seed(seed)
    config = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **config}
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    network = peft.get_peft_model(network, peft.LoraConfig(**config))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, size)
    network.save_pretrained(folder)
    return Model("hf-adapter", folder, "", Model("hf", base, ""))


def copied(adapter: Model, folder: Path, **settings: Any) -> Model:
    """Return a copy of the adapter with changed fields in its adapter_config.json."""
    assert adapter.base is not None
    shutil.copytree(adapter.path, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return Model("hf-adapter", folder, "", adapter.base)


def change_tensors(
    file: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> dict[str, torch.Tensor]:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return tensors
