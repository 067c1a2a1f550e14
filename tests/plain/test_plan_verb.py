"""`drupe plan`: what it shows, what it finds in the way, and what it learns from earlier runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupe.cli import main
from drupe.core.journal import Measured, journal_file, read_journal, write_down
from drupe.core.operation import Metric
from drupe.preflight.estimates import IMPORTS_BYTES, Estimate, by_rule, fitted
from drupe.preflight.machine import disk, memory
from tests.plain.conftest import Workspace, tree

Captured = pytest.CaptureFixture[str]
PAGE = Path(__file__).parents[2] / "examples" / "page"


def planned(workspace: Workspace, capsys: Captured, *words: str) -> dict[str, Any]:
    """Return what `drupe plan --json WORDS...` prints."""
    main(["plan", str(workspace.write()), "--json", *words])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_steps_are_shown_and_nothing_is_written(workspace: Workspace, capsys: Captured) -> None:
    file = workspace.write()
    before = tree(workspace.folder)
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    assert tree(workspace.folder) == before
    steps = workspace.plan().steps
    for step in steps:
        assert f"{step.key[:12]}  to run" in shown
    assert "Each step runs here (LocalSystem)." in shown
    assert max(map(len, shown.splitlines())) <= 100
    workspace.run()
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    assert f"{steps[0].key[:12]}  cached" in shown
    assert "0 of 2 steps to run" in shown


def test_the_plan_as_json(workspace: Workspace, capsys: Captured) -> None:
    told = planned(workspace, capsys)
    assert [step["name"] for step in told["steps"]] == ["back", "more"]
    first = told["steps"][0]
    assert first["key"] == workspace.plan().steps[0].key
    assert (first["state"], first["system"], first["fused"]) == ("to run", "here", False)
    assert first["estimate"]["seconds"] is None, "nothing was measured, and no rule is declared"
    assert told["findings"] == []


def test_estimates_are_fitted_to_what_was_measured_here(
    workspace: Workspace, capsys: Captured
) -> None:
    workspace.run()
    journal = journal_file()
    assert journal is not None
    names = [measured.operation for measured in read_journal(journal)]
    assert names == ["Reverse/1", "Append/1"]
    assert str(workspace.folder) not in journal.read_text(), "no path"
    estimate = planned(workspace, capsys, "--set", "passes.more.text=?")["steps"][1]["estimate"]
    assert (estimate["basis"], estimate["measured"]) == ("1 run here", True)
    assert estimate["seconds"] > 0
    assert estimate["output_bytes"] == 10, "8 characters and two more"
    workspace.run()
    assert len(read_journal(journal)) == 2, "what was cached measures nothing"


def test_where_the_estimates_come_from_is_told(workspace: Workspace, capsys: Captured) -> None:
    assert main(["plan", str(workspace.write())]) == 0
    assert "The estimates" not in capsys.readouterr().out, "nothing is known of these passes"
    workspace.run()
    changed = ["plan", str(workspace.write()), "--set", "passes.more.text=?"]
    assert main(changed) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("The estimates: 1 fitted to earlier runs on this machine.\n")


def test_all_that_is_in_the_way_is_told_at_once(workspace: Workspace, capsys: Captured) -> None:
    (workspace.folder / "input").rename(workspace.folder / "elsewhere")
    workspace.config["passes"] = {
        "odd/name": {"type": "Append", "source": "absent.txt"},
        "merge": {"type": "MergeAdapterWeights"},
    }
    workspace.output.mkdir()
    assert main(["plan", str(workspace.write())]) == 2
    told = capsys.readouterr()
    assert "unknown  unknown" in told.out, "the steps are shown all the same"
    for words in (
        "config.json: 4 things are in the way\n",
        "passes.odd/name: cannot be a part of the output folder's name\n  Name the pass with",
        "absent.txt, which is not there\n  Mend the path.",
        "merge (MergeAdapterWeights): works on hf-adapter, but what comes before gives files\n",
        "Nothing was run.",
    ):
        assert words in told.err
    assert main(["run", str(workspace.file)]) == 2
    assert capsys.readouterr().err == told.err, "a run is refused for the same reasons"
    assert not workspace.cache.exists()


def test_one_thing_in_the_way_is_told_as_it_is(workspace: Workspace, capsys: Captured) -> None:
    workspace.output.mkdir()
    (workspace.output / "report.json").write_text("mine")
    assert main(["plan", str(workspace.write())]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"drupe: {workspace.output / 'report.json'}: is there, and was not")
    [finding] = planned(workspace, capsys)["findings"]
    assert (finding["level"], finding["what"]) == (
        "blocker",
        "is there, and was not written by drupe",
    )
    assert (workspace.output / "report.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["olive-config.json", "olive-config-cloud.json"])
def test_the_pages_own_configs_are_planned_as_they_stand(name: str, capsys: Captured) -> None:
    before = tree(PAGE)
    assert main(["plan", str(PAGE / name), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert tree(PAGE) == before
    passes = [step["operation"] for step in told["steps"] if ":" not in step["name"]]
    assert passes == ["LoRA", "MergeAdapterWeights", "ModelBuilder"]
    assert {step["system"] for step in told["steps"]} == {"aml"}
    assert {step["key"] for step in told["steps"]} == {None}
    blocked = {finding["where"].partition(": ")[2]: finding for finding in told["findings"]}
    places = {place.replace(".config", "") for place in blocked}
    assert "systems.aml.aml_compute" in places
    assert any(place.startswith(("input_model", "data_configs")) for place in places), places
    where = next(each["where"] for each in told["findings"] if "aml_compute" in each["where"])
    assert re.fullmatch(rf"{name}:\d+: systems\.aml\.config\.aml_compute", where)
    warned = " ".join(each["text"] for each in told["notes"] if each["level"] == "warning")
    assert "double_quant" in warned
    assert "placeholder" not in warned, "it is told once, as what is in the way"
    told_so = " ".join(finding["what"] for finding in told["findings"])
    cloud = name == "olive-config-cloud.json"  # it names a workspace, of its data
    none = "no key vault" if cloud else "has no workspace"
    for words in (none, "no key vault", "still a placeholder"):
        assert words in told_so


def measured(work: float, seconds: float, model_bytes: int, peak: int = 0) -> Measured:
    return Measured("Pass/1", work, model_bytes, seconds, IMPORTS_BYTES + peak, model_bytes // 2)


def test_the_five_nearest_decide_by_their_median() -> None:
    known = [measured(10, 1, 100, 50), measured(20, 2, 200, 100), measured(40, 40, 400, 200)]
    known += [measured(10**9, 1, 10**9)] * 9
    estimate = fitted(known[:3], work=20, model_bytes=200)
    assert estimate == Estimate(2.0, IMPORTS_BYTES + 100, 100, "3 runs here", measured=True)
    assert fitted([], 20, 200) is None


@given(st.lists(st.floats(0.26, 3.9), min_size=1, max_size=8), st.floats(1, 1e12))
def test_time_grows_with_the_work(factors: Sequence[float], work: float) -> None:
    known = [measured(work * each, work * each / 7, 10**6) for each in factors]
    estimate = fitted(known, work, 10**6)
    assert estimate is not None
    assert estimate.seconds == pytest.approx(work / 7)


class Ruled(Metric):
    """One second for a unit of work, a third of the model in memory."""

    def rule_of_thumb(self, work: float, model_bytes: int) -> tuple[float, int, int]:
        return work, model_bytes // 3, 0


class Unruled(Metric):
    """An operation that says nothing of its cost, as a plug-in's may."""


@pytest.mark.parametrize(("factor", "pace"), [(1, 1), (2, 2), (0.5, 0.5), (30, 4), (0.01, 0.25)])
def test_a_tiny_model_tells_the_pace_for_a_large_one_and_nothing_else(
    factor: float, pace: float
) -> None:
    known = [measured(work, work * factor, 100, peak=10**9) for work in (10, 11, 12)]
    assert fitted(known, work=10**6, model_bytes=10**7) is None
    estimate = by_rule(Ruled(), 10**6, 3 * 10**7, known)
    basis = "rule of thumb, at the pace of 3 runs here"
    assert estimate == Estimate(10**6 * pace, 10**7, 0, basis)
    assert by_rule(Unruled(), 10**6, 10**7, known).basis == "3 runs here, of another size"
    assert by_rule(Unruled(), 10**6, 10**7, known).seconds is None
    assert by_rule(Unruled(), 10**6, 10**7).basis == "nothing measured yet"


def test_a_journal_survives_what_may_happen_to_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "journal.jsonl"
    write_down(measured(1, 2, 3), file)
    with file.open("a") as journal:
        journal.write('{"format": 9, "operation": "x"}\n')
        journal.write('{"format": 1, "operation": "x", "work": -1}\n')
        journal.write("[]\n\xff\n")
        journal.write('{"format": 1, "operation": "to')
    assert read_journal(file) == [measured(1, 2, 3)]
    assert read_journal(None) == []
    write_down(measured(1, 2, 3), None)
    write_down(measured(1, 2, 3), file / "below a file")


def test_a_journal_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drupe.core.journal.MOST_LINES", 4)
    file = tmp_path / "journal.jsonl"
    for count in range(60):
        write_down(measured(count, 2, 3), file)
    kept = read_journal(file)
    assert 1 <= len(kept) <= 12
    assert kept[-1].work == 59
    assert list(tmp_path.iterdir()) == [file]


def test_where_the_journal_is(tmp_path: Path) -> None:
    assert journal_file({"DRUPE_JOURNAL": ""}) is None
    assert journal_file({"DRUPE_JOURNAL": "/x/y"}) == Path("/x/y")
    state = {"XDG_STATE_HOME": str(tmp_path)}
    found = journal_file(state)
    assert found is not None
    assert found.parts[-2:] == ("drupe", "journal.jsonl")


def costs(peak: int = 0) -> dict[str, Estimate]:
    return {"export": Estimate(1.0, peak, 0, "rule of thumb")}


@pytest.mark.parametrize(("needed", "levels"), [(700, []), (900, ["warning"]), (1001, ["blocker"])])
def test_too_little_disk(needed: int, levels: list[str], tmp_path: Path) -> None:
    found = list(disk("engine.cache_dir", tmp_path, needed, free=1000))
    assert [finding.level for finding in found] == levels
    if found:
        assert found[0].what.endswith(" has 1 kB left")
        assert "drupe cache gc" in found[0].remedy


@pytest.mark.parametrize(
    ("peak", "levels"), [(700, []), (900, ["warning"]), (2300, ["warning"]), (2500, ["blocker"])]
)
def test_too_little_memory(peak: int, levels: list[str]) -> None:
    found = list(memory(costs(peak=peak), free=1000, total=2000))
    assert [finding.level for finding in found] == levels
    assert list(memory(costs(peak=peak), free=0, total=0)) == [], "the system does not tell"


@pytest.mark.parametrize(
    ("answers", "metrics"),
    [
        (["yes", "no", "yes"], ["accuracy", "perplexity"]),
        (["yes"] * 3, ["perplexity"]),
        ([f"answer {number}" for number in range(40)], ["perplexity"]),
    ],
)
def test_accuracy_is_measured_unasked_where_answers_are_classes(
    answers: list[str], metrics: list[str], workspace: Workspace, capsys: Captured
) -> None:
    lines = [json.dumps({"q": "x", "a": answer}) for answer in answers]
    (workspace.folder / "rows.jsonl").write_text("\n".join(lines))
    data = {
        "name": "rows",
        "load_dataset_config": {"data_files": "rows.jsonl"},
        "pre_process_data_config": {"text_template": "{q} {a}"},
    }
    workspace.config["data_configs"] = [data]
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "absent"}
    workspace.config["engine"] = {"evaluate": "ends"}
    del workspace.config["evaluators"]
    workspace.passes(lora={"type": "LoRA", "train_data_config": "rows"})
    steps = [step["name"] for step in planned(workspace, capsys)["steps"]]
    assert steps == [
        *(f"input model: {name}" for name in metrics),
        "lora",
        *(f"lora: {name}" for name in metrics),
    ]


def test_a_provider_that_is_not_here(workspace: Workspace, capsys: Captured) -> None:
    """Without the heavy packages: the input is an absent model, and the warning stands anyway."""
    rows = workspace.folder / "rows.jsonl"
    rows.write_text('{"q": "x", "a": "yes"}\n{"q": "x", "a": "no"}\n')
    data = {
        "name": "rows",
        "load_dataset_config": {"data_files": "rows.jsonl"},
        "pre_process_data_config": {"text_template": "{q} {a}"},
    }
    workspace.config["data_configs"] = [data]
    workspace.config["evaluators"] = {
        "all": {"metrics": [{"type": "Perplexity", "data_config": "rows"}]}
    }
    workspace.config["engine"]["evaluate"] = "every-step"
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "absent"}
    workspace.passes(builder={"type": "ModelBuilder", "precision": "int4"})
    told = planned(workspace, capsys, "--target", "dml")
    [found] = [each for each in told["findings"] if each["level"] == "warning"]
    assert found["where"] == "builder"
    assert found["what"] == (
        "is made for DmlExecutionProvider, which is not here: it is built, and not measured"
    )
    told = planned(workspace, capsys, "--target", "cpu")
    assert not [each for each in told["findings"] if each["level"] == "warning"]


def test_a_negative_count_of_samples(workspace: Workspace, capsys: Captured) -> None:
    assert main(["plan", str(workspace.write()), "--show-samples", "-1"]) == 2
    assert "--show-samples: is -1\n  Give a number from 0." in capsys.readouterr().err
