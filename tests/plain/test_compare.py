"""drupe compare and drupe ls: what output folders tell, without their models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from drupe.cli import compare, main
from drupe.cli.compare import compared, differing, made
from drupe.core.errors import Refused
from drupe.outcome import Score
from drupe.output import ITEMS, REPORT, items
from tests.plain.conftest import Workspace

FIRST = [["a", "a"]] * 30 + [["b", "a"]] * 70
SECOND = [["a", "a"]] * 90 + [["b", "a"]] * 10


def measured(folder: Path, rows: list[list[str]], asked: str = "the rows") -> None:
    """Write into an output folder that its model was asked these rows."""
    report = json.loads((folder / REPORT).read_text())
    share = sum(one == truth for one, truth in rows) / len(rows)
    score = {"metric": "accuracy", "value": share, "low": share - 0.1, "high": share + 0.1}
    score |= {"sub_types": {"accuracy_score": {"value": share}, "auroc": {"value": 0.7}}}
    report["stages"][-1]["scores"] = {"accuracy": score}
    (folder / REPORT).write_text(json.dumps(report))
    found = {"accuracy": {"how": "answers", "rows": asked, "items": rows}}
    (folder / ITEMS).write_text(json.dumps({"drupe": "0", "items": found}))


@pytest.fixture
def outputs(workspace: Workspace) -> Path:
    workspace.run(output=str(workspace.folder / "a"))
    workspace.passes(back={"type": "Reverse"}, more={"type": "Append", "text": "?"})
    workspace.config["engine"]["cache_quota"] = "1GB"
    workspace.run(output=str(workspace.folder / "b"))
    measured(workspace.folder / "a", FIRST)
    measured(workspace.folder / "b", SECOND)
    return workspace.folder


def test_what_two_configs_say_otherwise() -> None:
    first = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    second = {"a": {"b": 2, "c": [1, 3]}, "e": None, "f": 2}
    assert list(differing(first, second)) == [
        ("a.b", 1, 2),
        ("a.c[1]", 2, 3),
        ("d", 1, None),
        ("f", None, 2),
    ]
    assert list(differing({"a": [1]}, {"a": [1, 2]})) == [("a", [1], [1, 2])]


def test_numbers_are_compared_row_by_row(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(outputs / "a"), str(outputs / "b")]) == 0
    told = capsys.readouterr().out
    assert "passes.more.text" in told
    assert "engine.cache_quota" in told
    row = next(line for line in told.splitlines() if line.startswith("accuracy "))
    assert "+60.0 points [+48.9," in row
    assert "30.0 % (20.0-40.0)" in row
    assert "90.0 % (80.0-100.0)" in row
    assert "0.7 (no interval)" in told
    assert "not paired" in told


def test_other_rows_are_told_apart(outputs: Path) -> None:
    measured(outputs / "b", SECOND, "other rows")
    found = list(compared(made(outputs / "a"), made(outputs / "b")))
    assert [each.name for each in found] == ["accuracy", "accuracy auroc"]
    assert found[0].found is None
    (outputs / "b" / ITEMS).unlink()
    assert next(compared(made(outputs / "a"), made(outputs / "b"))).found is None


def test_numbers_of_several_tasks_are_compared(outputs: Path) -> None:
    for name, values in (("a", [0.0, 1.0, 0.0]), ("b", [1.0, 1.0, 0.0])):
        folder = outputs / name
        report = json.loads((folder / REPORT).read_text())
        numbers = {"t.acc": {"value": sum(values) / 3}, "u.acc": {"value": 0.5}}
        report["stages"][-1]["scores"] = {"lm_eval": {"metric": "lm_eval", "sub_types": numbers}}
        (folder / REPORT).write_text(json.dumps(report))
        rows = {"how": {"t.acc": "mean"}, "rows": "r", "items": {"t.acc": [[v, 1] for v in values]}}
        (folder / ITEMS).write_text(json.dumps({"drupe": "0", "items": {"lm_eval": rows}}))
    found = {each.name: each for each in compared(made(outputs / "a"), made(outputs / "b"))}
    assert list(found) == ["lm_eval t.acc", "lm_eval u.acc"]
    difference = found["lm_eval t.acc"].found
    assert difference is not None
    assert difference.value == pytest.approx(1 / 3)
    assert found["lm_eval u.acc"].found is None


def test_as_json(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(outputs / "a"), str(outputs / "b"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"path": "passes.more.text", "a": "!", "b": "?"} in told["config"]
    assert told["numbers"][0]["difference"]["value"] == 0.6
    assert told["numbers"][1]["difference"] is None


def test_a_folder_that_no_run_wrote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"holds no result of drupe \(report.json and config.lock"):
        compare.made(tmp_path)


# What a run writes


def test_a_run_writes_what_each_row_gave(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "ends"
    outcome = workspace.run()
    assert not (workspace.output / ITEMS).exists(), "Length tells of no rows"
    score = Score.from_json({"metric": "accuracy", "value": 0.3, "paired": "answers"})
    last = dataclasses.replace(outcome.final, scores={"length": score}, answers={"length": FIRST})
    found = items(dataclasses.replace(outcome, stages=(*outcome.stages[:-1], last)))
    assert found["length"]["items"] == FIRST
    assert len(found["length"]["rows"]) == 64


def test_what_each_row_gave_is_written_unless_the_data_are_private(
    outputs: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"accuracy": {"how": "answers", "rows": "r", "items": FIRST}}
    monkeypatch.setattr("drupe.output.items", lambda outcome: found)
    workspace.run()
    assert json.loads((workspace.output / ITEMS).read_text())["items"] == found
    workspace.run(settings=("engine.no_samples=true",))
    assert not (workspace.output / ITEMS).exists()
    (workspace.output / ITEMS).write_text("[1, 2]")
    with pytest.raises(Refused, match="was not written by drupe"):
        workspace.run()
    assert (workspace.output / ITEMS).read_text() == "[1, 2]"


# ls


def test_what_was_made_is_listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(outputs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["output", "from", "passes", "size", "measured", "written"]
    assert sorted(line.split()[0] for line in lines[1:]) == ["a", "b"]
    assert "accuracy 30.0 % (20.0-40.0)" in "\n".join(lines)
    assert main(["ls", str(outputs), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {each["output"] for each in told} == {"a", "b"}
    assert told[0]["passes"] == ["back", "more"]


def test_an_empty_folder_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / REPORT).write_text('{"drupe": "0.1"}')
    assert main(["ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Nothing that drupe made lies in {tmp_path}.\n"
    assert main(["ls", str(tmp_path / "absent")]) == 2
    assert "is no folder that is there" in capsys.readouterr().err
