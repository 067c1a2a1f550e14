"""The ONNX graph of a decoder, as ONNX Runtime GenAI runs it.  Heavy file: onnx_ir.

    input_ids --Gather--> x --norm--> QKV --GroupQueryAttention--> O --+--> norm --> MLP --+--> ...
                          |                                            |             ^     |
                          +--------- SkipSimplifiedLayerNormalization --+------------+------+

Operators of com.microsoft: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
Queries, keys and values come from one product; the rotary embedding is inside the attention, but
for DirectML, which has neither. Weights are described, not read: each is a place in the data file.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from drupe.export.attention import Attention
from drupe.export.decoder import Decoder
from drupe.export.form import Form
from drupe.export.parts import Parts
from drupe.export.placement import Layout, Matrix, Region
from drupe.export.weighted_graph import MICROSOFT, TYPES, Places, WeightedGraph, typed_value
from drupe.quantize.grid import Grid

OPSETS = {"": 21, "com.microsoft": 1}
IR_VERSION = 10


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
        self.graph = WeightedGraph(form.dtype, form.accuracy_level)
        # Of weights that are tied: as codes, or as floats.
        self.shared: Places | None = None
        self.shared_values: Region | None = None

    def build(self) -> Built:
        """Return the whole graph."""
        inputs, outputs = self._inputs(), []
        attention = Attention(
            self.graph,
            self.decoder,
            self.parts,
            self.form,
            inputs["attention_mask"],
            inputs.get("position_ids"),
        )
        residual = (
            self._embedding(inputs["input_ids"])
            if self.form.with_embedding
            else inputs["inputs_embeds"]
        )
        normed = self._first_norm(residual)
        for index, layer in enumerate(self.decoder.layers):
            past = [inputs[f"past_key_values.{index}.{side}"] for side in ("key", "value")]
            attended, present = attention.apply(index, layer, normed, past)
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
            nodes=self.graph.nodes,
            initializers=list(self.graph.initializers.values()),
            opset_imports=OPSETS,
            name="decoder",
        )
        return Built(
            ir.Model(graph, ir_version=IR_VERSION, producer_name="drupe"), self.graph.layout
        )

    def _inputs(self) -> dict[str, ir.Value]:
        found = []
        if self.form.with_embedding:
            found.append(typed_value("input_ids", "I64", ["batch_size", "sequence_length"]))
        else:
            width = self.decoder.hidden
            shape: list[int | str] = ["batch_size", "sequence_length", width]
            found.append(typed_value("inputs_embeds", self.form.dtype, shape))
        found.append(typed_value("attention_mask", "I64", ["batch_size", "total_sequence_length"]))
        if not self.form.joined:
            found.append(typed_value("position_ids", "I64", ["batch_size", "sequence_length"]))
        cache: list[int | str] = [
            "batch_size",
            self.decoder.key_value_heads,
            "past_sequence_length",
            self.decoder.head_size,
        ]
        for index in range(len(self.decoder.layers)):
            for side in ("key", "value"):
                name = f"past_key_values.{index}.{side}"
                found.append(typed_value(name, self.form.dtype, cache))
        return {str(value.name): value for value in found}

    def _embedding(self, ids: ir.Value) -> ir.Value:
        matrix, grid = self.parts.embedding(), self.form.embedding
        if grid is not None:
            regions = self.graph.place_codes("model.embed_tokens", matrix, grid)
            if self.decoder.tied and self.form.head == grid:
                self.shared = regions
            found = self._gather_codes(ids, matrix, grid, regions)
        else:
            region = self.graph.cast(
                "model.embed_tokens.weight",
                matrix,
                (matrix.rows, matrix.columns),
                dtype=self.form.embedding_dtype,
            )
            self.shared_values = region if self.form.shared else None
            found = self.graph.node(
                "Gather", [self.graph.stored(region), ids], "embed_tokens/Gather"
            )
            if self.form.embedding_dtype != self.form.dtype:
                to = int(TYPES[self.form.dtype])
                found = self.graph.node("Cast", [found], "embed_tokens/Cast", to=to)
        return self.graph.scaled(found, self.decoder.embedding_factor, "embed_tokens")

    def _gather_codes(
        self,
        ids: ir.Value,
        matrix: Matrix,
        grid: Grid,
        regions: Places,
    ) -> ir.Value:
        weights, *others = regions
        rows, blocks, block_bytes = weights.shape
        flat = Region(f"{weights.name}.flat", "U8", (rows, blocks * block_bytes), weights.begin)
        return self.graph.node(
            "GatherBlockQuantized",
            [self.graph.stored(flat), ids, *(self.graph.stored(each) for each in others if each)],
            "embed_tokens/GatherBlockQuantized",
            domain=MICROSOFT,
            bits=grid.bits,
            block_size=grid.block_size,
            gather_axis=0,
            quantize_axis=1,
        )

    def _mlp(self, index: int, normed: ir.Value) -> ir.Value:
        name = f"layers.{index}.mlp"
        gate, up = (
            self.graph.biased(
                f"{name}.{side}",
                self.parts.mlp_bias(index, side),
                self.graph.linear(
                    f"{name}.{side}", self.parts.mlp(index, side), normed, self.form.grid
                ),
            )
            for side in ("gate", "up")
        )
        product = self.graph.node("Mul", [self._activated(gate, name), up], f"{name}/Mul")
        down = self.graph.linear(
            f"{name}.down", self.parts.mlp(index, "down"), product, self.form.grid
        )
        return self.graph.biased(f"{name}.down", self.parts.mlp_bias(index, "down"), down)

    def _activated(self, value: ir.Value, name: str) -> ir.Value:
        match self.decoder.activation:
            case "silu":
                sigmoid = self.graph.node("Sigmoid", [value], f"{name}/Sigmoid")
                return self.graph.node("Mul", [value, sigmoid], f"{name}/silu")
            case "gelu_tanh":
                return self.graph.node("FastGelu", [value], f"{name}/FastGelu", domain=MICROSOFT)
            case "gelu":
                return self.graph.node("Gelu", [value], f"{name}/Gelu", domain=MICROSOFT)

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
            total = self.graph.node("Add", [residual, branch], name)
            return total, total
        weight = self._stored_norm(norm)
        outputs = [ir.Value(name=f"{norm}/output"), None, None, ir.Value(name=f"{norm}/sum")]
        if norm == "model.norm":
            outputs = outputs[:1]  # nobody takes the last sum
        self.graph.nodes.append(
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
        return self.graph.normalized(name, self.parts.norm(name), value, self.decoder.epsilon)

    def _stored_norm(self, name: str) -> ir.Value:
        weight = self.parts.norm(name)
        return self.graph.stored(self.graph.cast(f"{name}.weight", weight, (weight.rows,)))

    def _head(self, normed: ir.Value) -> ir.Value:
        grid, matrix = self.form.head, self.parts.head()
        if grid is not None and self.shared is not None:
            logits = self.graph.product_of_codes("lm_head", normed, matrix, grid, self.shared)
        elif self.shared_values is not None:
            logits = self.graph.product_of_rows("lm_head", normed, self.shared_values)
        else:
            logits = self.graph.linear("lm_head", matrix, normed, grid)
        logits = self.graph.biased("lm_head", self.parts.head_bias(), logits)
        if self.shared is not None or self.shared_values is not None:
            logits = self.graph.scaled(logits, self.decoder.logits_factor, "logits")
        if self.decoder.logits_cap:
            cap = self.graph.number("logits.cap", self.decoder.logits_cap)
            logits = self.graph.node("Div", [logits, cap], "logits/divided")
            logits = self.graph.node("Tanh", [logits], "logits/tanh")
            logits = self.graph.node("Mul", [logits, cap], "logits/capped")
        return self._named(logits, "logits")

    def _named(self, value: ir.Value, name: str) -> ir.Value:
        """Give the value that is an output its name, type and shape."""
        width = self.decoder.vocabulary if name == "logits" else self.decoder.hidden
        value.name = name
        value.dtype = TYPES[self.form.dtype]
        value.shape = ir.Shape(["batch_size", "sequence_length", width])
        return value
