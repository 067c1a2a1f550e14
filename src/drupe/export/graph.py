"""The ONNX graph of a decoder, as ONNX Runtime GenAI runs it.  Heavy file: onnx_ir.

    input_ids --Gather--> x --norm--> QKV --GroupQueryAttention--> O --+--> norm --> MLP --+--> ...
                          |                                            |             ^     |
                          +--------- SkipSimplifiedLayerNormalization --+------------+------+

Operators of com.microsoft: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
Queries, keys and values come from one product; the rotary embedding is inside the attention, but
for DirectML, which has neither. Weights are described, not read: each is a place in the data file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from drupe.export.decoder import Decoder, Layer
from drupe.export.form import Form
from drupe.export.parts import Parts
from drupe.export.placement import (
    Angles,
    Cast,
    Layout,
    Matrix,
    Quantize,
    Region,
)
from drupe.quantize.grid import Grid

DATA_FILE = "model.onnx.data"
OPSETS = {"": 21, "com.microsoft": 1}
IR_VERSION = 10
MICROSOFT = "com.microsoft"
TYPES = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "U8": ir.DataType.UINT8,
    "I32": ir.DataType.INT32,
    "I64": ir.DataType.INT64,
}


@dataclass(frozen=True)
class Built:
    """A graph without weights, and where they will lie."""

    model: ir.Model
    layout: Layout


def build(decoder: Decoder, parts: Parts, form: Form) -> Built:
    """Return the graph of a decoder whose checkpoint has these parts."""
    return _Builder(decoder, parts, form).build()


class _Builder:
    def __init__(self, decoder: Decoder, parts: Parts, form: Form) -> None:
        self.decoder, self.parts, self.form = decoder, parts, form
        self.layout = Layout()
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.shared: tuple[Region, Region, Region | None] | None = None  # of tied weights

    def build(self) -> Built:
        """Return the whole graph."""
        inputs, outputs = self._inputs(), []
        lengths = self._lengths(inputs["attention_mask"])
        angles = {name: self._angles(name, lengths[1]) for name in self.decoder.rotaries}
        residual = (
            self._embedding(inputs["input_ids"])
            if self.form.with_embedding
            else inputs["inputs_embeds"]
        )
        normed = self._first_norm(residual)
        for index, layer in enumerate(self.decoder.layers):
            past = [inputs[f"past_key_values.{index}.{side}"] for side in ("key", "value")]
            attended, present = self._attention(
                index, layer, normed, past, lengths, angles, inputs.get("position_ids")
            )
            outputs += present
            branch = self._after(index, "attention", attended)
            residual, normed = self._add(residual, branch, self._norm_before_mlp(index))
            branch = self._after(index, "mlp", self._mlp(index, normed))
            residual, normed = self._add(residual, branch, self._norm_after_layer(index))
        if self.decoder.norms == "post":
            normed = self._norm("model.norm", normed)
        last = self._head(normed) if self.form.with_head else self._named(normed, "hidden_states")
        graph = ir.Graph(
            list(inputs.values()),
            [last, *outputs],
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports=OPSETS,
            name="decoder",
        )
        return Built(ir.Model(graph, ir_version=IR_VERSION, producer_name="drupe"), self.layout)

    # ---------------------------------------------------------------- inputs

    def _inputs(self) -> dict[str, ir.Value]:
        found = []
        if self.form.with_embedding:
            found.append(_value("input_ids", "I64", ["batch_size", "sequence_length"]))
        else:
            width = self.decoder.hidden
            shape: list[int | str] = ["batch_size", "sequence_length", width]
            found.append(_value("inputs_embeds", self.form.dtype, shape))
        found.append(_value("attention_mask", "I64", ["batch_size", "total_sequence_length"]))
        if not self.form.joined:
            found.append(_value("position_ids", "I64", ["batch_size", "sequence_length"]))
        cache: list[int | str] = [
            "batch_size",
            self.decoder.key_value_heads,
            "past_sequence_length",
            self.decoder.head_size,
        ]
        for index in range(len(self.decoder.layers)):
            for side in ("key", "value"):
                name = f"past_key_values.{index}.{side}"
                found.append(_value(name, self.form.dtype, cache))
        return {str(value.name): value for value in found}

    def _lengths(self, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the last position of each sequence, (batch_size,), and the length of all, ()."""
        one = self._constant("one", [1])
        counted = self._node("ReduceSum", [mask, one], "mask/count", keepdims=0)
        last = self._node("Sub", [counted, one], "mask/last")
        shape = self._node("Shape", [mask], "mask/shape")
        total = self._node("Gather", [shape, self._constant("one_scalar", 1)], "mask/total", axis=0)
        int32 = int(ir.DataType.INT32)
        return (
            self._node("Cast", [last], "mask/last/int32", to=int32),
            self._node("Cast", [total], "mask/total/int32", to=int32),
        )

    def _angles(self, name: str, total: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return cosines and sines; of "longrope" those that the length asks for."""
        rotary = self.decoder.rotaries[name]
        if rotary.kind != "longrope" or rotary.positions <= rotary.original:
            return self._table(name, rotary.positions, long=False)
        short = self._table(f"{name}.short", rotary.original, long=False)
        long = self._table(f"{name}.long", rotary.positions, long=True)
        limit = self._constant(f"{name}_original", rotary.original, "I32")
        is_long = self._node("Greater", [total, limit], f"rotary/{name}/is_long")
        found = [ir.Value(name=f"rotary/{name}/{side}") for side in ("cosines", "sines")]
        branches = [
            ir.AttrGraph(f"{branch}_branch", self._passing(tables, f"{name}_{branch}"))
            for branch, tables in (("then", long), ("else", short))
        ]
        self.nodes.append(
            ir.Node("", "If", [is_long], branches, outputs=found, name=f"rotary/{name}/If")
        )
        return found[0], found[1]

    def _passing(self, tables: Sequence[ir.Value], name: str) -> ir.Graph:
        """Return the graph of a branch that gives two tables of the graph around it."""
        nodes = [
            ir.Node("", "Identity", [table], outputs=[ir.Value(name=f"{name}/{side}")])
            for table, side in zip(tables, ("cosines", "sines"), strict=True)
        ]
        return ir.Graph([], [node.outputs[0] for node in nodes], nodes=nodes, name=name)

    def _table(self, name: str, positions: int, *, long: bool) -> tuple[ir.Value, ir.Value]:
        rotary = self.decoder.rotaries[name.partition(".")[0]]
        shape = (positions, rotary.size // 2)
        regions = [
            self.layout.place(f"rotary.{name}.{side}", self.form.dtype, shape)
            for side in ("cosines", "sines")
        ]
        self.layout.tasks.append(Angles(rotary, regions[0], regions[1], long))
        return self._stored(regions[0]), self._stored(regions[1])

    # ---------------------------------------------------------------- layers

    def _embedding(self, ids: ir.Value) -> ir.Value:
        matrix, grid = self.parts.embedding(), self.form.embedding
        if grid is not None:
            regions = self._place_codes("model.embed_tokens", matrix, grid)
            if self.decoder.tied and self.form.head == grid:
                self.shared = regions
            found = self._gather_codes(ids, matrix, grid, regions)
        else:
            region = self._cast(
                "model.embed_tokens.weight",
                matrix,
                (matrix.rows, matrix.columns),
                dtype=self.form.embedding_dtype,
            )
            found = self._node("Gather", [self._stored(region), ids], "embed_tokens/Gather")
            if self.form.embedding_dtype != self.form.dtype:
                to = int(TYPES[self.form.dtype])
                found = self._node("Cast", [found], "embed_tokens/Cast", to=to)
        return self._scaled(found, self.decoder.embedding_factor, "embed_tokens")

    def _gather_codes(
        self,
        ids: ir.Value,
        matrix: Matrix,
        grid: Grid,
        regions: tuple[Region, Region, Region | None],
    ) -> ir.Value:
        weights, *others = regions
        rows, blocks, block_bytes = weights.shape
        flat = Region(f"{weights.name}.flat", "U8", (rows, blocks * block_bytes), weights.begin)
        return self._node(
            "GatherBlockQuantized",
            [self._stored(flat), ids, *(self._stored(each) for each in others if each)],
            "embed_tokens/GatherBlockQuantized",
            domain=MICROSOFT,
            bits=grid.bits,
            block_size=grid.block_size,
            gather_axis=0,
            quantize_axis=1,
        )

    def _attention(
        self,
        index: int,
        layer: Layer,
        normed: ir.Value,
        past: list[ir.Value],
        lengths: tuple[ir.Value, ir.Value],
        angles: dict[str, tuple[ir.Value, ir.Value]],
        positions: ir.Value | None,
    ) -> tuple[ir.Value, list[ir.Value]]:
        decoder, name = self.decoder, f"layers.{index}.attention"
        query, key, value = self._queries_keys_values(index, normed)
        turned = layer.rotary is not None
        if not self.form.joined and turned:
            assert key is not None
            assert positions is not None
            query, key = (
                self._turned(each, positions, angles[str(layer.rotary)], heads, f"{name}/{side}")
                for each, heads, side in (
                    (query, decoder.heads, "query"),
                    (key, decoder.key_value_heads, "key"),
                )
            )
        inside = self.form.joined and turned
        tables = angles[str(layer.rotary)] if inside else (None, None)
        cache: list[int | str] = [
            "batch_size",
            decoder.key_value_heads,
            "total_sequence_length",
            decoder.head_size,
        ]
        outputs = [
            ir.Value(name=f"{name}/output"),
            *(
                _value(f"present.{index}.{side}", self.form.dtype, cache)
                for side in ("key", "value")
            ),
        ]
        attributes: dict[str, Any] = {
            "num_heads": decoder.heads,
            "kv_num_heads": decoder.key_value_heads,
            "scale": decoder.attention_scale,
            "do_rotary": int(inside),
            "rotary_interleaved": 0,
        }
        if layer.window is not None and layer.window < decoder.context:
            attributes["local_window_size"] = layer.window
        if decoder.attention_cap:
            attributes["softcap"] = decoder.attention_cap
        self.nodes.append(
            ir.node(
                "GroupQueryAttention",
                [query, key, value, *past, *lengths, *tables],
                attributes,
                domain=MICROSOFT,
                outputs=outputs,
                name=name,
            )
        )
        found = self._linear(f"{name}.output", self.parts.output(index), outputs[0])
        found = self._biased(f"{name}.output", self.parts.output_bias(index), found)
        return found, outputs[1:]

    def _queries_keys_values(
        self, index: int, normed: ir.Value
    ) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
        """Return queries, keys and values; all of them in the first where they stay joined."""
        decoder, name = self.decoder, f"layers.{index}.attention"
        joined = self._linear(f"{name}.qkv", self.parts.qkv(index), normed)
        joined = self._biased(f"{name}.qkv", self.parts.qkv_bias(index), joined)
        norms = self.parts.head_norms(index)
        if self.form.joined and not norms:
            return joined, None, None
        widths = [decoder.query_width, decoder.key_width, decoder.key_width]
        values = [ir.Value(name=f"{name}/{side}") for side in ("query", "key", "value")]
        inputs = [joined, self._constant("qkv_widths", widths)]
        self.nodes.append(
            ir.node("Split", inputs, {"axis": -1}, outputs=values, name=f"{name}/Split")
        )
        query, key, value = values
        if norms:
            query = self._head_norm(f"{name}.query_norm", norms[0], query, decoder.query_width)
            key = self._head_norm(f"{name}.key_norm", norms[1], key, decoder.key_width)
        return query, key, value

    def _head_norm(self, name: str, weight: Matrix, value: ir.Value, width: int) -> ir.Value:
        """Return each head divided by its root mean square (Qwen 3), or all at once (OLMo 2)."""
        size = self.decoder.head_size
        if weight.rows == width:
            return self._normalized(name, weight, value)
        heads = self._node("Reshape", [value, self._constant("heads", [0, -1, size])], f"{name}/in")
        heads = self._normalized(name, weight, heads)
        shape = self._constant(f"width_{width}", [0, -1, width])
        return self._node("Reshape", [heads, shape], f"{name}/out")

    def _turned(
        self,
        value: ir.Value,
        positions: ir.Value,
        tables: tuple[ir.Value, ir.Value],
        heads: int,
        name: str,
    ) -> ir.Value:
        return self._node(
            "RotaryEmbedding",
            [value, positions, *tables],
            f"{name}/RotaryEmbedding",
            domain=MICROSOFT,
            interleaved=0,
            num_heads=heads,
            rotary_embedding_dim=tables_width(self.decoder, tables),
        )

    def _mlp(self, index: int, normed: ir.Value) -> ir.Value:
        name = f"layers.{index}.mlp"
        gate, up = (
            self._biased(
                f"{name}.{side}",
                self.parts.mlp_bias(index, side),
                self._linear(f"{name}.{side}", self.parts.mlp(index, side), normed),
            )
            for side in ("gate", "up")
        )
        product = self._node("Mul", [self._activated(gate, name), up], f"{name}/Mul")
        down = self._linear(f"{name}.down", self.parts.mlp(index, "down"), product)
        return self._biased(f"{name}.down", self.parts.mlp_bias(index, "down"), down)

    def _activated(self, value: ir.Value, name: str) -> ir.Value:
        match self.decoder.activation:
            case "silu":
                sigmoid = self._node("Sigmoid", [value], f"{name}/Sigmoid")
                return self._node("Mul", [value, sigmoid], f"{name}/silu")
            case "gelu_tanh":
                return self._node("FastGelu", [value], f"{name}/FastGelu", domain=MICROSOFT)
            case "gelu":
                return self._node("Gelu", [value], f"{name}/Gelu", domain=MICROSOFT)

    # ---------------------------------------------------------------- norms and residuals

    def _first_norm(self, residual: ir.Value) -> ir.Value:
        if self.decoder.norms == "post":
            return residual
        return self._norm("model.layers.0.input_layernorm", residual)

    def _norm_before_mlp(self, index: int) -> str | None:
        names = {"pre": "post_attention_layernorm", "sandwich": "pre_feedforward_layernorm"}
        name = names.get(self.decoder.norms)
        return f"model.layers.{index}.{name}" if name else None

    def _norm_after_layer(self, index: int) -> str | None:
        if self.decoder.norms == "post":
            return None
        last = index + 1 == len(self.decoder.layers)
        return "model.norm" if last else f"model.layers.{index + 1}.input_layernorm"

    def _after(self, index: int, branch: str, value: ir.Value) -> ir.Value:
        """Return a branch as it is added: normed in some families."""
        if self.decoder.norms == "pre":
            return value
        name = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
        return self._norm(f"model.layers.{index}.{name[branch]}", value)

    def _add(
        self, residual: ir.Value, branch: ir.Value, norm: str | None
    ) -> tuple[ir.Value, ir.Value]:
        """Return the sum, and the sum as the next branch takes it."""
        if norm is None:
            name = f"{branch.name}/residual"
            total = self._node("Add", [residual, branch], name)
            return total, total
        weight = self._stored_norm(norm)
        outputs = [ir.Value(name=f"{norm}/output"), None, None, ir.Value(name=f"{norm}/sum")]
        if norm == "model.norm":
            outputs = outputs[:1]  # nobody takes the last sum
        self.nodes.append(
            ir.node(
                "SkipSimplifiedLayerNormalization",
                [residual, branch, weight],
                {"epsilon": self.decoder.epsilon},
                domain=MICROSOFT,
                outputs=[each or ir.Value(name="") for each in outputs],
                name=f"{norm}/SkipNorm",
            )
        )
        normed = outputs[0]
        assert normed is not None
        return outputs[-1] or normed, normed

    def _norm(self, name: str, value: ir.Value) -> ir.Value:
        return self._normalized(name, self.parts.norm(name), value)

    def _normalized(self, name: str, weight: Matrix, value: ir.Value) -> ir.Value:
        region = self._cast(f"{name}.weight", weight, (weight.rows,))
        return self._node(
            "SimplifiedLayerNormalization",
            [value, self._stored(region)],
            f"{name}/Norm",
            axis=-1,
            epsilon=self.decoder.epsilon,
            stash_type=1,
        )

    def _stored_norm(self, name: str) -> ir.Value:
        weight = self.parts.norm(name)
        return self._stored(self._cast(f"{name}.weight", weight, (weight.rows,)))

    def _scaled(self, value: ir.Value, factor: float, name: str) -> ir.Value:
        if factor == 1.0:
            return value
        by = self._float(f"{name}.factor", factor)
        return self._node("Mul", [value, by], f"{name}/scaled")

    # ---------------------------------------------------------------- head

    def _head(self, normed: ir.Value) -> ir.Value:
        grid, matrix = self.form.head, self.parts.head()
        if grid is not None and self.shared is not None:
            logits = self._product_of_codes("lm_head", normed, matrix, grid, self.shared)
        else:
            logits = self._linear("lm_head", matrix, normed, grid)
        logits = self._biased("lm_head", self.parts.head_bias(), logits)
        if self.decoder.tied and self.shared is not None:
            logits = self._scaled(logits, self.decoder.logits_factor, "logits")
        if self.decoder.logits_cap:
            cap = self._float("logits.cap", self.decoder.logits_cap)
            logits = self._node("Div", [logits, cap], "logits/divided")
            logits = self._node("Tanh", [logits], "logits/tanh")
            logits = self._node("Mul", [logits, cap], "logits/capped")
        return self._named(logits, "logits")

    def _named(self, value: ir.Value, name: str) -> ir.Value:
        """Give the value that is an output its name, type and shape."""
        width = self.decoder.vocabulary if name == "logits" else self.decoder.hidden
        value.name = name
        value.dtype = TYPES[self.form.dtype]
        value.shape = ir.Shape(["batch_size", "sequence_length", width])
        return value

    # ---------------------------------------------------------------- weights

    def _linear(
        self, name: str, matrix: Matrix, value: ir.Value, grid: Grid | None = None
    ) -> ir.Value:
        """Return value @ matrix.T, in blocks of few bits where the form says so."""
        grid = self.form.grid if name != "lm_head" else grid
        if grid is not None:
            regions = self._place_codes(name, matrix, grid)
            return self._product_of_codes(name, value, matrix, grid, regions)
        shape = (matrix.columns, matrix.rows)
        region = self._cast(f"{name}.weight", matrix, shape, transposed=True)
        return self._node("MatMul", [value, self._stored(region)], f"{name}/MatMul")

    def _product_of_codes(
        self,
        name: str,
        value: ir.Value,
        matrix: Matrix,
        grid: Grid,
        regions: tuple[Region, Region, Region | None],
    ) -> ir.Value:
        return self._node(
            "MatMulNBits",
            [value, *(self._stored(each) for each in regions if each)],
            f"{name}/MatMulNBits",
            domain=MICROSOFT,
            K=matrix.columns,
            N=matrix.rows,
            accuracy_level=self.form.accuracy_level,
            bits=grid.bits,
            block_size=grid.block_size,
        )

    def _place_codes(
        self, name: str, matrix: Matrix, grid: Grid
    ) -> tuple[Region, Region, Region | None]:
        rows, columns = matrix.rows, matrix.columns
        place = self.layout.place
        weights = place(f"{name}.codes", "U8", grid.packed_shape(rows, columns))
        scales = place(f"{name}.scales", self.form.dtype, (rows, grid.blocks(columns)))
        shape = grid.zero_points_shape(rows, columns)
        zero_points = place(f"{name}.zero_points", "U8", shape) if shape else None
        self.layout.tasks.append(Quantize(matrix, grid, weights, scales, zero_points))
        return weights, scales, zero_points

    def _cast(
        self,
        name: str,
        matrix: Matrix,
        shape: tuple[int, ...],
        *,
        dtype: str | None = None,
        transposed: bool = False,
    ) -> Region:
        region = self.layout.place(name, dtype or self.form.dtype, shape)
        self.layout.tasks.append(Cast(matrix, region, transposed))
        return region

    def _biased(self, name: str, bias: Matrix | None, value: ir.Value) -> ir.Value:
        if bias is None:
            return value
        region = self._cast(f"{name}.bias", bias, (bias.rows,))
        return self._node("Add", [value, self._stored(region)], f"{name}/Add")

    def _stored(self, region: Region) -> ir.Value:
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

    def _constant(self, name: str, value: int | list[int], dtype: str = "I64") -> ir.Value:
        """Return a small initializer that lies in the graph itself."""
        return self._small(name, ir.tensor(value, dtype=TYPES[dtype], name=f"constant.{name}"))

    def _float(self, name: str, value: float) -> ir.Value:
        return self._small(name, ir.tensor(value, dtype=TYPES[self.form.dtype], name=name))

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

    def _node(
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


def tables_width(decoder: Decoder, tables: tuple[ir.Value, ir.Value]) -> int:
    """Return how many values of a head the tables turn."""
    shape = tables[0].shape
    return decoder.rotaries["global"].size if shape is None else 2 * int(shape[1])


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(TYPES[dtype]))
