"""Rows of a checkpoint's tensors, mapped to their files: nothing is held that was not asked for.

The mapping is read-only, so that it counts for no limit of the memory that a process may have of
its own (RLIMIT_DATA), and pages that were used are given back.  Heavy file: torch.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

from drupe.checkpoint.header import ELEMENT_BYTES, StoredTensor
from drupe.checkpoint.tensors import DTYPES

# Python's mmap knows these on Linux and macOS; Windows does without.
AHEAD = getattr(mmap, "MADV_WILLNEED", None)
GONE = getattr(mmap, "MADV_DONTNEED", None)


class MappedTensors:
    """The tensors of some safetensors files by name; a context manager.

    stored: where each lies, as `read_header` tells. Several threads may read at once.
    """

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored
        self._maps: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> MappedTensors:
        for file in {tensor.file for tensor in self._stored.values()}:
            with file.open("rb") as opened:
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._maps.clear()  # each is unmapped when the last tensor on it goes

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows of a tensor in its stored type: (stop - start, columns); a vector has one."""
        tensor = self._stored[name]
        columns = tensor.spec.shape[1] if len(tensor.spec.shape) == 2 else 1
        count = (stop - start) * columns
        with warnings.catch_warnings():  # torch tells that nobody may write to it: nobody does
            warnings.simplefilter("ignore", UserWarning)
            found = torch.frombuffer(
                self._maps[tensor.file],
                dtype=DTYPES[tensor.spec.dtype],
                count=count,
                offset=self._begin(tensor, start, columns),
            )
        return found.view(stop - start, columns)

    def expect(self, name: str, start: int, stop: int) -> None:
        """Have the system read rows from disk that will be asked for soon."""
        self._advise(AHEAD, name, start, stop)

    def drop(self, name: str, start: int, stop: int) -> None:
        """Give back the pages of rows that are not asked for again."""
        self._advise(GONE, name, start, stop)

    def _advise(self, advice: int | None, name: str, start: int, stop: int) -> None:
        if advice is None:
            return
        tensor = self._stored[name]
        columns = tensor.spec.shape[1] if len(tensor.spec.shape) == 2 else 1
        begin, end = (self._begin(tensor, row, columns) for row in (start, stop))
        begin -= begin % mmap.PAGESIZE
        self._maps[tensor.file].madvise(advice, begin, end - begin)

    def _begin(self, tensor: StoredTensor, row: int, columns: int) -> int:
        return tensor.begin + row * columns * ELEMENT_BYTES[tensor.spec.dtype]
