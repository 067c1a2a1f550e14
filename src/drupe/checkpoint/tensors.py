"""Read the safetensors of a Hugging Face folder, one tensor at a time.

Nothing here holds more than one tensor: what is read stays mapped to its file.  Heavy file: the
worker imports it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from drupe.checkpoint.header import AGAIN, StoredTensor, TensorSpec, damaged, read_header
from drupe.core.errors import DrupeError, Refused
from drupe.core.model import PICKLES

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
COPY_BYTES = 8 * 2**20

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


class Rows(Protocol):
    """Rows of named tensors; several threads ask at once."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return (stop - start, columns), of any floating type; a vector has one column."""

    def expect(self, name: str, start: int, stop: int) -> None:
        """Hear that rows will be asked for soon."""

    def drop(self, name: str, start: int, stop: int) -> None:
        """Hear that rows are not asked for again."""


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
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return list(dict.fromkeys(stored.file for stored in self._stored.values()))

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """Where each tensor lies, by its name."""
        return self._stored

    @property
    def names(self) -> list[str]:
        """All names, file by file in the order of their bytes."""
        return list(self._stored)

    @property
    def specs(self) -> list[TensorSpec]:
        """All specs, file by file in the order of their bytes."""
        return [stored.spec for stored in self._stored.values()]

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
                raise damaged(file, str(fault)) from fault
        tensor: torch.Tensor = self._open[file].get_tensor(name)
        return tensor

    def rows_by(self, stored: Rows) -> Rows:
        """Return the tensors as they read here, some rows at a time; stored: as they lie."""
        return stored

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield the bytes of a tensor as they lie in the file, at most 8 MiB at a time."""
        stored = self._stored[name]
        left = stored.spec.size_bytes
        with stored.file.open("rb") as file:
            file.seek(stored.begin)
            while left:
                chunk = file.read(min(COPY_BYTES, left))
                if not chunk:
                    raise damaged(stored.file, "it ends too early")
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
        raise Refused(str(index), f"is no index of shards ({fault!r})", AGAIN) from fault
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


def spec_of(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Return the spec of `tensor`, which may have any shape and any dtype of DTYPES."""
    return TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape))


def tensor_bytes(
    tensor: torch.Tensor,  # any shape, any dtype of DTYPES
) -> memoryview:
    """Return the values as they are stored: row by row; no copy of a contiguous tensor."""
    if tensor.numel() == 0:  # torch cannot view a tensor of no bytes as another type
        return memoryview(b"")
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
