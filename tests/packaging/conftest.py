"""Wheels built from the tree, and fresh environments that they are installed into by pip."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip"]
UNREACHABLE = re.compile(r"NewConnectionError|ConnectTimeout|Temporary failure in name resolution")
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"


@dataclass(frozen=True)
class Built:
    """What the tree was built into: drupe's wheel and sdist, drupe-olive's wheel."""

    wheel: Path
    sdist: Path
    olive: Path


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment, which sees nothing of this one."""

    folder: Path

    def program(self, name: str) -> Path:
        """Return the path of a program in it."""
        return self.folder / SCRIPTS / name

    def install(self, *words: str) -> None:
        """Install by this environment's pip, the versions those of constraints.txt.

        Nothing is compiled ahead: of torch's files few are imported here.
        """
        command = [*PIP, "--python", str(self.program("python")), "install", "--quiet"]
        command += ["--no-compile"]
        done = run(*command, "--constraint", str(ROOT / "constraints.txt"), *words)
        if done.returncode and UNREACHABLE.search(done.stderr):
            pytest.skip(f"no package index can be reached: {done.stderr.strip()[-200:]}")
        assert done.returncode == 0, done.stderr[-2000:]

    def drupe(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `drupe WORDS...` of it; fail the test with its words if it fails."""
        done = run(str(self.program("drupe")), *words, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def findings(self) -> dict[str, dict[str, str]]:
        """Return {subject: finding} of its doctor (which ends with 1 where one is broken)."""
        told: dict[str, Any] = json.loads(
            run(str(self.program("drupe")), "doctor", "--json").stdout
        )
        return {finding["subject"]: finding for finding in told["findings"]}


def run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build a copy of the tree: what an editable install has left beside it is not in it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("src", "drupe-olive", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for source in (tree, tree / "drupe-olive"):
        command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
        done = run(*PIP, *command, str(out), str(source))
        assert done.returncode == 0, done.stderr
    code = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    done = run(sys.executable, "-c", code, str(out), folder=tree)
    assert done.returncode == 0, done.stderr
    (wheel,), (olive,) = out.glob("drupe-*.whl"), out.glob("drupe_olive-*.whl")
    return Built(wheel, next(out.glob("drupe-*.tar.gz")), olive)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an empty environment, without pip: this one's installs into it."""
    venv.create(tmp_path / "environment")
    return Environment(tmp_path / "environment")
