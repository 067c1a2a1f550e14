"""A folder with all that a checkpoint needs at plan time, written without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def safetensors(size: int = 4) -> bytes:
    """Return a file of weights with one tensor of `size` bytes."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def make_checkpoint(folder: Path) -> Path:
    """Write a checkpoint that passes every check of a plan, and that nothing can load."""
    folder.mkdir(exist_ok=True)
    config = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "tokenizer.json").write_text("{}")
    return folder
