"""The command line: verbs, exit statuses, and nothing on the terminal that nobody asked for."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import drupe
from drupe.catalog import PASSES
from drupe.cli import VERBS, main
from drupe.cli.fields import fields_of
from drupe.finetune.training_args import TrainingArgs
from tests.plain.conftest import Workspace, tree
from tests.waiting import MOST_SECONDS

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_names_every_verb(words: list[str], capsys: Captured) -> None:
    assert main(words) == 0
    told = capsys.readouterr()
    for verb, line in VERBS.items():
        assert f"  {verb}" in told.out
        assert line in told.out
    assert "step" not in told.out.replace("the steps", "").split()
    assert max(map(len, told.out.splitlines())) <= 100
    assert len(told.out.splitlines()) <= 30
    assert len(re.findall(r"^\S.*:$", told.out, re.MULTILINE)) == 3, "groups"
    assert told.err == ""


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_version(word: str, capsys: Captured) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"drupe {drupe.__version__}\n"


def test_an_unknown_verb_is_told_with_the_nearest(capsys: Captured) -> None:
    assert main(["rum"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(
        'drupe: "rum" is not a verb; did you mean "run"?\n  Known: init, run, '
    )
    assert told.out == ""


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_help_with_two_examples(
    verb: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert f"usage: drupe {verb}" in shown
    assert max(map(len, shown.splitlines())) <= 80
    first, second = shown.rstrip().splitlines()[-2:]
    assert first.startswith(f"  drupe {verb}")
    assert second.startswith(f"  drupe {verb} ")


def test_help_of_a_verb(capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["help", "plan"])
    assert "usage: drupe plan" in capsys.readouterr().out
    assert main(["help", "nothing"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chat", ".", "--prompt", "x", "--choices", ","], '--choices: "," names 0\n'),
        (["chat", ".", "--prompt", "x", "--choices", "a,a"], '--choices: "a,a" names 1\n'),
        (["chat", ".", "--prompt", "x", "--max-length", "0"], "--max-length: is 0\n"),
        (["run", "x.json", "-o", ""], "-o: names no folder\n"),
    ],
)
def test_arguments_without_meaning(words: list[str], told: str, capsys: Captured) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--dry_run", "--dry-run"])
def test_underscores_are_read_as_dashes(
    option: str, workspace: Workspace, capsys: Captured
) -> None:
    assert main(["run", f"--run_config={workspace.write()}", option]) == 0
    assert "2 of 2 steps to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "drupe run: needs one config\n  Write: drupe run FILE\n"),
        (["run", "a", "--config", "b"], "drupe run: needs one config"),
        (["run", "absent.json"], "drupe: absent.json: there is no such file\n  Give the path of"),
        (["passes", "Revers"], "drupe: Revers: is not one of drupe's passes; did you mean"),
    ],
)
def test_what_is_refused_is_told_and_ends_with_2(
    words: list[str], told: str, capsys: Captured
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(told)
    assert shown.out == ""


def test_an_unknown_argument_ends_with_2(capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--no-such"])
    assert "unrecognized arguments: --no-such" in capsys.readouterr().err


def test_a_plan_writes_nothing(workspace: Workspace, capsys: Captured) -> None:
    file = workspace.write()
    before = tree(workspace.folder)
    assert main(["run", str(file), "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "config.json: input -> back -> more" in shown
    assert "2 of 2 steps to run" in shown
    for step in workspace.plan().steps:
        assert step.key[:12] in shown
    assert tree(workspace.folder) == before


def test_a_run_and_its_repetition_on_no_terminal(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    first = workspace.drupe("run", "config.json")
    assert (first.returncode, first.stderr) == (0, "")
    for part in (
        "input -> back -> more",
        "5 of 5 steps to run",
        "appending 1 characters",
        "✓ more",
        "Length went from 8",
    ):
        assert part in first.stdout
    assert "In output/back-more/cpu-cpu_model, after " in first.stdout
    again = workspace.drupe("run", "--config", "config.json")
    assert (again.returncode, again.stderr) == (0, "")
    assert "0 of 5 steps to run" in again.stdout
    for shown in (first.stdout, again.stdout):
        assert "\x1b" not in shown, "no colours and no live line without a terminal"
        assert "\r" not in shown


def test_a_terminal_that_knows_ascii_only_is_no_end_of_a_run(workspace: Workspace) -> None:
    workspace.config["engine"]["log_severity_level"] = 2
    done = subprocess.run(
        workspace.command("run", str(workspace.write())),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? more" in done.stdout
    assert b"appending 1 characters" not in done.stdout, "log_severity_level 2 tells no notes"


def test_a_reader_that_has_seen_enough_is_told_no_traceback(workspace: Workspace) -> None:
    client = workspace.start("run", "config.json")
    assert client.stdout
    assert client.stderr
    client.stdout.close()
    assert client.wait(MOST_SECONDS) == 1, "what was begun is not done, and is not said to be"
    assert client.stderr.read() == ""
    client.stderr.close()


def test_a_fault_of_the_config_is_2(workspace: Workspace, capsys: Captured) -> None:
    workspace.passes(broken={"type": "Breaks", "how": "segfalt"})
    assert main(["run", str(workspace.write())]) == 2
    told = capsys.readouterr().err
    assert "1 fault\n" in told
    assert "passes.broken.how: input should be 'exception', 'error', 'segfault'" in told


def test_passes_are_listed_with_the_plug_ins(capsys: Captured) -> None:
    assert main(["passes"]) == 0
    shown = capsys.readouterr().out
    for name in ("LoRA", "MergeAdapterWeights", "ModelBuilder", "Reverse", "Append"):
        assert name in shown


def test_the_fields_of_a_pass(capsys: Captured) -> None:
    assert main(["passes", "Append"]) == 0
    shown = capsys.readouterr().out
    assert "Append a text, and the content of a file if one is named." in shown
    for name in ("text", "source"):
        assert name in shown


@pytest.mark.parametrize("columns", ["80", "120"])
def test_an_object_among_the_fields_has_a_table_of_its_own(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["passes", "LoRA"]) == 0
    shown = capsys.readouterr().out
    assert "TrainingArgs(" not in shown
    assert "\u2026" not in shown, "no cell is cut"
    fields, _, arguments = shown.partition("\ntraining_args: ")
    assert re.search(r"^training_args +object +as below", fields, re.MULTILINE)
    for name in TrainingArgs.model_fields:
        assert re.search(rf"^{name} ", arguments, re.MULTILINE)
    for value in ("required", "null", '"auto"'):
        assert f" {value} " in fields


@pytest.mark.parametrize("name", PASSES._built_in)
def test_each_field_says_what_it_means(name: str) -> None:
    fields = fields_of(PASSES.find(name))
    for field in (*fields, *(part for each in fields for part in each.parts)):
        assert field.meaning, field.name
        assert field.type != "any value", field.name


@pytest.mark.parametrize("content", [None, "{}", "[]", "{", '{"drupe": "1", "model": "absent"}'])
def test_a_folder_that_cannot_be_talked_to(
    content: str | None, tmp_path: Path, capsys: Captured
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert main(["chat", str(tmp_path), "--prompt", "x"]) == 2
    assert "holds no model that can be talked to" in capsys.readouterr().err


def test_a_folder_to_talk_to_that_is_not_there(capsys: Captured) -> None:
    assert main(["chat", "gone"]) == 2
    told = (
        "drupe: gone: is no folder that is there\n  Give the output folder of a run that ends with"
    )
    assert capsys.readouterr().err.startswith(told)
