"""All looks in order: what is installed, what loads, the machine, the settings."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from drupe.core.libraries import library_version
from drupe.doctor.finding import Finding
from drupe.doctor.machine import machine
from drupe.doctor.packages import packages
from drupe.doctor.providers import providers
from drupe.doctor.settings import settings


def examine(cache: Path) -> list[Finding]:
    """Return all findings; `cache` is the cache to look at. Changes nothing."""
    findings = list(machine(cache))
    try:
        findings += packages(distribution("drupe"))
    except PackageNotFoundError:
        remedy = "Install it: pip install drupe (from its source: pip install -e .)"
        findings.append(Finding("drupe", "note", "runs from a folder, not installed", remedy))
    if library_version("onnxruntime"):
        findings += providers()
    return [*findings, *settings(cache)]
