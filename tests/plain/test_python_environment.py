"""Steps in another Python environment: its libraries decide, drupe's own code goes along."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drupe.core.errors import ConfigError, Refused
from drupe.core.requirements import asked_for
from drupe.systems.interpreter import InterpreterEnvironment, python_of
from tests.plain.conftest import Workspace


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has what is installed here, and a library that is not."""
    folder = tmp_path_factory.mktemp("environments") / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared))
    about = site / "toy_library-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: Toy_Library\nVersion: 2.0\n")
    return folder


@pytest.fixture
def elsewhere(workspace: Workspace, environment: Path) -> Workspace:
    """A config whose steps run in that environment."""
    workspace.config["systems"] = {
        "other": {
            "type": "PythonEnvironment",
            "python_environment_path": str(environment),
            "environment_variables": {"SAID": "hello"},
        }
    }
    workspace.config["engine"]["host"] = "other"
    workspace.passes(where={"type": "Where", "variable": "SAID"})
    return workspace


def test_a_step_runs_in_that_python_with_this_drupe(
    elsewhere: Workspace, environment: Path
) -> None:
    outcome = elsewhere.run()
    told = json.loads((outcome.final.model.path / "where.json").read_text())
    assert told["prefix"] == str(environment)
    assert told["value"] == "hello"
    assert Path(told["drupe"]).is_relative_to(elsewhere.cache / "code")
    assert told["path"][0] == str(environment / "bin")


def test_the_key_is_that_of_a_local_run_where_the_libraries_are_the_same(
    elsewhere: Workspace,
) -> None:
    [there] = elsewhere.plan().steps
    del elsewhere.config["engine"]["host"]
    [here] = elsewhere.plan().steps
    assert there.key == here.key
    assert there.system.words == "on other (PythonEnvironment)"
    assert here.system.words == "here (LocalSystem)"


def test_a_library_is_looked_for_where_the_step_runs(elsewhere: Workspace) -> None:
    elsewhere.passes(needs={"type": "NeedsToyLibrary"})
    [step] = elsewhere.plan().steps
    assert step.parts["libraries"] == {"toy-library": "2.0"}
    elsewhere.run()
    del elsewhere.config["engine"]["host"]
    with pytest.raises(Refused, match=r"needs \(NeedsToyLibrary\): needs toy-library"):
        elsewhere.plan()


def test_a_library_that_is_not_there_is_told_with_what_to_do(
    elsewhere: Workspace, environment: Path
) -> None:
    words = rf"needs no-such-library\n  {re.escape(str(environment))}/bin/python -m pip install it"
    elsewhere.passes(needs={"type": "NeedsAbsentLibrary"})
    with pytest.raises(Refused, match=words):
        elsewhere.plan()


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("absent", "absent is not there\n  Name the folder of a Python environment"),
        ("input", r"input holds no Python \(python, bin/python\)\n  Name the folder"),
        ("input/a.txt", "a.txt does not answer as a Python does"),
    ],
)
def test_what_is_no_environment_is_told_at_once(path: str, what: str, elsewhere: Workspace) -> None:
    elsewhere.config["systems"]["other"]["python_environment_path"] = path
    with pytest.raises(Refused, match=what):
        elsewhere.plan()


def test_an_environment_without_a_path(elsewhere: Workspace) -> None:
    del elsewhere.config["systems"]["other"]["python_environment_path"]
    with pytest.raises(ConfigError, match="python_environment_path is missing"):
        elsewhere.plan()


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\necho \'{"python": [3, 8, 10], "installed": {}}\'\n')
    old.chmod(0o755)
    with pytest.raises(Refused, match=r"is Python 3\.8\.10, and drupe needs 3\.11 or newer"):
        InterpreterEnvironment.of(python_of(tmp_path))


def test_what_drupe_needs_there_is_named(elsewhere: Workspace, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    elsewhere.config["systems"]["other"]["python_environment_path"] = str(bare)
    lacking = [re.escape(str(each)) for each in asked_for()]
    python = re.escape(str(bare / "bin" / "python"))
    quoted = " ".join(f'"{each}"' for each in lacking)
    words = (
        rf"{python} lacks {', '.join(lacking)}, which drupe itself needs there\n"
        rf"  {python} -m pip install {quoted}"
    )
    assert len(lacking) >= 2
    with pytest.raises(Refused, match=words):
        elsewhere.plan()


def test_a_version_that_no_pass_works_with_is_named(tmp_path: Path) -> None:
    old = InterpreterEnvironment("python", (3, 12), {"torch": "2.2.0", "peft": "0.21.2"})
    assert old.unfit("torch", "finetune") == "needs torch>=2.6, and torch 2.2.0 is there"
    assert old.unfit("peft", "finetune") is None
    assert old.unfit("transformers", "finetune") is None, "that it is missing is told"


def test_a_system_may_be_asked_for_by_name(elsewhere: Workspace) -> None:
    del elsewhere.config["engine"]["host"]
    elsewhere.run(system="other")
    assert [step.system.name for step in elsewhere.plan().steps] == ["here"]
    assert elsewhere.heard.ran == ["where"]
