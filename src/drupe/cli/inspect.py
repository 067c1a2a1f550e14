"""Show what a model is: family, sizes, bytes by part and type, tokenizer, licence.

PATH is a checkpoint, an adapter, an ONNX folder or a run's output folder.
Headers and small files are read, no weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drupe.core.model import KINDS
from drupe.core.secrets import redacted_values
from drupe.inspect.inspection import Family, Graph, Inspection, Share, Sizes, Weights
from drupe.inspect.look import inspect
from drupe.report.words import size

EXAMPLES = """\
  drupe inspect models/phi3
  drupe inspect int4 --json
"""
EXPORTERS = {
    "drupe": "which drupe exports",
    "onnxruntime-genai": "which ONNX Runtime GenAI's builder exports",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe inspect`."""
    parser.add_argument("path", metavar="PATH", type=Path, help="a model's folder, or its weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Show the model; return 0."""
    found = inspect(arguments.path)
    if arguments.json:
        print(json.dumps(redacted_values(found.to_json()), indent=2))
        return 0
    console = Console(highlight=False)
    console.print(_shown(f"{found.path}: {KINDS[found.kind].meaning}"), soft_wrap=True)
    console.print()
    console.print(_lines(list(_told(found))))
    console.print()
    console.print(_shares("part", found.weights.parts, found.weights))
    console.print()
    console.print(_shares("type", found.weights.dtypes))
    if found.graph is not None:
        console.print()
        console.print(_lines(list(_of_graph(found.graph))))
    return 0


def _told(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of the model itself, a line each."""
    if found.family is not None:
        yield "family", _family(found.family)
    if found.sizes is not None:
        yield "layers", _layers(found.sizes)
        yield "tokens", _tokens(found.sizes)
    yield "weights", _weights(found.weights)
    if found.quantization is not None:
        yield "quantized", found.quantization
    if found.adapter is not None:
        adapter = found.adapter
        yield "adapter", f"{adapter.method}, rank {adapter.rank}, alpha {adapter.alpha}"
        names = {target.rpartition(".")[2] for target in adapter.targets}
        yield "adapts", ", ".join(sorted(names)) or "not told"
        base = adapter.base or "not told"
        yield "base", f"{base} ({adapter.quantized_base})" if adapter.quantized_base else base
    if found.tokenizer is not None:
        tokenizer = found.tokenizer
        told = [tokenizer.kind or tokenizer.file or "of no name"]
        if tokenizer.vocabulary is not None:
            told.append(f"{tokenizer.vocabulary:,} tokens, {tokenizer.added} of them added")
        with_template = f"chat template in {tokenizer.chat_template}"
        told.append(with_template if tokenizer.chat_template else "no chat template")
        yield "tokenizer", ", ".join(told)
    else:
        yield "tokenizer", "none"
    licence = found.licence
    yield "licence", f"{licence.name} ({licence.file})" if licence else "not told"
    for name, value in found.provenance.items():
        yield name.replace("_", " "), value


def _family(family: Family) -> str:
    told = family.architecture or family.type or "not told"
    if family.type and family.architecture:
        told += f" ({family.type})"
    if family.exporter is None and not family.why:  # it is an export
        return told
    told += f", {EXPORTERS.get(family.exporter or '', 'which cannot be exported')}"
    return f"{told}: {family.why}" if family.why else told


def _layers(sizes: Sizes) -> str:
    told = [f"{sizes.layers} of {sizes.hidden}"]
    if sizes.intermediate is not None:
        told.append(f"MLP {sizes.intermediate}")
    if sizes.heads is not None:
        heads = f"{sizes.heads} heads"
        told.append(heads if sizes.head_size is None else f"{heads} of {sizes.head_size}")
    if sizes.key_value_heads not in (None, sizes.heads):
        told.append(f"{sizes.key_value_heads} for keys and values")
    return ", ".join(told)


def _tokens(sizes: Sizes) -> str:
    told = [f"{name} {count:,}" for name, count in _counts(sizes)]
    return ", ".join([*told, "head tied to the embedding"] if sizes.tied else told)


def _counts(sizes: Sizes) -> Iterator[tuple[str, int]]:
    if sizes.vocabulary is not None:
        yield "vocabulary", sizes.vocabulary
    if sizes.context is not None:
        yield "context", sizes.context


def _weights(weights: Weights) -> str:
    files = f"{len(weights.files)} file{'s' if len(weights.files) != 1 else ''}"
    told = f"{_count(weights.total.parameters)} parameters, "
    told += f"{size(sum(weights.files.values()))} in {files}"
    bits = weights.bits_per_weight
    return told if bits is None else f"{told}, {bits:.3g} bits per weight"


def _of_graph(graph: Graph) -> Iterator[tuple[str, str]]:
    yield "graph", f"{graph.file} by {graph.producer or 'nobody named'}, opset {graph.opset}"
    for grid in graph.grids:
        kind = "symmetric" if grid.symmetric else "with zero points"
        told = f"{grid.bits} bits in blocks of {grid.block_size}, {kind}"
        if grid.accuracy_level is not None:
            told += f", accuracy level {grid.accuracy_level}"
        yield "precision", f"{told}: {grid.nodes} {grid.operator}"
    yield "activations", graph.activations or "not told"
    if graph.provider is not None:
        yield "provider", graph.provider
        threads = "left to the runtime" if graph.threads is None else str(graph.threads)
        yield "threads", threads
    for slow in graph.slow:
        yield "slow", f"{slow.nodes} nodes ({slow.first}, ...): {slow.why}"
    if not graph.slow:
        on_cpu = graph.provider in (None, "cpu")
        yield "slow", "no node that is known to be" if on_cpu else "known of the CPU alone"
    yield "operators", ", ".join(f"{count} {name}" for name, count in graph.operators.items())


def _lines(told: list[tuple[str, str]]) -> Table:
    """Return a table of names and what is said of each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in told:
        table.add_row(_shown(name), _shown(value))
    return table


def _shares(of: str, shares: tuple[Share, ...], weights: Weights | None = None) -> Table:
    """Return a table of bytes by part (with what all weights take, under it) or by type."""
    table = Table(box=None, pad_edge=False)
    table.add_column(of, no_wrap=True)
    for name in ("tensors", "parameters", "size", *(["bits per weight"] if weights else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for share in (*shares, *([weights.total] if weights else ())):
        cells = [_shown(share.name), f"{share.tensors:,}"]
        cells += [_count(share.parameters) if share.parameters else "", size(share.size_bytes)]
        if weights:
            whole = share is weights.total
            bits = weights.bits_per_weight if whole else share.bits_per_weight
            cells.append("" if bits is None else f"{bits:.3g}")
        table.add_row(*cells)
    return table


def _count(number: int) -> str:
    """Return a count of parameters in three digits: 3.82 B."""
    for power, unit in ((9, "B"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {unit}"
    return str(number)


def _shown(text: str) -> str:
    """Return a text of a model's files with nothing in it that a terminal would obey."""
    return escape(
        "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    )
