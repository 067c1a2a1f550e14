"""What an adapter's own files say: the method, its size, the base that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.checkpoint.quantized_base import quantized_base
from drupe.inspect.inspection import Adapter

METHODS = {"LORA": "LoRA", "LOHA": "LoHa", "LOKR": "LoKr"}


def read_adapter(folder: Path, config: Mapping[str, Any]) -> Adapter:
    """Return what adapter_config.json in `folder` says, with drupe's own words on the base."""
    base = quantized_base(folder)
    kind = str(config.get("peft_type") or "")
    method = METHODS.get(kind, kind or "unknown")
    if config.get("use_dora"):
        method = "DoRA"
    elif method == "LoRA" and base is not None:
        method = "QLoRA"
    targets = config.get("target_modules")
    named = config.get("base_model_name_or_path")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    return Adapter(
        method=method,
        rank=rank if isinstance(rank, int) else None,
        alpha=alpha if isinstance(alpha, int | float) else None,
        targets=tuple(sorted(map(str, targets)))
        if isinstance(targets, list)
        else ((targets,) if isinstance(targets, str) else ()),
        base=named if isinstance(named, str) else None,
        quantized_base=None
        if base is None
        else f"{base.quant_type}{', double quantization' if base.double_quant else ''}",
    )
