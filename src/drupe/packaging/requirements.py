"""The exact versions of what runs a delivered model."""

from __future__ import annotations

import sys

from drupe.core.libraries import OF_PROVIDERS, installed_version, library_version
from drupe.core.target import Target

OF_KINDS = {
    "onnx-genai": ("onnxruntime", "onnxruntime-genai", "numpy"),
    "hf": ("torch", "transformers", "safetensors"),
}


def python_version() -> str:
    """Return the Python that the versions go with: "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def requirements(kind: str, target: Target) -> list[str]:
    """Return the lines of a requirements.txt for a model of `kind` on `target`.

    A sibling of a distribution that is not installed here (onnxruntime-gpu where the model was
    made with onnxruntime) has releases of its own: only ONNX Runtime GenAI's go by one number.
    """
    lines = []
    for library in OF_KINDS[kind]:
        wanted = OF_PROVIDERS.get(target.short_provider, {}).get(library, library)
        version = installed_version(wanted)
        if version is None and library != "onnxruntime":
            version = (library_version(library) or "").partition(" ")[0]
        if version:
            lines.append(f"{wanted}=={version.partition('+')[0]}")  # +cpu is of another index
    return lines
