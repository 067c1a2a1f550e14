"""What single operators take on this machine, by small graphs of their own in ONNX Runtime.

    python -m drupe.cost.clock < [measurement, ...]     -> {name: seconds}

The weights of a model pass through the processor's cache once a token and push each other out of
it. So a graph holds as many copies of the operator, each with weights of its own, as make up the
bytes that pass between two turns of the same weights in the model. Heavy file: onnxruntime.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from drupe.cost.bill import Attention, Product
from drupe.cost.times import Measurement, Nodes

MOST_COPIES = 96
# A larger matrix is measured by some of its rows: its time is proportional to them.
MOST_BYTES = 192 * 2**20
LEAST_SECONDS, FEWEST_RUNS, MOST_RUNS = 0.15, 5, 200
NODES, ROUNDS = 32, 2
TYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16}
NUMPY = {"F32": np.float32, "F16": np.float16}
OPSETS = {"": 21, "com.microsoft": 1}
Array = np.ndarray[Any, Any]


def measure(measurement: Measurement) -> float:
    """Return the seconds that one turn of an operator takes, undisturbed."""
    match measurement.operator:
        case Product():
            return _product(measurement.operator, measurement)
        case Attention():
            return _attention(measurement.operator, measurement)
        case Nodes():
            return _nodes(measurement.operator, measurement)


class _Graph:
    """A graph of nodes that share their activations, each with weights of its own."""

    def __init__(self) -> None:
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self._random = np.random.default_rng(0)

    def input(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.inputs.append(value)
        return value

    def weight(self, array: Array) -> ir.Value:
        tensor = ir.tensor(array, name=f"weight.{len(self.weights)}")
        value = ir.Value(
            name=tensor.name,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.weights.append(value)
        return value

    def floats(self, shape: tuple[int, ...], dtype: str) -> Array:
        return (self._random.standard_normal(shape, np.float32) * 0.02).astype(NUMPY[dtype])

    def codes(self, shape: tuple[int, ...]) -> Array:
        return self._random.integers(0, 256, shape, np.uint8)

    def node(
        self, operator: str, inputs: list[ir.Value | None], domain: str = "", **attributes: Any
    ) -> ir.Value:
        output = ir.Value(name=f"y.{len(self.nodes)}")
        self.nodes.append(ir.node(operator, inputs, attributes, domain=domain, outputs=[output]))
        return output

    def session(self, threads: int) -> onnxruntime.InferenceSession:
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.nodes,
            initializers=self.weights,
            opset_imports=OPSETS,
            name="clock",
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )


def _product(product: Product, asked: Measurement) -> float:
    share = min(1.0, MOST_BYTES / product.weight_bytes)
    rows = max(1, int(product.rows * share))
    part = Product(**{**vars(product), "rows": rows})
    copies = min(MOST_COPIES, max(1, round(asked.streamed / part.weight_bytes)))
    graph = _Graph()
    dtype = TYPES[part.dtype]
    given = graph.input("x", dtype, (1, asked.tokens, part.columns))
    for _ in range(copies):
        output = _product_node(graph, part, given)
        output.dtype, output.shape = dtype, ir.Shape((1, asked.tokens, rows))
        graph.outputs.append(output)
    session = graph.session(asked.threads)
    feeds = {"x": graph.floats((1, asked.tokens, part.columns), part.dtype)}
    seconds = _undisturbed(lambda: session.run(None, feeds))
    return seconds / copies * product.rows / rows


def _product_node(graph: _Graph, product: Product, given: ir.Value) -> ir.Value:
    rows, columns = product.rows, product.columns
    if product.operator == "MatMul":
        return graph.node(
            "MatMul", [given, graph.weight(graph.floats((columns, rows), product.dtype))]
        )
    if product.operator == "FusedMatMul":
        weight = graph.weight(graph.floats((rows, columns), product.dtype))
        return graph.node("FusedMatMul", [given, weight], "com.microsoft", transB=1)
    blocks = -(-columns // product.block_size)
    inputs = [
        given,
        graph.weight(graph.codes((rows, blocks, product.block_size * product.bits // 8))),
        graph.weight(graph.floats((rows, blocks), product.dtype)),
    ]
    if not product.symmetric:
        inputs.append(graph.weight(graph.codes((rows, -(-blocks * product.bits // 8)))))
    return graph.node(
        "MatMulNBits",
        list(inputs),
        "com.microsoft",
        K=columns,
        N=rows,
        bits=product.bits,
        block_size=product.block_size,
        accuracy_level=product.level,
    )


def _attention(attention: Attention, asked: Measurement) -> float:
    """Measure with caches that are written in place, as ONNX Runtime GenAI has them."""
    graph, copies, dtype = _Graph(), 4, TYPES[attention.dtype]
    heads, own, size = attention.heads, attention.key_value_heads, attention.head_size
    total = asked.behind + asked.tokens
    whole = (1, own, total, size)
    joined = graph.input("qkv", dtype, (1, asked.tokens, (heads + 2 * own) * size))
    last = graph.input("last", ir.DataType.INT32, (1,))
    length = graph.input("length", ir.DataType.INT32, ())
    angles = [graph.weight(graph.floats((total, size // 2), attention.dtype)) for _ in range(2)]
    for copy in range(copies):
        past = [graph.input(f"past.{copy}.{side}", dtype, whole) for side in "kv"]
        outputs = [
            ir.Value(name=f"{name}.{copy}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
            for name, shape in (
                ("y", (1, asked.tokens, heads * size)),
                ("present.k", whole),
                ("present.v", whole),
            )
        ]
        attributes = {"num_heads": heads, "kv_num_heads": own, "do_rotary": int(size % 16 == 0)}
        if attention.window:
            attributes["local_window_size"] = attention.window
        inputs = [joined, None, None, *past, last, length, *angles]
        graph.nodes.append(
            ir.node(
                "GroupQueryAttention", inputs, attributes, domain="com.microsoft", outputs=outputs
            )
        )
        graph.outputs += outputs
    session = graph.session(asked.threads)
    binding = session.io_binding()
    binding.bind_cpu_input(
        "qkv", graph.floats((1, asked.tokens, (heads + 2 * own) * size), attention.dtype)
    )
    binding.bind_cpu_input("last", np.array([total - 1], np.int32))
    binding.bind_cpu_input("length", np.array(total, np.int32))
    for copy in range(copies):
        binding.bind_output(f"y.{copy}")
        for side in "kv":
            buffer = onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros(whole, NUMPY[attention.dtype])
            )
            binding.bind_ortvalue_input(f"past.{copy}.{side}", buffer)
            binding.bind_ortvalue_output(f"present.{side}.{copy}", buffer)
    return _undisturbed(lambda: session.run_with_iobinding(binding)) / copies


def _nodes(nodes: Nodes, asked: Measurement) -> float:
    """Return what such a node takes, half of them sums with a norm, half products one by one."""
    graph = _Graph()
    narrow = graph.input("x", TYPES["F32"], (1, asked.tokens, nodes.hidden))
    wide = graph.input("w", TYPES["F32"], (1, asked.tokens, nodes.width))
    weight = graph.weight(graph.floats((nodes.hidden,), "F32"))
    sums, products = narrow, wide
    for _ in range(NODES // 2):
        sums = graph.node(
            "SkipSimplifiedLayerNormalization",
            [sums, narrow, weight],
            "com.microsoft",
            epsilon=1e-5,
        )
        products = graph.node("Mul", [products, wide])
    for output, given in ((sums, narrow), (products, wide)):
        output.dtype, output.shape = TYPES["F32"], given.shape
        graph.outputs.append(output)
    session = graph.session(asked.threads)
    feeds = {
        "x": np.ones((1, asked.tokens, nodes.hidden), np.float32),
        "w": np.ones((1, asked.tokens, nodes.width), np.float32),
    }
    return _undisturbed(lambda: session.run(None, feeds)) / NODES


def _undisturbed(turn: Callable[[], object]) -> float:
    """Return the seconds of a turn: the lower quartile of many, for what disturbs only adds."""
    for _ in range(2):
        turn()
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < FEWEST_RUNS or (
        len(found) < MOST_RUNS and time.perf_counter() - begun < LEAST_SECONDS
    ):
        start = time.perf_counter()
        turn()
        found.append(time.perf_counter() - start)
    return statistics.quantiles(found, n=4)[0]


def measured(asked: Sequence[Measurement]) -> dict[str, float]:
    """Return {name: seconds}: the least of two rounds, so that one busy moment does not show."""
    found: dict[str, float] = {}
    for _ in range(ROUNDS):
        for measurement in asked:
            seconds = measure(measurement)
            found[measurement.name] = min(found.get(measurement.name, seconds), seconds)
    return found


def main() -> int:
    """Answer the measurements on standard input."""
    asked = [Measurement.from_json(each) for each in json.loads(sys.stdin.read())]
    sys.stdout.write(json.dumps(measured(asked)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
