"""What lies in the data file of a graph that drupe wrote, and of which tensors it was made.

    graph --names, offsets, bits--> tasks like those it was written by --> rows of weights

Which matrix has which name is told by building the graph once more, from the checkpoint's headers;
where it lies, and on which grid it is, by the graph itself.  Heavy file: the worker imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import onnx_ir
import torch

from drupe.checkpoint.header import StoredTensor, TensorSpec
from drupe.checkpoint.mapped import MappedTensors
from drupe.core.errors import DrupeError
from drupe.export.decoder import Decoder
from drupe.export.form import Form
from drupe.export.graph import build
from drupe.export.parts import Parts
from drupe.export.placement import Cast, Matrix, Piece, Quantize, Region
from drupe.export.weighted_graph import DATA_FILE, TYPES
from drupe.quantize.codes import Packed, Rounded, dequantize, unpack
from drupe.quantize.grid import Grid

PRODUCER = "drupe"
HEAD, HEAD_WEIGHT = "lm_head", "lm_head.weight"
CODES, SCALES, ZERO_POINTS, FLOATS = ".codes", ".scales", ".zero_points", ".weight"
# Where each node that reads codes takes them, their scales and their zero points from.
INPUTS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3)}
DTYPES = {dtype: name for name, dtype in TYPES.items()}
# Of float32 weights at a time: several such tensors stay in the processor's cache.
ROWS_BYTES = 2**21

Stored = Cast | Quantize


def name_of(stored: Stored) -> str:
    """Return the name of a matrix or vector in the graph, without what tells its kind."""
    if isinstance(stored, Cast):
        return stored.values.name.removesuffix(FLOATS)
    return stored.weights.name.removesuffix(".flat").removesuffix(CODES)


def size_of(stored: Stored) -> int:
    """Return how many bytes it takes in the data file."""
    if isinstance(stored, Cast):
        return stored.values.size_bytes
    parts = (stored.weights, stored.scales, stored.zero_points)
    return sum(part.size_bytes for part in parts if part is not None)


def read_stored(graph_file: Path, decoder: Decoder, parts: Parts) -> list[Stored] | None:
    """Return what the data file of a graph holds of the checkpoint, rotary tables left out.

    None for a graph that drupe did not write, or whose names are those of another version.
    """
    model = onnx_ir.load(graph_file)
    if model.producer_name != PRODUCER:
        return None
    regions = _regions(model.graph)
    coded = _coded(model.graph)
    found: list[Stored] = []
    for written in _written(decoder, parts, model.graph):
        name = name_of(written)
        if name in coded:
            grid, *names = coded.pop(name)
            held = [regions.pop(each) if each else None for each in names]
            if held[0] is None or held[1] is None:
                return None
            quantized = Quantize(written.matrix, grid, held[0], held[1], held[2])
            _check_shape(quantized.scales, grid.scales_shape(*_size(written.matrix)))
            _check_shape(quantized.weights, (written.matrix.rows, *held[0].shape[1:]))
            found.append(quantized)
        elif written.values.name in regions:
            region = regions.pop(written.values.name)
            _check_shape(region, written.values.shape)
            found.append(Cast(written.matrix, region, written.transposed))
        elif name != HEAD or not decoder.tied:  # a tied head may be the embedding's own codes
            return None
    left = [name for name in regions if not name.startswith("rotary.")]
    return None if left or coded else found


def _size(matrix: Matrix) -> tuple[int, int]:
    return matrix.rows, matrix.columns


def _check_shape(region: Region, expected: tuple[int, ...]) -> None:
    if region.shape != expected:
        raise not_the_checkpoints(
            region.name, f"the shape is {list(region.shape)}, expected {list(expected)}"
        )


def not_the_checkpoints(name: str, what: str) -> DrupeError:
    """Return the error for something in a file that does not come of the checkpoint."""
    return DrupeError(
        "ExportProof",
        f'the exported model does not hold what its checkpoint does: in "{name}" {what}',
        "Do not use this export: make it again. If that fails too, report it.",
    )


def _written(decoder: Decoder, parts: Parts, graph: onnx_ir.Graph) -> list[Cast]:
    """Return what the graph would hold if nothing were quantized."""
    form = Form(
        dtype="F32",
        grid=None,
        accuracy_level=0,
        head=None,
        embedding=None,
        embedding_dtype="F32",
        with_embedding=any(value.name == "input_ids" for value in graph.inputs),
        with_head=any(value.name == "logits" for value in graph.outputs),
    )
    return [task for task in build(decoder, parts, form).layout.tasks if isinstance(task, Cast)]


def _regions(graph: onnx_ir.Graph) -> dict[str, Region]:
    """Return where each tensor of the data file lies; one that two nodes take in two shapes once.

    What is named ".flat" are codes under another shape.
    """
    found: dict[str, Region] = {}
    flat: dict[str, Region] = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.ExternalTensor) or tensor.location != DATA_FILE:
            continue
        shape = tuple(int(size) for size in tensor.shape)
        region = Region(name, DTYPES[tensor.dtype], shape, int(tensor.offset or 0))
        (flat if name.endswith(".flat") else found)[name] = region
    for name, region in flat.items():
        found.setdefault(name.removesuffix(".flat"), region)
    return found


def _coded(graph: onnx_ir.Graph) -> dict[str, tuple[Grid, str, str, str | None]]:
    """Return the grid of each quantized matrix and the names of its parts, by its own name."""
    found = {}
    for node in graph:
        if node.op_type not in INPUTS:
            continue
        names = [
            str(node.inputs[place].name)
            if place < len(node.inputs) and node.inputs[place] is not None
            else None
            for place in INPUTS[node.op_type]
        ]
        codes, scales = str(names[0]).removesuffix(".flat"), str(names[1])
        bits, size = (node.attributes[key].as_int() for key in ("bits", "block_size"))
        grid = Grid(bits, size, symmetric=names[2] is None)
        found[codes.removesuffix(CODES)] = (grid, codes, scales, names[2])
    return found


def row_parts(matrix: Matrix) -> Iterator[tuple[int, Piece]]:
    """Yield pieces of few rows, each with the row of the matrix at which it begins."""
    most = max(1, ROWS_BYTES // (4 * matrix.columns))
    first = 0
    for piece in matrix.pieces:
        for start in range(piece.start, piece.stop, most):
            part = Piece(piece.tensor, start, min(start + most, piece.stop))
            yield first, part
            first += part.rows


class DeployedWeights:
    """The weights of an exported folder, as its graph computes with them; a context manager.

    Nothing is held: each row is read from the mapped data file when it is asked for.
    """

    def __init__(self, folder: Path, decoder: Decoder, stored: list[Stored]) -> None:
        self.decoder, self.stored = decoder, stored
        regions = [region for each in stored for region in _regions_of(each)]
        last = max(regions, key=lambda region: region.begin + region.size_bytes)
        size = (folder / DATA_FILE).stat().st_size
        if size < last.begin + last.size_bytes:
            what = f"{DATA_FILE} is cut off: it has {size:,} bytes, and this one ends at "
            raise not_the_checkpoints(last.name, f"{what}{last.begin + last.size_bytes:,}")
        self._data = MappedTensors(_as_tensors(folder / DATA_FILE, stored))
        self._made_of: dict[str, list[tuple[Quantize, int, Piece]]] = {}
        names = {name_of(each) for each in stored}
        for each in stored:
            if isinstance(each, Quantize):
                self._place(each, HEAD in names)

    def _place(self, each: Quantize, head_is_apart: bool) -> None:
        """Note of which parameters of transformers' model a matrix holds rows."""
        first = 0
        for piece in each.matrix.pieces:
            parameters = [HEAD_WEIGHT if name_of(each) == HEAD else piece.tensor]
            if name_of(each) == "model.embed_tokens" and not head_is_apart:
                parameters.append(HEAD_WEIGHT)
            for parameter in parameters:
                self._made_of.setdefault(parameter, []).append((each, first, piece))
            first += piece.rows

    def __enter__(self) -> DeployedWeights:
        self._data.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data.__exit__(kind, fault, trace)

    def coded(self, each: Quantize, start: int, stop: int) -> Rounded:
        """Return rows of a quantized matrix as codes, scales and zero points."""
        columns, grid = each.matrix.columns, each.grid
        parts = [
            None if region is None else self._data.rows(region.name, start, stop)
            for region in (each.weights, each.scales, each.zero_points)
        ]
        weights, scales, zero_points = parts
        assert weights is not None
        assert scales is not None
        shape = grid.packed_shape(stop - start, columns)
        missing = shape[1] * shape[2] - weights.shape[1]  # of a last block that is not filled up
        if missing:
            weights = torch.nn.functional.pad(weights, (0, missing))
        return unpack(Packed(weights.view(shape), scales, zero_points), grid)

    def floats(self, each: Cast, start: int, stop: int) -> torch.Tensor:
        """Return rows of a matrix that is not quantized, in the type of the file."""
        if each.transposed:
            whole = self._data.rows(each.values.name, 0, each.matrix.columns)
            return whole[:, start:stop].t()
        return self._data.rows(each.values.name, start, stop)

    def parameter(self, name: str) -> torch.Tensor | None:
        """Return what a parameter of transformers' model is in the graph, float32 (rows, columns).

        None where the graph holds it in floats.
        """
        if name not in self._made_of:
            return None
        made_of = self._made_of[name]
        rows = sum(piece.rows for _, _, piece in made_of)
        out = torch.empty(rows, made_of[0][0].matrix.columns)
        for each, first, piece in self._made_of[name]:
            for begin, part in row_parts(Matrix((piece,), each.matrix.columns)):
                coded = self.coded(each, first + begin, first + begin + part.rows)
                values = dequantize(coded, each.grid, each.matrix.columns).float()
                # What the graph has multiplied into its weights is not in the parameter.
                out[part.start : part.stop] = values.div_(each.matrix.factor)
            self.drop(each)
        return out

    def drop(self, each: Stored) -> None:
        """Give back the pages of a matrix."""
        for region in _regions_of(each):
            self._data.drop(region.name, 0, region.shape[0])


def _regions_of(stored: Stored) -> list[Region]:
    if isinstance(stored, Cast):
        return [stored.values]
    parts = (stored.weights, stored.scales, stored.zero_points)
    return [part for part in parts if part is not None]


def _as_tensors(file: Path, stored: list[Stored]) -> Mapping[str, StoredTensor]:
    """Return the regions as rows of a file of tensors."""
    found = {}
    for each in stored:
        for region in _regions_of(each):
            rows, *rest = region.shape
            columns = 1
            for size in rest:
                columns *= size
            spec = TensorSpec(region.name, region.dtype, (rows, columns))
            found[region.name] = StoredTensor(spec, file, region.begin)
    return found
