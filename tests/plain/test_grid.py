"""The description of a grid: sizes, and what is refused."""

from __future__ import annotations

import pytest

from drupe.core.errors import Refused
from drupe.quantize.grid import Grid


@pytest.mark.parametrize(
    ("grid", "columns", "blocks", "packed", "zero_points"),
    [
        (Grid(4, 32, symmetric=True), 3072, 96, (10, 96, 16), None),
        (Grid(4, 32, symmetric=False), 3072, 96, (10, 96, 16), (10, 48)),
        (Grid(4, 32, symmetric=False), 33, 2, (10, 2, 16), (10, 1)),
        (Grid(4, 128, symmetric=False), 257, 3, (10, 3, 64), (10, 2)),
        (Grid(2, 64, symmetric=False), 320, 5, (10, 5, 16), (10, 2)),
        (Grid(8, 16, symmetric=False), 17, 2, (10, 2, 16), (10, 2)),
        (Grid(8, 256, symmetric=True), 1, 1, (10, 1, 256), None),
    ],
)
def test_sizes(
    grid: Grid,
    columns: int,
    blocks: int,
    packed: tuple[int, int, int],
    zero_points: tuple[int, int] | None,
) -> None:
    assert grid.blocks(columns) == blocks
    assert grid.packed_shape(10, columns) == packed
    assert grid.scales_shape(10, columns) == (10, blocks)
    assert grid.zero_points_shape(10, columns) == zero_points


@pytest.mark.parametrize(("bits", "middle", "greatest"), [(2, 2, 3), (4, 8, 15), (8, 128, 255)])
def test_codes(bits: int, middle: int, greatest: int) -> None:
    grid = Grid(bits)
    assert grid.default_zero_point == middle
    assert grid.greatest_code == greatest


def test_bits_per_weight_count_scales_and_zero_points() -> None:
    assert Grid(4, 32, symmetric=True).bits_per_weight(scale_bits=32) == 5
    assert Grid(4, 32, symmetric=False).bits_per_weight(scale_bits=16) == 4.625


def test_full_blocks() -> None:
    assert Grid(4, 64).divides(896)
    assert not Grid(4, 256).divides(896)


@pytest.mark.parametrize("bits", [0, 1, 3, 16])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(
        Refused,
        match=f"^grid: bits is {bits}; expected 2, 4 or 8\n"
        "  Choose one of them: ONNX Runtime has no kernels for others.$",
    ):
        Grid(bits)


@pytest.mark.parametrize("size", [-1, 0, 8, 48, 512])
def test_other_blocks_are_refused(size: int) -> None:
    with pytest.raises(
        Refused,
        match=f"^grid: block_size is {size}; expected one of 16, 32, 64, 128, 256\n"
        "  Choose one of them: ONNX Runtime takes powers of two from 16.$",
    ):
        Grid(4, size)
