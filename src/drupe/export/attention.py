"""Attention in the graph: queries, keys and values, positions, caches.  Heavy file: onnx_ir.

    joined   x --product--> QKV --GroupQueryAttention, which turns them--> output
    apart    x --product--> QKV --Split--> norms, RotaryEmbedding --GroupQueryAttention--> output

Apart are they where heads have norms of their own, for DirectML, and where so few values of a head
are turned that no attention does it inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from drupe.export.decoder import Decoder, Layer
from drupe.export.form import Form
from drupe.export.parts import Parts
from drupe.export.placement import Angles, Matrix
from drupe.export.weighted_graph import MICROSOFT, WeightedGraph, typed_value

Pair = tuple[ir.Value, ir.Value]


class Attention:
    """The attention of all layers of a decoder: what they share is added to the graph at once.

    mask: the graph's attention_mask. positions: its position_ids, where heads are turned apart.
    """

    def __init__(
        self,
        graph: WeightedGraph,
        decoder: Decoder,
        parts: Parts,
        form: Form,
        mask: ir.Value,
        positions: ir.Value | None,
    ) -> None:
        self.graph, self.decoder, self.parts, self.form = graph, decoder, parts, form
        self._positions = positions
        self._lengths = self._count(mask)
        self._angles = {name: self._tables(name) for name in decoder.rotaries}

    def apply(
        self, index: int, layer: Layer, normed: ir.Value, past: Sequence[ir.Value]
    ) -> tuple[ir.Value, list[ir.Value]]:
        """Return the output of a layer's attention, and its caches of keys and values.

        normed: (batch, sequence, hidden). past: the caches before.
        """
        decoder, name = self.decoder, f"layers.{index}.attention"
        query, key, value = self._queries_keys_values(index, normed)
        turned = layer.rotary is not None
        if not self.form.joined and turned:
            assert key is not None
            assert self._positions is not None
            query, key = (
                self._turned(
                    each, self._positions, self._angles[str(layer.rotary)], heads, f"{name}/{side}"
                )
                for each, heads, side in (
                    (query, decoder.heads, "query"),
                    (key, decoder.key_value_heads, "key"),
                )
            )
        inside = self.form.joined and turned
        tables = self._angles[str(layer.rotary)] if inside else (None, None)
        cache: list[int | str] = [
            "batch_size",
            decoder.key_value_heads,
            "total_sequence_length",
            decoder.head_size,
        ]
        outputs = [
            ir.Value(name=f"{name}/output"),
            *(
                typed_value(f"present.{index}.{side}", self.form.dtype, cache)
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
        self.graph.nodes.append(
            ir.node(
                "GroupQueryAttention",
                [query, key, value, *past, *self._lengths, *tables],
                attributes,
                domain=MICROSOFT,
                outputs=outputs,
                name=name,
            )
        )
        found = self.graph.linear(
            f"{name}.output", self.parts.output(index), outputs[0], self.form.grid
        )
        found = self.graph.biased(f"{name}.output", self.parts.output_bias(index), found)
        return found, outputs[1:]

    def _queries_keys_values(
        self, index: int, normed: ir.Value
    ) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
        """Return queries, keys and values; all of them in the first where they stay joined."""
        decoder, name = self.decoder, f"layers.{index}.attention"
        joined = self.graph.linear(f"{name}.qkv", self.parts.qkv(index), normed, self.form.grid)
        joined = self.graph.biased(f"{name}.qkv", self.parts.qkv_bias(index), joined)
        norms = self.parts.head_norms(index)
        if self.form.joined and not norms:
            return joined, None, None
        widths = [decoder.query_width, decoder.key_width, decoder.key_width]
        values = [ir.Value(name=f"{name}/{side}") for side in ("query", "key", "value")]
        inputs = [joined, self.graph.constant("qkv_widths", widths)]
        self.graph.nodes.append(
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
            return self.graph.normalized(name, weight, value, self.decoder.epsilon)
        heads = self.graph.node(
            "Reshape", [value, self.graph.constant("heads", [0, -1, size])], f"{name}/in"
        )
        heads = self.graph.normalized(name, weight, heads, self.decoder.epsilon)
        shape = self.graph.constant(f"width_{width}", [0, -1, width])
        return self.graph.node("Reshape", [heads, shape], f"{name}/out")

    def _turned(
        self,
        value: ir.Value,
        positions: ir.Value,
        tables: Pair,
        heads: int,
        name: str,
    ) -> ir.Value:
        return self.graph.node(
            "RotaryEmbedding",
            [value, positions, *tables],
            f"{name}/RotaryEmbedding",
            domain=MICROSOFT,
            interleaved=0,
            num_heads=heads,
            rotary_embedding_dim=tables_width(self.decoder, tables),
        )

    def _count(self, mask: ir.Value) -> Pair:
        """Return the last position of each sequence, (batch_size,), and the length of all, ()."""
        one = self.graph.constant("one", [1])
        counted = self.graph.node("ReduceSum", [mask, one], "mask/count", keepdims=0)
        last = self.graph.node("Sub", [counted, one], "mask/last")
        shape = self.graph.node("Shape", [mask], "mask/shape")
        total = self.graph.node(
            "Gather", [shape, self.graph.constant("one_scalar", 1)], "mask/total", axis=0
        )
        int32 = int(ir.DataType.INT32)
        return (
            self.graph.node("Cast", [last], "mask/last/int32", to=int32),
            self.graph.node("Cast", [total], "mask/total/int32", to=int32),
        )

    def _tables(self, name: str) -> Pair:
        """Return cosines and sines; of "longrope" those that the length asks for."""
        rotary = self.decoder.rotaries[name]
        if rotary.kind != "longrope" or rotary.positions <= rotary.original:
            return self._table(name, rotary.positions, long=False)
        short = self._table(f"{name}.short", rotary.original, long=False)
        long = self._table(f"{name}.long", rotary.positions, long=True)
        limit = self.graph.constant(f"{name}_original", rotary.original, "I32")
        is_long = self.graph.node("Greater", [self._lengths[1], limit], f"rotary/{name}/is_long")
        found = [ir.Value(name=f"rotary/{name}/{side}") for side in ("cosines", "sines")]
        branches = [
            ir.AttrGraph(f"{branch}_branch", self._passing(tables, f"{name}_{branch}"))
            for branch, tables in (("then", long), ("else", short))
        ]
        self.graph.nodes.append(
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

    def _table(self, name: str, positions: int, *, long: bool) -> Pair:
        rotary = self.decoder.rotaries[name.partition(".")[0]]
        shape = (positions, rotary.size // 2)
        regions = [
            self.graph.layout.place(f"rotary.{name}.{side}", self.form.dtype, shape)
            for side in ("cosines", "sines")
        ]
        self.graph.layout.tasks.append(Angles(rotary, regions[0], regions[1], long))
        return self.graph.stored(regions[0]), self.graph.stored(regions[1])


def tables_width(decoder: Decoder, tables: tuple[ir.Value, ir.Value]) -> int:
    """Return how many values of a head the tables turn."""
    shape = tables[0].shape
    return decoder.rotaries["global"].size if shape is None else 2 * int(shape[1])
