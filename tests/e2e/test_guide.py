"""The guide's commands, given one after the other as its reader gives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, Command, blocks, commands
from tests.e2e.conftest import EXAMPLES, Job

GUIDE = ROOT / "docs" / "guide.md"
BLOCKS = blocks(GUIDE)
RUN = [(block, BLOCKS[place + 1]) for place, block in enumerate(BLOCKS) if block.tag == "run"]
JOB = [block for block in BLOCKS if block.tag == "job"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the examples."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("phi3-emotion", "page"):
        ignored = shutil.ignore_patterns("models", "cache", "make")
        shutil.copytree(EXAMPLES / name, folder / name, ignore=ignored)
    return folder


def give(command: Command, folder: Path) -> str:
    """Run a command in a folder, hold it to its exit status, return what it printed."""
    binaries = Path(sys.executable).parent
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    done = subprocess.run(
        [str(binaries / command.words[0]), *command.words[1:]],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == command.status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("block", "after"), RUN, ids=lambda block: str(block))
def test_what_costs_nothing_is_run(block: Block, after: Block, examples: Path) -> None:
    printed = "".join(give(each, examples / "phi3-emotion") for each in commands(block))
    assert printed
    if after.tag == "shown":
        for line in after.text.splitlines():
            assert line in printed


def test_something_is_shown() -> None:
    assert [after.tag for _, after in RUN].count("shown") == 2


def test_the_job_and_the_talk_after_it(
    demo: tuple[Job, subprocess.CompletedProcess[str]],
) -> None:
    """The demo was run here, from the file of which the guide's pieces are the parts."""
    printed = {
        str(command): give(command, demo[0].folder) for block in JOB for command in commands(block)
    }
    run, chat, app, verify = printed.values()
    assert "0 of 14 steps to run" in run
    assert "fear" in chat
    assert "joy" in app
    assert verify.startswith("OK ")
