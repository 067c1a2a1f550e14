"""What ONNX Runtime itself makes of packed weights, and how it packs weights."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    DefaultWeightOnlyQuantizer,
)

from drupe.quantize.codes import Packed
from drupe.quantize.grid import Grid

TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}


def multiplied(packed: Packed, grid: Grid, columns: int, accuracy_level: int = 0) -> torch.Tensor:
    """Return the weight (rows, columns) by which MatMulNBits multiplies: its product with one."""
    rows = len(packed.weights)
    one = torch.eye(columns, dtype=packed.scales.dtype)
    product = _run(
        "MatMulNBits",
        ["A", "weights", "scales"],
        {"A": one},
        packed,
        [columns, rows],
        K=columns,
        N=rows,
        bits=grid.bits,
        block_size=grid.block_size,
        accuracy_level=accuracy_level,
    )
    return product.T


def gathered(packed: Packed, grid: Grid, columns: int) -> torch.Tensor:
    """Return all rows (rows, columns) as GatherBlockQuantized gives them."""
    rows = len(packed.weights)
    cut = Packed(packed.gathered(columns, grid), packed.scales, packed.zero_points)
    return _run(
        "GatherBlockQuantized",
        ["weights", "indices", "scales"],
        {"indices": torch.arange(rows)},
        cut,
        [rows, columns],
        bits=grid.bits,
        block_size=grid.block_size,
        gather_axis=0,
        quantize_axis=1,
    )


def _run(
    kind: str,
    inputs: list[str],
    fed: dict[str, torch.Tensor],
    packed: Packed,
    shape: list[int],
    **attributes: int,
) -> torch.Tensor:
    constants = {"weights": packed.weights, "scales": packed.scales}
    if packed.zero_points is not None:
        constants["zero_points"] = packed.zero_points
        inputs = [*inputs, "zero_points"]
    node = helper.make_node(kind, inputs, ["out"], domain="com.microsoft", **attributes)
    types = TYPES | {torch.int64: TensorProto.INT64}
    graph = helper.make_graph(
        [node],
        "one node",
        [helper.make_tensor_value_info(n, types[t.dtype], t.shape) for n, t in fed.items()],
        [helper.make_tensor_value_info("out", types[packed.scales.dtype], shape)],
        [numpy_helper.from_array(t.contiguous().numpy(), name) for name, t in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (out,) = session.run(None, {name: tensor.numpy() for name, tensor in fed.items()})
    return torch.from_numpy(out)


def theirs(weight: torch.Tensor, grid: Grid) -> Packed:
    """Return what onnxruntime.quantization writes for a weight (float32 or float16)."""
    config = DefaultWeightOnlyQuantConfig(
        block_size=grid.block_size, is_symmetric=grid.symmetric, bits=grid.bits
    )
    quantizer = DefaultWeightOnlyQuantizer(config)
    columns_first = np.ascontiguousarray(weight.numpy().T)
    packed, scales, zero_points = map(torch.from_numpy, quantizer.qbits_block_quant(columns_first))
    return Packed(packed, scales, None if grid.symmetric else zero_points)
