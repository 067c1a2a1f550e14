"""Names to classes: unknown, broken and doubled ones are told by name."""

from __future__ import annotations

import importlib.metadata
import os
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import drupe_toys
import pytest

from drupe.catalog import METRICS, PASSES, find
from drupe.core.errors import Refused
from drupe.core.operation import Metric, Pass
from drupe.core.registry import Registry


def install(folder: Path, name: str, entry_points: str, code: str = "") -> None:
    """Lay out a distribution as pip would, with one module beside it."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[drupe.fruits]\n{entry_points}\n")
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


FRUITS = Registry("fruits", {"Plum": "drupe_toys:Reverse"})


def test_a_built_in_is_found_without_a_look_at_plug_ins(place: Path) -> None:
    install(place, "broken_fruit", "Plum = broken_fruit:Plum")
    assert FRUITS.find("Plum") is drupe_toys.Reverse


def test_a_plug_in_is_found(place: Path) -> None:
    install(place, "fruit_a", "Cherry = fruit_a:Cherry", "class Cherry: ...")
    assert FRUITS.find("Cherry").__name__ == "Cherry"
    assert FRUITS.names() == ["Plum", "Cherry"]


def test_what_is_installed_meanwhile_is_found_and_the_rest_not_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook installs a plug-in and goes on; a run asks for names a dozen times."""
    read, asked = importlib.metadata.entry_points, []

    def counted(*, group: str) -> Any:
        asked.append(group)
        return read(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    assert [FRUITS.names() for _ in range(3)] == [["Plum"]] * 3
    assert asked == ["drupe.fruits"]
    install(place, "fruit_e", "Quince = fruit_e:Quince", "class Quince: ...")
    os.utime(place, (2e9, 2e9))  # the clock of a disk may be too coarse to tell
    assert [FRUITS.names() for _ in range(3)] == [["Plum", "Quince"]] * 3
    assert len(asked) == 2


def test_the_toys_are_registered() -> None:
    assert distribution("drupe-toys")
    assert PASSES.find("Reverse") is drupe_toys.Reverse
    assert find("metrics", "Length") is drupe_toys.Length


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    words = (
        r'^Plumm: is not one of drupe\'s fruits; did you mean "Plum"\?\n'
        r"  Known: Plum\. Others come with plug-ins, by entry points in the group "
        r'"drupe\.fruits"\.$'
    )
    with pytest.raises(Refused, match=words):
        FRUITS.find("Plumm")


def test_an_unknown_name_that_is_near_to_none_is_told_without() -> None:
    with pytest.raises(Refused, match=r"^Xyz: is not one of drupe's fruits\n"):
        FRUITS.find("Xyz")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('out of season')", "out of season"),
        ("", "has no attribute 'Peach'"),
    ],
)
def test_a_plug_in_that_fails_to_import_is_named(code: str, fault: str, place: Path) -> None:
    name = f"fruit_{len(code)}"
    install(place, name, f"Peach = {name}:Peach", code)
    words = (
        rf"^Peach: comes from {name} \({name}:Peach\), which fails to import: .*{fault}"
        rf"\n  Mend or uninstall {name}\.$"
    )
    with pytest.raises(Refused, match=words):
        FRUITS.find("Peach")


def test_a_name_that_two_plug_ins_register_is_refused(place: Path) -> None:
    install(place, "fruit_b", "Olive = fruit_b:Olive")
    install(place, "fruit_c", "Olive = fruit_c:Olive")
    words = r"^Olive: is registered by fruit_\w:Olive and by fruit_\w:Olive\n  Uninstall one"
    with pytest.raises(Refused, match=words):
        FRUITS.find("Olive")


def test_a_name_of_ours_that_a_plug_in_registers_is_refused_in_the_list(place: Path) -> None:
    install(place, "fruit_d", "Plum = fruit_d:Plum")
    with pytest.raises(Refused, match=r"^Plum: is registered by fruit_d:Plum and by drupe itself"):
        FRUITS.names()


def test_every_built_in_is_there_and_is_what_it_says() -> None:
    for name in PASSES.names():
        found = PASSES.find(name)
        assert issubclass(found, Pass)
        assert (found.__doc__ or "").strip(), name
    for name in METRICS.names():
        assert issubclass(METRICS.find(name), Metric)
