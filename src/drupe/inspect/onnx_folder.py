"""A folder of ONNX Runtime GenAI: its settings, and its graph by the file that can read one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drupe.checkpoint.genai_folder import SETTINGS, decoder_file
from drupe.core.errors import Refused
from drupe.core.libraries import library_version
from drupe.export.families import FAMILIES
from drupe.inspect.inspection import Family, Inspection, Sizes
from drupe.inspect.provenance import read_licence, read_provenance
from drupe.inspect.tokenizer import read_tokenizer
from drupe.inspect.weights import summed
from drupe.resources.checks import json_object

SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_size": "head_size",
}


def inspect_onnx(folder: Path, graph_file: Path | None = None) -> Inspection:
    """Return what is told of an ONNX model; graph_file: in place of the one that settings name."""
    settings = json_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    model = _section(settings, "model")
    decoder = _section(model, "decoder")
    options = _section(decoder, "session_options")
    file = graph_file or decoder_file(folder, settings)
    provider = _provider(options)
    if library_version("onnx-ir") is None:
        what = "is an ONNX model, and onnx-ir, which reads its graph, is not installed"
        raise Refused(str(file), what, 'pip install "drupe[cpu]"')
    # By name: onnx_ir takes half a second, and nothing else here needs it.
    read = importlib.import_module("drupe.inspect.graph").read_graph(file, provider)
    threads = options.get("intra_op_num_threads")
    graph = replace(
        read.graph,
        provider=provider if settings else None,
        threads=threads if isinstance(threads, int) else None,
    )
    return Inspection(
        path=str(folder if graph_file is None else graph_file),
        kind="onnx-genai",
        weights=summed(read.weights, read.files),
        family=_family(model),
        sizes=_sizes(model, decoder),
        graph=graph,
        tokenizer=read_tokenizer(folder),
        licence=read_licence(folder),
        provenance=read_provenance(folder, {}),
    )


def _section(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = owner.get(key)
    return found if isinstance(found, Mapping) else {}


def _provider(options: Mapping[str, Any]) -> str:
    """Return the short name of the provider that the settings name first; "cpu" for none."""
    listed = options.get("provider_options")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return str(next(iter(first), "cpu")).lower() if isinstance(first, Mapping) else "cpu"


def _family(model: Mapping[str, Any]) -> Family | None:
    kind = model.get("type")
    if not isinstance(kind, str):
        return None
    names = [name for name, family in FAMILIES.items() if family.type == kind]
    return Family(names[0] if len(names) == 1 else "", kind)


def _sizes(model: Mapping[str, Any], decoder: Mapping[str, Any]) -> Sizes | None:
    found = {name: decoder.get(key) for name, key in SIZES.items()}
    found |= {"vocabulary": model.get("vocab_size"), "context": model.get("context_length")}
    told: dict[str, Any] = {name: each for name, each in found.items() if type(each) is int}
    return Sizes(**told) if told else None
