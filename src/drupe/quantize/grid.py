"""The grid that weights are rounded to: its description and the sizes of what it takes.

A weight of (rows, columns) is cut along its columns into blocks, each with a scale of its own and,
where the grid is not symmetric, a zero point; a value of a block is
`(code - zero_point) * scale`, its code an unsigned integer of so many bits. This is what ONNX
Runtime's MatMulNBits and GatherBlockQuantized compute.  Light file: plans know by it how many bytes
a model will have.
"""

from __future__ import annotations

from dataclasses import dataclass

from drupe.core.errors import Refused

BITS = (2, 4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Grid:
    """Bits of a code, weights of a block, and whether zero has the same code in every block."""

    bits: int = 4
    block_size: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise Refused(
                "grid",
                f"bits is {self.bits}; expected 2, 4 or 8",
                "Choose one of them: ONNX Runtime has no kernels for others.",
            )
        if self.block_size not in BLOCK_SIZES:
            raise Refused(
                "grid",
                f"block_size is {self.block_size}; expected one of "
                f"{', '.join(map(str, BLOCK_SIZES))}",
                "Choose one of them: ONNX Runtime takes powers of two from 16.",
            )

    @property
    def greatest_code(self) -> int:
        """The greatest code; the least is 0."""
        return (1 << self.bits) - 1

    @property
    def default_zero_point(self) -> int:
        """The code of zero where no zero points are written: the middle."""
        return 1 << (self.bits - 1)

    @property
    def codes_per_byte(self) -> int:
        """How many codes, or zero points, lie in a byte."""
        return 8 // self.bits

    def blocks(self, columns: int) -> int:
        """Return how many blocks a row has; the last may be partly filled."""
        return -(-columns // self.block_size)

    def divides(self, columns: int) -> bool:
        """Return whether every block of a row is full."""
        return columns % self.block_size == 0

    def packed_shape(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Return the shape of the codes' bytes: (rows, blocks, bytes of a block)."""
        return rows, self.blocks(columns), self.block_size // self.codes_per_byte

    def scales_shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the shape of the scales: (rows, blocks)."""
        return rows, self.blocks(columns)

    def zero_points_shape(self, rows: int, columns: int) -> tuple[int, int] | None:
        """Return the shape of the zero points' bytes: (rows, bytes); None without zero points."""
        if self.symmetric:
            return None
        return rows, -(-self.blocks(columns) // self.codes_per_byte)

    def bits_per_weight(self, scale_bits: int) -> float:
        """Return what a weight takes in full blocks, its share of scale and zero point with it."""
        of_block = scale_bits + (0 if self.symmetric else self.bits)
        return self.bits + of_block / self.block_size
