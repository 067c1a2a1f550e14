"""`olive`, the command of drupe-olive: Olive's spellings run, Olive's other verbs name drupe's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import drupe
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS

PROGRAM = Path(__file__).parents[2] / "drupe-olive" / "drupe_olive.py"
WHOSE = (
    f"olive: drupe {drupe.__version__}'s command of that name (drupe-olive); "
    "Microsoft's Olive is olive-ai\n"
)


def olive(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `olive WORDS...` as its console script does."""
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); import drupe_olive as o; "
    code = start + "sys.exit(o.main())"
    command = [sys.executable, "-c", code, str(PROGRAM.parent), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MOST_SECONDS)


@pytest.mark.parametrize("option", ["--config", "--run-config", "--run_config"])
def test_olive_run_is_drupe_run(option: str, workspace: Workspace) -> None:
    workspace.write()
    done = olive(workspace.folder, "run", option, "config.json", "--dry_run")
    assert (done.returncode, done.stderr) == (0, WHOSE)
    assert "2 of 2 steps to run" in done.stdout
    assert olive(workspace.folder, "run", option, "config.json").returncode == 0
    assert (workspace.output / "report.json").exists()


def test_a_fault_keeps_drupes_status(workspace: Workspace) -> None:
    done = olive(workspace.folder, "run", "--config", "absent.json")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{WHOSE}drupe: absent.json: there is no such file")


@pytest.mark.parametrize(
    ("verb", "nearest"),
    [
        ("capture-onnx-graph", "`drupe run` with the pass ModelBuilder"),
        ("no-such-verb", "`drupe run` with a config of passes"),
    ],
)
def test_a_verb_that_drupe_lacks_ends_with_2(verb: str, nearest: str, tmp_path: Path) -> None:
    done = olive(tmp_path, verb, "-m", "x")
    assert (done.returncode, done.stdout) == (2, "")
    told = f"olive: drupe has no verb `{verb}`; nearest is {nearest}.\n"
    assert done.stderr == f"{WHOSE}{told}  `drupe --help` lists its verbs.\n"
