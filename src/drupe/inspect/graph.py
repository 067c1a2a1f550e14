"""What an ONNX graph says of itself: operators, grids, slow nodes, where its weights lie.

External data are described by the graph and measured on disk, and never opened.  Heavy file:
onnx_ir; it is imported by name when an ONNX model is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from drupe.checkpoint.external_data import external_tensors, nodes
from drupe.core.errors import Refused
from drupe.export.slow_nodes import slow_nodes
from drupe.inspect.inspection import Graph, GridOfNodes, SlowNodes, Weight
from drupe.inspect.weights import COUNTS, OTHER, TABLES, part_of

AGAIN = "Copy or download the model again: this file is damaged."
WORDS = {"FLOAT": "float32", "DOUBLE": "float64"}
# Inputs of the operators of few bits: which holds codes, which only help to read them.
CODES = {"MatMulNBits": 1, "GatherBlockQuantized": 0, "DequantizeLinear": 0}
BESIDE = {"MatMulNBits": (2, 3, 4), "GatherBlockQuantized": (2, 3), "DequantizeLinear": (1, 2)}
ZERO_POINTS = {"MatMulNBits": 3, "GatherBlockQuantized": 3, "DequantizeLinear": 2}


@dataclass(frozen=True)
class Read:
    """What was read of a graph. files: those that hold it and its weights."""

    graph: Graph
    weights: list[Weight]
    files: list[Path]


def read_graph(file: Path, provider: str) -> Read:
    """Return what the graph in `file` says; provider: short name of the one that is to run it.

    Raises Refused for a file that is no whole graph, for external data outside of its folder, and
    for data that are missing or too short.
    """
    try:
        model = ir.load(file)
        operators = Counter(node.op_type for node in nodes(model))
        files = [file, *_data_files(file, model)]
        weights = [_weight(value, tensor) for value, tensor in _stored(model)]
        graph = Graph(
            file=file.name,
            producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
            opset=model.opset_imports.get(""),
            operators=dict(operators.most_common()),
            grids=tuple(_grids(model)),
            slow=tuple(_slow(model, provider)),
            activations=_activations(model.graph),
        )
    except Refused:
        raise
    except Exception as fault:  # of protobuf, of onnx_ir, of what the graph lacks
        first = str(fault).partition("\n")[0]
        raise _damaged(file, first or type(fault).__name__) from fault
    if not operators:
        raise _damaged(file, "it holds no node")
    return Read(graph, weights, files)


def _damaged(file: Path, fault: str) -> Refused:
    return Refused(str(file), f"is no whole ONNX graph: {fault}", AGAIN)


def _data_files(file: Path, model: ir.Model) -> list[Path]:
    """Return the files of external data; raise Refused for one that is not as the graph says."""
    ends: dict[str, int] = {}
    for tensor in external_tensors(file, model):
        place = str(tensor.location)
        length = tensor.nbytes if tensor.length is None else tensor.length
        ends[place] = max(ends.get(place, 0), (tensor.offset or 0) + length)
    for place, end in ends.items():
        data = file.parent / place
        if not data.is_file():
            raise Refused(str(file), f"keeps weights in {place}, which is not there", AGAIN)
        if data.stat().st_size < end:
            what = f"is {data.stat().st_size:,} bytes long, but {file.name} tells of {end:,}"
            raise Refused(str(data), what, AGAIN)
    return [file.parent / place for place in sorted(ends)]


def _stored(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield each initializer; of several that are views of the same bytes the first."""
    places = set()
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            if isinstance(tensor, ir.ExternalTensor):
                place = (str(tensor.location), tensor.offset)
                if place in places:
                    continue
                places.add(place)
            yield value, tensor


def _weight(value: ir.Value, tensor: ir.TensorProtocol) -> Weight:
    uses = list(value.uses())
    name, size, dtype = str(value.name), tensor.nbytes, _word(tensor.dtype)
    if dtype in COUNTS:  # shapes, lengths, one
        return Weight(name, dtype, 0, size, OTHER)
    part = part_of(name, *(str(use.node.name) for use in uses))
    for use in uses:
        node, operator = use.node, use.node.op_type
        if use.idx in BESIDE.get(operator, ()):
            return Weight(name, dtype, 0, size, part)
        if use.idx == CODES.get(operator) and "bits" in node.attributes:
            bits = node.attributes["bits"].as_int()
            held = 8 * size // bits
            if operator == "MatMulNBits":  # the last block of a row may be filled in part
                held = node.attributes["N"].as_int() * node.attributes["K"].as_int()
            return Weight(name, f"int{bits}", held, size, part)
    return Weight(name, dtype, 0 if part == TABLES else tensor.size, size, part)


def _word(dtype: ir.DataType) -> str:
    name = str(dtype.name)
    return WORDS.get(name, name.lower())


def _grids(model: ir.Model) -> Iterator[GridOfNodes]:
    found: Counter[tuple[str, int, int, bool, int | None]] = Counter()
    for node in nodes(model):
        operator, attributes = node.op_type, node.attributes
        block = attributes["block_size"].as_int() if "block_size" in attributes else 0
        if operator not in CODES or not block:
            continue
        if "bits" in attributes:
            bits = attributes["bits"].as_int()
        else:
            codes = node.inputs[CODES[operator]]
            dtype = None if codes is None else codes.dtype
            bits = dtype.bitwidth if dtype is not None else 0
        place = ZERO_POINTS[operator]
        symmetric = len(node.inputs) <= place or node.inputs[place] is None
        level = None
        if operator == "MatMulNBits":
            level = attributes["accuracy_level"].as_int() if "accuracy_level" in attributes else 0
        found[operator, bits, block, symmetric, level] += 1
    for grid, count in found.most_common():
        yield GridOfNodes(*grid, count)


def _slow(model: ir.Model, provider: str) -> Iterator[SlowNodes]:
    slow = slow_nodes(model.graph, provider)
    for why, count in Counter(each.why for each in slow).most_common():
        yield SlowNodes(why, count, next(each.node for each in slow if each.why == why))


def _activations(graph: ir.Graph) -> str | None:
    """Return the type of the caches of keys and values; without any, of the first output."""
    caches = [each for each in graph.inputs if str(each.name).startswith("past")]
    for value in (*caches, *graph.outputs):
        if value.dtype is not None:
            return _word(value.dtype)
    return None
