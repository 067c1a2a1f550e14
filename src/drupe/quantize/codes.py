"""Codes on a grid: as bytes, from bytes, and as the weights that they stand for.

The layout is that of com.microsoft's MatMulNBits and GatherBlockQuantized: of the codes of a byte
the first lies in the low bits, and the last block of a row is filled up. Zero points lie side by
side along a row in the same way.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from drupe.quantize.grid import Grid

# Codes that share a byte are moved together inside an integer that holds them one a byte: in
# one vector operation, where slices with a stride of 2 or 4 are seven times slower.
WORDS = {2: torch.int32, 4: torch.int16}
assert sys.byteorder == "little"
# The greatest float below one half: adding it and cutting off rounds as C's roundf does, halves
# away from zero; with 0.5 itself the sum for the float below it would be 1.
BELOW_HALF = 0.5 - 2**-25


@dataclass
class Rounded:
    """A weight's codes, one a byte, with the scale and zero point of each block.

    codes: uint8 (rows, blocks, block_size), scales: (rows, blocks), zero_points: uint8 (rows,
    blocks), or None on a symmetric grid.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None

    @classmethod
    def empty(cls, rows: int, columns: int, grid: Grid, scale_dtype: torch.dtype) -> Rounded:
        """Return room for a weight of (rows, columns)."""
        blocks = grid.blocks(columns)
        return cls(
            torch.empty(rows, blocks, grid.block_size, dtype=torch.uint8),
            torch.empty(rows, blocks, dtype=scale_dtype),
            None if grid.symmetric else torch.empty(rows, blocks, dtype=torch.uint8),
        )


@dataclass
class Packed:
    """A weight as an ONNX file holds it; shapes are those that the grid tells."""

    weights: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None

    def gathered(self, columns: int, grid: Grid) -> torch.Tensor:
        """Return the weights as GatherBlockQuantized takes them: (rows, bytes of the columns).

        That node has no notion of how many columns a row has but its bytes: what fills up the
        last block is left out. Rows that end inside a byte cannot be told.
        """
        if columns % grid.codes_per_byte:
            raise ValueError(f"{columns} columns of {grid.bits} bits end inside a byte")
        return self.weights.flatten(1)[:, : columns // grid.codes_per_byte]


def nearest(
    values: torch.Tensor,  # float32 (rows, blocks, block_size); what it holds is lost
    scales: torch.Tensor,  # (rows, blocks)
    zero_points: torch.Tensor | float,  # float32 (rows, blocks), or the one of all
    grid: Grid,
    codes: torch.Tensor,  # uint8, of the shape of values: where the codes go
) -> None:
    """Write the code that is nearest to each value, by ONNX Runtime's arithmetic.

    That is `round(value * (1 / scale) + zero_point)`, halves away from zero. A scale of 0, or one
    so small that there is no reciprocal, gives the code of zero.
    """
    reciprocals = scales.float().reciprocal()
    reciprocals.masked_fill_(reciprocals.isinf(), 0)
    values.mul_(reciprocals[..., None])
    values.add_(zero_points[..., None] if torch.is_tensor(zero_points) else zero_points)
    values.clamp_(0, grid.greatest_code).add_(BELOW_HALF)
    # Conversion to signed integers is a vector operation in torch, that to uint8 is none.
    signed = torch.int8 if grid.bits < 8 else torch.int16
    codes.copy_(values.to(signed))


def pack(rounded: Rounded, grid: Grid) -> Packed:
    """Return the bytes of an ONNX file."""
    zero_points = rounded.zero_points
    if zero_points is not None:
        missing = -zero_points.shape[1] % grid.codes_per_byte
        padding = torch.nn.functional.pad(zero_points, (0, missing), value=grid.default_zero_point)
        zero_points = _joined(padding, grid)
    return Packed(_joined(rounded.codes, grid), rounded.scales, zero_points)


def unpack(packed: Packed, grid: Grid) -> Rounded:
    """Return the codes that an ONNX file's bytes hold."""
    zero_points = packed.zero_points
    if zero_points is not None:
        zero_points = _parted(zero_points, grid)[:, : packed.scales.shape[1]].contiguous()
    return Rounded(_parted(packed.weights, grid), packed.scales, zero_points)


def dequantize(rounded: Rounded, grid: Grid, columns: int) -> torch.Tensor:
    """Return the weight (rows, columns) that the codes stand for, as ONNX Runtime computes it.

    In float32, and then once rounded to the type of the scales.
    """
    values = rounded.codes.to(torch.float32)
    if rounded.zero_points is None:
        values.sub_(grid.default_zero_point)
    else:
        values.sub_(rounded.zero_points[..., None])
    values.mul_(rounded.scales.float()[..., None])
    return values.flatten(1)[:, :columns].to(rounded.scales.dtype)


def _joined(codes: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return bytes of several codes, made of bytes of one; the last dimension shrinks."""
    if grid.bits == 8:
        return codes
    words = codes.view(WORDS[grid.bits])
    joined = words.clone()
    for place in range(1, grid.codes_per_byte):
        joined.bitwise_or_(words >> (8 - grid.bits) * place)
    return joined.to(torch.uint8)  # the low byte


def _parted(joined: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return bytes of one code, made of bytes of several; the last dimension grows."""
    if grid.bits == 8:
        return joined
    words = joined.to(WORDS[grid.bits])
    parted = words.clone()
    for place in range(1, grid.codes_per_byte):
        parted.bitwise_or_(words << (8 - grid.bits) * place)
    return parted.view(torch.uint8).bitwise_and_(grid.greatest_code)
