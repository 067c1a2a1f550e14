"""The README's jobs, run as a user runs them: by the command line, in a copy of the example."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
DRUPE = str(Path(sys.executable).parent / "drupe")


@dataclass
class Job:
    """A folder with a config, and the way to run it."""

    folder: Path
    config: Path

    def drupe(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `drupe WORDS...` in the folder."""
        return subprocess.run([DRUPE, *words], cwd=self.folder, capture_output=True, text=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the job; fail the test with its words if it fails."""
        done = self.drupe("run", "--config", str(self.config), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def report(self, output: str) -> dict[str, Any]:
        """Return the report in an output folder, relative to the config."""
        file = self.config.parent / output / "report.json"
        report: dict[str, Any] = json.loads(file.read_text())
        return report


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, subprocess.CompletedProcess[str]]:
    """Return the demo, run once from an empty cache, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    example = EXAMPLES / "phi3-emotion"
    for name in ("model", "dataset"):
        shutil.copytree(example / name, folder / name)
    for name in ("olive-config.json", "app.py"):
        shutil.copy(example / name, folder)
    job = Job(folder, folder / "olive-config.json")
    return job, job.run()


def short_demo(folder: Path, steps: int, rows: int, **engine: Any) -> Job:
    """Return a copy of the demo with so many training steps, and phrases to measure on."""
    example = EXAMPLES / "phi3-emotion"
    for name in ("model", "dataset"):
        shutil.copytree(example / name, folder / name)
    shutil.copy(example / "app.py", folder)
    for file in (folder / "dataset").glob("heldout-*.json"):
        file.write_text("\n".join(file.read_text().splitlines()[:rows]) + "\n")
    config: dict[str, Any] = json.loads((example / "olive-config.json").read_text())
    arguments = config["passes"]["lora"]["config"]["training_args"]
    arguments |= {"max_steps": steps, "evaluation_strategy": "no"}
    config["engine"] |= engine
    job = Job(folder, folder / "olive-config.json")
    job.config.write_text(json.dumps(config))
    return job


def page_in(folder: Path) -> Job:
    """Return the page's own config in an empty folder, its two paths present."""
    shutil.copy(EXAMPLES / "page" / "olive-config.json", folder)
    example = EXAMPLES / "phi3-emotion"
    shutil.copytree(example / "model", folder / "model-cache" / "microsoft" / "phi-3-mini")
    shutil.copytree(example / "dataset", folder / "dataset")
    return Job(folder, folder / "olive-config.json")
