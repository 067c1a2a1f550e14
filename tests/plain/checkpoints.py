"""A folder with all that a checkpoint needs at plan time, written without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.checkpoint.header import ELEMENT_BYTES

SHAPES = {"weight": (4,)}
PHI3 = {
    "model.embed_tokens.weight": (6, 2),
    "model.layers.0.self_attn.o_proj.weight": (2, 2),
    "model.layers.0.self_attn.qkv_proj.weight": (6, 2),
    "model.norm.weight": (2,),
}


def safetensors(shapes: Mapping[str, Sequence[int]] = SHAPES, dtype: str = "U8") -> bytes:
    """Return a file of weights with tensors of zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * ELEMENT_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def make_checkpoint(
    folder: Path, shapes: Mapping[str, Sequence[int]] = SHAPES, **config: Any
) -> Path:
    """Write a checkpoint that passes every check of a plan, and that nothing can load."""
    folder.mkdir(exist_ok=True)
    config = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **config}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors(shapes))
    (folder / "tokenizer.json").write_text("{}")
    return folder
