"""What is done on a disk of its own, in a namespace of its own: called by test_cache_disks.

    unshare -rm python -m tests.plain.small_disk SCENARIO FOLDER

mounts a disk of 2 MB at FOLDER/disk, which nobody else sees and which goes with this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from drupe.cli import main
from drupe.core.cache import Cache
from drupe.core.verify import verify
from tests.plain.conftest import Workspace, tree

PAGE = 4096
TEXT = "three pages of text. " * 500
FULL = "its disk is full (0.0 MB of 2.1 MB left)\n  Make room there (drupe cache gc drops what"


def drupe(*words: str) -> tuple[int, str, str]:
    """Return the exit status and the words of `drupe WORDS...`, done in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(words))
    return status, out.getvalue(), err.getvalue()


def workspace_on(disk: Path) -> Workspace:
    workspace = Workspace(disk / "workspace")
    (workspace.input / "a.txt").write_text(TEXT)
    workspace.config["engine"]["evaluate"] = "every-step"
    return workspace


def leave(balloon: Path, pages: int) -> None:
    """Have the disk keep so many free pages: a file takes the rest."""
    size = balloon.stat().st_size if balloon.exists() else 0
    status = os.statvfs(balloon.parent)
    room = size + status.f_bavail * status.f_frsize
    os.truncate(balloon, 0) if balloon.exists() else balloon.touch()
    with balloon.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room - pages * PAGE))


def full(disk: Path) -> None:
    """Room grows by five pages a run: each run fails in a sentence, until there is enough."""
    workspace = workspace_on(disk)
    file = str(workspace.write())
    kept = 0
    failed_at = set()
    for pages in range(0, 100, 5):
        leave(disk / "balloon", pages)
        status, _, told = drupe("run", file)
        if status == 0:
            break
        assert status == 1, (pages, told)
        assert FULL in told, (pages, told)
        assert told.count("\n") == 2, told
        failed_at.add(told.split(":")[1].strip().split("/")[-1])
        check_output(workspace)
        assert verify(Cache(workspace.cache)).damages == []
        left = len(list((workspace.cache / "steps").glob("*")))
        assert left >= kept, "what was finished is kept"
        kept = left
        assert not list(workspace.cache.glob("work/*/commit")), "nothing half-made takes room"
        assert not list(workspace.cache.glob("work/*/out"))
    assert status == 0, told
    assert {"cache", "output"} <= failed_at, failed_at
    assert drupe("run", file)[0] == 0
    delivered = workspace.output / "back-more" / "cpu-cpu_model"
    assert tree(delivered)["a.txt"].decode() == TEXT[::-1] + "!"
    leave(disk / "balloon", 0)
    assert drupe("cache", "gc", file)[0] == 0, "tidying up needs no room"
    assert drupe("cache", "verify", file)[0] == 0


def check_output(workspace: Workspace) -> None:
    """What lies in the output folder is whole."""
    for name, data in tree(workspace.output).items() if workspace.output.exists() else []:
        if name.endswith(".json"):
            json.loads(data)
        elif name.endswith("a.txt"):
            assert data.decode() == TEXT[::-1] + "!", name
        assert "/." not in f"/{name}", f"{name} was left behind"


def read_only(disk: Path) -> None:
    """A cache that cannot be written serves what it holds, and refuses the rest before work."""
    workspace = workspace_on(disk.parent / "elsewhere")
    workspace.config["engine"]["cache_dir"] = str(disk / "cache")
    file = str(workspace.write())
    assert drupe("run", file)[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = tree(disk)
    workspace.config["engine"] |= {"output_dir": "other", "cache_quota": "1B"}
    status, out, err = drupe("run", str(workspace.write()))
    assert (status, err) == (0, ""), err
    assert "0 of 5 steps to run" in out
    assert (workspace.folder / "other" / "report.json").exists()
    for words in (["ls"], ["verify"], ["gc", "--dry-run"], ["explain"]):
        status, _, err = drupe("cache", words[0], file, *words[1:])
        assert (status, err) == (0, ""), err
    cannot = f"is {disk}/cache, but {disk}/cache cannot be written to\n  Name another folder.\n"
    for words in (["gc", file, "--older-than", "0s"], ["verify", file, "--repair"]):
        assert drupe("cache", *words)[::2] == (2, f"drupe: the cache: {cannot}")
    workspace.config["passes"]["more"]["text"] = "?"
    status, out, told = drupe("run", str(workspace.write()))
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"drupe: config\.json:\d+: engine\.cache_dir: {re.escape(cannot)}", told)
    workspace.config["passes"]["more"]["text"] = "!"
    status, out, told = drupe("run", str(workspace.write()), "--force")
    assert (status, out) == (2, "")
    assert told.endswith(f"engine.cache_dir: {cannot}")
    assert tree(disk) == before


if __name__ == "__main__":
    small = Path(sys.argv[2]) / "disk"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], check=True)
    {"full": full, "read_only": read_only}[sys.argv[1]](small)
