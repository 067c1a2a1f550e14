"""The search for the least squared error: never worse than rounding, and how much better."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from onnxruntime.quantization.neural_compressor import weight_only
from test_quantize import grids, make_weight, seeds, sizes

from drupe.core.errors import DrupeError, Refused
from drupe.quantize.codes import Rounded, dequantize
from drupe.quantize.grid import Grid
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

DISTRIBUTIONS = {
    "normal": torch.distributions.Normal(0.0, 0.02),
    "laplace": torch.distributions.Laplace(0.0, 0.02),
    "heavy": torch.distributions.StudentT(4.0, scale=0.02),
}


def sample(name: str, rows: int = 256, columns: int = 1024) -> torch.Tensor:
    torch.manual_seed(6)
    return DISTRIBUTIONS[name].sample((rows, columns))


def errors(weight: torch.Tensor, rounded: Rounded, grid: Grid) -> torch.Tensor:
    """Return the squared error of each block: (rows, blocks)."""
    columns = weight.shape[1]
    squares = (dequantize(rounded, grid, columns).double() - weight.double()).square()
    padding = grid.blocks(columns) * grid.block_size - columns
    padded = torch.nn.functional.pad(squares, (0, padding))
    return padded.view(*rounded.scales.shape, -1).sum(-1)


@given(grids, sizes, seeds)
@settings(deadline=None, max_examples=50)
def test_no_block_is_worse_than_by_rounding_to_nearest(
    grid: Grid, size: tuple[int, int], seed: int
) -> None:
    weight = make_weight(*size, seed)
    nearest = errors(weight, round_to_nearest(weight, grid), grid)
    searched = errors(weight, least_squared_error(weight, grid), grid)
    # Of 8 bits' small errors, the sums of squares in float32 tell 2 % apart.
    near = 1.02 if grid.bits == 8 else 1.0001
    assert (searched <= nearest * near + 1e-12 * weight.double().square().sum()).all()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("block_size", [32, 128])
def test_in_4_bits_it_is_better_than_rounding_and_than_onnxruntimes_k_quant(
    name: str, block_size: int
) -> None:
    weight = sample(name)
    grid = Grid(4, block_size, symmetric=False)
    nearest = errors(weight, round_to_nearest(weight, grid), grid).sum()
    searched = errors(weight, least_squared_error(weight, grid), grid).sum()
    codes, scales, zero_points = weight_only.quant_tensor_k_quant_cpu(weight.numpy(), 4, block_size)
    theirs = torch.from_numpy((codes - zero_points) * scales).view_as(weight)
    k_quant = (theirs - weight).square().sum()
    assert searched <= 0.95 * nearest
    assert searched <= 0.95 * k_quant


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("bits", "block_size", "share"), [(4, 32, 0.96), (4, 128, 0.92), (2, 64, 0.87), (8, 32, 0.97)]
)
def test_symmetric_grids_too(name: str, bits: int, block_size: int, share: float) -> None:
    weight = sample(name)
    grid = Grid(bits, block_size)
    nearest = errors(weight, round_to_nearest(weight, grid), grid).sum()
    assert errors(weight, least_squared_error(weight, grid), grid).sum() <= share * nearest


@pytest.mark.parametrize(("name", "share"), [("normal", 0.53), ("heavy", 0.553)])
def test_with_few_codes_the_zero_points_beside_count(name: str, share: float) -> None:
    weight = sample(name)
    grid = Grid(2, 128, symmetric=False)
    nearest = errors(weight, round_to_nearest(weight, grid), grid).sum()
    assert errors(weight, least_squared_error(weight, grid), grid).sum() <= share * nearest


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_exact_weight_stays_exact(symmetric: bool) -> None:
    grid = Grid(4, 32, symmetric)
    torch.manual_seed(3)
    codes = torch.randint(0, 16, (64, 8, 32))
    codes[..., 0], codes[..., 1] = 0, 15
    scales = torch.rand(64, 8, 1) + 0.5
    weight = ((codes - 8) * scales).flatten(1)
    found = dequantize(least_squared_error(weight, grid), grid, 256)
    assert torch.allclose(found, weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("exponent", [-100, -60, 60, 120])
def test_the_size_of_the_weights_does_not_matter(exponent: int, symmetric: bool) -> None:
    weight = sample("heavy", 16, 256)
    grid = Grid(4, 32, symmetric)
    here = least_squared_error(weight, grid)
    there = least_squared_error(weight * 2.0**exponent, grid)
    assert torch.equal(here.codes, there.codes)
    assert torch.equal(here.scales * 2.0**exponent, there.scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codes_fit_the_scales_as_they_are_written(dtype: torch.dtype) -> None:
    weight = sample("normal")
    grid = Grid(8, 32)
    written = least_squared_error(weight, grid, dtype)
    assert written.scales.dtype == dtype
    cast_later = Rounded(least_squared_error(weight, grid).codes, written.scales, None)
    assert errors(weight, written, grid).sum() < errors(weight, cast_later, grid).sum()


@pytest.mark.parametrize("symmetric", [True, False])
def test_errors_count_by_the_importance_of_their_column(symmetric: bool) -> None:
    weight = sample("heavy", columns=1000)  # the last block is not full
    grid = Grid(4, 64, symmetric)
    torch.manual_seed(1)
    importance = torch.distributions.LogNormal(0.0, 2.0).sample((1000,)) * 1e-30
    importance[64:128] = 0  # nothing tells what is best there

    def weighted(rounded: Rounded) -> float:
        squares = (dequantize(rounded, grid, 1000) - weight).square()
        return (squares * (importance / importance.mean())).sum().item()

    found = least_squared_error(weight, grid, importance=importance)
    assert weighted(found) < 0.8 * weighted(least_squared_error(weight, grid))
    left = dequantize(found, grid, 1000)[:, 64:128]
    assert (left - weight[:, 64:128]).square().sum() < 0.1 * weight[:, 64:128].square().sum()


def test_the_same_importance_everywhere_is_none() -> None:
    weight = sample("heavy", 64, 512)
    grid = Grid(4, 32, symmetric=False)
    one = least_squared_error(weight, grid, importance=torch.full((512,), 4.0))
    none = least_squared_error(weight, grid)
    assert torch.equal(one.codes, none.codes)


@pytest.mark.parametrize(
    ("importance", "what", "remedy"),
    [
        (
            torch.ones(31),
            r"an importance of shape \(31,\); expected \(32,\)",
            "Give one number for each of its columns.",
        ),
        (torch.full((32,), -1.0), "that is negative or no number", "Give finite numbers from 0."),
        (torch.full((32,), math.nan), "that is negative or no number", "Give finite numbers"),
    ],
)
def test_another_importance_is_refused(importance: torch.Tensor, what: str, remedy: str) -> None:
    with pytest.raises(Refused, match=rf"^o_proj: was given .*{what}\n  {remedy}"):
        least_squared_error(torch.ones(1, 32), Grid(), where="o_proj", importance=importance)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    weight = torch.ones(300, 100)
    weight[299, 99] = bad
    with pytest.raises(DrupeError, match=f"^k_proj: holds {bad} where a finite number is"):
        least_squared_error(weight, Grid(), where="k_proj")
