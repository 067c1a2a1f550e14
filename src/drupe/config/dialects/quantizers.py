"""N18: Olive's passes that round weights are settings of ModelBuilder, which rounds as it exports.

Rtn, KQuant                  + ModelBuilder   what they gave was a checkpoint, then exported
ModelBuilder + OnnxBlockWiseRtnQuantization, OnnxKQuantQuantization   a graph, then quantized
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drupe.config.dialects.builder import BUILDER, ROUNDING, SYMMETRIC
from drupe.config.dialects.known import NOTHING
from drupe.config.dialects.rule import Note, short
from drupe.config.source import Map, Origin


@dataclass(frozen=True)
class Quantizer:
    """One of Olive's passes. exported: whether it works on a graph, behind ModelBuilder.

    block, symmetric: what its fields are called, with their defaults; None: it has none.
    """

    rounding: str
    exported: bool
    block: tuple[str, int]
    symmetric: tuple[str | None, bool]


QUANTIZERS = {
    "Rtn": Quantizer("rtn", False, ("group_size", 128), ("sym", False)),
    "KQuant": Quantizer("mse", False, ("group_size", 32), ("sym", False)),
    "OnnxBlockWiseRtnQuantization": Quantizer(
        "rtn", True, ("block_size", 128), ("is_symmetric", True)
    ),
    "OnnxKQuantQuantization": Quantizer("mse", True, ("block_size", 32), (None, False)),
}
PRECISIONS = {4: "int4", 8: "int8"}
FLOATS = ("fp32", "fp16", "bf16")
# What changes nothing here: how a file is written, and an axis that MatMulNBits does not have.
WITHOUT_EFFECT = (
    *("axis", "save_as_external_data", "all_tensors_to_one_file", "external_data_name"),
    *("size_threshold", "convert_attribute", "disable_search", "output_name", "evaluator"),
)
# What gives some tensors another grid, or none.
CHOOSING = (
    *("modules_to_not_convert", "overrides", "customized_weight_config"),
    *("nodes_to_exclude", "nodes_to_include", "quantize_vision", "moe"),
)


def quantizers(config: Map) -> Iterator[Note]:
    """N18: fold each pass that rounds weights into the ModelBuilder beside it."""
    passes = config.get("passes")
    if not isinstance(passes, Map):
        return
    for name in list(passes):
        entry = passes[name]
        kind = entry.get("type") if isinstance(entry, Map) else None
        if isinstance(kind, str) and kind in QUANTIZERS:
            names = list(passes)
            place = names.index(name) + (-1 if QUANTIZERS[kind].exported else 1)
            beside = names[place] if 0 <= place < len(names) else None
            yield from _fold(passes, name, QUANTIZERS[kind], beside)


def _fold(passes: Map, name: str, quantizer: Quantizer, beside: str | None) -> Iterator[Note]:
    """Fold the pass `name` into the one beside it, by its name, where that is a ModelBuilder."""
    entry: Map = passes[name]
    told = entry.origins["type"]
    place = f'{told.path} "{entry["type"]}"'
    fields, faults = _fields(entry, quantizer)
    passes.drop(name)
    if faults:
        yield from faults
        return
    written = ", ".join(f'"{key}": {json.dumps(value)}' for key, (value, _) in fields.items())
    builder = passes[beside] if beside is not None else None
    if beside is None or not isinstance(builder, Map) or builder.get("type") != BUILDER:
        where = "comes before it" if quantizer.exported else "follows it"
        text = f"{place} rounds weights, which {BUILDER} does as it exports, and none {where}"
        remedy = f'Write a pass {{"type": "{BUILDER}", {written}}} in its place.'
        yield Note("N18", told.where, text, "fault", remedy)
        return
    clash = _clash(builder, fields, quantizer)
    if clash:
        yield Note("N18", told.where, f"{place} {clash}", "fault", f"Write {written} there.")
        return
    for key, (value, origin) in fields.items():
        builder.put(key, value, origin)
    path = passes.origins[beside].path
    yield Note("N18", told.where, f"{place} is read as fields of {path}: {written}")
    if not quantizer.exported and not entry.get("lm_head"):
        text = f"{place} leaves the head as it is; {BUILDER} quantizes it as the other layers"
        yield Note("N18", told.where, text, "warning")


def _fields(entry: Map, quantizer: Quantizer) -> tuple[dict[str, tuple[Any, Origin]], list[Note]]:
    """Return the fields of ModelBuilder that an entry means, and what of it cannot be honoured."""
    told = entry.origins["type"]
    (block, usual_block), (symmetric, usual_symmetric) = quantizer.block, quantizer.symmetric
    bits = entry.get("bits", 4)
    fields = {
        "precision": (PRECISIONS.get(bits) if type(bits) is int else None, "bits"),
        "int4_block_size": (entry.get(block, usual_block), block),
        SYMMETRIC: (entry.get(symmetric, usual_symmetric) if symmetric else False, symmetric),
        ROUNDING: (quantizer.rounding, None),
    }
    if "accuracy_level" in entry:
        fields["int4_accuracy_level"] = (entry["accuracy_level"], "accuracy_level")
    if entry.get("embeds"):
        fields["quantize_embeddings"] = (True, "embeds")
    known = {"type", "bits", "lm_head", "embeds", "accuracy_level", block, symmetric}
    faults = []
    for key, value in entry.items():
        origin = entry.origins[key]
        if key in known or key in WITHOUT_EFFECT or (key in CHOOSING and value in NOTHING):
            continue
        what = "gives some layers another grid" if key in CHOOSING else "has no counterpart"
        text = f"{origin.path} {what} ({short(value)}), which is not done here"
        faults.append(Note("N18", origin.where, text, "fault", "Leave it out."))
    if fields["precision"][0] is None:
        origin = entry.origins["bits"]
        text = f"{origin.path} is {short(bits)}; weights are exported in 4 or 8 bits"
        faults.append(Note("N18", origin.where, text, "fault", 'Write "bits": 4 or 8.'))
    found = {
        key: (value, entry.origins.get(named, told) if named else told)
        for key, (value, named) in fields.items()
    }
    return found, faults


def _clash(builder: Map, fields: dict[str, tuple[Any, Origin]], quantizer: Quantizer) -> str | None:
    """Return what the ModelBuilder says otherwise; behind it, floats are what is quantized."""
    for key, (value, _) in fields.items():
        if key not in builder or builder[key] == value:
            continue
        if key == "precision" and quantizer.exported and builder[key] in FLOATS:
            continue
        said = f"{builder.origins[key].path} ({builder.origins[key].where})"
        return f"asks for {key} {short(value)}, but {said} is {short(builder[key])}"
    return None
