"""Read the safetensors of a Hugging Face folder, one tensor at a time.

Nothing here holds more than one tensor: what is read stays mapped to its file.

The format (https://huggingface.co/docs/safetensors, "Format"): eight bytes with the length of the
header, little-endian; the header, JSON {name: {dtype, shape, data_offsets}}, padded with spaces to
a multiple of eight; the tensors' bytes without gaps.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from drupe.core.errors import DrupeError
from drupe.core.model import PICKLES

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
COPY_BYTES = 8 * 2**20
# The same limit as safetensors' own reader has: a longer header is an attack, not a model.
HEADER_BYTES_MOST = 100_000_000
LENGTH_BYTES = 8

# In the order in which safetensors itself writes them into a file, the widest last to first, so
# that every tensor begins at a multiple of its element size.
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ORDER = {name: place for place, name in enumerate(DTYPES)}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its values. dtype: as safetensors spells it ("BF16")."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return DTYPES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """How many bytes the values take."""
        return math.prod(self.shape) * self.torch_dtype.itemsize

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> TensorSpec:
        """Return the spec of `tensor`."""
        return cls(name, NAMES[tensor.dtype], tuple(tensor.shape))


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. begin: offset in bytes from the beginning of the file."""

    spec: TensorSpec
    file: Path
    begin: int


class Checkpoint:
    """The tensors of one or more safetensors files, by name. Only headers are read at once."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._stored: dict[str, StoredTensor] = {}
        self._open: dict[Path, Any] = {}
        for file in files:
            for tensor in read_header(file):
                name = tensor.spec.name
                if name in self._stored:
                    raise DrupeError(
                        str(file),
                        f'holds the tensor "{name}" that {self._stored[name].file.name} holds too',
                        "Save the model again with save_pretrained.",
                    )
                self._stored[name] = tensor

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    @property
    def names(self) -> list[str]:
        """All names, file by file in the order of their bytes."""
        return list(self._stored)

    @property
    def specs(self) -> list[TensorSpec]:
        """All specs, file by file in the order of their bytes."""
        return [stored.spec for stored in self._stored.values()]

    @property
    def largest_bytes(self) -> int:
        """The size of the largest tensor."""
        return max((spec.size_bytes for spec in self.specs), default=0)

    @property
    def size_bytes(self) -> int:
        """The size of all tensors."""
        return sum(spec.size_bytes for spec in self.specs)

    def spec(self, name: str) -> TensorSpec:
        """Return name, dtype and shape of a tensor; KeyError when there is none."""
        return self._stored[name].spec

    def file(self, name: str) -> Path:
        """Return the file that a tensor lies in; KeyError when there is none."""
        return self._stored[name].file

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype: mapped memory, which nobody may write to."""
        file = self._stored[name].file
        if file not in self._open:
            try:
                self._open[file] = safe_open(file, framework="pt", device="cpu")
            except (SafetensorError, OSError) as fault:
                raise _unreadable(file, str(fault)) from fault
        tensor: torch.Tensor = self._open[file].get_tensor(name)
        return tensor

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a tensor as they lie in the file, at most 8 MiB at a time."""
        stored = self._stored[name]
        left = stored.spec.size_bytes
        with stored.file.open("rb") as file:
            file.seek(stored.begin)
            while left:
                chunk = file.read(min(COPY_BYTES, left))
                if not chunk:
                    raise _unreadable(stored.file, "it ends too early")
                left -= len(chunk)
                yield chunk


def open_checkpoint(folder: Path) -> Checkpoint:
    """Return the tensors of a Hugging Face folder: of its index's shards, or of its one file.

    Raises DrupeError when there is neither, when only pickles are there, when a shard is missing,
    truncated or outside of the folder, and when the index and the shards do not fit together.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        return _open_index(index)
    if (folder / SINGLE_NAME).is_file():
        return Checkpoint([folder / SINGLE_NAME])
    pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLES)
    if pickles:
        raise DrupeError(
            str(folder),
            f"holds its weights as pickles only ({pickles[0]}), which can run any code when read",
            "On a machine that trusts them, load the model and convert it: "
            "model.save_pretrained(folder, safe_serialization=True).",
        )
    raise DrupeError(
        str(folder),
        f"holds neither {SINGLE_NAME} nor {INDEX_NAME}",
        "Give the folder that save_pretrained wrote.",
    )


def _open_index(index: Path) -> Checkpoint:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        entries = {str(name): str(entry) for name, entry in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise _unreadable(index, f"it is no index of shards ({fault!r})") from fault
    for entry in entries.values():
        _check_entry(index, entry)
    shards = sorted(set(entries.values()))
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise DrupeError(
            str(index.parent),
            f"lacks {missing[0]}, which {index.name} names ({len(missing)} of {len(shards)} "
            "shards are missing)",
            "Fetch the model again.",
        )
    checkpoint = Checkpoint([index.parent / shard for shard in shards])
    for name, entry in entries.items():
        if name not in checkpoint or checkpoint.file(name) != index.parent / entry:
            raise DrupeError(
                str(index),
                f'says that "{name}" lies in {entry}, but it does not',
                "Fetch the model again, or save it again with save_pretrained.",
            )
    return checkpoint


def _check_entry(index: Path, entry: str) -> None:
    path = PurePosixPath(entry.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"^[A-Za-z]:", entry):
        raise DrupeError(
            str(index),
            f'names the shard "{entry}", which lies outside of the folder',
            "Do not use this model: an index has no reason to name such a file.",
        )


def read_header(file: Path) -> list[StoredTensor]:
    """Return what a safetensors file holds, in the order of its bytes.

    Raises DrupeError when the file is truncated or its header is not what the format says.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if not 2 <= length <= HEADER_BYTES_MOST:
                raise _unreadable(file, f"its header would have {length} bytes")
            text = stream.read(length)
        entries = json.loads(text, object_pairs_hook=_without_duplicates)
        entries.pop("__metadata__", None)
        stored = [_stored(file, name, entry, 8 + length) for name, entry in entries.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise _unreadable(file, f"{type(fault).__name__}: {fault}") from fault
    stored.sort(key=lambda tensor: (tensor.begin, tensor.spec.size_bytes))
    end = LENGTH_BYTES + length
    for tensor in stored:
        if tensor.begin != end:
            raise _unreadable(file, f'"{tensor.spec.name}" does not begin where the last ended')
        end += tensor.spec.size_bytes
    if file.stat().st_size != end:
        raise _unreadable(file, f"it has {file.stat().st_size:,} bytes, its header says {end:,}")
    return stored


def _stored(file: Path, name: str, entry: dict[str, Any], origin: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise DrupeError(
            str(file),
            f'holds "{name}" in {entry["dtype"]}, a type that drupe does not read',
            "Give the model in bfloat16, float16 or float32.",
        )
    shape = tuple(int(length) for length in entry["shape"])
    if any(length < 0 for length in shape):
        raise _unreadable(file, f'"{name}" has the shape {list(shape)}')
    spec = TensorSpec(name, entry["dtype"], shape)
    begin, end = entry["data_offsets"]
    if end - begin != spec.size_bytes:
        raise _unreadable(file, f'"{name}" has {end - begin} bytes, not {spec.size_bytes}')
    return StoredTensor(spec, file, origin + begin)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON allows: of two entries with one name a reader would take the last."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {max(names, key=names.count)!r} is there twice")
    return entries


def _unreadable(file: Path, fault: str) -> DrupeError:
    return DrupeError(
        str(file), f"cannot be read: {fault}", "Fetch the model again: this file is damaged."
    )


def tensor_bytes(
    tensor: torch.Tensor,  # any shape, any dtype of DTYPES
) -> memoryview:
    """Return the values as they are stored: row by row; no copy of a contiguous tensor."""
    if tensor.numel() == 0:  # torch cannot view a tensor of no bytes as another type
        return memoryview(b"")
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
