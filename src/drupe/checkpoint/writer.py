"""Write the safetensors of a Hugging Face folder, one tensor after the other.

A header is planned from names and shapes alone, so nothing waits for the tensors' values. The
format stands at the head of `header.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from drupe.checkpoint.header import ELEMENT_BYTES, LENGTH_BYTES, TensorSpec
from drupe.checkpoint.tensors import INDEX_NAME, SINGLE_NAME

SHARD_BYTES = 5 * 10**9
# As safetensors itself orders them, so that every tensor begins at a multiple of its element size.
NARROWEST_FIRST = tuple(ELEMENT_BYTES)


class CheckpointWriter:
    """Writes the tensors of `specs` below `folder`, one after the other, in constant memory.

    `order` says in which order `write` wants them; the names of the files are transformers'.
    Used as a context manager; leaving it checks that all was written.
    """

    def __init__(
        self, folder: Path, specs: Iterable[TensorSpec], shard_bytes: int = SHARD_BYTES
    ) -> None:
        self._folder = folder
        self._shards = plan_shards(specs, shard_bytes)
        self.order = [spec for shard in self._shards.values() for spec in shard]
        self._begins = {shard[0].name: file for file, shard in self._shards.items() if shard}
        self._written = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> CheckpointWriter:
        if not self.order:
            (self._folder / SINGLE_NAME).write_bytes(header_bytes([]))
        if len(self._shards) > 1:
            self._write_index()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()
        if kind is None and self._written != len(self.order):
            raise ValueError(f"{self.order[self._written].name} was not written")

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """Write the next tensor of `order`, given as consecutive parts of its bytes.

        Raises ValueError when it is not the next one, or not as long as planned.
        """
        spec = self.order[self._written]
        if spec.name != name:
            raise ValueError(f"{spec.name} is to be written next, not {name}")
        if name in self._begins:
            self._begin_file(self._begins[name])
        assert self._file is not None  # the first tensor begins a file
        size = sum(self._file.write(part) for part in parts)
        if size != spec.size_bytes:
            raise ValueError(f"{name} has {size} bytes, {spec.size_bytes} were planned")
        self._written += 1

    def _begin_file(self, file: str) -> None:
        if self._file:
            self._file.close()
        # Open for as long as the writer is: closed by __exit__ or by the next shard.
        self._file = (self._folder / file).open("wb")
        self._file.write(header_bytes(self._shards[file]))

    def _write_index(self) -> None:
        index = {
            "metadata": {
                "total_parameters": sum(math.prod(spec.shape) for spec in self.order),
                "total_size": sum(spec.size_bytes for spec in self.order),
            },
            "weight_map": {
                spec.name: file
                for file, shard in self._shards.items()
                for spec in sorted(shard, key=lambda spec: spec.name)
            },
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self._folder / INDEX_NAME).write_text(text, encoding="utf-8")


def plan_shards(specs: Iterable[TensorSpec], shard_bytes: int) -> dict[str, list[TensorSpec]]:
    """Return which file holds which tensors, each in file order.

    Files are filled in the order of `specs`; a tensor larger than `shard_bytes` has its own.
    """
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.size_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.size_bytes
    for shard in shards:
        shard.sort(key=lambda spec: (-NARROWEST_FIRST.index(spec.dtype), spec.name))
    if len(shards) == 1:
        return {SINGLE_NAME: shards[0]}
    count = len(shards)
    return {
        f"model-{number:05d}-of-{count:05d}.safetensors": shard
        for number, shard in enumerate(shards, start=1)
    }


def header_bytes(specs: Sequence[TensorSpec]) -> bytes:
    """Return what stands before the tensors of a file: the length of the header and the header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.size_bytes
        entry = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        header[spec.name] = entry
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
