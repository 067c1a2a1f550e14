"""N17: what Olive's ModelBuilder of today is told besides our fields, read as those.

Its `extra_options` are the words of ONNX Runtime GenAI's builder, under one name or another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.known import NOTHING, Known, Refusal
from drupe.config.dialects.rule import Note, move, pass_entries, short
from drupe.config.source import Map

BUILDER = "ModelBuilder"
ROUNDING, SYMMETRIC = "rounding", "int4_is_symmetric"
# int4_algo_config -> rounding.
ALGORITHMS = {"default": "rtn", "rtn": "rtn", "k_quant": "mse"}
MIXED = ("rtn_last", "k_quant_mixed", "k_quant_last", "k_quant_linear")
# Which operators have their weights quantized -> quantize_embeddings.
OPERATORS: dict[tuple[str, ...], bool] = {("MatMul",): False, ("Gather", "MatMul"): True}
# Options of the builder that are fields of the pass, in Olive or here.
OPTIONS = {
    **{
        name: f"int4_{name}"
        for name in (
            *("block_size", "accuracy_level", "is_symmetric", "algo_config"),
            *("op_types_to_quantize", "nodes_to_exclude"),
        )
    },
    **{
        name: name
        for name in (
            *("exclude_embeds", "exclude_lm_head", "include_hidden_states", "enable_cuda_graph"),
            *("use_qdq", "use_8bits_moe", "use_webgpu_fp32", "use_cuda_bf16"),
            *("shared_embeddings", "hf_remote"),
        )
    },
}
OPTIONS |= {name: name for name in OPTIONS.values()}
NULLABLE = ("int4_block_size", SYMMETRIC, "exclude_embeds", "exclude_lm_head")
LISTED = ("int4_op_types_to_quantize", "int4_nodes_to_exclude")
EDIT = "in the exported genai_config.json"
BUILDER_ALONE = (
    "Leave it out, or run that builder itself (python -m onnxruntime_genai.models.builder)."
)

WORDS: Known = {
    "metadata_only": Refusal(
        NOTHING,
        "asks for genai_config.json and tokenizer without a graph",
        "Leave it out: they are written with the graph.",
    ),
    "search": Refusal(
        NOTHING, "changes how text is generated", f'Edit "search" {EDIT}; leave it out here.'
    ),
    "enable_cuda_graph": Refusal(
        NOTHING, "asks for CUDA graphs", f'Set "enable_cuda_graph": "1" {EDIT}; leave it out here.'
    ),
    "int4_nodes_to_exclude": Refusal(
        NOTHING,
        "asks for layers that stay floats",
        "Leave it out: all linear layers are on one grid; a smaller int4_block_size or "
        '"rounding": "mse" makes them more exact.',
    ),
    "use_qdq": Refusal(
        NOTHING,
        "asks for DequantizeLinear in place of MatMulNBits",
        "Leave it out: ONNX Runtime GenAI's providers compute with MatMulNBits.",
    ),
    "use_8bits_moe": Refusal(
        NOTHING, "asks for experts of a mixture in 8 bits", "Leave it out: precision is of all."
    ),
    "use_webgpu_fp32": Refusal(
        NOTHING,
        "asks for activations of 32 bits on WebGPU",
        'Leave it out, or write "precision": "fp32", whose weights are floats, too.',
    ),
    "use_cuda_bf16": Refusal(
        NOTHING,
        "asks for bfloat16 activations beside weights in few bits",
        'Leave it out (they are float16), or write "precision": "bf16", whose weights are, too.',
    ),
    "include_hidden_states": Refusal(
        NOTHING,
        "asks for hidden states beside the logits",
        'Write "exclude_lm_head": true: the graph gives them in place of the logits.',
    ),
    "shared_embeddings": Refusal(
        NOTHING,
        "asks for an embedding that shares the head's codes",
        'Write "quantize_embeddings": true: where the two are tied, they are written once.',
    ),
    "hf_remote": Refusal(
        NOTHING,
        "asks for the model's own code",
        'Write "load_kwargs": {"trust_remote_code": true} in input_model.',
    ),
}


def builder_words(config: Map) -> Iterator[Note]:
    """N17: options of the builder are fields; what chooses codes is `rounding`."""
    for entry in pass_entries(config.get("passes")):
        if entry.get("type") == BUILDER:
            yield from _extra_options(entry)
            for name in NULLABLE:
                if name in entry and entry[name] is None:
                    entry.drop(name)
            yield from _algorithm(entry)
            yield from _operators(entry)


def _extra_options(entry: Map) -> Iterator[Note]:
    extra = entry.get("extra_options")
    if extra is None and "extra_options" in entry:
        entry.drop("extra_options")
    if not isinstance(extra, Map):
        return
    entry.drop("extra_options")
    for name in list(extra):
        origin = extra.origins[name]
        if name not in OPTIONS:  # its value may be a token: it is not told
            text = f"{origin.path} is an option of ONNX Runtime GenAI's builder without a field"
            yield Note("N17", origin.where, text, "fault", BUILDER_ALONE)
            continue
        field = OPTIONS[name]
        extra[name] = _value(field, extra[name])
        faults = list(move("N17", extra, name, entry, field))
        yield from faults or [Note("N17", origin.where, f"{origin.path} is read as {field}")]


def _value(field: str, written: Any) -> Any:
    """Return an option's value, which a command line writes as text."""
    if not isinstance(written, str):
        return written
    if field in LISTED:
        return [part for part in written.replace(",", "/").split("/") if part]
    if written.lower() in ("true", "false"):
        return written.lower() == "true"
    if written in ("0", "1") and field not in ("int4_block_size", "int4_accuracy_level"):
        return written == "1"
    return int(written) if written.isdecimal() else written


def _algorithm(entry: Map) -> Iterator[Note]:
    if "int4_algo_config" not in entry:
        return
    written, origin = entry["int4_algo_config"], entry.origins["int4_algo_config"]
    if written is None:
        entry.drop("int4_algo_config")
        return
    rounding = ALGORITHMS.get(written) if isinstance(written, str) else None
    if rounding is None:
        entry.drop("int4_algo_config")
        what = "gives some layers more bits than others" if written in MIXED else "is not known"
        text = f"{origin.path} {what} ({short(written)}), which is not done here"
        remedy = f'Write "{ROUNDING}": "mse" (the least squared error) or "rtn" (to nearest).'
        yield Note("N17", origin.where, text, "fault", remedy)
        return
    entry["int4_algo_config"] = rounding
    yield from move("N17", entry, "int4_algo_config", entry, ROUNDING)
    yield Note(
        "N17", origin.where, f"{origin.path} {short(written)} is read as {ROUNDING} {rounding}"
    )
    if rounding == "mse":  # k_quant always keeps zero points
        if entry.get(SYMMETRIC) is True:
            text = f"{entry.origins[SYMMETRIC].path} has no effect: k_quant keeps zero points"
            yield Note("N17", entry.origins[SYMMETRIC].where, text, "warning")
        entry.put(SYMMETRIC, False, entry.origins.get(SYMMETRIC, origin))


def _operators(entry: Map) -> Iterator[Note]:
    name = "int4_op_types_to_quantize"
    if name not in entry:
        return
    written = entry[name]
    origin = entry.drop(name)
    if not written:
        return
    listed = written if isinstance(written, list) else [written]
    embeddings = OPERATORS.get(tuple(sorted(map(str, listed))))
    if embeddings is None:
        text = f"{origin.path} is {short(written)}, which is not done here"
        remedy = 'Write "quantize_embeddings": true for Gather; MatMul is always among them.'
        yield Note("N17", origin.where, text, "fault", remedy)
    elif embeddings:
        entry.put("quantize_embeddings", True, origin)
        yield Note("N17", origin.where, f"{origin.path} is read as quantize_embeddings")
    else:
        yield Note("N17", origin.where, f"{origin.path} asks for what is done, and is left out")
