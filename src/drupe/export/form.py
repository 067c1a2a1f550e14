"""In which form a decoder is written, by the fields of the pass and the target.  Light."""

from __future__ import annotations

from dataclasses import dataclass

from drupe.export.decoder import Decoder
from drupe.export.passes import ExportGenAI
from drupe.quantize.grid import Grid

# The type of activations and caches. Attention of CUDA and DirectML knows 16 bits alone, that of
# the CPU is at home in 32.
ACTIVATIONS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
OF_QUANTIZED = {"cpu": "F32", "cuda": "F16", "dml": "F16", "webgpu": "F16"}
BITS = {"int4": 4, "int8": 8}
# 4: products of 8-bit integers. Without it 8-bit weights are 86 times slower on the CPU.
USUAL_ACCURACY_LEVEL = {"cpu": 4, "webgpu": 4}
# Who multiplies by a matrix as an embedding has it, row by row (FusedMatMul of com.microsoft).
TRANSPOSED_PRODUCTS = ("cpu", "cuda", "dml")
ROTARY_GRAIN = 16  # attention turns that many values of a head at a time


@dataclass(frozen=True)
class Form:
    """How a decoder is written.

    dtype: of activations, caches and all that is not quantized ("F32"). grid: of the weights of
    linear layers, None for `dtype`; accuracy_level: of MatMulNBits. head: the grid of the output
    layer. embedding: that of the embedding, None for floats. embedding_dtype: those floats' type.
    joined: whether queries, keys and values are one product, turned inside the attention.
    shared: whether an embedding and a head that are tied, both in floats, are one tensor.
    """

    dtype: str
    grid: Grid | None
    accuracy_level: int
    head: Grid | None
    embedding: Grid | None
    embedding_dtype: str
    joined: bool = True
    shared: bool = False
    with_embedding: bool = True
    with_head: bool = True


def form_of(step: ExportGenAI, decoder: Decoder, stored_dtype: str) -> Form:
    """Return the form that a pass asks for; stored_dtype: the checkpoint's, of its embedding."""
    provider = step.target.short_provider
    dtype = ACTIVATIONS.get(step.precision) or OF_QUANTIZED[provider]
    bits = BITS.get(step.precision)
    grid = Grid(bits, step.int4_block_size, step.int4_is_symmetric) if bits else None
    level = step.int4_accuracy_level
    turns_inside = all(each.size % ROTARY_GRAIN == 0 for each in decoder.rotaries.values())
    # 16 bits that are widened when they are looked up are the same values in half the space.
    narrow = dtype == "F32" and stored_dtype in ("F16", "BF16")
    embedding = grid if _is_embedding_quantized(step, decoder) else None
    whole = not step.exclude_embeds and not step.exclude_lm_head
    shared = decoder.tied and whole and grid is None and provider in TRANSPOSED_PRODUCTS
    return Form(
        dtype=dtype,
        grid=grid,
        accuracy_level=USUAL_ACCURACY_LEVEL.get(provider, 0) if level is None else level,
        head=grid,
        embedding=embedding,
        embedding_dtype=stored_dtype if narrow and not shared else dtype,
        joined=provider != "dml" and turns_inside,
        shared=shared,
        with_embedding=not step.exclude_embeds,
        with_head=not step.exclude_lm_head,
    )


def _is_embedding_quantized(step: ExportGenAI, decoder: Decoder) -> bool:
    """Return whether the embedding is; unasked it shares the codes of a head that it is tied to."""
    if step.quantize_embeddings is not None:
        return step.quantize_embeddings
    whole_blocks = decoder.hidden % step.int4_block_size == 0  # of each token's row
    return decoder.tied and whole_blocks and not step.exclude_lm_head
