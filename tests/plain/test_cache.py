"""The cache: what is a hit, what is made anew, and what is in a manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drupe.core import cache as cache_module
from drupe.core.cache import Cache, Result, Run
from drupe.core.digest import file_digest, sealed
from drupe.core.errors import DrupeError
from drupe.core.files import remove_tree
from drupe.core.model import Model
from tests.plain.conftest import tree
from tests.waiting import MOST_SECONDS

KEY, OTHER = "a" * 64, "b" * 64
CONTENT = {"config.json": "{}", "weights": "0123456789abcdef", "sub/part": "part"}


class Bench:
    """A cache, and a step that is counted each time it works."""

    def __init__(self, folder: Path) -> None:
        self.warnings: list[str] = []
        self.cache = Cache(folder, self.warnings.append)
        self.worked = 0
        self.content: dict[str, str] = dict(CONTENT)
        self.facts: dict[str, Any] = {"loss": 1.5}

    def work(self, folder: Path) -> Run:
        self.worked += 1
        for name, text in self.content.items():
            file = folder / "out" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Run(seconds=1.23456, peak_bytes=5, facts=self.facts)

    def run(self, key: str = KEY, parents: tuple[str, ...] = ("p",), **more: Any) -> Result:
        return self.cache.run(key, "files", parents, self.work, **more)

    @property
    def step(self) -> Path:
        return self.cache.folder / "steps" / KEY

    @property
    def weights(self) -> Path:
        return self.step / "files" / "weights"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "cache")


def test_made_once_and_found_again(bench: Bench) -> None:
    made, found = bench.run(), bench.run()
    assert (made.hit, found.hit, bench.worked, bench.warnings) == (False, True, 1, [])
    assert {name: data.decode() for name, data in tree(found.model.path).items()} == CONTENT
    assert found.model.kind == "files"
    assert found.facts == {"loss": 1.5}
    assert found.size_bytes == sum(map(len, CONTENT.values()))


def test_what_is_told_when_made_is_told_when_found(bench: Bench) -> None:
    """Else a report would differ between the first run and the second."""
    made, found = bench.run(), bench.run()
    assert (made.seconds, made.peak_bytes, made.facts) == (1.235, 5, {"loss": 1.5})
    assert made.model == found.model
    assert (found.seconds, found.peak_bytes) == (made.seconds, made.peak_bytes)


def test_reading_creates_nothing(bench: Bench) -> None:
    assert bench.cache.find(KEY, "files", ("p",)) is None
    bench.cache.save_digests()
    assert not bench.cache.folder.exists()
    bench.run()
    before = {file: file.stat().st_mtime_ns for file in bench.cache.folder.rglob("*")}
    assert bench.cache.find(KEY, "files", ("p",)) is not None
    assert bench.cache.find(OTHER, "files", ("p",)) is None
    assert {file: file.stat().st_mtime_ns for file in bench.cache.folder.rglob("*")} == before


def write(file: Path, data: bytes) -> None:
    """Write what is read-only, in place: every link sees it."""
    file.chmod(0o644)
    file.write_bytes(data)


def rewrite_manifest(bench: Bench, **changes: Any) -> None:
    """Write what another drupe would have written: the seal fits."""
    manifest = json.loads((bench.step / "manifest").read_text()) | changes
    del manifest["seal"]
    kept = {name: value for name, value in manifest.items() if value is not None}
    (bench.step / "manifest").write_bytes(sealed(kept))


def edit_manifest(bench: Bench) -> None:
    text = (bench.step / "manifest").read_text()
    (bench.step / "manifest").write_text(text.replace('"loss":1.5', '"loss":1.4'))


HARM: dict[str, tuple[Callable[[Bench], object], str]] = {
    "flipped byte": (
        lambda bench: write(bench.weights, b"X123456789abcdef"),
        "weights has changed since it was made",
    ),
    "halved": (
        lambda bench: write(bench.weights, b"01234567"),
        "weights has changed since it was made",
    ),
    "emptied": (
        lambda bench: write(bench.weights, b""),
        "weights has changed since it was made",
    ),
    "deleted": (lambda bench: bench.weights.unlink(), "weights is missing"),
    "foreign": (
        lambda bench: (bench.step / "files" / "more").write_text("?"),
        "more is foreign",
    ),
    "link that leads out": (
        lambda bench: (bench.step / "files" / "more").symlink_to("/etc/hostname"),
        "which lies outside",
    ),
    "link to itself": (
        lambda bench: (bench.weights.unlink(), bench.weights.symlink_to("weights")),
        "weights is ",  # a link to itself, or missing: Python 3.13 sees no file there
    ),
    "manifest cut": (
        lambda bench: write(bench.step / "manifest", (bench.step / "manifest").read_bytes()[:99]),
        "its manifest cannot be read (Unterminated string",
    ),
    "manifest empty": (
        lambda bench: write(bench.step / "manifest", b""),
        "its manifest cannot be read (Expecting value",
    ),
    "manifest no text": (
        lambda bench: write(bench.step / "manifest", b"\xff\xfe\x00"),
        "its manifest cannot be read (",
    ),
    "manifest a list": (
        lambda bench: write(bench.step / "manifest", b"[]"),
        "its manifest is not one that drupe writes",
    ),
    "manifest too deep": (
        lambda bench: write(bench.step / "manifest", b"[" * 100_000),
        "its manifest cannot be read (",
    ),
    "manifest a folder": (
        lambda bench: ((bench.step / "manifest").unlink(), (bench.step / "manifest").mkdir()),
        "its manifest cannot be read (",
    ),
    "manifest without files": (
        lambda bench: rewrite_manifest(bench, files=None),
        "its manifest is not one that drupe writes",
    ),
    "manifest without facts": (
        lambda bench: rewrite_manifest(bench, facts=None),
        "its manifest is not one that drupe writes",
    ),
    "manifest edited": (edit_manifest, "its manifest has changed since it was made"),
    "older format": (
        lambda bench: rewrite_manifest(bench, format=1),
        "it is of format 1, not 3",
    ),
    "newer format": (
        lambda bench: rewrite_manifest(bench, format=4),
        "it is of format 4, not 3",
    ),
    "a file for a folder": (
        lambda bench: (remove_tree(bench.step), bench.step.write_text("?")),
        "its manifest cannot be read (",
    ),
    "files a file": (
        lambda bench: (remove_tree(bench.step / "files"), (bench.step / "files").write_text("?")),
        "config.json is missing",
    ),
    "another step's": (
        lambda bench: rewrite_manifest(bench, key=OTHER),
        "its manifest is another step's",
    ),
    "other kind": (
        lambda bench: rewrite_manifest(bench, kind="hf"),
        "its manifest is another step's",
    ),
    "other parents": (
        lambda bench: rewrite_manifest(bench, parents=["q"]),
        "it was made from other bytes of the step before it",
    ),
    "no files": (
        lambda bench: (bench.step / "files").rename(bench.step / "lost"),
        "config.json is missing",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_not_sound_is_never_used(harm: str, bench: Bench) -> None:
    change, words = HARM[harm]
    bench.run()
    change(bench)
    again = bench.run()
    assert (again.hit, bench.worked) == (False, 2)
    assert len(bench.warnings) == 1, "told once, however often it is asked"
    assert bench.warnings[0].startswith(f"The cached result {KEY[:12]} is not used: ")
    assert words in bench.warnings[0]
    assert bench.warnings[0].endswith(". It is made anew.")
    assert {name: data.decode() for name, data in tree(again.model.path).items()} == CONTENT
    assert bench.run().hit


def test_other_parents_are_a_miss(bench: Bench) -> None:
    bench.run()
    assert not bench.run(parents=("q",)).hit
    assert "other bytes of the step before it" in bench.warnings[0]


@pytest.mark.parametrize("marks", [None, b"", b"{", b"[]", b"{}", b'{"weights": "1:2:3:4"}'])
def test_marks_that_are_lost_cost_a_reading_and_no_more(marks: bytes | None, bench: Bench) -> None:
    bench.run()
    if marks is None:
        (bench.step / "marks").unlink()
    else:
        write(bench.step / "marks", marks)
    assert bench.run().hit
    assert bench.warnings == []
    assert set(json.loads((bench.step / "marks").read_text())) == set(CONTENT)


def test_marks_that_cannot_be_renewed_are_no_end_of_a_run(bench: Bench) -> None:
    bench.run()
    (bench.step / "marks").unlink()
    (bench.step / "marks").mkdir()
    assert bench.run().hit
    assert bench.warnings == []


def test_a_touch_without_a_change_is_still_a_hit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run()
    os.utime(bench.weights, (1, 1))
    read: list[Path] = []
    monkeypatch.setattr(
        cache_module, "file_digest", lambda file: (read.append(file), file_digest(file))[1]
    )
    assert bench.run().hit
    assert read == [bench.weights], "only what was touched is read"
    assert bench.run().hit
    assert len(read) == 1, "its new mark is kept"


def test_a_cache_that_was_copied_elsewhere_is_a_hit(bench: Bench, tmp_path: Path) -> None:
    made = bench.run()
    subprocess.run(["cp", "-r", bench.cache.folder, tmp_path / "copy"], check=True)
    found = Cache(tmp_path / "copy").find(KEY, "files", ("p",))
    assert found is not None
    assert found.model.digest == made.model.digest


def test_force_works_again_from_the_start(bench: Bench) -> None:
    bench.run()
    scratch = bench.cache.work_folder(KEY) / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "checkpoint").write_text("half")

    def work(folder: Path) -> Run:
        assert not (folder / "scratch" / "checkpoint").exists()
        return bench.work(folder)

    assert not bench.cache.run(KEY, "files", ("p",), work, force=True).hit
    assert bench.worked == 2


def test_a_failed_step_leaves_its_scratch_alone(bench: Bench) -> None:
    def fail(folder: Path) -> Run:
        (folder / "out" / "half").write_text("half")
        (folder / "scratch").mkdir()
        (folder / "scratch" / "checkpoint").write_text("10")
        raise DrupeError("step", "failed", "Mend it.")

    with pytest.raises(DrupeError, match="step: failed"):
        bench.cache.run(KEY, "files", ("p",), fail)
    assert bench.cache.find(KEY, "files", ("p",)) is None
    left = tree(bench.cache.folder)
    assert set(left) == {f"locks/{KEY}", f"work/{KEY}/scratch/checkpoint"}
    assert bench.run().hit is False
    assert tree(bench.cache.folder / "work") == {}


def test_what_a_killed_step_had_written_is_no_part_of_the_next(bench: Bench) -> None:
    out = bench.cache.work_folder(KEY) / "out"
    out.mkdir(parents=True)
    (out / "half").write_text("half")
    assert "half" not in tree(bench.run().model.path)


def test_results_are_read_only_blobs_that_steps_share(bench: Bench) -> None:
    one, other = bench.run(), bench.run(key=OTHER)
    blobs = [file for file in (bench.cache.folder / "blobs").rglob("*") if file.is_file()]
    assert len(blobs) == len(CONTENT)
    for blob in blobs:
        assert blob.stat().st_mode & 0o222 == 0
        assert blob.parent.name + blob.name == file_digest(blob)
    for name in CONTENT:
        assert (one.model.path / name).samefile(other.model.path / name)
    assert one.model.digest == other.model.digest


def test_a_blob_that_rotted_is_not_shared(bench: Bench) -> None:
    bench.run()
    write(bench.weights, b"X123456789abcdef")
    assert tree(bench.run(key=OTHER).model.path)["weights"] == b"0123456789abcdef"


def test_equal_files_and_inner_links_are_kept_as_files(bench: Bench) -> None:
    def work(folder: Path) -> Run:
        (folder / "out" / "b").write_text("same")
        (folder / "out" / "c").write_text("same")
        (folder / "out" / "a").symlink_to("b")
        (folder / "out" / "d").symlink_to("c")
        return Run(0, 0, {})

    made = bench.cache.run(KEY, "files", (), work)
    assert tree(made.model.path) == dict.fromkeys("abcd", b"same")
    assert not any(file.is_symlink() for file in made.model.path.iterdir())


def test_no_path_and_no_secret_in_a_manifest(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bench.run()
    for name in ("manifest", "marks"):
        text = (bench.step / name).read_text()
        assert str(tmp_path) not in text
        assert "hf_secret" not in text
    manifest = json.loads((bench.step / "manifest").read_text())
    assert set(manifest) == {
        "facts", "files", "format", "key", "kind", "machine", "made", "parents", "parts",
        "peak_bytes", "seal", "seconds",
    }  # fmt: skip


def test_an_adapters_base_is_handed_on(bench: Bench, tmp_path: Path) -> None:
    base = Model("hf", tmp_path, "d")
    assert bench.run(base=base).model.base == base
    assert bench.run(base=base).model.base == base


TWO = """
import sys, time
from pathlib import Path
from drupe.core.cache import Cache, Run

def work(folder):
    print("works", flush=True)
    time.sleep(0.5)
    (folder / "out" / "a").write_text("a")
    return Run(0.5, 0, {})

print("hit" if Cache(Path(sys.argv[1])).run("k" * 64, "files", (), work).hit else "made")
"""


def test_of_two_processes_with_one_key_one_works_and_one_waits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO, str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = sorted(process.communicate(timeout=MOST_SECONDS)[0].split() for process in both)
    assert told == [["hit"], ["works", "made"]]
