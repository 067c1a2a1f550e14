"""What is dropped from a cache, what never is, and what a reading of every byte finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drupe.core.cache import Cache
from drupe.core.digest import canonical_json, sealed, value_digest
from drupe.core.errors import Refused
from drupe.core.files import remove_tree
from drupe.core.housekeeping import Sweep, collect, fit, remove
from drupe.core.locks import locked
from drupe.core.manifest import Manifest
from drupe.core.stock import survey
from drupe.core.verify import Damage, repair, verify
from tests.plain.conftest import tree
from tests.plain.test_cache import CONTENT, KEY, OTHER, Bench, rewrite_manifest, write
from tests.waiting import MOST_SECONDS

DAY = 86400
NOBODY = 2**22 + 1  # above the kernel's largest process number


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "cache")


def key_of(number: int) -> str:
    return f"{number:064x}"


def fill(bench: Bench, count: int, own_bytes: int = 1000) -> None:
    """Make results 0, 1, ...: used that many days ago, each with a file that all share."""
    for number in range(count):
        own = f"{number}".ljust(own_bytes, ".")
        bench.content = {"own": own, "shared": "s" * 500}
        bench.run(key=key_of(number))
        used = time.time() - number * DAY
        os.utime(bench.cache.step_folder(key_of(number)) / "manifest", (used, used))


def kept(bench: Bench) -> list[int]:
    return [int(entry.key, 16) for entry in survey(bench.cache).entries]


def on_disk(bench: Bench) -> int:
    """The plain definition: each inode of results and blobs once."""
    files = [
        file
        for place in ("blobs", "steps/*/files")
        for file in bench.cache.folder.glob(f"{place}/**/*")
        if file.is_file()
    ]
    return sum({file.stat().st_ino: file.stat().st_size for file in files}.values())


def test_the_stock(bench: Bench) -> None:
    fill(bench, 3)
    stock = survey(bench.cache)
    assert [entry.key for entry in stock.entries] == [key_of(number) for number in range(3)]
    assert {entry.state for entry in stock.entries} == {"sound"}
    assert [entry.size_bytes for entry in stock.entries] == [1500] * 3
    assert [stock.own_bytes(entry) for entry in stock.entries] == [1000] * 3
    assert stock.total_bytes == on_disk(bench) == 3 * 1000 + 500
    ages = [round(entry.age_seconds / DAY) for entry in stock.entries]
    assert ages == [0, 1, 2]


STATES: dict[str, tuple[Callable[[Bench], object], str, str]] = {
    "missing": (lambda bench: bench.weights.unlink(), "damaged", "weights is missing"),
    "touched": (lambda bench: os.utime(bench.weights, (1, 1)), "unverified", ""),
    "older": (
        lambda bench: rewrite_manifest(bench, format=1),
        "other format",
        "it is of format 1, not 3",
    ),
    "no manifest": (
        lambda bench: (bench.step / "manifest").unlink(),
        "damaged",
        "its manifest is missing",
    ),
    "another's": (
        lambda bench: rewrite_manifest(bench, key=OTHER),
        "damaged",
        "its manifest is another step's",
    ),
    "a file": (
        lambda bench: (remove_tree(bench.step), bench.step.write_text("?")),
        "damaged",
        "its manifest cannot be read (",
    ),
    "link": (
        lambda bench: (bench.step / "files" / "more").symlink_to("/etc/hostname"),
        "damaged",
        "which lies outside",
    ),
}


@pytest.mark.parametrize("harm", STATES)
def test_the_state_of_a_result(harm: str, bench: Bench) -> None:
    change, state, why = STATES[harm]
    bench.run()
    change(bench)
    [entry] = survey(bench.cache).entries
    assert entry.state == state
    assert why in entry.why
    assert bool(why) == bool(entry.why)


def test_looking_changes_nothing(bench: Bench) -> None:
    fill(bench, 2)
    (bench.cache.folder / "work" / KEY).mkdir(parents=True)
    before = {file: file.stat().st_mtime_ns for file in bench.cache.folder.rglob("*")}
    survey(bench.cache)
    verify(bench.cache)
    swept = collect(bench.cache, keep_bytes=0, dry_run=True)
    assert (len(swept.results), len(swept.blobs), len(swept.leftovers)) == (2, 3, 1)
    assert {file: file.stat().st_mtime_ns for file in bench.cache.folder.rglob("*")} == before


def test_a_hit_is_a_use_and_a_look_is_none(bench: Bench) -> None:
    fill(bench, 3)
    assert bench.cache.find(key_of(2), "files", ("p",)) is not None
    assert round(survey(bench.cache).named(key_of(2)).age_seconds / DAY) == 2
    assert bench.run(key=key_of(2)).hit
    assert survey(bench.cache).named(key_of(2)).age_seconds < 60


def test_a_clock_that_was_set_back_makes_nothing_old(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bench, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * DAY)
    assert [entry.age_seconds for entry in survey(bench.cache).entries] == [0, 0]
    assert collect(bench.cache, older_than_seconds=0.0).results == ()
    assert bench.run(key=key_of(0)).hit


# What is dropped


def test_results_that_nobody_used_for_long_go(bench: Bench) -> None:
    fill(bench, 4)
    swept = collect(bench.cache, older_than_seconds=1.5 * DAY)
    assert [int(entry.key, 16) for entry in swept.results] == [2, 3]
    assert kept(bench) == [0, 1]
    assert (len(swept.blobs), swept.freed_bytes, swept.left_bytes) == (2, 2000, on_disk(bench))
    assert not list((bench.cache.folder / "steps").glob(".*")), "nothing is left aside"
    assert bench.run(key=key_of(0)).hit


@pytest.mark.parametrize(
    ("keep", "left"), [(0, []), (1499, []), (1500, [0]), (2500, [0, 1]), (10_000, [0, 1, 2, 3])]
)
def test_the_least_recently_used_go_until_it_fits(keep: int, left: list[int], bench: Bench) -> None:
    fill(bench, 4)
    before = on_disk(bench)
    told = collect(bench.cache, keep_bytes=keep, dry_run=True)
    assert on_disk(bench) == before
    swept = collect(bench.cache, keep_bytes=keep)
    assert kept(bench) == left
    assert swept.left_bytes == on_disk(bench) <= keep
    assert swept.freed_bytes == before - on_disk(bench)
    assert (told.results, told.blobs, told.freed_bytes) == (
        swept.results,
        swept.blobs,
        swept.freed_bytes,
    )


def leave_behind(bench: Bench) -> list[Path]:
    """Leave what kills leave: a work folder, results moved aside, a run's note, a blob, a lock."""
    folder = bench.cache.folder
    (folder / "work" / KEY / "scratch").mkdir(parents=True)
    (folder / "work" / KEY / "scratch" / "checkpoint").write_text("c" * 70)
    (folder / "steps" / f".{KEY}.replaced-{NOBODY}" / "files").mkdir(parents=True)
    (folder / "runs" / f"{NOBODY}-1").write_text(KEY)
    (folder / "blobs" / "ab").mkdir(exist_ok=True)
    (folder / "blobs" / "ab" / ("c" * 62)).write_text("b" * 30)
    (folder / "locks" / OTHER).touch()
    return [
        folder / "work" / KEY,
        folder / "steps" / f".{KEY}.replaced-{NOBODY}",
        folder / "runs" / f"{NOBODY}-1",
        folder / "blobs" / "ab" / ("c" * 62),
        folder / "locks" / OTHER,
    ]


def test_what_killed_processes_left_goes(bench: Bench) -> None:
    fill(bench, 1)
    (bench.cache.folder / "runs").mkdir()
    left = leave_behind(bench)
    swept = collect(bench.cache)
    assert [path for path in left if path.exists()] == []
    assert (len(swept.leftovers), len(swept.blobs), swept.results) == (3, 1, ())
    assert swept.freed_bytes == 70 + 30 + len(KEY)
    assert bench.run(key=key_of(0)).hit


def test_what_is_not_drupes_is_left_alone(bench: Bench) -> None:
    """A folder named `work` or `blobs` may be somebody's."""
    fill(bench, 1)
    for name in ("work/thesis", "blobs/ab/notes", "blobs/photo", "steps/mine", "locks/door"):
        file = bench.cache.folder / name / "file"
        file.parent.mkdir(parents=True)
        file.write_text("mine")
    collect(bench.cache, keep_bytes=0)
    assert {name for name, data in tree(bench.cache.folder).items() if data == b"mine"} == {
        "work/thesis/file", "blobs/ab/notes/file", "blobs/photo/file", "steps/mine/file",
        "locks/door/file",
    }  # fmt: skip


def test_blobs_that_an_older_format_names_stay(bench: Bench) -> None:
    """Two versions of drupe on one cache: neither drops what is the other's."""
    bench.run()
    rewrite_manifest(bench, format=1)
    assert collect(bench.cache).blobs == ()
    assert survey(bench.cache).entries[0].state == "other format"
    assert verify(bench.cache).damages == []
    assert verify(bench.cache).other_formats == 1


# What is never dropped

WORKS = """
import sys, time
from pathlib import Path
from drupe.core.cache import Cache, Run
cache = Cache(Path(sys.argv[1]))
def work(folder):
    (folder / "out" / "a").write_text("a")
    print("works", flush=True)
    sys.stdin.read()
    return Run(0, 0, {})
with cache.using(sys.argv[3:]):
    cache.run(sys.argv[2], "files", (), work)
"""


def test_what_a_run_needs_or_works_on_is_never_dropped(bench: Bench) -> None:
    fill(bench, 4)
    command = [sys.executable, "-c", WORKS, str(bench.cache.folder), KEY, key_of(1), key_of(3)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = subprocess.Popen(command, **pipes)
    assert runs.stdout
    assert runs.stdout.readline() == "works\n"
    assert fit(bench.cache, 0, needed=[key_of(2)]) is not None
    assert kept(bench) == [1, 2, 3]
    collect(bench.cache, keep_bytes=0, older_than_seconds=0.0)
    assert kept(bench) == [1, 3]
    with pytest.raises(Refused, match=r"^0{12}: is in use by a run that goes on\n  Wait until"):
        remove(bench.cache, [key_of(3)])
    assert runs.communicate("", timeout=MOST_SECONDS)[0] == ""
    assert runs.returncode == 0, "its work folder and its lock were left alone"
    assert bench.cache.step_folder(KEY).exists()
    collect(bench.cache, keep_bytes=0)
    assert kept(bench) == [], "it is over: what it named is free"


def test_a_killed_run_keeps_nothing(bench: Bench) -> None:
    fill(bench, 1)
    command = [sys.executable, "-c", WORKS, str(bench.cache.folder), KEY, key_of(0)]
    runs = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert runs.stdout
    assert runs.stdout.readline() == "works\n"
    runs.kill()
    runs.communicate()
    swept = collect(bench.cache, keep_bytes=0)
    assert kept(bench) == []
    assert sorted(path.parent.name for path in swept.leftovers) == ["runs", "work"]


def test_a_lock_that_was_dropped_still_excludes(tmp_path: Path) -> None:
    """Who waited for a lock file that is gone now must not hold it beside a new one's holder."""
    lock, order = tmp_path / "lock", []

    def waits() -> None:
        order.append("waited")
        lock.unlink()
        first.close()

    first = lock.open("a+b")
    import fcntl

    fcntl.flock(first, fcntl.LOCK_EX)
    with locked(lock, waits):
        second = lock.open("a+b")
        with pytest.raises(BlockingIOError, match="unavailable"):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second.close()
    assert order == ["waited"]


MAKES = """
import sys
from pathlib import Path
from drupe.core.cache import Cache, Run
def work(folder):
    for name in range(20):
        (folder / "out" / str(name)).write_text(str(name))
    return Run(0, 0, {})
warnings = []
cache = Cache(Path(sys.argv[1]), warnings.append)
for number in range(6):
    cache.run(f"{int(sys.argv[2])}{number}".rjust(64, "0"), "files", (), work)
assert not warnings, warnings
"""


def test_runs_that_share_every_blob_and_housekeeping_at_once(tmp_path: Path) -> None:
    """Blobs are dropped under the hands of those who make results of them: no result is lost."""
    folder = tmp_path / "cache"
    folder.mkdir()
    command = [sys.executable, "-c", MAKES, str(folder)]
    both = [subprocess.Popen([*command, str(number)]) for number in (1, 2)]
    sweeps = 0
    while any(process.poll() is None for process in both):
        collect(Cache(folder), keep_bytes=None)
        sweeps += 1
    assert [process.returncode for process in both] == [0, 0]
    assert sweeps > 0
    verified = verify(Cache(folder))
    assert (verified.results, verified.damages) == (12, [])


def test_a_blob_may_be_dropped_as_soon_as_it_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the file has its blob's name, and no manifest names that."""
    swept: list[int] = []
    replace = os.replace

    def replace_and_sweep(source: Path, destination: Path) -> None:
        replace(source, destination)
        if "blobs" in str(destination):
            swept.append(len(collect(Cache(bench.cache.folder), dry_run=True).blobs))
            Path(destination).unlink()  # what a housekeeper does who saw it so

    monkeypatch.setattr(os, "replace", replace_and_sweep)
    made = bench.run()
    assert swept == [1, 1, 1]
    assert {name: data.decode() for name, data in tree(made.model.path).items()} == CONTENT


def test_a_blob_may_be_dropped_as_it_is_about_to_be_shared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run()
    link = os.link

    def sweep_and_link(source: Path, destination: Path) -> None:
        if "blobs" in str(source):
            Path(source).unlink(missing_ok=True)
        link(source, destination)

    monkeypatch.setattr(os, "link", sweep_and_link)
    made = bench.run(key=OTHER)
    assert {name: data.decode() for name, data in tree(made.model.path).items()} == CONTENT


@pytest.mark.parametrize("what", ["a housekeeper", "a run that begins"])
def test_who_comes_waits_for_the_housekeeper(what: str, bench: Bench) -> None:
    fill(bench, 1)
    done = threading.Event()

    def come() -> None:
        if what == "a housekeeper":
            collect(Cache(bench.cache.folder))
        else:
            with Cache(bench.cache.folder).using([KEY]):
                pass
        done.set()

    thread = threading.Thread(target=come)
    with locked(bench.cache.folder / "locks" / "housekeeping"):
        thread.start()
        assert not done.wait(0.1)
    assert done.wait(MOST_SECONDS)
    thread.join()


# rm


def test_remove_takes_the_first_digits(bench: Bench) -> None:
    bench.run()
    bench.run(key=OTHER)
    swept = remove(bench.cache, ["bb", "b" * 20])
    assert [entry.key for entry in swept.results] == [OTHER]
    assert [entry.key for entry in survey(bench.cache).entries] == [KEY]
    assert bench.run().hit


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("0", r'^"0": may be 0{12} \(\), 0{12} \(\)\n  Give more digits of the key\.$'),
        ("f", r'^"f": is the key of no result in this cache\n  drupe cache ls lists the keys\.$'),
    ],
)
def test_a_prefix_that_is_not_one_result_is_refused(prefix: str, words: str, bench: Bench) -> None:
    fill(bench, 2)
    with pytest.raises(Refused, match=words):
        remove(bench.cache, [prefix])
    assert kept(bench) == [0, 1]


# fit


def test_a_cache_that_fits_is_left_alone(bench: Bench) -> None:
    fill(bench, 2)
    left = leave_behind_blob(bench)
    assert fit(bench.cache, on_disk(bench), []) is None
    assert left.exists()


def leave_behind_blob(bench: Bench) -> Path:
    blob = bench.cache.folder / "blobs" / "ab" / ("c" * 62)
    blob.parent.mkdir(exist_ok=True)
    blob.write_text("b" * 30)
    return blob


def test_what_is_needed_stays_however_large(bench: Bench) -> None:
    fill(bench, 3)
    swept = fit(bench.cache, 10, [key_of(2)])
    assert isinstance(swept, Sweep)
    assert kept(bench) == [2]
    assert swept.left_bytes == 1500


# verify


def flip_keeping_size_and_time(bench: Bench) -> None:
    before = bench.weights.stat()
    write(bench.weights, b"X123456789abcdef")
    os.utime(bench.weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_hit_does_not_see_what_keeps_size_and_time_and_verify_does(bench: Bench) -> None:
    bench.run()
    flip_keeping_size_and_time(bench)
    assert bench.run().hit, "the honest limit of a hit: no byte is read"
    found = verify(bench.cache).damages
    digest = json.loads((bench.step / "manifest").read_text())["files"]["weights"]
    assert found == [
        Damage("result", KEY, "weights has changed since it was made"),
        Damage("blob", digest, "has changed since it was made"),
    ]
    assert repair(bench.cache, found) == []
    assert verify(bench.cache).damages == []
    assert not bench.run().hit
    assert tree(bench.weights.parent)["weights"] == b"0123456789abcdef"
    assert verify(bench.cache).damages == []


def forge_parts(bench: Bench) -> None:
    rewrite_manifest(bench, parts={"operation": "Other"})


FOUND: dict[str, tuple[Callable[[Bench], object], str]] = {
    "halved": (lambda bench: write(bench.weights, b"01234567"), "weights has changed"),
    "deleted": (lambda bench: bench.weights.unlink(), "weights is missing"),
    "manifest cut": (lambda bench: write(bench.step / "manifest", b"{"), "cannot be read"),
    "manifest gone": (lambda bench: (bench.step / "manifest").unlink(), "is missing"),
    "manifest edited": (
        lambda bench: write(
            bench.step / "manifest",
            (bench.step / "manifest").read_bytes().replace(b'"loss":1.5', b'"loss":9.5'),
        ),
        "its manifest has changed since it was made",
    ),
    "another's": (lambda bench: rewrite_manifest(bench, key=OTHER), "is another step's"),
    "forged": (forge_parts, "its key is not that of what it was made of"),
    "link out": (
        lambda bench: (bench.step / "files" / "more").symlink_to("/etc/hostname"),
        "which lies outside",
    ),
}


@pytest.mark.parametrize("harm", FOUND)
def test_verify_finds_and_repair_drops(harm: str, bench: Bench) -> None:
    change, words = FOUND[harm]
    bench.run(key=OTHER)
    bench.content = {"weights": "others"}
    bench.run()
    assert verify(bench.cache).damages == []
    change(bench)
    found = verify(bench.cache).damages
    assert [damage.name for damage in found if damage.what == "result"] == [KEY]
    assert words in found[0].fault
    assert repair(bench.cache, found) == []
    assert not bench.step.exists()
    assert verify(bench.cache).damages == []
    assert bench.run(key=OTHER).hit


def test_verify_reads_what_has_several_names_once(bench: Bench) -> None:
    fill(bench, 3)
    verified = verify(bench.cache)
    assert (verified.results, verified.blobs) == (3, 4)
    assert verified.read_bytes == on_disk(bench)


def test_what_is_in_use_is_not_repaired(bench: Bench) -> None:
    bench.run()
    flip_keeping_size_and_time(bench)
    found = verify(bench.cache).damages
    with bench.cache.using([KEY]):
        assert repair(bench.cache, found) == found[:1]
    assert bench.step.exists()


# The manifest


def test_the_parts_of_a_key_are_kept(bench: Bench) -> None:
    parts = {"operation": "Reverse", "version": 1, "parents": []}
    bench.run(key=value_digest(parts), parts=parts)
    manifest = Manifest.read(bench.cache.step_folder(value_digest(parts)))
    assert (manifest.parts, manifest.operation) == (parts, "Reverse")
    assert verify(bench.cache).damages == []


def test_a_seal_holds_for_what_json_writes_otherwise() -> None:
    value = {"numbers": {2: 0.1, 10: 1e300}, "text": "\u00e9\u2028"}
    written = json.loads(sealed(value))
    assert sealed({key: item for key, item in written.items() if key != "seal"}) == canonical_json(
        written
    )


def test_a_cache_without_hard_links(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result is a copy then, and the sizes tell it."""

    def refuse(*names: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    fill(bench, 2)
    stock = survey(bench.cache)
    assert stock.total_bytes == on_disk(bench) == 2 * 1500 + 2 * 1000 + 500
    assert verify(bench.cache).damages == []
    swept = collect(bench.cache, keep_bytes=3000)
    assert kept(bench) == [0]
    assert swept.left_bytes == on_disk(bench) == 3000
