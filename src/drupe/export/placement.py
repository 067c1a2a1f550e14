"""Where each byte of an ONNX model's data file will lie, and what it will be made of.  Light.

A layout is filled while the graph is built, from names and shapes alone; so the size of the file is
known before a weight is read.

    checkpoint tensors --pieces--> Matrix --task--> regions of the data file
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drupe.export.decoder import Rotary
from drupe.quantize.grid import Grid

ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}
# Large regions begin at a page: so ONNX Runtime can map them.
PAGE, LARGE, SMALL = 4096, 2**20, 64


@dataclass(frozen=True)
class Piece:
    """Some rows of a tensor of the checkpoint; a vector is a matrix of one column."""

    tensor: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Matrix:
    """Pieces one below the other: (rows, columns), each value times `factor` plus `offset`."""

    pieces: tuple[Piece, ...]
    columns: int
    factor: float = 1.0
    offset: float = 0.0

    @property
    def rows(self) -> int:
        """The rows of all pieces."""
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class Region:
    """The place of one tensor in the data file. dtype: as safetensors spells it ("F32")."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Cast:
    """A matrix in a floating-point type; transposed: (columns, rows), as MatMul takes it."""

    matrix: Matrix
    values: Region
    transposed: bool = False


@dataclass(frozen=True)
class Quantize:
    """A matrix in blocks of few bits, as MatMulNBits and GatherBlockQuantized read it."""

    matrix: Matrix
    grid: Grid
    weights: Region
    scales: Region
    zero_points: Region | None


@dataclass(frozen=True)
class Angles:
    """Cosines and sines of a rotary embedding: (positions, size / 2) each.

    long: of "longrope", those for more than the original context.
    """

    rotary: Rotary
    cosines: Region
    sines: Region
    long: bool = False


Task = Cast | Quantize | Angles


@dataclass
class Layout:
    """All regions and tasks of a data file, in the order of their bytes."""

    tasks: list[Task] = field(default_factory=list)
    size_bytes: int = 0

    def place(self, name: str, dtype: str, shape: tuple[int, ...]) -> Region:
        """Return the next region."""
        region = Region(name, dtype, shape, 0)
        grain = PAGE if region.size_bytes >= LARGE else SMALL
        begin = -(-self.size_bytes // grain) * grain
        self.size_bytes = begin + region.size_bytes
        return Region(name, dtype, shape, begin)
