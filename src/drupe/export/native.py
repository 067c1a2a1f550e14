"""Export by drupe itself: the graph from headers, the weights streamed into their places.

    config.json, headers --> Decoder --> graph, layout --> data file --> graph file --> settings

An adapter is merged on the way where the step says so: its weights are made as they are asked for.

Heavy file: the worker imports it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import onnx_ir

from drupe.checkpoint.load import load_tokenizer
from drupe.core.errors import DrupeError
from drupe.core.job import INSIDE, Job
from drupe.core.model import Model
from drupe.export.blueprint import SETTINGS_FILE, draw
from drupe.export.folder import WHERE, check_no_path_left, check_result, finish_tokenizer
from drupe.export.passes import ExportGenAI
from drupe.export.settings import GRAPH_FILE
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
    model = source.model
    drawn = draw(step, model.path, source.specs)
    check_fast(drawn.built.model, step.target.short_provider)
    unused = drawn.parts.unused()
    if unused:
        told = ", ".join(unused[:3])
        job.warn(f"not in the graph: {len(unused)} of the checkpoint's tensors ({told})")
    tokenizer = _tokenizer(model)
    data = job.scratch / "export" / DATA_FILE
    write_data(drawn.built.layout, source.rows, ROUNDINGS[step.rounding], data, job)
    if source.merged is not None:
        job.facts[INSIDE] = tell(source.merged, job)
    os.replace(data, out / DATA_FILE)
    onnx_ir.save(drawn.built.model, out / GRAPH_FILE)
    write_tokenizer(model, out, tokenizer)
    (out / SETTINGS_FILE).write_text(drawn.settings(tokenizer.pad_token_id), encoding="utf-8")
    shutil.rmtree(data.parent)
    check_no_path_left(out, (*source.folders, out, job.scratch))
    job.facts["size_bytes"] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    check_result(step, out / GRAPH_FILE, out, job)


def write_tokenizer(model: Model, out: Path, tokenizer: Any = None) -> int | None:
    """Write the model's tokenizer as it is deployed; return the id that pads, None for none."""
    tokenizer = tokenizer or _tokenizer(model)
    tokenizer.save_pretrained(out)
    finish_tokenizer(model.path, out)
    pad_token: int | None = tokenizer.pad_token_id
    return pad_token


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
