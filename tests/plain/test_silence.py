"""What dependencies send home is off in every process that drupe starts, and in theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drupe.cli import main
from drupe.core.silence import SILENT
from drupe.systems.worker import ENVIRONMENT
from tests.plain.conftest import Workspace

PRINTS = "import os, sys; print({name: os.environ.get(name) for name in sys.argv[1:]})"
# The switch that each dependency documents.
DOCUMENTED = {
    "onnxruntime": "ORT_DISABLE_TELEMETRY",
    "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY",
    "ray": "RAY_USAGE_STATS_ENABLED",
    "azure-ai-ml": "AZUREML_SDKV2_TELEMETRY_OPTOUT",
    "any": "DO_NOT_TRACK",
}


@pytest.mark.parametrize("dependency", DOCUMENTED)
def test_a_worker_and_a_client_know_the_switch(dependency: str) -> None:
    assert DOCUMENTED[dependency] in SILENT
    assert {**ENVIRONMENT, **SILENT} == ENVIRONMENT


def test_what_a_worker_starts_has_it_too() -> None:
    names = sorted(ENVIRONMENT)
    code = (
        "import subprocess, sys; from drupe.systems.worker import quiet_dependencies; "
        "quiet_dependencies(); subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    command = [sys.executable, "-c", code, PRINTS, *names]
    told = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == repr({name: ENVIRONMENT[name] for name in names})


def test_a_step_of_a_run_has_it(workspace: Workspace, tmp_path: Path) -> None:
    """Told by the step itself, forked from the server that the client started."""
    workspace.passes(broken={"type": "Breaks", "how": "leak"})
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("absent")
    clean = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    workspace.write()
    subprocess.run(
        workspace.command("run", "config.json"),
        cwd=workspace.folder,
        env={**clean, "HF_TOKEN": "planted-token", "HF_HOME": str(home)},
        capture_output=True,
    )
    log = next(workspace.cache.glob("work/*/log")).read_text()
    for name, value in ENVIRONMENT.items():
        assert f"'{name}': '{value}'" in log


def test_the_command_line_is_silent_before_a_runtime_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SILENT:
        monkeypatch.delenv(name, raising=False)
    assert main(["chat", str(tmp_path), "--prompt", "x"]) == 2
    assert {name: os.environ.get(name) for name in SILENT} == SILENT
