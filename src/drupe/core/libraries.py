"""Installed distributions and their versions, found without importing them.

ONNX Runtime and ONNX Runtime GenAI are each published under several names, of which an
environment holds one: whoever asks for the plain name is answered by the one that is there.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Protocol

# The sibling that holds a provider; the plain one is for the rest.
OF_PROVIDERS = {
    "cuda": {"onnxruntime": "onnxruntime-gpu", "onnxruntime-genai": "onnxruntime-genai-cuda"},
    "dml": {
        "onnxruntime": "onnxruntime-directml",
        "onnxruntime-genai": "onnxruntime-genai-directml",
    },
}

# Each of a family writes the same files: where two are installed, the last one wins, in part.
FAMILIES = {
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime-webgpu",
        "onnxruntime-training",
    ),
    "onnxruntime-genai": (
        "onnxruntime-genai",
        "onnxruntime-genai-cuda",
        "onnxruntime-genai-directml",
    ),
}


def installed_version(distribution: str) -> str | None:
    """Return the installed version of exactly this distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def library_version(library: str) -> str | None:
    """Return the version of a library here, whichever of its distributions holds it, or None.

    "1.31.1" for the distribution of that name, "1.31.1 (onnxruntime-gpu)" for a sibling: their
    kernels differ, so a key tells them apart.
    """
    return version_among(library, installed_version)


def version_among(library: str, installed: Callable[[str], str | None]) -> str | None:
    """Return what `library_version` does, where `installed` tells a distribution's version."""
    for distribution in FAMILIES.get(library, (library,)):
        version = installed(distribution)
        if version is not None:
            return version if distribution == library else f"{version} ({distribution})"
    return None


# A version that is not known before a job starts is told by what will install it: "by DIGEST".
PINNED = "by "


class Environment(Protocol):
    """The libraries that a step finds where it runs."""

    @property
    def remedy(self) -> str | None:
        """How one that is missing gets there; None: it is installed by an extra of drupe."""

    def version(self, library: str) -> str | None:
        """Return what decides a result: the library's version, or what pins it; None: absent."""

    def unfit(self, library: str, extra: str) -> str | None:
        """Return in words why a library there is none that `extra` of drupe allows, or None."""


class Here:
    """The environment of this process."""

    remedy: str | None = None

    def version(self, library: str) -> str | None:
        """Return the installed version."""
        return library_version(library)

    def unfit(self, library: str, extra: str) -> str | None:
        """Return None: what is wrong here is told by `drupe doctor`."""
        return None


HERE = Here()
