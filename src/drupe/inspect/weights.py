"""Tensors sorted by what they are for, and summed up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from drupe.checkpoint.header import TensorSpec
from drupe.inspect.inspection import Share, Weight, Weights

# The first that fits says what a tensor is for: a norm may stand within an attention.
PARTS = {
    "rotary tables": re.compile(r"rotary|rope|(cos|sin)_cache|inv_freq"),
    "norms": re.compile(r"norm|(^|[./])ln_"),
    "head": re.compile(r"lm_head|embed_out|output_projection"),
    "embedding": re.compile(r"embed|(^|[./])w[tp]e([./]|$)"),
    "attention": re.compile(r"attn|attention"),
    "MLP": re.compile(r"mlp|feed_forward|ffn|expert|moe"),
}
OTHER, TABLES = "other", "rotary tables"
ORDER = ("embedding", "attention", "MLP", "norms", "head", TABLES, OTHER)
# Types as safetensors spells them, in words.
DTYPES = {
    "BOOL": "bool",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3",
    "BF16": "bfloat16",
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
}
COUNTS = {"bool", "int16", "int32", "int64", "uint16", "uint32", "uint64"}  # positions, lengths
# Of checkpoints in few bits: what stands beside the codes so that they can be read.
BESIDE_CODES = re.compile(
    r"\.(qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)$"
    r"|\.quant_state\."
)


def part_of(*names: str) -> str:
    """Return what a tensor is for, by the first of its names that tells."""
    for name in names:
        for part, pattern in PARTS.items():
            if pattern.search(name.lower()):
                return part
    return OTHER


def stored_weights(specs: Iterable[TensorSpec], quantization: Mapping[str, Any]) -> list[Weight]:
    """Return the tensors of safetensors files; quantization: config.json's, {} for none."""
    return [_stored(spec, quantization) for spec in specs]


def _stored(spec: TensorSpec, quantization: Mapping[str, Any]) -> Weight:
    part, dtype, count = part_of(spec.name), DTYPES[spec.dtype], prod(spec.shape)
    bits = code_bits(quantization)
    if bits is not None and BESIDE_CODES.search(spec.name):
        return Weight(spec.name, dtype, 0, spec.size_bytes, part)
    packed = spec.name.endswith(".qweight") or (
        dtype == "uint8" and quantization.get("quant_method") == "bitsandbytes"
    )
    if bits is not None and packed:
        return Weight(spec.name, f"int{bits}", 8 * spec.size_bytes // bits, spec.size_bytes, part)
    held = 0 if part == TABLES or dtype in COUNTS else count
    return Weight(spec.name, dtype, held, spec.size_bytes, part)


def code_bits(quantization: Mapping[str, Any]) -> int | None:
    """Return the bits of a code in a quantized checkpoint, as far as its config tells."""
    bits = quantization.get("bits") or quantization.get("w_bit")
    if bits is None and quantization.get("quant_method") == "bitsandbytes":
        bits = 4 if quantization.get("load_in_4bit") else 8
    return bits if isinstance(bits, int) and 1 <= bits <= 8 else None


def summed(weights: Iterable[Weight], files: Iterable[Path]) -> Weights:
    """Return the sums of all tensors, of each part and of each type."""
    listed = list(weights)
    parts = [Share.of(name, (weight for weight in listed if weight.part == name)) for name in ORDER]
    names = sorted({weight.dtype for weight in listed})
    dtypes = [Share.of(name, (each for each in listed if each.dtype == name)) for name in names]
    needed = Share.of("", (weight for weight in listed if weight.part != TABLES))
    return Weights(
        total=Share.of("all", listed),
        bits_per_weight=needed.bits_per_weight,
        parts=tuple(share for share in parts if share.tensors),
        dtypes=tuple(sorted(dtypes, key=lambda share: -share.size_bytes)),
        files={file.name: file.stat().st_size for file in files},
    )
