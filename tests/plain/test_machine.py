"""The class of the machine that made a result: recorded beside it, and told."""

from __future__ import annotations

import json
import platform

import pytest

from drupe.catalog import METRICS
from drupe.core import system
from drupe.core.machine import DECIDING, machine_class, speed_class
from drupe.core.manifest import Manifest
from drupe.core.process import usable_cores
from drupe.report.words import machine
from tests.plain.conftest import Workspace


def test_what_may_show_in_the_bytes_is_recorded() -> None:
    found = machine_class(3, {"torch": "2.13.0"})
    assert found["threads"] == 3
    assert found["libraries"] == {"torch": "2.13.0"}
    assert found["processor"] == platform.machine()
    assert set(found["instructions"]) <= set(DECIDING)


def test_it_is_in_the_manifest_and_in_the_report_and_in_no_key(workspace: Workspace) -> None:
    outcome = workspace.run()
    [step, _] = outcome.plan.steps
    manifest = Manifest.read(workspace.cache / "steps" / step.key)
    assert manifest.machine == machine_class(usable_cores(), {})
    told = json.loads((workspace.output / "report.json").read_text())
    assert [bool(stage["machine"]) for stage in told["stages"]] == [False, True, True]
    assert told["stages"][1]["machine"] == manifest.machine
    assert "machine" not in manifest.parts
    page = (workspace.output / "report.html").read_text()
    assert f"{usable_cores()} threads" in page or "1 thread" in page


def test_it_is_told_in_words() -> None:
    described = {
        "processor": "x86_64",
        "instructions": ["avx2", "amx_bf16"],
        "threads": 1,
        "system": "linux",
        "python": "3.11.9",
    }
    assert machine(described) == "x86_64 (avx2, amx_bf16), 1 thread, linux, Python 3.11.9"
    assert "instructions not told" in machine({**described, "instructions": []})


def test_what_is_about_the_machine_too_is_no_hit_on_another(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS.find("Length"), "of_machine", True)
    workspace.config["engine"]["evaluate"] = "every-step"
    workspace.run()
    assert all(step.hit for step in workspace.plan().steps)
    here = speed_class()
    monkeypatch.setattr(system, "speed_class", lambda: {**here, "name": "another processor"})
    steps = workspace.plan().steps
    assert {step.role: step.hit for step in steps} == {"pass": True, "metric": False}
    assert [step.parts["machine"]["name"] for step in steps if step.role == "metric"] == [
        "another processor"
    ] * sum(step.role == "metric" for step in steps)
