"""Who writes the ONNX folder: drupe, or ONNX Runtime GenAI's builder.  The worker's entry."""

from __future__ import annotations

from pathlib import Path

from drupe.core.job import Job
from drupe.core.model import Model
from drupe.export.passes import ExportGenAI, exporter_of


def export(step: ExportGenAI, model: Model, out: Path, job: Job) -> None:
    """Write `model` into `out` by the exporter that the step names; "auto": that of its family."""
    exporter = exporter_of(model) if step.exporter == "auto" else step.exporter
    job.facts["exporter"] = exporter
    if exporter == "native":
        from drupe.export import native

        native.export(step, model, out, job)
    else:
        from drupe.export import genai_builder

        genai_builder.export(step, model, out, job)
