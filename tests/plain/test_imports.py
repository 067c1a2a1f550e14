"""What is imported when: help costs as much as Python, a plan no more than the plan."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.plain.conftest import Workspace

HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "onnx_ir", "datasets", "peft", "numpy"}
PROBE = """
import contextlib, io, json, sys
from drupe.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    status = main(sys.argv[1:])
print(json.dumps([status, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def imported_by(*words: str) -> set[str]:
    """Return the top packages that `drupe WORDS...` imports in a process of its own."""
    command = [sys.executable, "-c", PROBE, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: list[Any] = json.loads(done.stdout)
    assert told[0] == 0
    return set(told[1])


def test_help_imports_next_to_nothing() -> None:
    assert not imported_by("--help") & {"pydantic", "argparse", "rich", "asyncio", *HEAVY}


def test_a_plan_imports_nothing_heavy(workspace: Workspace) -> None:
    imported = imported_by("run", str(workspace.write()), "--plan")
    assert "pydantic" in imported
    assert not imported & HEAVY


def test_a_run_imports_nothing_heavy_in_the_client(workspace: Workspace) -> None:
    assert not imported_by("run", str(workspace.write())) & HEAVY


def test_the_list_of_passes_imports_nothing_heavy() -> None:
    assert not imported_by("passes") & HEAVY


def test_the_cache_is_listed_without_anything_heavy(workspace: Workspace) -> None:
    workspace.run()
    assert not imported_by("cache", "ls", str(workspace.file)) & HEAVY


@pytest.mark.parametrize(
    "module", ["drupe.cli.benchmark", "drupe.cost.prediction", "drupe.cost.rules"]
)
def test_what_times_and_foretells_asks_programs_of_their_own(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_the_public_names_are_there() -> None:
    code = (
        "import sys, drupe\n"
        "assert 'pydantic' not in sys.modules\n"
        "assert all(getattr(drupe, name) for name in drupe.__all__)\n"
        "assert set(dir(drupe)) == set(drupe.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
