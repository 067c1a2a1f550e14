"""What a safetensors file says of itself: names, dtypes, shapes, places.  Light: no torch.

The format (https://huggingface.co/docs/safetensors, "Format"): eight bytes with the length of the
header, little-endian; the header, JSON {name: {dtype, shape, data_offsets}}, padded with spaces to
a multiple of eight; the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.core.errors import Refused

LENGTH_BYTES = 8
# The same limit as safetensors' own reader has: a longer header is an attack, not a model.
HEADER_BYTES_MOST = 100_000_000
AGAIN = "Copy or download the model again: this file is damaged."

# Bytes of an element, by the dtype's name in a header; in the order of safetensors' own list.
ELEMENT_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "C64": 8,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its values. dtype: as safetensors spells it ("BF16")."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes the values take."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. begin: offset in bytes from the beginning of the file."""

    spec: TensorSpec
    file: Path
    begin: int


def read_header(file: Path) -> list[StoredTensor]:
    """Return what a safetensors file holds, in the order of its bytes.

    Raises Refused when the file is cut short or its header is not what the format says.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(LENGTH_BYTES)
            if start == b"version ":
                raise Refused(str(file), "is a pointer of Git LFS, not the file", "git lfs pull")
            length = int.from_bytes(start, "little") if len(start) == LENGTH_BYTES else 0
            if not 2 <= length <= min(file.stat().st_size - LENGTH_BYTES, HEADER_BYTES_MOST):
                what = "is no whole safetensors file: it has no header"
                raise Refused(str(file), what, AGAIN)
            text = stream.read(length)
        entries = json.loads(text, object_pairs_hook=_without_duplicates)
        entries.pop("__metadata__", None)
        origin = LENGTH_BYTES + length
        stored = [_stored(file, name, entry, origin) for name, entry in entries.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as fault:
        raise damaged(file, f"its header cannot be read: {fault}") from fault
    stored.sort(key=lambda tensor: (tensor.begin, tensor.spec.size_bytes))
    end = origin
    for tensor in stored:
        if tensor.begin != end:
            raise damaged(file, f'"{tensor.spec.name}" does not begin where the last ended')
        end += tensor.spec.size_bytes
    size = file.stat().st_size
    if size != end:
        raise damaged(file, f"it is {size:,} bytes long, but its header tells of {end:,}")
    return stored


def headers(folder: Path) -> list[TensorSpec]:
    """Return what all safetensors files of a folder hold; raises Refused as `read_header` does."""
    files = sorted(folder.glob("*.safetensors"))
    return [tensor.spec for file in files for tensor in read_header(file)]


def damaged(file: Path, fault: str) -> Refused:
    """Return the error for a file of weights that is not what the format says."""
    return Refused(str(file), f"is no whole safetensors file: {fault}", AGAIN)


def _stored(file: Path, name: str, entry: dict[str, Any], origin: int) -> StoredTensor:
    if entry["dtype"] not in ELEMENT_BYTES:
        raise Refused(
            str(file),
            f'holds "{name}" in {entry["dtype"]}, a type that drupe does not read',
            "Give the model in bfloat16, float16 or float32.",
        )
    shape = tuple(int(length) for length in entry["shape"])
    if any(length < 0 for length in shape):
        raise damaged(file, f'"{name}" has the shape {list(shape)}')
    spec = TensorSpec(name, entry["dtype"], shape)
    begin, end = entry["data_offsets"]
    if end - begin != spec.size_bytes:
        raise damaged(file, f'"{name}" has {end - begin} bytes, not {spec.size_bytes}')
    return StoredTensor(spec, file, origin + begin)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON allows: of two entries with one name a reader would take the last."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {max(names, key=names.count)!r} is there twice")
    return entries
