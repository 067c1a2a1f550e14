"""A batch that travels: packed here, run by `drupe batch` elsewhere, its results checked."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drupe_toys import Append, Breaks, Reverse

from drupe.catalog import find
from drupe.core.digest import file_digest
from drupe.core.errors import StepError
from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.core.operation import Operation
from drupe.core.step import StepSpec
from drupe.systems.batch import MARK, _located, digests, read_batch
from drupe.systems.bundle import Bundle, pack
from drupe.systems.code import installed_code, put_on_path
from drupe.systems.follow import check_arrived
from tests.plain.conftest import spec_of, tree

FIRST, SECOND = "1" * 64, "2" * 64


@pytest.fixture
def steps(tmp_path: Path) -> tuple[StepSpec, StepSpec]:
    """Append the content of a file to a model, then turn the result."""
    home = tmp_path / "home"
    (home / "model").mkdir(parents=True)
    (home / "model" / "a.txt").write_text("abc")
    (home / "more.txt").write_text("def")
    first = spec_of(
        Append(source=home / "more.txt"), "Append", Model("files", home / "model", "d"), FIRST
    )
    second = spec_of(Reverse(), "Reverse", Model("files", Path(), "", step=FIRST), SECOND)
    return first, second


@pytest.fixture
def travelled(tmp_path: Path) -> Callable[..., tuple[int, list[dict[str, Any]], Path]]:
    """Pack steps, take all that was here away, and run them by the command that a job runs."""

    def run(*steps: StepSpec) -> tuple[int, list[dict[str, Any]], Path]:
        bundle = pack(Batch(steps, lambda key: tmp_path / key), tmp_path / "packed")
        away = tmp_path / "away"
        inputs = {name: away / path.relative_to(tmp_path) for name, path in bundle.inputs.items()}
        (tmp_path / "packed").rename(tmp_path / "sent")
        (tmp_path / "home").rename(away)
        for name in inputs:
            inputs[name] = away / "model"
        given = [word for name in inputs for word in ("--input", f"{name}={inputs[name]}")]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "drupe", "batch", "--bundle", str(tmp_path / "sent")),
                *(*given, "--results", str(tmp_path / "results")),
            ],
            capture_output=True,
            text=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        events = [json.loads(line.removeprefix(MARK)) for line in lines]
        return done.returncode, events, tmp_path / "results"

    return run


def test_steps_run_where_nothing_of_this_machine_is(
    steps: tuple[StepSpec, StepSpec], travelled: Callable[..., Any]
) -> None:
    code, events, results = travelled(*steps)
    assert code == 0
    assert (results / SECOND / "a.txt").read_text() == "fedcba"
    done = [event for event in events if event["event"] == "done"]
    assert [event["step"] for event in done] == [FIRST, SECOND]
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert notes == ["appending 3 characters"]
    check_arrived("there", results / SECOND, done[1]["files"])
    assert done[0]["machine"]["threads"] == 1


def test_the_first_failure_ends_it_and_its_log_is_kept(
    steps: tuple[StepSpec, StepSpec], travelled: Callable[..., Any]
) -> None:
    broken = spec_of(Breaks(how="exception"), "Breaks", steps[0].models[0], FIRST)
    code, events, results = travelled(broken, steps[1])
    assert code == 1
    assert not (results / SECOND).exists()
    [failed] = [event for event in events if event["event"] == "failed"]
    assert failed["step"] == FIRST
    assert failed["what"].startswith("ValueError: a value that was wrong (drupe_toys.py:")
    assert "remedy" not in failed, "a path of that machine helps nobody here"
    assert "Traceback" in (results / f"{FIRST}.log").read_text()


def test_a_bundle_names_no_path_of_this_machine(
    steps: tuple[StepSpec, StepSpec], tmp_path: Path
) -> None:
    batch = Batch(steps, lambda key: tmp_path / key)
    bundle = pack(batch, tmp_path / "packed")
    assert bundle == Bundle(tmp_path / "packed", {"model0": tmp_path / "home" / "model"})
    for content in tree(bundle.folder).values():
        assert str(tmp_path).encode() not in content
    again = pack(batch, tmp_path / "again")
    assert tree(again.folder) == tree(bundle.folder)


def test_the_base_of_an_adapter_travels_once(tmp_path: Path) -> None:
    base = Model("hf", tmp_path / "base", "d")
    adapter = Model("hf-adapter", tmp_path / "adapter", "d", base)
    spec = replace(spec_of(Reverse(), "Reverse", adapter), models=(adapter, base))
    bundle = pack(Batch((spec,), lambda key: tmp_path), tmp_path / "packed")
    assert sorted(bundle.inputs.values()) == [tmp_path / "adapter", tmp_path / "base"]


def test_the_wheels_hold_drupe_and_its_plug_ins(
    steps: tuple[StepSpec, StepSpec], tmp_path: Path
) -> None:
    pack(Batch(steps, lambda key: tmp_path), tmp_path / "packed")
    names = {}
    for wheel in (tmp_path / "packed" / "wheels").iterdir():
        names[wheel.name.partition("-")[0]] = zipfile.ZipFile(wheel).namelist()
    assert {"drupe", "drupe_toys"} <= names.keys()
    assert "drupe/report/page.css" in names["drupe"]
    assert any(name.endswith("dist-info/entry_points.txt") for name in names["drupe_toys"])
    assert not any("__pycache__" in name for each in names.values() for name in each)


def test_the_code_on_a_path_is_written_once_and_is_found(tmp_path: Path) -> None:
    folder = put_on_path(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert put_on_path(tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    asked = (
        "import drupe, importlib.metadata as m; print(drupe.__file__);"
        "print([e.name for e in m.entry_points(group='drupe.passes') if e.name == 'Reverse'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", asked],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(folder / "drupe" / "__init__.py"), "['Reverse']"]
    assert installed_code()[0].name == "drupe"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda out: (out / "a").write_text("x"), "a is damaged"),
        (lambda out: (out / "a").unlink(), "a is missing"),
        (lambda out: (out / "b").write_text("x"), "b is foreign"),
    ],
)
def test_what_did_not_arrive_whole_is_told(
    change: Callable[[Path], object], what: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("1")
    sent = digests(tmp_path)
    check_arrived("there", tmp_path, sent)
    change(tmp_path)
    words = rf"^there: its result did not arrive whole: {what}\n  Run again"
    with pytest.raises(StepError, match=words):
        check_arrived("there", tmp_path, sent)


def test_a_model_that_lies_elsewhere_is_given_by_its_address(tmp_path: Path) -> None:
    model = Model("files", tmp_path, "d", source="azureml:phi:3")
    bundle = pack(Batch((spec_of(Reverse(), "Reverse", model),), lambda key: tmp_path), tmp_path)
    assert bundle.inputs == {"model0": "azureml:phi:3"}
    [step] = read_batch(tmp_path)["steps"]
    assert step["models"][0]["path"] == str(Path("inputs") / "model0")
    assert str(tmp_path).encode() not in (tmp_path / "batch.json").read_bytes()


def rows(data_files: Any, fetched: Path | None) -> Operation:
    source = {"data_files": data_files, "fetched": str(fetched) if fetched else None}
    dataset = {"name": "rows", "load_dataset_config": source}
    fields = {"train_data_config": dataset}
    return find("passes", "LoRA").model_validate_json(json.dumps(fields))


STORED = {
    "type": "azureml_datastore",
    "datastore_name": "d",
    "relative_path": "a/rows.jsonl",
    "identity": "known",
    "azureml_client": {"subscription_id": "of-the-user"},
}


@pytest.mark.parametrize("here", [True, False])
def test_data_that_lie_elsewhere_travel_or_are_given_by_their_address(
    here: bool, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n')
    operation = rows(STORED, file if here else None)
    spec = spec_of(operation, "LoRA", Model("hf", tmp_path, "d"))
    bundle = pack(Batch((spec,), lambda key: tmp_path), tmp_path / "packed")
    address = "azureml://datastores/d/paths/a/rows.jsonl"
    assert bundle.inputs.get("data0") == (None if here else address)
    assert "of-the-user" not in (bundle.folder / "batch.json").read_text()
    places = {"bundle": bundle.folder, "inputs/data0": file}
    [step] = read_batch(bundle.folder)["steps"]
    there = _located(StepSpec.from_json(step), places)
    found = find("passes", "LoRA").model_validate_json(json.dumps(there.fields))
    [read] = found.train_data_config.load_dataset_config.local_files
    assert read.read_text() == '{"text": "one"}\n'
    assert found.key_form(file_digest) == operation.key_form(file_digest)
