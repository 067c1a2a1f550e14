"""A run for programs: one JSON object at the end, one a line while it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import main
from drupe.cli.events import KEPT
from tests.plain.conftest import Workspace, tree

Captured = pytest.CaptureFixture[str]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_gives_one_object_and_its_events(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    done = workspace.drupe("run", "config.json", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit"], done.stdout.count("\n")) == (0, 0, 1)
    assert [stage["name"] for stage in told["stages"]] == ["input model", "back", "more"]
    assert told["stages"][-1]["scores"]["length"]["value"] == 10
    assert (Path(told["output"]) / "a.txt").read_text() == "eno!"
    assert told["page"] == str(workspace.output / "report.html")
    assert Path(told["page"]).is_file()
    assert "✓ more" in done.stderr
    assert "\x1b" not in done.stderr
    events = lines(Path(told["events"]))
    assert events[0]["event"] == "planned"
    assert events[-1] == events[-1] | {
        "event": "delivered",
        "output": told["output"],
        "page": told["page"],
    }
    more = [event["event"] for event in events if event.get("step") == "more"]
    assert more == ["started", "note", "finished"]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_a_failed_run_gives_its_error(workspace: Workspace, capsys: Captured) -> None:
    workspace.passes(back={"type": "Reverse"}, broken={"type": "Breaks", "how": "error"})
    assert main(["run", str(workspace.write()), "--json"]) == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    error = {"where": "Breaks, Breaks.how", "what": "is error", "remedy": "Choose another."}
    assert (told["error"], told["exit"]) == (error, 1)
    assert "drupe: Breaks, Breaks.how: is error\n  Choose another.\n" in shown.err
    last = lines(Path(told["events"]))[-1]
    assert (last["event"], last["error"], last["exit"]) == ("failed", error, 1)


def test_a_fault_of_the_config_is_told_one_by_one(workspace: Workspace, capsys: Captured) -> None:
    workspace.passes(back={"type": "Revers"}, more={"type": "Append", "txt": "!"})
    before = tree(workspace.folder)
    file = workspace.write()
    assert main(["run", str(file), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["exit"], told["events"], told["error"]["what"]) == (2, None, "2 faults")
    first, second = told["error"]["faults"]
    assert 'did you mean "Reverse"?' in first["what"]
    assert 'did you mean "text"?' in second["what"]
    assert tree(workspace.folder).keys() == before.keys() | {"config.json"}


def test_events_go_where_they_are_wanted(workspace: Workspace, capsys: Captured) -> None:
    file = workspace.folder / "new" / "events.jsonl"
    assert main(["run", str(workspace.write()), "--events", str(file)]) == 0
    assert [event["event"] for event in lines(file)][-1] == "delivered"
    assert not (workspace.cache / "logs").exists()
    assert main(["run", str(workspace.file), "--events", str(file / "below")]) == 2
    assert "drupe: --events: is " in capsys.readouterr().err


def test_old_logs_are_removed(workspace: Workspace) -> None:
    logs = workspace.cache / "logs"
    for number in range(KEPT + 5):
        (logs / f"20200101T0000{number:02}Z-1").mkdir(parents=True)
    assert main(["run", str(workspace.write())]) == 0
    kept = sorted(logs.iterdir())
    assert len(kept) == KEPT
    assert (kept[-1] / "events.jsonl").is_file()
    assert kept[0].name == "20200101T000006Z-1"


def test_a_failure_says_where_its_events_are(workspace: Workspace, capsys: Captured) -> None:
    workspace.passes(broken={"type": "Breaks", "how": "killed"})
    assert main(["run", str(workspace.write())]) == 1
    assert "  What happened: " in capsys.readouterr().out


def test_a_plan_as_json(workspace: Workspace, capsys: Captured) -> None:
    assert main(["run", str(workspace.write()), "--plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(step["name"], step["state"]) for step in told["steps"]] == [
        ("back", "to run"),
        ("more", "to run"),
    ]


def test_the_passes_as_json(capsys: Captured) -> None:
    assert main(["passes", "Append", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["Append"]["takes"] == ["files"]
    fields = {"type", "host", "text", "source"}
    assert set(told["Append"]["schema"]["properties"]) == fields
    assert main(["passes", "--json"]) == 0
    assert {"LoRA", "ModelBuilder"} <= json.loads(capsys.readouterr().out).keys()


def test_no_file_of_somebodys_is_written_over(workspace: Workspace, capsys: Captured) -> None:
    file = workspace.write()
    before = file.read_text()
    assert main(["run", str(file), "--events", str(file)]) == 2
    assert "is there already, and is no log of events\n  Name another file." in (
        capsys.readouterr().err
    )
    assert file.read_text() == before
    log = workspace.folder / "events.jsonl"
    for _ in range(2):
        assert main(["run", str(file), "--events", str(log)]) == 0, "its own is written anew"


def test_a_secret_is_in_no_event_and_in_no_json(
    workspace: Workspace, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "aB3" * 11
    monkeypatch.setenv("HF_TOKEN", secret)
    assert main(["run", f"{secret}.json", "--json"]) == 2
    told = capsys.readouterr()
    assert secret not in told.out + told.err
    assert "<redacted>.json" in told.out


def test_every_verb_tells_programs_its_faults(capsys: Captured) -> None:
    for verb in (["plan"], ["config", "check"]):
        assert main([*verb, "absent.json", "--json"]) == 2
        told = json.loads(capsys.readouterr().out)
        assert told["error"]["where"] == "absent.json"
        assert told["exit"] == 2


def test_a_fault_of_drupes_own_is_told_as_such(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe.cli.passes.run", lambda arguments: 1 // 0)
    assert main(["passes"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("drupe: ZeroDivisionError: ")
    assert "run again with --debug, and report what it shows" in err
    with pytest.raises(ZeroDivisionError, match="by zero"):
        main(["passes", "--debug"])
