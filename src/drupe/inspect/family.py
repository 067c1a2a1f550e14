"""What kind of model a config.json describes, how large it is, and who can export it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drupe.checkpoint.header import TensorSpec
from drupe.core.errors import Refused
from drupe.export.families import (
    FAMILIES,
    architecture,
    mixture_of_experts,
    read_decoder,
)
from drupe.export.parts import Parts
from drupe.export.passes import ARCHITECTURES
from drupe.inspect.inspection import Family, Sizes

# Each size by its names in config.json: today's, then those of GPT-2 and T5.
NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "intermediate": ("intermediate_size", "n_inner", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "key_value_heads": ("num_key_value_heads",),
    "head_size": ("head_dim",),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions"),
}


def read_family(
    config: Mapping[str, Any], quantization: str | None, specs: Sequence[TensorSpec] = ()
) -> tuple[Family, Sizes]:
    """Return what a config.json describes.

    quantization: of the weights, None for floats. specs: the checkpoint's headers, by which it is
    seen whether its weights are those that the config describes.
    """
    name, kind = architecture(config), str(config.get("model_type") or "")
    try:
        decoder = read_decoder(config)
    except Refused as fault:
        mixture = mixture_of_experts(config)
        why = f"it is {mixture}" if mixture else ""
        why = f"config.json {fault.what}" if name in FAMILIES else why
        return _family(name, kind, why, quantization), _sizes(config)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as fault:
        why = f"config.json cannot be read: {type(fault).__name__}: {fault}"
        return _family(name, kind, why, quantization), _sizes(config)
    family = _family(name, decoder.type, "", quantization)
    if specs and quantization is None:
        try:
            Parts(decoder, {spec.name: spec for spec in specs}).check()
        except Refused as fault:
            family = Family(name, decoder.type, None, f"it {fault.what}")
    sizes = Sizes(
        layers=len(decoder.layers),
        hidden=decoder.hidden,
        intermediate=decoder.intermediate,
        heads=decoder.heads,
        key_value_heads=decoder.key_value_heads,
        head_size=decoder.head_size,
        vocabulary=decoder.vocabulary,
        context=decoder.context,
        tied=decoder.tied,
    )
    return family, sizes


def _family(name: str, kind: str, why: str, quantization: str | None) -> Family:
    if quantization is not None:
        return Family(name, kind, None, f"its weights are quantized already ({quantization})")
    if name in FAMILIES and not why:
        return Family(name, kind, "drupe")
    if name in ARCHITECTURES:
        return Family(name, kind, "onnxruntime-genai", why or "not among drupe's own families")
    unknown = f"neither drupe nor ONNX Runtime GenAI's builder knows {name or 'it'}"
    return Family(name, kind, None, why or unknown)


def _sizes(config: Mapping[str, Any]) -> Sizes:
    """Return the numbers that stand in config.json; those of text where it is of several kinds."""
    text = config.get("text_config")
    whole = {**config, **text} if isinstance(text, Mapping) else config
    found: dict[str, int | None] = {}
    for name, spellings in NAMES.items():
        values = (whole.get(each) for each in spellings)
        found[name] = next((value for value in values if type(value) is int), None)
    if found["head_size"] is None and found["hidden"] and found["heads"]:
        found["head_size"] = found["hidden"] // found["heads"]
    tied = whole.get("tie_word_embeddings")
    return Sizes(**found, tied=tied if isinstance(tied, bool) else None)


def described_quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return config.json's own words on quantized weights, {} where they are floats."""
    found = config.get("quantization_config")
    return found if isinstance(found, Mapping) else {}
