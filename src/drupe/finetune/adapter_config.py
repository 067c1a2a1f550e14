"""What of PEFT's adapter_config.json drupe can merge.  Light: asked at plan time too."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from drupe.checkpoint.header import headers
from drupe.checkpoint.quantized_base import FILE
from drupe.core.errors import DrupeError
from drupe.finetune.target_modules import OUTPUT_LAYERS

WHERE = "MergeAdapterWeights"
# Fields of adapter_config.json that say how the adapter came about, not what it computes ...
DESCRIPTIVE = {
    *("peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type"),
    *("inference_mode", "lora_dropout", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "runtime_config", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config"),
    # ... or are without meaning while their switch (use_qalora, megatron_config) is off.
    *("qalora_group_size", "megatron_core"),
}
HONOURED = {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"}
# Those that leave the base weights as they were. The others (PiSSA, OLoRA, CorDA, LoftQ, ...)
# train against changed base weights, to which the adapter would have to be added.
HARMLESS_STARTS: tuple[Any, ...] = (True, False, None, "gaussian", "eva", "orthogonal")


def read_settings(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`; raises DrupeError."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise DrupeError(str(file), f"cannot be read: {fault}", "Make the model again.") from fault
    if not isinstance(settings, dict):
        raise DrupeError(str(file), "holds no JSON object", "Make the model again.")
    return settings


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise DrupeError for all that is neither LoRA nor DoRA, and for fields that are not known."""
    if settings.get("peft_type") != "LORA":
        raise _unmergeable("peft_type", settings.get("peft_type"))
    if settings.get("bias", "none") != "none":
        raise _unmergeable("bias", settings["bias"])
    start = settings.get("init_lora_weights", True)
    if start not in HARMLESS_STARTS:
        raise DrupeError(
            WHERE,
            f'the adapter was trained with init_lora_weights="{start}", which changes the base '
            "weights before training; added to the original ones it computes something else",
            "Save it with PEFT's path_initial_model_for_weight_conversion, which makes it plain "
            "LoRA, or merge it with PEFT.",
        )
    known = DESCRIPTIVE | HONOURED | {"peft_type", "bias", "init_lora_weights"}
    for name, value in settings.items():
        if name not in known and value not in (None, False, [], {}, ""):
            raise _unmergeable(name, value)


def check_base(asked: str, *, four_bit: bool, start: str | None = None) -> None:
    """Raise DrupeError where an adapter cannot be folded into the base that is asked for.

    four_bit: it was trained on a 4-bit base. start: "loftq" where it began as what that took away.
    """
    if asked == "dequantized" and not four_bit:
        raise DrupeError(
            f"{WHERE}.base",
            'is "dequantized", but nothing tells that the adapter was trained on a 4-bit base '
            f"({FILE} does, which QLoRA writes)",
            'Write "original", or train with QLoRA.',
        )
    if asked == "original" and start:
        raise DrupeError(
            f"{WHERE}.base",
            f'is "original", but the adapter ({start}) holds what rounding to 4 bits took from the '
            "base: it would be added twice",
            'Write "dequantized" or "auto".',
        )


def check_tensors(adapter: Path, base: Path) -> None:
    """Raise DrupeError for trained layers and added tokens, by the headers of both folders.

    PEFT saves some layers of the base with an adapter; a copy does no harm, and has its shape.
    """
    shapes = {spec.name: spec.shape for spec in headers(base)}
    for spec in headers(adapter):
        if ".lora_" in spec.name:
            continue
        name = spec.name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if name in shapes and spec.shape != shapes[name]:
            raise DrupeError(
                WHERE,
                f'cannot merge this adapter: it holds "{name}" as {list(spec.shape)}, where the '
                f"base has {list(shapes[name])}: tokens were added, and their rows trained",
                "Merge it with PEFT (merge_and_unload), or train without added tokens.",
            )


def check_tied(wanted: Collection[str], config: Mapping[str, Any]) -> None:
    """Raise DrupeError where an output layer is adapted whose weights are the embedding's."""
    tied = config.get("tie_word_embeddings") or (config.get("text_config") or {}).get(
        "tie_word_embeddings"
    )
    for module in wanted:
        if tied and module.rpartition(".")[2] in OUTPUT_LAYERS:
            raise DrupeError(
                WHERE,
                f'the adapter changes "{module}", but its weights are tied to the embedding: '
                "folding it in would change the embedding too",
                f"Train without {module} among target_modules.",
            )


def _unmergeable(name: str, value: Any) -> DrupeError:
    return DrupeError(
        WHERE,
        f"cannot merge this adapter: its adapter_config.json says {name}={json.dumps(value)}",
        "Merge it with PEFT (merge_and_unload), or train plain LoRA on linear layers.",
    )
