"""The main job on toy passes: what runs, what is found, what is delivered."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from drupe import plan
from drupe.config.load import load
from drupe.core.errors import Refused
from drupe.core.target import Target
from drupe.output import repair, write_output
from tests.plain.conftest import Workspace, tree


def read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text())
    return value


@pytest.fixture
def measured(workspace: Workspace) -> Workspace:
    workspace.config["engine"]["evaluate"] = "every-step"
    return workspace


def test_the_whole_job(measured: Workspace) -> None:
    outcome = measured.run()
    everything = ["input model: length", "back", "back: length", "more", "more: length"]
    assert measured.heard.ran == measured.heard.finished_steps == everything
    assert [stage.name for stage in outcome.stages] == ["input model", "back", "more"]
    assert [stage.scores["length"].value for stage in outcome.stages] == [8, 8, 10]
    assert outcome.final.facts == {"appended": 1}
    assert outcome.scores["length"].value == 10
    assert {"event": "note", "text": "appending 1 characters"} in measured.heard.events

    # The output folder, file by file.
    model = "back-more/cpu-cpu_model"
    assert outcome.path == measured.output / model
    delivered = tree(measured.output)
    assert set(delivered) == {
        "report.html", "report.json", "config.lock.json",
        f"{model}/a.txt", f"{model}/b.txt", f"{model}/README.md",
    }  # fmt: skip
    assert delivered[f"{model}/a.txt"] == b"eno!"
    assert delivered[f"{model}/b.txt"] == b"eerht!"
    for name, data in delivered.items():
        assert str(measured.folder) not in data.decode(), f"a path of the machine in {name}"
    report = read(measured.output / "report.json")
    assert (report["format"], report["model"], report["config"]) == (1, model, "config.json")
    assert [stage["name"] for stage in report["stages"]] == ["input model", "back", "more"]
    lock = read(measured.output / "config.lock.json")
    assert lock["steps"] == {step.name: step.key for step in outcome.plan.steps}
    assert lock["config"]["passes"] == measured.config["passes"]

    # Again: all is found, and nothing is written.
    before = {file: file.stat().st_mtime_ns for file in measured.output.rglob("*")}
    measured.run()
    assert measured.heard.ran == []
    assert measured.heard.finished_steps == everything
    assert {file: file.stat().st_mtime_ns for file in measured.output.rglob("*")} == before

    # A file of the result that was lost is delivered anew; one that was edited is the user's.
    (measured.output / model / "a.txt").write_text("edited")
    measured.run()
    assert (measured.output / model / "a.txt").read_text() == "edited"
    (measured.output / model / "b.txt").unlink()
    measured.run()
    assert tree(measured.output).keys() == delivered.keys()
    assert (measured.output / model / "b.txt").read_bytes() == b"eerht!"

    # A changed field re-runs what follows on it, and the output follows.
    measured.config["passes"]["more"]["text"] = "??"
    assert measured.run().scores["length"].value == 12
    assert measured.heard.ran == ["more", "more: length"]
    assert (measured.output / model / "a.txt").read_bytes() == b"eno??"

    # What is in the cache is worked again when that is asked for.
    measured.run(force=True)
    assert measured.heard.ran == everything
    assert measured.heard.warnings == []


def test_a_damaged_result_is_made_anew_with_a_warning(workspace: Workspace) -> None:
    outcome = workspace.run()
    file = outcome.stages[1].model.path / "a.txt"
    file.chmod(0o644)
    file.write_text("xxx")
    again = workspace.run()
    assert workspace.heard.ran == ["back"], "its bytes are the same again: the next is found"
    assert len(workspace.heard.warnings) == 1
    assert "a.txt has changed since it was made. It is made anew." in workspace.heard.warnings[0]
    assert again.final.model.digest == outcome.final.model.digest


def test_without_a_pass_the_input_is_measured_and_nothing_delivered(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    workspace.passes()
    outcome = workspace.run()
    assert outcome.scores["length"].value == 8
    assert set(tree(workspace.output)) == {"report.html", "report.json", "config.lock.json"}


def test_a_foreign_output_folder_is_refused_before_any_work(workspace: Workspace) -> None:
    place = workspace.output / "back-more" / "cpu-cpu_model"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match=r"is not empty, and was not written by drupe .*\n  Move it"):
        workspace.run()
    assert (place / "thesis.txt").read_text() == "years of work"
    assert not workspace.cache.exists()


def test_a_kill_between_model_and_report_locks_nobody_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is written before the model, so that the next run knows its own folder."""
    outcome = workspace.run()
    (workspace.output / "report.json").unlink()
    assert workspace.run().final == outcome.final
    assert (workspace.output / "report.json").exists()

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("drupe.output.deliver", full_disk)
    for file in tree(workspace.output):
        (workspace.output / file).unlink()
    with pytest.raises(OSError, match="No space left"):
        write_output(outcome, lambda text: None)
    assert set(tree(workspace.output)) == {"config.lock.json"}


def test_people_keep_their_edits_and_damage_is_mended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that differs was edited; another file that differs, or is gone, is delivered."""
    workspace.passes(copy={"type": "Append", "text": ""})
    monkeypatch.setattr("drupe.output.EDITABLE", (".txt",))
    outcome = workspace.run()
    assert outcome.path is not None
    (text,) = sorted(outcome.path.glob("*.txt"))[:1]
    text.write_text("edited")
    told: list[str] = []
    repair(outcome.final.model.path, outcome.path, told.append)
    assert text.read_text() == "edited"
    assert told == [f"{text} differs from what was delivered, and is left as it is."]
    monkeypatch.setattr("drupe.output.EDITABLE", ())
    repair(outcome.final.model.path, outcome.path, told.append)
    assert told[1:] == [f"{text} was lost or damaged, and is delivered again."]
    assert text.read_bytes() == (outcome.final.model.path / text.name).read_bytes()
    text.unlink()
    repair(outcome.final.model.path, outcome.path, told.append)
    assert text.exists()


@pytest.mark.parametrize("name", ["report.json", "report.html", "config.lock.json"])
def test_somebody_elses_report_is_not_replaced(name: str, workspace: Workspace) -> None:
    workspace.output.mkdir()
    (workspace.output / name).write_text('{"mine": 1}')
    with pytest.raises(Refused, match=r"is there, and was not written by drupe\n  Move it away"):
        workspace.run()
    assert (workspace.output / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("key", ["output_dir", "cache_dir"])
def test_a_folder_that_is_a_file_is_refused_before_any_work(
    key: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("mine")
    workspace.config["engine"][key] = str(tmp_path / "a file")
    with pytest.raises(
        Refused, match=rf"^config\.json:\d+: engine.{key}: is .*a file, but .*a file is a file\n"
    ):
        workspace.run()
    assert (tmp_path / "a file").read_text() == "mine"


def test_threads_of_the_target_make_no_result_anew(workspace: Workspace) -> None:
    """How many cores the planning machine has is no part of what was measured."""
    workspace.config["engine"]["evaluate"] = "every-step"
    workflow = load(workspace.write())
    slow = dataclasses.replace(workflow, target=Target(threads=1))
    fast = dataclasses.replace(workflow, target=Target(threads=8))
    keys = [[step.key for step in plan.make(each).steps] for each in (slow, fast)]
    assert keys[0] == keys[1]


def test_the_output_may_be_named(workspace: Workspace, tmp_path: Path) -> None:
    workspace.passes()
    outcome = workspace.run(output=str(tmp_path / "named"))
    assert outcome.path is None
    assert str(tmp_path) not in (tmp_path / "named" / "config.lock.json").read_text()
