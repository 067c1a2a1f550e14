"""Proof that an exported file holds its checkpoint's weights, as nearly as their bits allow.

What is kept in floats has to be the checkpoint's values, to the last bit. What is quantized is
measured against rounding to nearest on the same grid, which the proof does itself: over a whole
matrix the error may be hardly greater, and in no block by a large part of a step; so a block that
was damaged or lies in another's place is found wherever it is. A method that chooses its codes
with care leaves less.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from drupe.checkpoint.tensors import Rows
from drupe.core.job import Job
from drupe.export.deployed import (
    DeployedWeights,
    name_of,
    not_the_checkpoints,
    row_parts,
    size_of,
)
from drupe.export.placement import Cast, Matrix, Piece, Quantize
from drupe.quantize.codes import Rounded
from drupe.quantize.grid import Grid
from drupe.quantize.rtn import round_to_nearest

# Relative error of a matrix, as a multiple of what rounding to nearest leaves.
MATRIX_FACTOR = 1.05
# Root mean square of a block's error beyond what rounding to nearest leaves, in steps of the grid.
# In a block of 32 of 4 bits a code that is off by one costs 0.05, by two 0.17, a scale that is off
# by a tenth 0.2, a block in another's place 3 and more.
BLOCK_STEPS = 0.1
# A block of weights so small that the scales' type cannot hold their scale.
LEAST_STEPS = 16
LAYER = re.compile(r"^layers\.(\d+)\.(attention|mlp)\.")


@dataclass(frozen=True)
class Compared:
    """A matrix of the file beside the checkpoint's.

    error: sum of squared differences; rounding: what rounding to nearest leaves of it; total: the
    checkpoint's own sum of squares; size_bytes: what it takes in the file.
    """

    name: str
    error: float
    rounding: float
    total: float
    size_bytes: int


@dataclass
class PartOfModel:
    """The matrices of a part of the model (the attention of a layer) together."""

    error: float = 0.0
    total: float = 0.0
    size_bytes: int = 0

    def add(self, compared: Compared) -> None:
        """Count a matrix in."""
        self.error += compared.error
        self.total += compared.total
        self.size_bytes += compared.size_bytes

    def to_json(self) -> dict[str, float]:
        """Return the relative error of its weights, and its bytes."""
        relative = (self.error / self.total) ** 0.5 if self.total else 0.0
        return {"error": float(f"{relative:.4g}"), "bytes": self.size_bytes}


@dataclass
class WeightsScore:
    """What the comparison gave, by layer. other_bytes: norms and biases."""

    layers: list[dict[str, PartOfModel]] = field(default_factory=list)
    ends: dict[str, PartOfModel] = field(default_factory=dict)
    other_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return {"embedding": part, "head": ..., "layers": [{"attention": ..., "mlp": ...}]}."""
        return {
            **{name: part.to_json() for name, part in self.ends.items()},
            "layers": [
                {name: part.to_json() for name, part in layer.items()} for layer in self.layers
            ],
            "other_bytes": self.other_bytes,
        }


def prove_weights(deployed: DeployedWeights, checkpoint: Rows, job: Job) -> WeightsScore:
    """Compare all that the file holds with the checkpoint; return how far each part is from it.

    Raises DrupeError naming the first matrix that is further away than rounding explains.
    """
    score, count = WeightsScore(), len(deployed.stored)
    torch.set_num_threads(1)  # each worker is one thread
    try:
        with ThreadPoolExecutor(job.threads) as pool:
            for done, stored in enumerate(deployed.stored, 1):
                if isinstance(stored, Cast):
                    _check_floats(deployed, checkpoint, stored)
                    compared = Compared(name_of(stored), 0.0, 0.0, 0.0, size_of(stored))
                else:
                    compared = _compare(deployed, checkpoint, stored, pool)
                deployed.drop(stored)
                _count(score, compared, is_matrix=stored.matrix.columns > 1)
                job.progress("proving the weights", done, count, "matrices")
    finally:
        torch.set_num_threads(job.threads)
    return score


def _count(score: WeightsScore, compared: Compared, *, is_matrix: bool) -> None:
    within = LAYER.match(compared.name)
    if not is_matrix:
        score.other_bytes += compared.size_bytes
    elif within is None:
        name = "head" if compared.name == "lm_head" else "embedding"
        score.ends.setdefault(name, PartOfModel()).add(compared)
    else:
        index = int(within[1])
        while len(score.layers) <= index:
            score.layers.append({"attention": PartOfModel(), "mlp": PartOfModel()})
        score.layers[index][within[2]].add(compared)


def _rows(checkpoint: Rows, piece: Piece, matrix: Matrix) -> torch.Tensor:
    """Return rows of the checkpoint as the exporter takes them."""
    rows = checkpoint.rows(piece.tensor, piece.start, piece.stop)
    if matrix.factor != 1.0 or matrix.offset != 0.0:
        return rows.float() * matrix.factor + matrix.offset
    return rows


def _check_floats(deployed: DeployedWeights, checkpoint: Rows, stored: Cast) -> None:
    for first, piece in row_parts(stored.matrix):
        found = deployed.floats(stored, first, first + piece.rows)
        expected = _rows(checkpoint, piece, stored.matrix).to(found.dtype)
        if not torch.equal(found, expected):
            count = int((found != expected).sum())
            raise not_the_checkpoints(
                stored.values.name,
                f"{count} of {found.numel()} values of rows {first} to {first + piece.rows - 1} "
                "are not the checkpoint's",
            )
        checkpoint.drop(piece.tensor, piece.start, piece.stop)


def _compare(
    deployed: DeployedWeights,
    checkpoint: Rows,
    stored: Quantize,
    pool: ThreadPoolExecutor,
) -> Compared:
    def compare(part: tuple[int, Piece]) -> tuple[float, float, float]:
        return _compare_rows(deployed, checkpoint, stored, *part)

    sums = list(pool.map(compare, row_parts(stored.matrix)))
    error, rounding, total = (sum(each) for each in zip(*sums, strict=True))
    if not error <= MATRIX_FACTOR**2 * rounding + 1e-12 * total:  # a not-a-number fails
        relative, allowed = ((each / total) ** 0.5 for each in (error, rounding))
        raise not_the_checkpoints(
            name_of(stored),
            f"its relative error is {relative:.3g}, where rounding to nearest leaves {allowed:.3g}",
        )
    return Compared(name_of(stored), error, rounding, total, size_of(stored))


def _compare_rows(
    deployed: DeployedWeights,
    checkpoint: Rows,
    stored: Quantize,
    first: int,
    piece: Piece,
) -> tuple[float, float, float]:
    """Return the sums of squares of some rows: the file's error, that of rounding, the weights."""
    matrix, grid = stored.matrix, stored.grid
    found = deployed.coded(stored, first, first + piece.rows)
    exact = _rows(checkpoint, piece, matrix).float()
    nearest = round_to_nearest(exact, grid, found.scales.dtype, piece.tensor)
    blocks = exact
    if not grid.divides(matrix.columns):
        blocks = torch.nn.functional.pad(exact, (0, -matrix.columns % grid.block_size))
    blocks = blocks.view_as(found.codes)
    ours = _squares(found, blocks, stored)
    theirs = ours if _same(found, nearest) else _squares(nearest, blocks, stored)
    _check_blocks(name_of(stored), first, (ours, theirs), nearest.scales.float().abs(), grid)
    checkpoint.drop(piece.tensor, piece.start, piece.stop)
    return (
        float(ours.sum(dtype=torch.float64)),
        float(theirs.sum(dtype=torch.float64)),
        float(exact.square().sum(dtype=torch.float64)),
    )


def _same(one: Rounded, other: Rounded) -> bool:
    """Return whether both are the same codes: so they are where nothing was searched."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = [
        (one.codes, other.codes),
        (one.scales, other.scales),
    ]
    if one.zero_points is not None and other.zero_points is not None:
        pairs.append((one.zero_points, other.zero_points))
    return all(torch.equal(*pair) for pair in pairs)


def _squares(
    rounded: Rounded,
    blocks: torch.Tensor,  # (rows, blocks, block_size), float32: the exact weights
    stored: Quantize,
) -> torch.Tensor:
    """Return the sum of squared errors of each block, (rows, blocks), what fills it up left out."""
    values = rounded.codes.float()
    if rounded.zero_points is None:
        values.sub_(stored.grid.default_zero_point)
    else:
        values.sub_(rounded.zero_points[..., None])
    values.mul_(rounded.scales.float()[..., None]).sub_(blocks).square_()
    values.flatten(1)[:, stored.matrix.columns :] = 0
    return values.sum(-1)


def _check_blocks(
    name: str,
    first: int,
    squares: tuple[torch.Tensor, torch.Tensor],  # of the file's codes, of the nearest ones
    steps: torch.Tensor,  # (rows, blocks): of the nearest ones
    grid: Grid,
) -> None:
    ours, nearest = (each.div(grid.block_size).sqrt_() for each in squares)
    least = LEAST_STEPS * torch.finfo(torch.float32).tiny
    wrong = ~(ours <= nearest + BLOCK_STEPS * steps + least)
    if bool(wrong.any()):
        row, block = wrong.nonzero()[0].tolist()
        raise not_the_checkpoints(
            name,
            f"{int(wrong.sum())} blocks of rows {first} to {first + len(steps) - 1} are further "
            f"from the checkpoint than rounding explains, the first in row {first + row} from "
            f"column {block * grid.block_size} (root mean square {ours[row, block].item():.3g}, "
            f"by rounding to nearest {nearest[row, block].item():.3g})",
        )
