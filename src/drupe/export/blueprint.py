"""An export as it will be, drawn of config.json and of headers: no weight is read.

    config.json, headers --> Decoder, Parts --> Form --> graph, layout, settings

The exporter fills it in; who asks what an export would take reads it off.  Heavy file: onnx_ir.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.checkpoint.header import TensorSpec
from drupe.export.decoder import Decoder
from drupe.export.families import read_decoder
from drupe.export.form import Form, form_of
from drupe.export.graph import Built, build
from drupe.export.parts import EMBEDDING, Parts
from drupe.export.passes import WHERE, ExportGenAI
from drupe.export.settings import genai_settings

SETTINGS_FILE = "genai_config.json"


@dataclass(frozen=True)
class Blueprint:
    """What an export will consist of, the tokenizer's files aside."""

    step: ExportGenAI
    folder: Path
    config: Mapping[str, Any]
    decoder: Decoder
    parts: Parts
    form: Form
    built: Built

    def settings(self, pad_token: int | None) -> str:
        """Return the text of genai_config.json; pad_token: the tokenizer's."""
        graph = self.built.model.graph
        settings = genai_settings(
            self.decoder,
            self.config,
            _read_json(self.folder / "generation_config.json"),
            provider=self.step.target.short_provider,
            threads=self.step.target.threads,
            inputs=[str(value.name) for value in graph.inputs],
            outputs=[str(value.name) for value in graph.outputs],
            pad_token=pad_token,
        )
        return json.dumps(settings, indent=4) + "\n"


def draw(step: ExportGenAI, folder: Path, specs: Mapping[str, TensorSpec]) -> Blueprint:
    """Return the blueprint of a checkpoint's export; specs: its tensors by their names.

    Raises Refused for a checkpoint that is not what its config.json says.
    """
    config = _read_json(folder / "config.json")
    decoder = read_decoder(config, WHERE)
    parts = Parts(decoder, dict(specs), WHERE)
    form = form_of(step, decoder, specs[EMBEDDING].dtype if EMBEDDING in specs else "F32")
    return Blueprint(step, folder, config, decoder, parts, form, build(decoder, parts, form))


def _read_json(file: Path) -> dict[str, Any]:
    """Return what a small file of the model says; {} where there is none."""
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
