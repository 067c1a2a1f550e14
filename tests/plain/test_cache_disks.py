"""Disks that are full, read-only, or elsewhere than they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from drupe.core.errors import DrupeError
from drupe.core.files import full_disk, full_disk_told
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS

REPOSITORY = Path(__file__).parents[2]


@cache
def namespaces() -> bool:
    """Return whether this process may mount a disk that nobody else sees."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("scenario", ["full", "read_only"])
def test_on_a_disk_of_its_own(scenario: str, tmp_path: Path) -> None:
    if not namespaces():
        pytest.skip("this system lets nobody mount a disk in a namespace (unshare -rm)")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "tests.plain.small_disk", scenario, tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told_with_its_place(tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    with (
        pytest.raises(DrupeError, match=rf"^{place}: its disk is full \(\d+\.\d MB of \d+\.\d MB"),
        full_disk_told(place),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError, match="not allowed"), full_disk_told(place):
        raise PermissionError(1, "not allowed")
    assert full_disk(place).exit_code == 1


def test_a_cache_that_was_moved_still_serves(workspace: Workspace) -> None:
    workspace.run()
    shutil.copytree(workspace.cache, workspace.folder / "moved")
    shutil.rmtree(workspace.cache)
    workspace.config["engine"]["cache_dir"] = "moved"
    workspace.run()
    assert (workspace.heard.ran, workspace.heard.warnings) == ([], [])


@pytest.mark.parametrize("name", [".", "blobs", "locks", "runs", "steps", "work"])
def test_a_file_where_a_folder_should_be_is_refused_before_work(
    name: str, workspace: Workspace
) -> None:
    place = (workspace.cache / name).resolve()
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    told = rf"^config\.json:\d+: engine\.cache_dir: is {workspace.cache}"
    words = rf"{told}, but {place} is a file\n  Move it away"
    with pytest.raises(DrupeError, match=words):
        workspace.run()
    assert (workspace.heard.ran, place.read_text()) == ([], "mine")


def test_what_cannot_be_remembered_is_no_end_of_a_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memo of digests is for speed: a folder in its place costs that, and no more."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)  # the input is settled
    (workspace.cache / "digests").mkdir(parents=True)
    assert workspace.plan().cache.digests.unsaved() is not None
    workspace.run()
    workspace.run()
    assert workspace.heard.ran == []
