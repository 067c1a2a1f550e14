"""What systems and resources keep in a cache: listed by kind, dropped when no run uses it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import drupe
from drupe.cli import main
from drupe.config.load import load
from drupe.core.cache import Cache
from drupe.core.housekeeping import collect, fit
from drupe.core.locks import locked
from drupe.core.provisions import provisions
from drupe.plan import draft
from tests.plain.conftest import Heard, Workspace, tree

DAY = 86400
ENVIRONMENT, CODE, RESOURCE = "e" * 32, "c" * 16, "d" * 64
WHOLE = {
    f"environments/{ENVIRONMENT}/drupe-environment": (b"mark", 40),
    f"environments/{ENVIRONMENT}/lib/a.py": (b"12345678", 40),
    f"environments/{ENVIRONMENT}.log": (b"said", 40),
    f"code/{CODE}/drupe/a.py": (b"123456", 5),
    "ray/work/batch/a": (b"1234567", 3),
    f"resources/{RESOURCE}/listing": (b"{}", 20),
    f"resources/{RESOURCE}/files/phi/a": (b"12345", 20),
}
NAMES = [f"code/{CODE}", f"environments/{ENVIRONMENT}", "ray", f"resources/{RESOURCE}"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with one of each kind, and no result; what is not asked for here stays in it."""
    folder = tmp_path / "cache"
    (folder / "steps").mkdir(parents=True)
    (folder / "environments").mkdir()
    (folder / "environments" / "mine.txt").write_text("of another")
    (folder / "ray.log").write_text("of another, too")
    for name, (content, days) in WHOLE.items():
        write(folder / name, content, days)
    old = time.time() - 5 * DAY
    os.utime(folder / "code" / CODE, (old, old))
    for path in (folder / "ray" / "work", folder / "ray"):
        os.utime(path, (time.time() - 3 * DAY,) * 2)
    return Cache(folder)


def write(file: Path, content: bytes, days: float) -> None:
    """Write a file as it would be that was used so many days ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (time.time() - days * DAY,) * 2)


def left(cache: Cache) -> list[str]:
    return sorted(each.name for each in provisions(cache, set()))


def test_each_is_listed_by_its_kind_with_size_and_last_use(cache: Cache, capsys: Captured) -> None:
    assert main(["cache", "ls", "--cache-dir", str(cache.folder), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    found = {each["name"]: each for each in listed["provisions"]}
    assert [found[name]["kind"] for name in NAMES] == ["code", "environment", "ray", "resource"]
    assert [found[name]["size_bytes"] for name in NAMES] == [6, 16, 7, 7]
    assert listed["total_bytes"] == 36
    ages = [(time.time() - found[name]["used"]) / DAY for name in NAMES]
    assert ages == pytest.approx([5, 40, 3, 20], abs=0.01)
    assert not any(each["in_use"] for each in found.values())
    assert main(["cache", "ls", "--cache-dir", str(cache.folder)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split(maxsplit=1) == ["kind", "kept for systems and resources  size  used"]
    assert shown[4].split(maxsplit=2)[:2] == ["environment", "environments/eeeeeeeeeeee"]
    assert shown[4].split()[2:] == ["16", "B", "960", "h", "0", "min", "ago"]
    assert shown[-1] == "0 results, 36 B on the disk."


def test_what_is_made_again_at_once_goes_and_what_was_downloaded_stays(cache: Cache) -> None:
    swept = collect(cache, dry_run=True)
    assert sorted(each.name for each in swept.provisions) == [NAMES[0], NAMES[2]]
    assert left(cache) == NAMES, "a dry run drops nothing"
    swept = collect(cache)
    assert (swept.freed_bytes, swept.left_bytes) == (13, 23)
    assert left(cache) == [NAMES[1], NAMES[3]]
    assert list((cache.folder / "code").iterdir()) == []
    assert (cache.folder / "environments" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("days", "stay"), [(30, [NAMES[3]]), (10, []), (100, [NAMES[1], NAMES[3]])]
)
def test_what_was_not_used_for_so_long_goes(days: int, stay: list[str], cache: Cache) -> None:
    collect(cache, older_than_seconds=days * DAY)
    assert left(cache) == stay
    if NAMES[1] not in stay:
        assert [path.name for path in (cache.folder / "environments").iterdir()] == ["mine.txt"]


def test_after_90_days_it_goes_unasked(cache: Cache) -> None:
    mark = cache.folder / NAMES[1] / "drupe-environment"
    os.utime(mark, (time.time() - 91 * DAY,) * 2)
    collect(cache)
    assert left(cache) == [NAMES[3]]


def test_halves_go_unless_somebody_makes_them(cache: Cache) -> None:
    (cache.folder / NAMES[1] / "drupe-environment").unlink()
    (cache.folder / NAMES[3] / "listing").unlink()
    mine, gone = (cache.folder / "code" / f".{'a' * 16}.{pid}" for pid in (os.getpid(), 2**22 + 1))
    for staging in (mine, gone):
        write(staging / "a.py", b"", 0)
    made = cache.folder / "environments" / f"{ENVIRONMENT}.held"
    with locked(made), locked(cache.folder / "locks" / RESOURCE):
        collect(cache)
    assert left(cache) == sorted([f"code/{mine.name}", NAMES[1], NAMES[3]])
    collect(cache)
    assert left(cache) == [f"code/{mine.name}"]


def test_nothing_goes_that_a_run_uses(cache: Cache) -> None:
    with cache.using([ENVIRONMENT, "code", "ray", RESOURCE]):
        swept = collect(cache, keep_bytes=0, older_than_seconds=0)
        assert swept.provisions == ()
        assert left(cache) == NAMES
    with locked(cache.folder / "ray" / "locks" / "batch"):
        collect(cache, keep_bytes=0, older_than_seconds=0)
        assert left(cache) == ["ray"], "a worker that outlives its client"
    collect(cache, keep_bytes=0, older_than_seconds=0)
    assert left(cache) == []
    assert (cache.folder / "ray.log").exists()


@pytest.mark.parametrize(
    ("quota", "stay"),
    [(36, NAMES), (20, [NAMES[0], NAMES[2], NAMES[3]]), (13, [NAMES[0], NAMES[2]]), (7, ["ray"])],
)
def test_a_quota_counts_them_and_drops_what_was_not_used_for_longest(
    quota: int, stay: list[str], cache: Cache
) -> None:
    swept = fit(cache, quota, [])
    assert left(cache) == stay
    assert (swept.left_bytes if swept else 36) <= quota


def test_a_run_keeps_its_quota_by_them_too(workspace: Workspace) -> None:
    for name, (content, days) in WHOLE.items():
        write(workspace.cache / name, content * 1000, days)
    workspace.config["engine"]["cache_quota"] = "14KB"
    workspace.run()
    words = "The cache's quota is 14KB: 0 results and 2 of what is kept for systems and resources"
    [note] = [each for each in workspace.heard.notes if "quota" in each]
    assert note.startswith(f"{words} not used for longest went, ")
    assert left(Cache(workspace.cache)) == ["code/cccccccccccccccc", "ray"]


class Tidying(Heard):
    """Drops all that may go while a run goes on, and looks at what is left."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache, self.left = cache, list[str]()

    def event(self, step: object, event: object) -> None:
        collect(self.cache, keep_bytes=0, older_than_seconds=0)
        self.left = left(self.cache)


@pytest.fixture
def elsewhere(workspace: Workspace) -> Iterator[Workspace]:
    """A config whose steps run in another process's Python: this one's, with drupe's code."""
    system = {"type": "PythonEnvironment", "python_environment_path": sys.executable}
    workspace.config["systems"] = {"other": system}
    workspace.config["engine"]["host"] = "other"
    return workspace


def test_the_code_of_a_run_stays_as_long_as_it_goes_on(elsewhere: Workspace) -> None:
    heard = Tidying(Cache(elsewhere.cache))
    drupe.run(elsewhere.write(), listener=heard)
    assert heard.finished_steps == ["back", "more"]
    [code] = heard.left
    assert code.startswith("code/")
    assert left(heard.cache) == [code]
    collect(heard.cache)
    assert left(heard.cache) == []
    elsewhere.passes(back={"type": "Reverse"})
    elsewhere.run(force=True)
    assert elsewhere.heard.ran == ["back"], "it is written again"


def test_what_each_system_uses_is_named(elsewhere: Workspace) -> None:
    assert elsewhere.plan().kept == {"code"}
    made = {"type": "PythonEnvironment", "managed_env": True}
    elsewhere.config["systems"]["other"] = made
    planned = draft(load(elsewhere.write()))
    [digest] = planned.kept - {"code"}
    assert len(digest) == 32
    elsewhere.config["systems"]["other"] = {"type": "Ray"}
    assert draft(load(elsewhere.write())).kept == {"code", "ray"}
    elsewhere.config["engine"]["host"] = None
    assert elsewhere.plan().kept == set()


def test_what_was_fetched_is_named(workspace: Workspace) -> None:
    """By a file system in memory, which fsspec has for tests."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/texts/a.txt", b"one")
    workspace.config["input_model"]["model_path"] = "memory://texts"
    [digest] = workspace.plan().kept
    assert list(tree(workspace.cache / "resources" / digest / "files")) == ["texts/a.txt"]
    heard = Tidying(Cache(workspace.cache))
    drupe.run(workspace.write(), listener=heard)
    assert heard.finished_steps == ["back", "more"]
    assert heard.left == [f"resources/{digest}"]
