"""Rounding to nearest: the scale of a block is told by its extremes, nothing is searched.

The codes, scales and zero points are those of ONNX Runtime's own MatMulNBitsQuantizer, byte for
byte. (Where a row ends inside a byte, as an odd number of columns does, the rest of that byte is 0
here and a leftover of earlier codes there; nothing reads it.) On a symmetric grid the extreme of
larger magnitude gets code 0 and is met exactly; else the range from the least to the greatest
value, and zero, is divided evenly.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import torch

from drupe.quantize.codes import BELOW_HALF, Rounded, nearest
from drupe.quantize.grid import Grid
from drupe.quantize.row_blocks import checked_scales, extremes, row_blocks


def round_to_nearest(
    weight: torch.Tensor,  # (rows, columns), of any floating type
    grid: Grid,
    scale_dtype: torch.dtype = torch.float32,
    where: str = "weight",
) -> Rounded:
    """Return the weight rounded to the grid; `where` names it in what is refused.

    Codes are chosen for the scales as they are written: in `scale_dtype`.
    """
    rows, columns = weight.shape
    rounded = Rounded.empty(rows, columns, grid, scale_dtype)
    for part, values in row_blocks(weight, grid):
        low, high = extremes(values, where)
        if rounded.zero_points is None:
            scales = _symmetric_scales(low, high, grid)
            zero_points: torch.Tensor | float = float(grid.default_zero_point)
        else:
            scales, zero_points = ranges(low, high, grid)
            rounded.zero_points[part] = zero_points.to(torch.uint8)
        rounded.scales[part] = checked_scales(scales, scale_dtype, where)
        nearest(values, rounded.scales[part], zero_points, grid, rounded.codes[part])
    rounded.codes.flatten(1)[:, columns:] = 0  # what fills up the last block
    return rounded


def _symmetric_scales(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> torch.Tensor:
    extreme = torch.where(high.abs() > low.abs(), high, low)
    return extreme / -grid.default_zero_point


def ranges(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales and zero points (both float32) that reach from `low` to `high` and to 0."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scales = (high - low) / grid.greatest_code
    zero_points = (-low / scales).nan_to_num_(0, posinf=0)  # where the scale is 0: 0
    return scales, (zero_points.clamp_(0, grid.greatest_code) + BELOW_HALF).trunc_()
