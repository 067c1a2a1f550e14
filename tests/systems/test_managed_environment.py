"""An environment that drupe makes: once, whole, the same again; its steps have the keys of here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from wheels import write_drupes_needs, write_toy_library

from drupe.core.errors import Refused
from drupe.core.libraries import PINNED
from drupe.systems.managed import MARK
from tests.plain.conftest import Workspace, tree


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in which pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_drupes_needs(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A folder of text files and a config over toy passes."""
    monkeypatch.setenv("DRUPE_JOURNAL", str(tmp_path / "journal.jsonl"))
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def made(workspace: Workspace, wheels: Path) -> Workspace:
    """A config whose steps run in an environment that drupe makes."""
    write_toy_library(wheels, "2.0")
    system: dict[str, Any] = {
        "type": "PythonEnvironment",
        "managed_env": True,
        "requirements_file": "requirements.txt",
    }
    workspace.config["systems"] = {"made": system}
    workspace.config["engine"]["host"] = "made"
    workspace.passes(needs={"type": "NeedsToyLibrary"}, where={"type": "Where"})
    (workspace.folder / "requirements.txt").write_text("toy-library  # any\n")
    return workspace


def versions(workspace: Workspace) -> set[str]:
    return {str(step.parts["libraries"].get("toy-library")) for step in workspace.plan().steps}


def test_it_is_made_once_and_the_same_again(made: Workspace, wheels: Path) -> None:
    before = tree(made.folder)
    [unknown] = versions(made) - {"None"}
    assert unknown.startswith(PINNED), "a plan installs nothing, and knows no version"
    assert {name for name in tree(made.folder) if "environments" in name} == set()
    assert before.keys() | {"config.json"} == tree(made.folder).keys()

    outcome = made.run()
    told = json.loads((outcome.final.model.path / "where.json").read_text())
    [environment] = [path for path in (made.cache / "environments").iterdir() if path.is_dir()]
    assert told["prefix"] == str(environment)
    [note] = [text for text in made.heard.notes if text.startswith("Making the environment")]
    assert note == f"Making the environment of made (its log: {environment}.log)"
    lock = (made.folder / "drupe-made.lock").read_text()
    assert "\ntoy-library==2.0\n" in lock
    assert "\npydantic==" in lock
    assert "Successfully installed" in environment.with_suffix(".log").read_text()
    assert versions(made) == {"2.0", "None"}

    made.run()
    assert made.heard.ran == []
    assert not [text for text in made.heard.notes if "environment" in text]

    # As a killed pip leaves it, and with a newer library at hand: it is as it was.
    write_toy_library(wheels, "2.1")
    (environment / MARK).unlink()
    shutil.rmtree(environment / "lib")
    assert versions(made) == {"2.0", "None"}, "the lock knows"
    made.run()
    assert made.heard.ran == [], "what is in the cache needs no environment"
    assert not (environment / MARK).exists()
    again = made.run(force=True)
    assert made.heard.ran == ["needs", "where"]
    assert any("as drupe-made.lock has it" in text for text in made.heard.notes)
    assert (made.folder / "drupe-made.lock").read_text() == lock
    assert again.final.model.digest == outcome.final.model.digest

    # Asked for something else, it is another.
    (made.folder / "requirements.txt").write_text("toy-library==2.1\n")
    assert versions(made) == {"2.1", "None"}, "what is pinned is known"
    assert [step.hit for step in made.plan().steps] == [False, False]


def test_what_cannot_be_installed_is_told_in_pips_words_and_nothing_is_left(
    made: Workspace,
) -> None:
    (made.folder / "requirements.txt").write_text("toy-library==9\n")
    words = r"^systems\.made: its environment cannot be made: .*toy-library==9.*\n  Mend its req"
    with pytest.raises(Refused, match=words):
        made.run()
    [log] = (made.cache / "environments").glob("*.log")
    assert "toy-library==9" in log.read_text()
    assert not [path for path in (made.cache / "environments").iterdir() if path.is_dir()]
    assert not (made.folder / "drupe-made.lock").exists()
