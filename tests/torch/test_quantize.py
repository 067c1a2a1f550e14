"""The grid against ONNX Runtime: what codes stand for, how they lie, which ones it chooses."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbits_nodes import gathered, multiplied, theirs
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from drupe.core.errors import DrupeError
from drupe.quantize.codes import Packed, Rounded, dequantize, nearest, pack, unpack
from drupe.quantize.grid import BITS, BLOCK_SIZES, Grid
from drupe.quantize.rtn import round_to_nearest

grids = st.builds(Grid, st.sampled_from(BITS), st.sampled_from(BLOCK_SIZES), st.booleans())
sizes = st.tuples(st.integers(1, 20), st.integers(1, 600))
float_types = st.sampled_from([torch.float32, torch.float16])
seeds = st.integers(0, 2**32 - 1)
# Sessions are slow to make, and the first call of a kernel slower.
ONNX = settings(deadline=None, max_examples=80)


def make_weight(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return a weight with heavy tails, and with rows of kinds that are easily got wrong."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    weight *= 1 + 5 * (torch.rand(rows, columns, generator=generator) > 0.98)
    kinds = torch.randint(0, 10, (rows,), generator=generator).tolist()
    for row, kind in zip(weight, kinds, strict=True):
        if kind == 0:
            row.zero_()
        elif kind == 1:
            row.fill_(0.375)
        elif kind == 2:
            row.fill_(-3)
        elif kind == 3:
            row.abs_()
        elif kind == 4:
            row.abs_().neg_()
        elif kind == 5:
            row[torch.rand(columns, generator=generator) < 0.9] = 0
        elif kind == 6:  # halves between two codes
            row.copy_(torch.randint(-16, 17, (columns,), generator=generator) / 2)
    return weight


def make_codes(
    rows: int, columns: int, grid: Grid, dtype: torch.dtype, seed: int, exponent: int
) -> Rounded:
    """Return any codes, zero points and scales at all, of both signs and 0 among the scales."""
    generator = torch.Generator().manual_seed(seed)
    rounded = Rounded.empty(rows, columns, grid, dtype)
    rounded.codes.random_(0, grid.greatest_code + 1, generator=generator)
    scales = torch.randn(rounded.scales.shape, generator=generator) * 2.0**exponent
    scales[torch.rand(scales.shape, generator=generator) < 0.1] = 0
    rounded.scales.copy_(scales)
    if rounded.zero_points is not None:
        rounded.zero_points.random_(0, grid.greatest_code + 1, generator=generator)
    return rounded


def bytes_of(packed: Packed) -> list[bytes | None]:
    parts = (packed.weights, packed.scales, packed.zero_points)
    return [None if part is None else part.numpy().tobytes() for part in parts]


@given(grids, sizes, float_types, seeds, st.sampled_from([-5, -3, 3, -24, -130, -140]))
@ONNX
def test_codes_stand_for_what_onnxruntime_multiplies_by(
    grid: Grid, size: tuple[int, int], dtype: torch.dtype, seed: int, exponent: int
) -> None:
    """The last exponents make denormal scales."""
    rows, columns = size
    rounded = make_codes(rows, columns, grid, dtype, seed, exponent)
    ours = dequantize(rounded, grid, columns)
    assert ours.dtype == dtype
    packed = pack(rounded, grid)
    for accuracy_level in (0, 1):
        assert torch.equal(ours, multiplied(packed, grid, columns, accuracy_level))
    if columns % grid.codes_per_byte == 0:
        assert torch.equal(ours, gathered(packed, grid, columns))


@given(grids, sizes, st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), seeds)
def test_what_is_packed_is_unpacked_and_has_the_shapes_that_the_grid_tells(
    grid: Grid, size: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    rounded = make_codes(*size, grid, dtype, seed, -5)
    packed = pack(rounded, grid)
    assert packed.weights.shape == grid.packed_shape(*size)
    assert packed.scales.shape == grid.scales_shape(*size)
    if packed.zero_points is None:
        assert grid.zero_points_shape(*size) is None
    else:
        assert packed.zero_points.shape == grid.zero_points_shape(*size)
    again = unpack(packed, grid)
    assert torch.equal(again.codes, rounded.codes)
    assert torch.equal(again.scales, rounded.scales)
    if grid.symmetric:
        assert again.zero_points is None
    else:
        assert torch.equal(again.zero_points, rounded.zero_points)


@given(grids, sizes, float_types, seeds)
@ONNX
def test_rounding_to_nearest_gives_the_bytes_of_onnxruntimes_quantizer(
    grid: Grid, size: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    weight = make_weight(*size, seed).to(dtype)
    ours, reference = pack(round_to_nearest(weight, grid, dtype), grid), theirs(weight, grid)
    if size[1] % grid.codes_per_byte:  # they leave earlier codes in the rest of the last byte
        codes = unpack(reference, grid)
        codes.codes.flatten(1)[:, size[1] :] = 0
        reference = pack(codes, grid)
    assert bytes_of(ours) == bytes_of(reference)


def test_halves_go_away_from_zero_and_what_is_hardly_less_does_not() -> None:
    values = torch.tensor([[[0.5, 0.5 - 2**-25, 1.5, 2.5, 0, 15.4, 14.5, 100]]])
    codes = torch.empty_like(values, dtype=torch.uint8)
    nearest(values, torch.ones(1, 1), 0.0, Grid(4, 16), codes)
    assert codes.flatten().tolist() == [1, 0, 2, 3, 0, 15, 15, 15]


@pytest.mark.parametrize("grid", [Grid(4, 32), Grid(8, 64, symmetric=False)], ids=str)
def test_so_does_a_whole_model_that_onnxruntime_quantizes(grid: Grid) -> None:
    weight = make_weight(48, 200, seed=1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 200])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 48])],
        [numpy_helper.from_array(weight.T.contiguous().numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    quantizer = MatMulNBitsQuantizer(
        model, bits=grid.bits, block_size=grid.block_size, is_symmetric=grid.symmetric
    )
    quantizer.process()
    (node,) = (n for n in quantizer.model.model.graph.node if n.op_type == "MatMulNBits")
    written = {t.name: t for t in quantizer.model.model.graph.initializer}
    found = [onnx.numpy_helper.to_array(written[name]).tobytes() for name in node.input[1:]]
    ours = bytes_of(pack(round_to_nearest(weight, grid), grid))
    assert found == [part for part in ours if part is not None]


def test_bfloat16_is_rounded_as_the_float32_that_it_is() -> None:
    weight = make_weight(30, 300, seed=2).bfloat16()
    ours, theirs_ = (round_to_nearest(w, Grid()) for w in (weight, weight.float()))
    assert torch.equal(ours.codes, theirs_.codes)
    assert torch.equal(ours.scales, theirs_.scales)


def test_codes_are_chosen_for_the_scales_that_are_written() -> None:
    weight = make_weight(64, 512, seed=3)
    grid = Grid(8, 128)
    written = round_to_nearest(weight, grid, torch.bfloat16)
    assert written.scales.dtype == torch.bfloat16
    in_float32 = round_to_nearest(weight, grid)
    cast_later = Rounded(in_float32.codes, written.scales, None)
    errors = [
        (dequantize(r, grid, 512).float() - weight).square().sum() for r in (written, cast_later)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [1e-38, 1e-41, 1.4e-45, -1e-45, 3e38])
def test_the_least_and_the_greatest_floats_do_no_harm(value: float, symmetric: bool) -> None:
    weight = torch.tensor([[0.0, value, value / 2, 0]])
    rounded = round_to_nearest(weight, Grid(4, 16, symmetric))
    found = dequantize(rounded, Grid(4, 16, symmetric), 4)
    assert torch.allclose(found, weight, rtol=0.08, atol=2e-38)


def test_where_a_range_is_too_small_for_a_scale_the_zero_point_is_that_of_onnxruntime() -> None:
    weight = torch.full((1, 16), -1.4e-45)
    grid = Grid(4, 16, symmetric=False)
    assert bytes_of(pack(round_to_nearest(weight, grid), grid)) == bytes_of(theirs(weight, grid))


@pytest.mark.parametrize("rows", [1, 127, 128, 1000])
def test_rows_may_be_rounded_one_by_one_or_together(rows: int) -> None:
    weight = make_weight(rows, 3000, seed=4)
    grid = Grid(4, 64, symmetric=False)
    whole = round_to_nearest(weight, grid)
    some = round_to_nearest(weight[rows // 2 :], grid)
    assert torch.equal(whole.codes[rows // 2 :], some.codes)
    assert torch.equal(whole.scales[rows // 2 :], some.scales)


def test_threads_do_not_disturb_each_other() -> None:
    torch.set_num_threads(1)
    weight = make_weight(2048, 1024, seed=5)
    grid = Grid()
    whole = pack(round_to_nearest(weight, grid), grid)
    parts = weight.split(64)
    with ThreadPoolExecutor(4) as pool:
        packed = list(pool.map(lambda part: pack(round_to_nearest(part, grid), grid), parts))
    assert torch.equal(torch.cat([part.weights for part in packed]), whole.weights)
    assert torch.equal(torch.cat([part.scales for part in packed]), whole.scales)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (299, 99), (150, 64)])
def test_what_is_no_number_is_refused_by_the_name_of_its_tensor(
    bad: float, place: tuple[int, int]
) -> None:
    weight = torch.zeros(300, 100)
    weight[place] = bad
    with pytest.raises(
        DrupeError,
        match=f"^model.norm.weight: holds {bad} where a finite number is expected\n"
        "  It cannot be rounded. Compare the checkpoint with where it came from, or make it again",
    ):
        round_to_nearest(weight, Grid(), where="model.norm.weight")


def test_a_scale_that_its_type_cannot_hold_is_refused() -> None:
    weight = torch.full((1, 32), 1e6)
    with pytest.raises(
        DrupeError,
        match=r"^q_proj: has a block whose scale is 1.25e\+05; float16 holds at most 6.55e\+04"
        "\n  Choose a precision with float32 scales, or see whether the checkpoint is damaged",
    ):
        round_to_nearest(weight, Grid(), torch.float16, where="q_proj")
    with pytest.raises(DrupeError, match=r"scale is inf; float32 holds at most 3.4e\+38"):
        round_to_nearest(torch.tensor([[3e38, -3e38]]), Grid(symmetric=False))


def test_an_embedding_whose_rows_end_inside_a_byte_cannot_be_gathered() -> None:
    packed = pack(round_to_nearest(torch.ones(2, 33), Grid()), Grid())
    with pytest.raises(ValueError, match="33 columns of 4 bits end inside a byte"):
        packed.gathered(33, Grid())
