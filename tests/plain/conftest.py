"""A folder of text files, a config over toy passes, and the ways to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import drupe
from drupe.chain import Step
from drupe.config.load import load
from drupe.core.cache import Result
from drupe.core.model import Model
from drupe.core.step import StepSpec
from drupe.outcome import Outcome
from drupe.plan import Plan, make
from drupe.systems.local import LocalExecutor
from tests.waiting import MOST_SECONDS

settings.register_profile("plain", max_examples=20, deadline=None, database=None)
settings.load_profile("plain")


class Heard(drupe.Listener):
    """Writes down what a run tells."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.finished_steps: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def started(self, step: Step) -> None:
        self.ran.append(step.name)

    def event(self, step: Step, event: dict[str, Any]) -> None:
        self.events.append(event)

    def finished(self, step: Step, result: Result) -> None:
        self.finished_steps.append(step.name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class Workspace:
    """A config file with its input folder; `config` may be changed before each use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.input = folder / "input"
        self.input.mkdir(parents=True)
        (self.input / "a.txt").write_text("one")
        (self.input / "b.txt").write_text("three")
        self.config: dict[str, Any] = {
            "input_model": {"type": "Files", "model_path": "input"},
            "evaluators": {"all": {"metrics": [{"name": "length", "type": "Length"}]}},
            "passes": {"back": {"type": "Reverse"}, "more": {"type": "Append", "text": "!"}},
            "engine": {
                "evaluator": "all",
                "evaluate": "none",
                "cache_dir": "cache",
                "output_dir": "output",
            },
        }
        self.heard = Heard()

    @property
    def file(self) -> Path:
        return self.folder / "config.json"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def passes(self, **passes: dict[str, Any]) -> None:
        """Have the config name these passes."""
        self.config["passes"] = passes

    def write(self) -> Path:
        """Write the config as it is now."""
        self.file.write_text(json.dumps(self.config, indent=1))
        return self.file

    def plan(self) -> Plan:
        """Plan the config as it is now."""
        return make(load(self.write()))

    def run(self, **arguments: Any) -> Outcome:
        """Run the config as it is now; `heard` then holds what this run told."""
        self.heard = Heard()
        return drupe.run(self.write(), listener=self.heard, **arguments)

    def command(self, *words: str) -> list[str]:
        """Return the command line `drupe WORDS...`."""
        return [sys.executable, "-m", "drupe", *words]

    def drupe(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `drupe WORDS...` in the folder, the config written."""
        self.write()
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `drupe WORDS...` in the folder, the config written."""
        self.write()
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here: what is written need not reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def _a_journal_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is written into the user's journal, and nothing read from it."""
    monkeypatch.setenv("DRUPE_JOURNAL", str(tmp_path / "journal.jsonl"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def forking() -> Iterator[LocalExecutor]:
    """One local system with its fork server, for the tests that run single steps."""
    with LocalExecutor() as system:
        yield system


def spec_of(operation: Any, registered: str, model: Model, key: str = "0" * 64) -> StepSpec:
    """Return the spec of a pass or metric on `model`."""
    fields = json.loads(operation.model_dump_json())
    group = "metrics" if isinstance(operation, drupe.Metric) else "passes"
    return StepSpec(key, group, registered, fields, (model,), 1)


def tree(folder: Path) -> dict[str, bytes]:
    """Return {relative path: content} of all files below a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
