"""A base with its adapter folded in, computed as it is read: W + scale * B A, in float32.

Hu et al. 2021 (arXiv:2106.09685), 4.1; scale is alpha / r, or alpha / sqrt(r) with rank-stabilized
LoRA (Kalajdzievski 2023, arXiv:2312.03732). DoRA then gives each row its own length m (Liu et al.
2024, arXiv:2402.09353, 4.1). A merged weight is rounded once, to the type in which the base is
stored; every other tensor is the base's.

Who writes the merged checkpoint, who exports it without one, and who proves either reads it here,
so all have the same bytes: the rows of a tensor are always cut into the same blocks, and a block is
one product in one thread, whoever asks for which of its rows.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drupe.checkpoint.mapped import MappedTensors
from drupe.checkpoint.one_thread import one_thread
from drupe.checkpoint.quantized_base import quantized_base
from drupe.checkpoint.tensors import DTYPES, Checkpoint, Rows, open_checkpoint, tensor_bytes
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.merging import Base
from drupe.core.model import Model, model_files, tokenizer_files
from drupe.finetune.adapter_config import WHERE, check_base, read_settings
from drupe.finetune.pairs import Pair, read_pairs

TEMPLATE = "chat_template.jinja"
# Of a weight at a time, 4 MB in float32, twice over in each thread: so little that the largest
# tensor of a model does not matter, and enough to keep a core busy.
BLOCK_ELEMENTS = 2**20


@dataclass(frozen=True)
class BlockChange:
    """What merging did to a block of rows. squares, moved: of the base's values, of the change."""

    squares: float
    moved: float
    changed: bool


@dataclass
class Change:
    """What merging did to the weights.

    changed: tensors of which some stored value differs from the base's. largest_relative: the
    largest norm of a tensor's change, relative to the tensor's norm.
    """

    tensors: int = 0
    changed: int = 0
    largest_relative: float = 0.0
    dtypes: set[str] = field(default_factory=set)


class Merged(Checkpoint):
    """The tensors of a base with an adapter folded in. Several threads may read at once.

    Its specs are the base's. is_dequantized: the base is read as a 4-bit one.
    """

    def __init__(self, base: Checkpoint, rows: Rows, pairs: Mapping[str, Pair]) -> None:
        super().__init__(base.files)
        self.is_dequantized = type(base) is not Checkpoint
        self._base, self._rows, self._pairs = base, rows, pairs
        self._changes: dict[tuple[str, int], BlockChange] = {}
        self._buffers = threading.local()

    def blocks(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield the blocks in which a tensor that the adapter changes is made; else nothing."""
        if name in self._pairs:
            rows, columns = self.spec(name).shape
            count = _block_rows(columns)
            for start in range(0, rows, count):
                yield start, min(start + count, rows)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows in the stored type: (stop - start, columns); a vector has one column.

        Raises DrupeError for values that the type cannot hold.
        """
        spec = self.spec(name)
        dtype = DTYPES[spec.dtype]
        if name not in self._pairs:
            return self._rows.rows(name, start, stop).to(dtype)
        found = torch.empty(stop - start, spec.shape[1], dtype=dtype)
        count = _block_rows(spec.shape[1])
        for first in range(start - start % count, stop, count):
            block = self._block(name, first, min(first + count, spec.shape[0]))
            begin, end = max(first, start), min(first + count, stop)
            found[begin - start : end - start] = block[begin - first : end - first]
        return found

    def expect(self, name: str, start: int, stop: int) -> None:
        """Have the system read rows from disk that will be asked for soon."""
        self._rows.expect(name, start, stop)

    def drop(self, name: str, start: int, stop: int) -> None:
        """Give back the pages of rows that are not asked for again."""
        self._rows.drop(name, start, stop)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype."""
        if name in self._pairs:
            return self.rows(name, 0, self.spec(name).shape[0])
        return self._base.read(name).to(DTYPES[self.spec(name).dtype])

    def chunks(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield the bytes of a tensor, block by block."""
        if name not in self._pairs:
            yield from self._base.chunks(name)
        for start, stop in self.blocks(name):
            yield tensor_bytes(self.rows(name, start, stop))

    def change(self) -> Change:
        """Return what merging did to all adapted tensors; what nobody has read is read."""
        change = Change()
        for name in self._pairs:
            blocks = [self._block_change(name, *block) for block in self.blocks(name)]
            squares = sum(block.squares for block in blocks)
            moved = sum(block.moved for block in blocks)
            relative = math.sqrt(moved / squares) if squares else 0.0
            change.tensors += 1
            change.changed += any(block.changed for block in blocks)
            change.dtypes.add(str(DTYPES[self.spec(name).dtype]).removeprefix("torch."))
            change.largest_relative = max(change.largest_relative, relative)
        return change

    def _block_change(self, name: str, start: int, stop: int) -> BlockChange:
        if (name, start) not in self._changes:
            self._block(name, start, stop)
        return self._changes[name, start]

    @torch.inference_mode()  # buffers that were made in it are changed in it alone
    def _block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return a block of rows, merged; it lies where this thread's next block will lie."""
        pair, spec = self._pairs[name], self.spec(name)
        dtype = DTYPES[spec.dtype]
        before, after = (self._buffer(side, stop - start, spec.shape[1]) for side in "ba")
        before.copy_(self._rows.rows(name, start, stop))
        up, down = pair.up[start:stop].float(), pair.down.float()
        with one_thread():
            torch.addmm(before, up, down, alpha=pair.scale, out=after)
        if pair.magnitude is not None:  # the norm of a row needs nothing but the row
            norm = torch.linalg.vector_norm(after, dim=1)
            after.mul_((pair.magnitude[start:stop].float() / norm)[:, None])
        merged = self._buffer("m", stop - start, spec.shape[1], dtype)
        merged.copy_(after)
        if (name, start) not in self._changes:  # a block may be asked for twice, for two pieces
            moved = torch.sub(merged, before, out=after).flatten()
            squares, moves = (float(torch.dot(each, each)) for each in (before.flatten(), moved))
            if not math.isfinite(moves):
                raise DrupeError(
                    WHERE,
                    f'merging "{name}" gives values that {dtype} cannot hold',
                    "Store the base model in float32 or bfloat16; or is the adapter's scale right?",
                )
            self._changes[name, start] = BlockChange(squares, moves, bool(moved.any()))
        return merged

    def _buffer(
        self, side: str, rows: int, columns: int, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return memory of this thread's that is used again for each block.

        Fresh pages cost more than the arithmetic.
        """
        place = f"{side}{dtype}"
        whole: torch.Tensor | None = getattr(self._buffers, place, None)
        if whole is None or whole.numel() < rows * columns:
            whole = torch.empty(max(BLOCK_ELEMENTS, rows * columns), dtype=dtype)
            setattr(self._buffers, place, whole)
        return whole[: rows * columns].view(rows, columns)


def _block_rows(columns: int) -> int:
    return max(1, BLOCK_ELEMENTS // max(1, columns))


@contextmanager
def opened(adapter: Model, asked: Base) -> Iterator[Merged]:
    """Give the weights of an adapter's base with the adapter folded in.

    asked: whether the base's own weights ("original") or those that a 4-bit one had in training
    ("dequantized"); "auto": what the adapter was trained on.
    Raises DrupeError when the adapter is not LoRA or DoRA on linear layers of this base.
    """
    base_folder = _base_of(adapter).path
    quantized = quantized_base(adapter.path)
    start = quantized.start if quantized else None
    check_base(asked, four_bit=quantized is not None, start=start)
    base = base_weights(adapter, asked)
    pairs = read_pairs(adapter.path, base, read_settings(base_folder / "config.json"))
    with MappedTensors(base.stored) as mapped:
        yield Merged(base, base.rows_by(mapped), pairs)


@contextmanager
def opened_beside(adapter: Model, asked: Base, folder: Path) -> Iterator[tuple[Model, Merged]]:
    """Give a merged checkpoint that is not written: what it is besides its weights, and those.

    The small files lie in `folder` as long as it is open.
    """
    with opened(adapter, asked) as merged:
        shutil.rmtree(folder, ignore_errors=True)
        copy_other_files(adapter, folder)
        yield Model("hf", folder, "", remote_code=adapter.remote_code), merged
    shutil.rmtree(folder)


def base_weights(adapter: Model, asked: Base) -> Checkpoint:
    """Return the weights to fold into: the base's own, or as they were in training."""
    folder, quantized = _base_of(adapter).path, quantized_base(adapter.path)
    if quantized is None or asked == "original":
        return open_checkpoint(folder)
    from drupe.checkpoint.four_bit import Dequantized

    return Dequantized(folder, quantized)


def _base_of(adapter: Model) -> Model:
    if adapter.base is None:
        raise DrupeError(WHERE, "was given an adapter without its base", "Mend the plan.")
    return adapter.base


def tell(merged: Merged, job: Job) -> dict[str, Any]:
    """Tell what merging changed, and return it as facts for the report.

    Raises DrupeError when it changed no stored weight.
    """
    change = merged.change()
    if not change.changed:
        raise DrupeError(
            WHERE,
            "the merged weights are those of the base, bit for bit: the adapter's changes are "
            f"smaller than the rounding of {', '.join(sorted(change.dtypes))}",
            "Store the base model in float32, or train longer or with a higher learning rate.",
        )
    if change.changed < change.tensors:
        job.warn(
            f"{change.tensors - change.changed} of {change.tensors} adapted tensors did not "
            f"change: the adapter is smaller than the rounding of {', '.join(change.dtypes)} there"
        )
    return {
        "merged_tensors": change.tensors,
        "dtype": ", ".join(sorted(change.dtypes)),
        "base": "dequantized" if merged.is_dequantized else "original",
        "largest_relative_change": change.largest_relative,
    }


def copy_other_files(adapter: Model, out: Path) -> None:
    """Copy what a merged model is besides its weights; the tokenizer that was trained with wins."""
    base = _base_of(adapter).path
    besides = [(base, file) for file in model_files(base) if not _holds_weights(file)]
    if _has_template(adapter.path):  # beside it the base's file would be read in its place
        besides = [(folder, file) for folder, file in besides if file.name != TEMPLATE]
    trained = [(adapter.path, file) for file in tokenizer_files(adapter.path)]
    for folder, file in [*besides, *trained]:
        copied = out / file.relative_to(folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)


def _has_template(folder: Path) -> bool:
    """Return whether a tokenizer's own settings hold its chat template."""
    file = folder / "tokenizer_config.json"
    return file.is_file() and "chat_template" in json.loads(file.read_text(encoding="utf-8"))


def _holds_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
