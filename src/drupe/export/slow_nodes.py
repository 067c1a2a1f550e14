"""Nodes of a graph that ONNX Runtime computes by a slow path, though a fast one is near.  onnx_ir.

Seen on the CPU (2048 x 2048, one row): 8 bits at accuracy level 0 take 86 times as long as at
level 4, zero points that are floats 47 times, columns in an order of their own (g_idx) 44 times,
2 bits at level 0 or in blocks of 16 or 256 about 50 times.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from drupe.core.errors import DrupeError

INTEGERS = 4  # the accuracy level at which activations are rounded to 8 bits
ZERO_POINTS, ORDER = 3, 4  # inputs of MatMulNBits
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Slow:
    """A node and why it is slow."""

    node: str
    why: str


def slow_nodes(graph: ir.Graph, provider: str) -> list[Slow]:
    """Return the slow nodes of a graph on a provider, by its short name."""
    if provider != "cpu":
        return []
    found = []
    for node in graph:
        why = _why(node) if node.op_type == "MatMulNBits" else None
        if why:
            found.append(Slow(str(node.name), why))
    return found


def check_fast(model: ir.Model, provider: str) -> None:
    """Raise DrupeError for a graph with slow nodes."""
    slow = slow_nodes(model.graph, provider)
    if slow:
        raise DrupeError(
            "ModelBuilder",
            f"would give {len(slow)} slow nodes ({slow[0].node}): {slow[0].why}",
            "Leave int4_accuracy_level at its default, or set it to 4.",
        )


def _why(node: ir.Node) -> str | None:
    attributes = node.attributes
    bits, block = (attributes[name].as_int() for name in ("bits", "block_size"))
    level = attributes["accuracy_level"].as_int() if "accuracy_level" in attributes else 0
    inputs = [*node.inputs, None, None, None]
    zero_points, order = inputs[ZERO_POINTS], inputs[ORDER]
    if zero_points is not None and zero_points.dtype in FLOATS:
        return "its zero points are floats, which takes 47 times as long"
    if order is not None:
        return "its columns have an order of their own (g_idx), which takes 44 times as long"
    if bits == 8 and level != INTEGERS:
        return f"8 bits at accuracy level {level} take 86 times as long as at 4"
    if bits == 2 and (level != INTEGERS or block in (16, 256)):
        return f"2 bits at accuracy level {level} in blocks of {block} take 50 times as long"
    return None
