"""The linear layers that an adapter is for, by name.  Light: asked at plan time too."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from drupe.checkpoint.header import headers
from drupe.core.errors import Refused, nearest

ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer but the output's
# The output layer of a model with tied embeddings has no weights of its own in the files.
OUTPUT_LAYERS = ("lm_head", "embed_out", "output_layer")


def matrices(folder: Path) -> set[str]:
    """Return the modules of a checkpoint that may be linear layers, as its files name them.

    Empty where the names say little: layers of experts are stored one by one and loaded as one.
    """
    names = [spec.name for spec in headers(folder) if len(spec.shape) == 2]
    if any(".experts." in name for name in names):
        return set()
    modules = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    return {name for name in modules if "embed" not in name.rpartition(".")[2]}


def missing_module(wanted: Collection[str], modules: Collection[str]) -> Refused | None:
    """Return the refusal of the first name in `wanted` that none of `modules` has, or None."""
    for name in wanted:
        if name == ALL_LINEAR or any(f".{each}".endswith(f".{name}") for each in modules):
            continue
        short = sorted({each.rpartition(".")[2] for each in modules})
        return Refused(
            "target_modules",
            f'names "{name}", but the model has the linear layers '
            f"{', '.join(short)}{nearest(name, short)}",
            f'Name some of them, or "{ALL_LINEAR}".',
        )
    return None


def tied_module(wanted: Collection[str], folder: Path) -> Refused | None:
    """Return the refusal of an output layer in `wanted` whose weights are the embedding's, or None.

    What an adapter learns for it can be folded into no tensor: merging refuses it, hours later.
    """
    outputs = [name for name in wanted if name.rpartition(".")[2] in OUTPUT_LAYERS]
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tied = config.get("tie_word_embeddings") is True
    except (OSError, ValueError, AttributeError):
        return None  # told where the model is looked at
    if not outputs or not tied:
        return None
    return Refused(
        "target_modules",
        f'names "{outputs[0]}", but its weights are tied to the embedding: an adapter of it could '
        "not be merged",
        f"Leave {outputs[0]} out.",
    )
