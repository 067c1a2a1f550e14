"""Export by drupe itself: the graph from headers, the weights streamed into their places.

    config.json, headers --> Decoder --> graph, layout --> data file --> graph file --> settings

An adapter is merged on the way where the step says so: its weights are made as they are asked for.

Heavy file: the worker imports it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx_ir

from drupe.checkpoint.load import load_tokenizer
from drupe.core.errors import DrupeError
from drupe.core.job import INSIDE, Job
from drupe.core.model import Model
from drupe.export.decoder import Decoder
from drupe.export.families import read_decoder
from drupe.export.folder import WHERE, check_no_path_left, check_result, finish_tokenizer
from drupe.export.form import form_of
from drupe.export.graph import build
from drupe.export.parts import EMBEDDING, Parts
from drupe.export.passes import ExportGenAI
from drupe.export.settings import GRAPH_FILE, genai_settings
from drupe.export.slow_nodes import check_fast
from drupe.export.source import Source, open_source
from drupe.export.stream import write_data
from drupe.export.weighted_graph import DATA_FILE
from drupe.finetune.merged import tell
from drupe.quantize.mse import least_squared_error
from drupe.quantize.rtn import round_to_nearest

ROUNDINGS = {"rtn": round_to_nearest, "mse": least_squared_error}


def export(step: ExportGenAI, model: Model, out: Path, job: Job) -> None:
    """Write the checkpoint `model` as an ONNX Runtime GenAI folder into `out`.

    Raises DrupeError for a checkpoint that is not what its config.json says, for values that are
    no numbers, and when what was written does not load and answer; for an adapter that is merged
    on the way, what `MergeAdapterWeights` raises.
    """
    with open_source(model, step.merging, job) as source:
        _export(step, source, out, job)


def _export(step: ExportGenAI, source: Source, out: Path, job: Job) -> None:
    model, specs = source.model, source.specs
    config = read_json(model.path / "config.json")
    decoder = read_decoder(config, WHERE)
    parts = Parts(decoder, specs, WHERE)
    form = form_of(step, decoder, specs[EMBEDDING].dtype if EMBEDDING in specs else "F32")
    built = build(decoder, parts, form)
    check_fast(built.model, step.target.short_provider)
    if parts.unused():
        told = ", ".join(parts.unused()[:3])
        job.warn(f"not in the graph: {len(parts.unused())} of the checkpoint's tensors ({told})")
    tokenizer = _tokenizer(model)
    data = job.scratch / "export" / DATA_FILE
    write_data(built.layout, source.rows, ROUNDINGS[step.rounding], data, job)
    if source.merged is not None:
        job.facts[INSIDE] = tell(source.merged, job)
    os.replace(data, out / DATA_FILE)
    onnx_ir.save(built.model, out / GRAPH_FILE)
    tokenizer.save_pretrained(out)
    _write_settings(step, decoder, config, model, built.model.graph, tokenizer.pad_token_id, out)
    finish_tokenizer(model.path, out)
    shutil.rmtree(data.parent)
    check_no_path_left(out, (*source.folders, out, job.scratch))
    job.facts["size_bytes"] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    check_result(step, out / GRAPH_FILE, out, job)


def read_json(file: Path) -> dict[str, Any]:
    """Return what a small file of the model says; {} where there is none."""
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _tokenizer(model: Model) -> Any:
    """Return the tokenizer, before there is anything to wait for."""
    try:
        return load_tokenizer(model)
    except (OSError, ValueError) as fault:
        lines = str(fault).strip().splitlines()
        raise DrupeError(
            WHERE,
            f"the checkpoint has no tokenizer that can be read: {lines[0] if lines else fault}",
            "Put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside it.",
        ) from fault


def _write_settings(
    step: ExportGenAI,
    decoder: Decoder,
    config: dict[str, Any],
    model: Model,
    graph: onnx_ir.Graph,
    pad_token: int | None,
    out: Path,
) -> None:
    settings = genai_settings(
        decoder,
        config,
        read_json(model.path / "generation_config.json"),
        provider=step.target.short_provider,
        threads=step.target.threads,
        inputs=[str(value.name) for value in graph.inputs],
        outputs=[str(value.name) for value in graph.outputs],
        pad_token=pad_token,
    )
    file = out / "genai_config.json"
    file.write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")
