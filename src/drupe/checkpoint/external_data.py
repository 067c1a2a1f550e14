"""Where the weights of an ONNX graph lie that are no part of its file: beside it, and nowhere else.

A graph that somebody gave could name any file of this machine. ONNX Runtime refuses one too, but
by the last of many sentences, and not each of its versions does.  Heavy file: onnx_ir.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from drupe.checkpoint.genai_folder import SETTINGS, graph_files, leaves
from drupe.core.errors import Refused


def check_folder(folder: Path) -> None:
    """Refuse a folder of ONNX Runtime GenAI of which a graph or its data lie elsewhere.

    What is no graph at all is left to who runs it.
    """
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    for file in graph_files(folder, settings):
        external_tensors(file, ir.load(file))


def external_tensors(file: Path, model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the tensors that lie beside a graph; refuse one that lies outside of its folder."""
    found = [each for each in _tensors(model) if isinstance(each, ir.ExternalTensor)]
    for tensor in found:
        place = str(tensor.location)
        if leaves(place):
            raise Refused(
                str(file),
                f'keeps "{tensor.name}" in "{place}", which lies outside of its folder',
                "Do not load it: such a graph can name any file of this machine.",
            )
    return found


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node, those of inner graphs and of functions too."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Yield every tensor, those of constants too."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for node in nodes(model):
        for attribute in node.attributes.values():
            if attribute.is_ref():  # of a function: its value stands where that is used
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()
