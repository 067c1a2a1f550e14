"""Write the bills of exports: what they will consist of, to the byte, without exporting.

    python -m drupe.cost.draw_up < {"model": ..., "steps": [fields of ModelBuilder, ...]}

The graph is built from headers as the exporter builds it, and written to memory; the tokenizer is
written as the exporter writes it, once. Exports of ONNX Runtime GenAI's builder, whose graph is not
ours, are estimated: `exact` is false.  Heavy file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from drupe.checkpoint.header import TensorSpec, headers
from drupe.core.errors import DrupeError
from drupe.core.model import Model
from drupe.cost.bill import Attention, Bill, Product
from drupe.export.blueprint import SETTINGS_FILE, Blueprint, draw
from drupe.export.families import FAMILIES, architecture
from drupe.export.parts import EMBEDDING
from drupe.export.passes import BYTES_OF_WEIGHT, ExportGenAI, exporter_of
from drupe.export.settings import GRAPH_FILE
from drupe.export.weighted_graph import DATA_FILE

DTYPES = {ir.DataType.FLOAT: "F32", ir.DataType.FLOAT16: "F16", ir.DataType.BFLOAT16: "BF16"}
LOOK_UPS = ("Gather", "GatherBlockQuantized")


def bills(model: Model, steps: Sequence[ExportGenAI]) -> list[Bill]:
    """Return the bill of each step on a checkpoint; raises DrupeError as the exporter would."""
    specs = {spec.name: spec for spec in headers(model.path)}
    tokenizer, pad_token = tokenizer_files(model)
    return [_bill(step, model, specs, tokenizer, pad_token) for step in steps]


def tokenizer_files(model: Model) -> tuple[dict[str, int], int | None]:
    """Return {name: bytes} of a tokenizer as it is deployed, and the id that pads."""
    from drupe.export.native import write_tokenizer  # torch and transformers: here alone

    with tempfile.TemporaryDirectory(prefix="drupe-") as name:
        pad_token = write_tokenizer(model, Path(name))
        files = sorted(file for file in Path(name).rglob("*") if file.is_file())
        return {str(file.relative_to(name)): file.stat().st_size for file in files}, pad_token


def _bill(
    step: ExportGenAI,
    model: Model,
    specs: Mapping[str, TensorSpec],
    tokenizer: Mapping[str, int],
    pad_token: int | None,
) -> Bill:
    exporter = exporter_of(model) if step.exporter == "auto" else step.exporter
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    if exporter != "native" and architecture(config) not in FAMILIES:
        return Bill({**tokenizer, DATA_FILE: _about(step, specs)}, exact=False)
    drawn = draw(step, model.path, specs)
    files = {
        **tokenizer,
        GRAPH_FILE: len(ir.to_proto(drawn.built.model).SerializeToString()),
        DATA_FILE: drawn.built.layout.size_bytes,
        SETTINGS_FILE: len(drawn.settings(pad_token).encode()),
    }
    return _counted(drawn, files, exact=exporter == "native")


def _about(step: ExportGenAI, specs: Mapping[str, TensorSpec]) -> int:
    """Return about how many bytes the weights will take where the graph is not known."""
    sizes: dict[str, float] = {}
    for name, spec in specs.items():
        elements = spec.size_bytes / (4 if spec.dtype == "F32" else 2)
        narrow = len(spec.shape) == 2 and name != EMBEDDING
        sizes[name] = elements * BYTES_OF_WEIGHT[step.precision if narrow else "fp32"]
    return int(sum(sizes.values()))


def _counted(drawn: Blueprint, files: dict[str, int], *, exact: bool) -> Bill:
    graph = drawn.built.model.graph
    products = Counter(_products(graph))
    attentions = Counter(_attentions(drawn))
    tables = [node.inputs[0] for node in graph if _looks_up_tokens(node)]
    tensors = [table.const_value for table in tables if table is not None]
    codes_shared = drawn.form.embedding is not None and drawn.decoder.tied
    return Bill(
        files,
        exact,
        products=dict(products),
        attentions=dict(attentions),
        nodes=len(list(graph)) - products.total() - attentions.total(),
        hidden=drawn.decoder.hidden,
        intermediate=drawn.decoder.intermediate,
        vocabulary=drawn.decoder.vocabulary,
        embedding_bytes=0
        if codes_shared
        else sum(tensor.nbytes for tensor in tensors if tensor is not None),
    )


def _looks_up_tokens(node: ir.Node) -> bool:
    return node.op_type in LOOK_UPS and str(node.name).startswith("embed_tokens/")


def _products(graph: ir.Graph) -> Iterator[Product]:
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "MatMulNBits":
            numbers = {
                name: node.attributes[name].as_int()
                for name in ("N", "K", "bits", "block_size", "accuracy_level")
            }
            yield Product(
                "MatMulNBits",
                numbers["N"],
                numbers["K"],
                numbers["bits"],
                numbers["block_size"],
                len(inputs) == 3,
                numbers["accuracy_level"],
                _dtype(inputs[2]),
            )
        elif node.op_type in ("MatMul", "FusedMatMul"):
            shape = inputs[1].shape
            assert shape is not None
            sizes = [int(size) for size in shape]
            rows, columns = sizes if node.op_type == "FusedMatMul" else sizes[::-1]
            yield Product(node.op_type, rows, columns, dtype=_dtype(inputs[1]))


def _attentions(drawn: Blueprint) -> Iterator[Attention]:
    decoder = drawn.decoder
    for layer in decoder.layers:
        window = layer.window if layer.window and layer.window < decoder.context else 0
        yield Attention(
            decoder.heads, decoder.key_value_heads, decoder.head_size, window, drawn.form.dtype
        )


def _dtype(value: ir.Value) -> str:
    return DTYPES[ir.DataType(value.dtype or ir.DataType.FLOAT)]


def main() -> int:
    """Answer the question on standard input; a fault is told in its three parts."""
    asked: dict[str, Any] = json.loads(sys.stdin.read())
    model = Model.from_json(asked["model"])
    try:
        steps = [ExportGenAI.model_validate_json(json.dumps(fields)) for fields in asked["steps"]]
        told: dict[str, Any] = {"bills": [bill.to_json() for bill in bills(model, steps)]}
    except DrupeError as fault:
        told = {"fault": [fault.where, fault.what, fault.remedy]}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
