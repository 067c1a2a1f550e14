"""LoftQ: an adapter that begins as what rounding its base to 4 bits took away.

Li et al. 2023, arXiv:2310.08659, 3.1 with one step: with Q = q(W) the product B A is the best one
of rank r for W - Q (Eckart and Young), its singular values halved between the two. The base stays
the plain Q, which any QLoRA loader makes of the checkpoint.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from drupe.checkpoint.four_bit import round_trip
from drupe.checkpoint.quantized_base import QuantizedBase
from drupe.checkpoint.tensors import open_checkpoint

ADAPTER = "default"


def start_from_rounding(adapted: PeftModel, folder: Path, base: QuantizedBase) -> None:
    """Set the adapter of each quantized layer; `folder` holds the weights before they were."""
    checkpoint = open_checkpoint(folder)
    for name, layer in adapted.named_modules():
        module = name.removeprefix("base_model.model.")
        if not isinstance(layer, LoraLayer) or module not in base.modules:
            continue
        weight = checkpoint.read(f"{module}.weight").float()
        left = weight - round_trip(weight, base).float()
        up, down = factors(left, layer.r[ADAPTER])
        half = layer.scaling[ADAPTER] ** -0.5
        layer.lora_B[ADAPTER].weight.data.copy_(up * half)
        layer.lora_A[ADAPTER].weight.data.copy_(down * half)


def factors(
    matrix: torch.Tensor,  # (out, in), float32
    rank: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (out, rank) and (rank, in) whose product is nearest to `matrix`; zeros fill them up.

    The singular value decomposition itself, not a randomized one: the same on every run.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, len(values))
    up, down = torch.zeros(len(matrix), rank), torch.zeros(rank, matrix.shape[1])
    root = values[:kept].sqrt()
    up[:, :kept], down[:kept] = left[:, :kept] * root, root[:, None] * right[:kept]
    return up, down
