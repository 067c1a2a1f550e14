"""An ONNX graph in the making: nodes, small constants, weights that lie in a data file.  onnx_ir.

Weights are described, not read: each is a place in the data file, and what it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from drupe.export.placement import Cast, Layout, Matrix, Quantize, Region
from drupe.quantize.grid import Grid

DATA_FILE = "model.onnx.data"
MICROSOFT = "com.microsoft"
TYPES = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "U8": ir.DataType.UINT8,
    "I32": ir.DataType.INT32,
    "I64": ir.DataType.INT64,
}
# Codes, scales and, where the grid is not symmetric, zero points.
Places = tuple[Region, Region, Region | None]


class WeightedGraph:
    """Nodes in their order, initializers by their names, and the layout of the data file.

    dtype: of activations and of all weights that are not quantized ("F32"). accuracy_level: of
    products with quantized weights (MatMulNBits).
    """

    def __init__(self, dtype: str, accuracy_level: int) -> None:
        self.dtype = dtype
        self._accuracy_level = accuracy_level
        self.layout = Layout()
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}

    def linear(self, name: str, matrix: Matrix, value: ir.Value, grid: Grid | None) -> ir.Value:
        """Return value @ matrix.T; with a grid the matrix is in blocks of few bits."""
        if grid is not None:
            regions = self.place_codes(name, matrix, grid)
            return self.product_of_codes(name, value, matrix, grid, regions)
        shape = (matrix.columns, matrix.rows)
        region = self.cast(f"{name}.weight", matrix, shape, transposed=True)
        return self.node("MatMul", [value, self.stored(region)], f"{name}/MatMul")

    def product_of_codes(
        self,
        name: str,
        value: ir.Value,
        matrix: Matrix,
        grid: Grid,
        regions: Places,
    ) -> ir.Value:
        """Return value @ matrix.T for a matrix whose codes have their places."""
        return self.node(
            "MatMulNBits",
            [value, *(self.stored(each) for each in regions if each)],
            f"{name}/MatMulNBits",
            domain=MICROSOFT,
            K=matrix.columns,
            N=matrix.rows,
            accuracy_level=self._accuracy_level,
            bits=grid.bits,
            block_size=grid.block_size,
        )

    def product_of_rows(self, name: str, value: ir.Value, matrix: Region) -> ir.Value:
        """Return value @ matrix.T for floats that have their place, row by row."""
        return self.node(
            "FusedMatMul",
            [value, self.stored(matrix)],
            f"{name}/FusedMatMul",
            domain=MICROSOFT,
            transB=1,
        )

    def place_codes(self, name: str, matrix: Matrix, grid: Grid) -> Places:
        """Give a matrix its places in blocks of few bits."""
        rows, columns = matrix.rows, matrix.columns
        place = self.layout.place
        weights = place(f"{name}.codes", "U8", grid.packed_shape(rows, columns))
        scales = place(f"{name}.scales", self.dtype, (rows, grid.blocks(columns)))
        shape = grid.zero_points_shape(rows, columns)
        zero_points = place(f"{name}.zero_points", "U8", shape) if shape else None
        self.layout.tasks.append(Quantize(matrix, grid, weights, scales, zero_points))
        return weights, scales, zero_points

    def cast(
        self,
        name: str,
        matrix: Matrix,
        shape: tuple[int, ...],
        *,
        dtype: str | None = None,
        transposed: bool = False,
    ) -> Region:
        """Give a matrix its place as floats: of `dtype`, or that of the graph."""
        region = self.layout.place(name, dtype or self.dtype, shape)
        self.layout.tasks.append(Cast(matrix, region, transposed))
        return region

    def biased(self, name: str, bias: Matrix | None, value: ir.Value) -> ir.Value:
        """Return the value with a bias added, if there is one."""
        if bias is None:
            return value
        region = self.cast(f"{name}.bias", bias, (bias.rows,))
        return self.node("Add", [value, self.stored(region)], f"{name}/Add")

    def stored(self, region: Region) -> ir.Value:
        """Return the initializer whose bytes lie in the data file."""
        if region.name not in self.initializers:
            dtype, shape = TYPES[region.dtype], ir.Shape(region.shape)
            tensor = ir.ExternalTensor(
                DATA_FILE, region.begin, region.size_bytes, dtype, shape=shape, name=region.name
            )
            self.initializers[region.name] = ir.Value(
                name=region.name, shape=shape, type=ir.TensorType(dtype), const_value=tensor
            )
        return self.initializers[region.name]

    def constant(self, name: str, value: int | list[int], dtype: str = "I64") -> ir.Value:
        """Return a small initializer that lies in the graph itself."""
        return self._small(name, ir.tensor(value, dtype=TYPES[dtype], name=f"constant.{name}"))

    def number(self, name: str, value: float) -> ir.Value:
        """Return a number in the type of activations, in the graph itself."""
        return self._small(name, ir.tensor(value, dtype=TYPES[self.dtype], name=name))

    def _small(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        known = str(tensor.name)
        if known not in self.initializers:
            self.initializers[known] = ir.Value(
                name=known,
                shape=ir.Shape(tensor.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        return self.initializers[known]

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Add a node of one output, which is called as the node is."""
        output = ir.Value(name=f"{name}/output")
        self.nodes.append(
            ir.node(operator, list(inputs), attributes, domain=domain, outputs=[output], name=name)
        )
        return output

    def normalized(self, name: str, weight: Matrix, value: ir.Value, epsilon: float) -> ir.Value:
        """Return the value divided by its root mean square, times the weight."""
        region = self.cast(f"{name}.weight", weight, (weight.rows,))
        return self.node(
            "SimplifiedLayerNormalization",
            [value, self.stored(region)],
            f"{name}/Norm",
            axis=-1,
            epsilon=epsilon,
            stash_type=1,
        )

    def scaled(self, value: ir.Value, factor: float, name: str) -> ir.Value:
        """Return the value times a factor."""
        if factor == 1.0:
            return value
        by = self.number(f"{name}.factor", factor)
        return self.node("Mul", [value, by], f"{name}/scaled")


def typed_value(name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    """Return an input or output: its type as safetensors spells it, its shape by names too."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(TYPES[dtype]))
