"""Write an ONNX model's data file from a checkpoint, some rows at a time, in place.

    checkpoint (mapped) --rows--> cast, round, pack --> pwrite at the planned place
                                                    --> a line in the journal

Memory does not grow with the model: each worker holds the rows that it works on. A run that was
killed goes on where it was: what the journal says is written is checked, and not done again.
Heavy file: torch.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from drupe.checkpoint.tensors import Rows, tensor_bytes
from drupe.core.digest import value_digest
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.export.placement import Angles, Cast, Layout, Matrix, Piece, Quantize, Region, Task
from drupe.export.rotary import angles
from drupe.quantize.codes import Rounded, pack
from drupe.quantize.grid import Grid

JOURNAL, FORMAT = "journal.jsonl", 1
WEIGHTS_AT_A_TIME = 2**22  # of a piece of work: 8 MB of bfloat16
# A piece is some whole blocks of a merge (`finetune.merged`), as far as it begins with one: at its
# edges a block would be made twice.
BLOCKS = 4
POSITIONS_AT_A_TIME = 2**14
TRANSPOSED_ROWS = 512
READ_BYTES = 2**22
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8}


class Rounding(Protocol):
    """A method that chooses codes and scales for rows of a weight."""

    def __call__(
        self, weight: torch.Tensor, grid: Grid, scale_dtype: torch.dtype, where: str
    ) -> Rounded:
        """Return the rows (rows, columns) rounded to the grid."""


@dataclass(frozen=True)
class Work:
    """Some rows of a task. first: the row of the matrix at which they begin.

    piece: the rows of the checkpoint; None for what is computed, or done as a whole.
    """

    number: int
    task: Task
    first: int = 0
    piece: Piece | None = None

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where its bytes lie in the data file: (begin, size)."""
        if isinstance(self.task, Angles):
            return [_whole(self.task.cosines), _whole(self.task.sines)]
        if self.piece is None:
            assert isinstance(self.task, Cast)
            return [_whole(self.task.values)]
        task = self.task
        regions = (
            [task.values]
            if isinstance(task, Cast)
            else [each for each in (task.weights, task.scales, task.zero_points) if each]
        )
        return [_of_rows(region, self.first, self.piece.rows) for region in regions]


def _whole(region: Region) -> tuple[int, int]:
    return region.begin, region.size_bytes


def _of_rows(region: Region, first: int, rows: int) -> tuple[int, int]:
    of_row = region.size_bytes // region.shape[0]
    return region.begin + first * of_row, rows * of_row


def write_data(layout: Layout, weights: Rows, rounding: Rounding, file: Path, job: Job) -> None:
    """Write the data file of a layout; `file` is whole when this returns, and only then.

    Raises DrupeError for a value that is no number, naming its tensor.
    """
    works = list(plan_work(layout))
    file.parent.mkdir(parents=True, exist_ok=True)
    journal = _Journal(file.with_name(JOURNAL), value_digest(_described(layout)))
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        done = journal.read(descriptor, works)
        _allocate(descriptor, layout.size_bytes)
        left = [work for work in works if work.number not in done]
        if done:
            job.note(f"{len(done)} of {len(works)} parts are there from before")
        writer = _Writer(descriptor, weights, rounding)
        with torch.inference_mode(), journal:
            _work_off(left, writer, journal, job, len(works))
    finally:
        os.close(descriptor)
    journal.remove()


def plan_work(layout: Layout) -> Iterator[Work]:
    """Yield all work, in the order of the data file."""
    number = 0
    for task in layout.tasks:
        if isinstance(task, Angles) or (isinstance(task, Cast) and task.transposed):
            yield Work(number, task)
            number += 1
            continue
        for first, piece in _rows_at_a_time(task.matrix):
            yield Work(number, task, first, piece)
            number += 1


def _rows_at_a_time(matrix: Matrix) -> Iterator[tuple[int, Piece]]:
    """Yield pieces small enough to be worked on at once, and the matrix row of each."""
    most = BLOCKS * max(1, WEIGHTS_AT_A_TIME // BLOCKS // matrix.columns)
    first = 0
    for piece in matrix.pieces:
        for start in range(piece.start, piece.stop, most):
            part = Piece(piece.tensor, start, min(start + most, piece.stop))
            yield first, part
            first += part.rows


def _described(layout: Layout) -> list[Any]:
    return [[type(task).__name__, asdict(task)] for task in layout.tasks]


def _allocate(descriptor: int, size: int) -> None:
    """Take the whole space at once: a full disk is found now, not at the end."""
    os.ftruncate(descriptor, size)
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def _work_off(works: list[Work], writer: _Writer, journal: _Journal, job: Job, total: int) -> None:
    """Do the work in threads, not many pieces ahead; the first failure ends it."""
    torch.set_num_threads(1)  # each worker is one thread
    done = total - len(works)
    upcoming: Iterator[Work] = iter(works)
    running: dict[Future[list[int]], Work] = {}
    with ThreadPoolExecutor(job.threads) as pool:
        try:
            for work in upcoming:
                writer.expect(work)
                running[pool.submit(writer.do, work)] = work
                if len(running) <= 2 * job.threads:
                    continue
                done += _finished(running, journal)
                job.progress("exporting", done, total, "parts")
            while running:
                done += _finished(running, journal)
                job.progress("exporting", done, total, "parts")
        finally:
            for future in running:
                future.cancel()


def _finished(running: dict[Future[list[int]], Work], journal: _Journal) -> int:
    """Wait for some work; write into the journal what is done, and return how much."""
    ended, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in ended:
        sums = future.result()
        journal.add(running.pop(future), sums)
    return len(ended)


class _Writer:
    """Does work: reads rows, changes them, writes them where they belong."""

    def __init__(self, descriptor: int, weights: Rows, rounding: Rounding) -> None:
        self._descriptor, self._weights, self._rounding = descriptor, weights, rounding

    def expect(self, work: Work) -> None:
        if work.piece is not None:
            self._weights.expect(work.piece.tensor, work.piece.start, work.piece.stop)

    def do(self, work: Work) -> list[int]:
        """Do one piece of work; return the checksum of each place that it has written."""
        match work.task:
            case Angles():
                return self._angles(work.task)
            case Cast(transposed=True):
                return self._transposed(work.task)
            case Cast():
                assert work.piece is not None
                values = self._values(work.piece, work.task.matrix, work.task.values.dtype)
                return [self._write(work.places[0][0], values)]
            case Quantize():
                return self._quantized(work, work.task)

    def _quantized(self, work: Work, task: Quantize) -> list[int]:
        assert work.piece is not None
        piece = work.piece
        rows = self._weights.rows(piece.tensor, piece.start, piece.stop)
        if task.matrix.factor != 1.0:
            rows = rows.float() * task.matrix.factor
        rounded = self._rounding(rows, task.grid, TORCH[task.scales.dtype], piece.tensor)
        packed = pack(rounded, task.grid)
        self._weights.drop(piece.tensor, piece.start, piece.stop)
        parts = [packed.weights, packed.scales, packed.zero_points]
        return [
            self._write(begin, part)
            for (begin, _), part in zip(
                work.places, (part for part in parts if part is not None), strict=True
            )
        ]

    def _values(self, piece: Piece, matrix: Matrix, dtype: str) -> torch.Tensor:
        """Return rows in the type that is written; refuse what is no number, or none in it."""
        rows = self._weights.rows(piece.tensor, piece.start, piece.stop)
        if matrix.factor != 1.0 or matrix.offset != 0.0:
            rows = rows.float() * matrix.factor + matrix.offset  # never in place: it is the file
        values = rows.to(TORCH[dtype])
        if not bool(values.isfinite().all()):
            held = "a value that is no number" if not bool(rows.isfinite().all()) else None
            what = held or f"{rows.abs().max().item():.3g}, more than {dtype} can hold"
            raise DrupeError(
                piece.tensor,
                f"holds {what}",
                "Choose another precision."
                if held is None
                else "Fetch the model again, or train it again with a lower learning rate.",
            )
        return values

    def _transposed(self, task: Cast) -> list[int]:
        """Write a matrix as (columns, rows), by a mapping of its place in the data file."""
        region, matrix = task.values, task.matrix
        grain = mmap.ALLOCATIONGRANULARITY
        before = region.begin % grain
        mapped = mmap.mmap(
            self._descriptor, before + region.size_bytes, offset=region.begin - before
        )
        whole = torch.frombuffer(mapped, dtype=torch.uint8, offset=before, count=region.size_bytes)
        out = whole.view(TORCH[region.dtype]).view(matrix.columns, matrix.rows)
        first = 0
        for piece in matrix.pieces:
            for start in range(piece.start, piece.stop, TRANSPOSED_ROWS):
                part = Piece(piece.tensor, start, min(start + TRANSPOSED_ROWS, piece.stop))
                out[:, first : first + part.rows] = self._values(part, matrix, region.dtype).t()
                first += part.rows
            self._weights.drop(piece.tensor, piece.start, piece.stop)
        return [zlib.crc32(whole.numpy().data)]

    def _angles(self, task: Angles) -> list[int]:
        sums = [0, 0]
        regions = (task.cosines, task.sines)
        positions = task.cosines.shape[0]
        for start in range(0, positions, POSITIONS_AT_A_TIME):
            stop = min(start + POSITIONS_AT_A_TIME, positions)
            tables = angles(task.rotary, start, stop, long=task.long)
            for side, (region, table) in enumerate(zip(regions, tables, strict=True)):
                begin, _ = _of_rows(region, start, stop - start)
                values = table.to(TORCH[region.dtype])
                sums[side] = self._write(begin, values, sums[side])
        return sums

    def _write(self, begin: int, tensor: torch.Tensor, sum_before: int = 0) -> int:
        """Write a tensor's bytes, and return their checksum."""
        data = tensor_bytes(tensor)
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], begin + written)
        return zlib.crc32(data, sum_before)


class _Journal:
    """What of a data file is written: a line for each piece of work, with its checksums."""

    def __init__(self, file: Path, layout: str) -> None:
        self._file, self._layout = file, layout
        self._opened: Any = None

    def read(self, descriptor: int, works: Iterable[Work]) -> set[int]:
        """Return the numbers of the works that are done; each is read and checked."""
        try:
            header, *lines = self._file.read_text().splitlines()
            known = json.loads(header) == self._header
        except (OSError, ValueError):
            known, lines = False, []
        if not known:
            self._file.write_text(json.dumps(self._header) + "\n")
            return set()
        sums = {}
        for line in lines:
            try:
                number, *told = json.loads(line)
            except ValueError:
                continue  # the last one, cut off
            sums[number] = told
        return {
            work.number
            for work in works
            if work.number in sums
            and sums[work.number] == [_sum(descriptor, place) for place in work.places]
        }

    @property
    def _header(self) -> dict[str, Any]:
        return {"format": FORMAT, "layout": self._layout}

    def __enter__(self) -> _Journal:
        self._opened = self._file.open("a")
        self._opened.write("\n")  # after a line that was cut off
        return self

    def __exit__(self, *fault: object) -> None:
        self._opened.close()

    def add(self, work: Work, sums: list[int]) -> None:
        """Write down that a work is done."""
        self._opened.write(json.dumps([work.number, *sums]) + "\n")
        self._opened.flush()

    def remove(self) -> None:
        """Forget it: the file is whole."""
        self._file.unlink()


def _sum(descriptor: int, place: tuple[int, int]) -> int:
    begin, left = place
    found = 0
    while left:
        data = os.pread(descriptor, min(left, READ_BYTES), begin)
        if not data:
            return -1
        found = zlib.crc32(data, found)
        begin, left = begin + len(data), left - len(data)
    return found
