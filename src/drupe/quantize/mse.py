"""The scale and zero point of each block that leave the least squared error, found by trying.

A range between the extremes of a block is divided into a few more steps or fewer than there are
codes (more: what is outermost is clipped), with the zero point where it falls and on either side.
Each candidate gives codes; for codes the best scale is a quotient of two sums, and the error that
it leaves is known without computing it. The zero point is an integer all along, so what is
compared is what is written. (k-quant as ONNX Runtime and Olive have it fits a real minimum, and
rounds it to a zero point afterwards.)  Heavy file: the worker imports it.
"""

from __future__ import annotations

import torch

from drupe.core.errors import Refused
from drupe.quantize.codes import Rounded, nearest
from drupe.quantize.grid import Grid
from drupe.quantize.row_blocks import checked_scales, extremes, row_blocks
from drupe.quantize.rtn import ranges

# How many steps more the range has than the grid. Rounding to nearest itself is among them: 0
# where there are zero points; 1, the extreme being 8 steps of 16, on a symmetric grid.
MORE_STEPS = (0.0, -0.5, 0.5, 1.0, 2.0, 3.5)
BESIDE_ZERO_POINT = (0, -1, 1)
# Less than rounding to nearest takes: more tensors have to stay in the processor's cache.
WEIGHTS_AT_A_TIME = 2**17


def least_squared_error(
    weight: torch.Tensor,  # (rows, columns), of any floating type
    grid: Grid,
    scale_dtype: torch.dtype = torch.float32,
    where: str = "weight",
    importance: torch.Tensor | None = None,  # (columns,): what an error there counts; None: 1
) -> Rounded:
    """Return the weight on the grid, each block by the best scale and zero point that were tried.

    No block has a greater (weighted) error than by rounding to nearest, as far as sums in float32
    tell, and but for the rounding of scales to `scale_dtype`. `where` names the weight in what is
    refused.
    """
    rows, columns = weight.shape
    weights = None if importance is None else _in_blocks(importance, columns, grid, where)
    rounded = Rounded.empty(rows, columns, grid, scale_dtype)
    for part, values in row_blocks(weight, grid, WEIGHTS_AT_A_TIME):
        low, high = extremes(values, where)
        if grid.symmetric:
            high = torch.maximum(high.abs(), low.abs())
            low = -high
        unit, middle = ranges(low, high, grid)
        scales, below = _Candidates(values, unit, middle, grid, weights).best()
        scales.mul_(unit)
        if rounded.zero_points is None:
            # One code more lies below zero than above: where that was wanted above, all is turned.
            scales = torch.where(below < grid.default_zero_point, -scales, scales)
            zero_points: torch.Tensor | float = float(grid.default_zero_point)
        else:
            zero_points = below
            rounded.zero_points[part] = below.to(torch.uint8)
        rounded.scales[part] = checked_scales(scales, scale_dtype, where)
        nearest(values, rounded.scales[part], zero_points, grid, rounded.codes[part])
    rounded.codes.flatten(1)[:, columns:] = 0  # what fills up the last block
    return rounded


class _Candidates:
    """What can be tried for the blocks of some rows, in units of each block's range.

    (In units, because squares of small weights would vanish.)
    """

    def __init__(
        self,
        values: torch.Tensor,
        unit: torch.Tensor,
        middle: torch.Tensor,
        grid: Grid,
        weights: torch.Tensor | None,
    ) -> None:
        self.greatest = grid.greatest_code
        reciprocals = unit.reciprocal()
        self.values = values * reciprocals.masked_fill_(reciprocals.isinf(), 0)[..., None]
        self.weights = weights
        self.weighted = self.values if weights is None else self.values * weights
        self.steps, self.codes, self.products = (torch.empty_like(values) for _ in range(3))
        if grid.symmetric:
            zero = torch.full_like(middle, grid.default_zero_point)
            self.zeros = torch.stack([zero, zero - 1])
        else:
            beside = torch.tensor(BESIDE_ZERO_POINT, dtype=middle.dtype)
            self.zeros = (middle + beside[:, None, None]).clamp_(0, grid.greatest_code)

    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scales, and how many codes lie below that of zero.

        With codes c (that of zero being 0), the squared error of c * scale is least at
        scale = sum(w v c) / sum(w c c), by sum(w v c)^2 / sum(w c c) less than that of zeros.
        """
        count = len(self.zeros)
        sums = torch.empty(2, len(MORE_STEPS) * count, *self.zeros.shape[1:])
        for index, more in enumerate(MORE_STEPS):
            torch.mul(self.values, (self.greatest + more) / self.greatest, out=self.steps).round_()
            for place, zero in enumerate(self.zeros):
                self._sum(zero, sums[:, index * count + place])
        along, squares = sums
        gains = torch.where(squares > 0, along * along / squares, 0)
        chosen = gains.argmax(0, keepdim=True)
        below = self.zeros.gather(0, chosen % count)[0]
        # Once more with the best scale: codes change, and with them the scale.
        scale = _quotient(sums.gather(1, chosen.expand(2, -1, -1, -1))[:, 0])
        torch.mul(self.values, scale.reciprocal()[..., None], out=self.steps).round_()
        self._sum(below, sums[:, 0])
        return _quotient(sums[:, 0]), below

    def _sum(self, below: torch.Tensor, out: torch.Tensor) -> None:
        """Write sum(w v c) and sum(w c c) for the codes that self.steps give."""
        least = -below[..., None]
        torch.maximum(self.steps, least, out=self.codes)
        torch.minimum(self.codes, least + self.greatest, out=self.codes)
        torch.mul(self.codes, self.weighted, out=self.products)
        torch.sum(self.products, -1, out=out[0])
        torch.mul(self.codes, self.codes, out=self.products)
        if self.weights is not None:
            self.products.mul_(self.weights)
        torch.sum(self.products, -1, out=out[1])


def _quotient(sums: torch.Tensor) -> torch.Tensor:
    """Return the best scale, in units; 1 where nothing tells it."""
    along, squares = sums
    return torch.where(squares > 0, along / squares, 1)


def _in_blocks(importance: torch.Tensor, columns: int, grid: Grid, where: str) -> torch.Tensor:
    if importance.shape != (columns,):
        raise Refused(
            where,
            f"was given an importance of shape {tuple(importance.shape)}; expected ({columns},)",
            "Give one number for each of its columns.",
        )
    importance = importance.float()
    if not (importance.isfinite().all() and (importance >= 0).all()):
        raise Refused(
            where,
            "was given an importance that is negative or no number",
            "Give finite numbers from 0.",
        )
    # Only its ratios matter: by the mean, no square of a small one vanishes.
    importance = importance / importance.mean().clamp(min=torch.finfo(torch.float32).tiny)
    padding = grid.blocks(columns) * grid.block_size - columns
    return torch.nn.functional.pad(importance, (0, padding)).view(-1, grid.block_size)
