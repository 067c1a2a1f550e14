"""A weight a few rows at a time: in float32, filled up to whole blocks, and known to be finite.

What stays in the processor's cache between two operations is several times faster than a whole
tensor, and takes a few megabytes however large the tensor is.  Heavy file: the worker imports it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from drupe.core.errors import DrupeError
from drupe.quantize.grid import Grid

# 128 rows of 4096 columns: 2 MB in float32.
WEIGHTS_AT_A_TIME = 2**19


def row_blocks(
    weight: torch.Tensor,  # (rows, columns), of any floating type
    grid: Grid,
    weights_at_a_time: int = WEIGHTS_AT_A_TIME,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the rows, and their values as (rows, blocks, block_size) in float32.

    The values may be overwritten: the next ones come in the same memory.
    """
    rows, columns = weight.shape
    width = grid.blocks(columns) * grid.block_size
    at_a_time = min(rows, max(1, weights_at_a_time // max(1, width)))
    buffer = torch.empty(at_a_time, width)
    for first in range(0, rows, max(1, at_a_time)):
        part = slice(first, min(first + at_a_time, rows))
        values = buffer[: part.stop - part.start]
        values[:, :columns] = weight[part].detach()
        values[:, columns:] = 0
        yield part, values.view(len(values), -1, grid.block_size)


def extremes(values: torch.Tensor, where: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the greatest value of each block; refuse what is no number."""
    low, high = values.amin(-1), values.amax(-1)
    # What is no number is an extreme of its block.
    if not (_all_finite(low) and _all_finite(high)):
        bad = values[~values.isfinite()]
        raise DrupeError(
            where,
            f"holds {bad[0].item()} where a finite number is expected",
            "It cannot be rounded. Compare the checkpoint with where it came from, or make it "
            "again: a training that diverged leaves such values.",
        )
    return low, high


def checked_scales(scales: torch.Tensor, dtype: torch.dtype, where: str) -> torch.Tensor:
    """Return the scales in the type that is written; refuse those that it cannot hold."""
    held = scales.to(dtype)
    if not _all_finite(held):
        greatest = scales.abs().max().item()
        name = str(dtype).removeprefix("torch.")
        raise DrupeError(
            where,
            f"has a block whose scale is {greatest:.3g}; {name} holds at most "
            f"{torch.finfo(dtype).max:.3g}",
            "Choose a precision with float32 scales, or see whether the checkpoint is damaged.",
        )
    return held


def _all_finite(values: torch.Tensor) -> bool:
    """Return whether there is no infinity and no not-a-number; mostly their sum tells."""
    total = values.sum(dtype=torch.float32).item()
    return math.isfinite(total) or bool(values.isfinite().all())  # a sum may overflow
