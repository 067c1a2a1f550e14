"""The adapter's matrices, each beside the tensor of the base that it changes: what fits is read.

Plain LoRA, rank-stabilized LoRA and DoRA of linear layers; whatever else an adapter holds is
refused, by its name.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drupe.checkpoint.header import TensorSpec
from drupe.checkpoint.tensors import Checkpoint
from drupe.core.errors import DrupeError
from drupe.finetune.adapter_config import WHERE, check_settings, check_tied, read_settings
from drupe.finetune.target_modules import OUTPUT_LAYERS

MERGED_DTYPES = ("F32", "BF16", "F16")
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
MAGNITUDE = "base_model.model.{}.lora_magnitude_vector"


@dataclass(frozen=True)
class Pair:
    """The adapter of one linear layer.

    down: A, (r, in). up: B, (out, r). Both as they are stored, mapped to the adapter's file.
    scale: what B A is multiplied with. magnitude: m of DoRA, (out,), or None.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None


def read_pairs(adapter: Path, base: Checkpoint, config: Mapping[str, Any]) -> dict[str, Pair]:
    """Return the adapter's matrices by the name of the base tensor that each pair belongs to.

    config: the base's config.json. Raises DrupeError for whatever cannot be merged.
    """
    settings = read_settings(adapter / "adapter_config.json")
    check_settings(settings)
    if config.get("quantization_config"):
        raise DrupeError(
            WHERE,
            "the base model is quantized; folding into rounded weights would round them again",
            "Give the base model in bfloat16, float16 or float32.",
        )
    checkpoint = Checkpoint([adapter / "adapter_model.safetensors"])
    modules, others = _modules(checkpoint)
    magnitudes = {MAGNITUDE.format(module) for module in modules if settings.get("use_dora")}
    if not magnitudes <= set(others):
        raise DrupeError(
            WHERE,
            f'the adapter is DoRA, but lacks "{min(magnitudes - set(others))}"',
            "Save the adapter again.",
        )
    pairs = {}
    for module in modules:
        name = f"{module}.weight"
        _check_target(module, name, base, config)
        pair = _read_pair(checkpoint, module, settings)
        _check_shapes(module, pair, base.spec(name), _rank(module, settings))
        pairs[name] = pair
    for key in set(others) - magnitudes:
        _check_copy(key, checkpoint, base)
    if not any(bool(pair.up.any()) for pair in pairs.values()):
        raise DrupeError(
            WHERE,
            "the adapter has learnt nothing: all its B matrices are zero, as they are at the start",
            "Train it: is the learning rate zero, or were no steps done?",
        )
    return pairs


def _modules(adapter: Checkpoint) -> tuple[list[str], list[str]]:
    """Return the adapted modules, and the keys that are of no pair A and B."""
    sides: dict[str, set[str]] = {}
    others = []
    for key in adapter.names:
        match = KEY.fullmatch(key)
        if match is None:
            others.append(key)
        else:
            sides.setdefault(match["module"], set()).add(match["side"])
    for module, found in sides.items():
        if found != {"A", "B"}:
            raise DrupeError(
                WHERE,
                f'the adapter holds only lora_{found.pop()} of "{module}"',
                "Save the adapter again.",
            )
    if not adapter.names:
        raise DrupeError(WHERE, "the adapter holds no tensors", "Save the adapter again.")
    return list(sides), others


def _check_copy(key: str, adapter: Checkpoint, base: Checkpoint) -> None:
    """Refuse what is not a pair, but for a mere copy of a base tensor.

    PEFT saves the output layer's own weights with the adapter when it is adapted.
    """
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    if name in base:
        copy = adapter.read(key)
        if torch.equal(copy, base.read(name).to(copy.dtype)):
            return
    raise DrupeError(
        WHERE,
        f'cannot merge this adapter: it holds "{key}", which is neither LoRA of a linear layer nor '
        "a copy of the base's tensor",
        "Merge it with PEFT (merge_and_unload), or train plain LoRA on linear layers.",
    )


def _check_target(module: str, name: str, base: Checkpoint, config: Mapping[str, Any]) -> None:
    check_tied([module], config)
    if module.rpartition(".")[2] in OUTPUT_LAYERS and name not in base:
        raise DrupeError(
            WHERE,
            f'the adapter changes "{module}", but its weights are tied to the embedding: folding '
            "it in would change the embedding too",
            f"Train without {module} among target_modules.",
        )
    if name not in base:
        raise DrupeError(
            WHERE,
            f'the adapter changes "{module}", but the base model has no tensor "{name}": it is an '
            "adapter of another model",
            "Give the base model that the adapter was trained on.",
        )


def _read_pair(adapter: Checkpoint, module: str, settings: Mapping[str, Any]) -> Pair:
    down, up = (adapter.read(f"base_model.model.{module}.lora_{side}.weight") for side in "AB")
    name = MAGNITUDE.format(module)
    magnitude = adapter.read(name) if settings.get("use_dora") else None
    if not all(bool(each.isfinite().all()) for each in (down, up, magnitude) if each is not None):
        raise DrupeError(
            WHERE,
            f'the adapter of "{module}" holds values that are no numbers (NaN or infinite)',
            "Its training diverged: train again with a lower learning rate.",
        )
    alpha = _by_pattern(settings.get("alpha_pattern"), module, settings.get("lora_alpha", 8))
    rank = _rank(module, settings)
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return Pair(down, up, scale, magnitude)


def _rank(module: str, settings: Mapping[str, Any]) -> int:
    return int(_by_pattern(settings.get("rank_pattern"), module, settings.get("r", 8)))


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """Return what PEFT takes: of the first pattern that the end of the module's name matches.

    https://huggingface.co/docs/peft/package_reference/lora, rank_pattern: names or regular
    expressions; a leading "^" binds to the beginning.
    """
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _check_shapes(module: str, pair: Pair, spec: TensorSpec, rank: int) -> None:
    if spec.dtype not in MERGED_DTYPES:
        raise DrupeError(
            WHERE,
            f'the base stores "{spec.name}" as {spec.dtype}, which cannot be merged into',
            "Give the base model in bfloat16, float16 or float32.",
        )
    found = (tuple(pair.up.shape), tuple(pair.down.shape))
    expected = ((spec.shape[0], rank), (rank, spec.shape[-1]))
    if len(spec.shape) != 2 or found != expected:
        raise DrupeError(
            WHERE,
            f'the adapter of "{module}" has B {list(found[0])} and A {list(found[1])}; its rank '
            f"{rank} and the base's weight {list(spec.shape)} ask for {list(expected[0])} and "
            f"{list(expected[1])}",
            "Give the base model that the adapter was trained on.",
        )
