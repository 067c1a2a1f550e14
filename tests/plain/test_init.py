"""drupe init: the files that it writes, what it refuses, the question at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drupe.cli import main
from drupe.cli.init import MODEL, QUESTIONS, SAMPLES, TEMPLATES, content
from drupe.config.load import load
from drupe.core import files
from drupe.core.files import write_together
from drupe.core.libraries import PINNED, library_version
from drupe.plan import draft, make
from tests.plain.conftest import tree

Captured = pytest.CaptureFixture[str]
EXAMPLE = Path(__file__).parents[2] / "examples" / "phi3-emotion"
MODEL_FOLDER = str(EXAMPLE / "model")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


HERE = [name for name in TEMPLATES if name != "azureml"]  # those whose steps run here
ANSWERS = {blank: blank.strip("<>").replace(" ", "-") for blank in QUESTIONS}


def written(name: str) -> list[str]:
    more = ["conda.yaml"] if name == "azureml" else []
    return sorted([*SAMPLES[name], "data/README.md", "config.yaml", *more])


def fill_in() -> None:
    """Write something in place of each placeholder."""
    text = Path("config.yaml").read_text()
    for blank, answer in ANSWERS.items():
        assert text.count(blank) == 1
        text = text.replace(blank, answer)
    Path("config.yaml").write_text(text)


@pytest.mark.parametrize("name", HERE)
def test_a_template_is_checked_and_planned_without_a_word_of_doubt(
    name: str, capsys: Captured
) -> None:
    assert main(["init", name, "--model", MODEL_FOLDER]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.endswith("\nNext:  drupe plan config.yaml\n       drupe run config.yaml\n")
    assert "downloaded" not in shown.out
    assert sorted(tree(Path())) == written(name)
    assert main(["config", "check", "config.yaml", "--strict"]) == 0
    assert capsys.readouterr().out == "config.yaml: no fault, 0 warnings\n"
    assert main(["plan", "config.yaml", "--strict"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    first, second = shown.out.splitlines()[:2]
    assert first.startswith("config.yaml: model -> ")
    assert first.endswith("builder")
    assert re.fullmatch(r"  target cpu-cpu; (\d+) of \1 steps to run", second), "no note before"
    assert not [line for line in shown.out.splitlines() if line.startswith("!")]


@pytest.mark.parametrize("name", HERE)
def test_what_a_template_says_is_the_default_is_the_default(name: str) -> None:
    """Each `# field: value` can be taken in: it is known there, and changes no step's key."""
    main(["init", name, "--model", MODEL_FOLDER])
    before = make(load(Path("config.yaml")))
    text = Path("config.yaml").read_text()
    taken_in, count = re.subn(
        r"^( +)# (?!max_steps|target_modules)(\w+: )", r"\1\2", text, flags=re.MULTILINE
    )
    assert count >= 3
    Path("config.yaml").write_text(taken_in)
    after = make(load(Path("config.yaml"), strict=True))
    assert [step.key for step in after.steps] == [step.key for step in before.steps]
    assert (after.notes, after.workflow.notes, after.blockers) == ((), (), ())


@pytest.mark.parametrize("name", HERE)
def test_each_template_has_short_lines_and_names_the_model_once(name: str) -> None:
    main(["init", name])
    text = Path("config.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.count(MODEL) == 1


def test_without_a_model_it_is_told_what_will_be_downloaded(capsys: Captured) -> None:
    assert main(["init", "quantize", "-o", "my job"]) == 0
    assert capsys.readouterr().out == (
        "Wrote my job/data/held-out.jsonl\n"
        "Wrote my job/data/README.md\n"
        "Wrote my job/config.yaml\n"
        "\n"
        "The model is microsoft/Phi-3-mini-4k-instruct: what of its 7.6 GB is not here yet is\n"
        "downloaded by the first plan or run. Another one: --model, or in the config.\n"
        "\n"
        'Next:  drupe plan "my job/config.yaml"\n'
        '       drupe run "my job/config.yaml"\n'
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("owner/a-model", "owner/a-model"),
        ("model", "../../model"),
        ("./model", "../../model"),
        (MODEL_FOLDER, MODEL_FOLDER),
        ('mo"del: #', '../../mo"del: #'),
    ],
)
def test_a_model_is_named_as_the_config_has_to_name_it(
    given: str, said: str, capsys: Captured
) -> None:
    for name in ("model", 'mo"del: #'):
        Path(name).mkdir()
    assert main(["init", "qlora", "--model", given, "-o", "deep/job"]) == 0
    capsys.readouterr()
    assert main(["config", "upgrade", "deep/job/config.yaml", "-o", "new.json"]) == 0
    assert json.loads(Path("new.json").read_text())["input_model"]["model_path"] == said


@pytest.mark.parametrize("given", ["gpt2", "./absent", "../a/b", "~/absent", "a b/c", "", "a/b/c"])
def test_what_is_no_model_is_refused(given: str, capsys: Captured) -> None:
    assert main(["init", "qlora", "--model", given]) == 2
    assert capsys.readouterr().err == (
        f'drupe: --model {given}: is no folder that is there, and no name on the Hub ("owner/name")'
        "\n  Give the folder of a checkpoint, or a name on the Hub.\n"
    )
    assert tree(Path()) == {}


def test_what_is_there_is_refused_by_name_and_stays(capsys: Captured) -> None:
    Path("config.yaml").write_text("mine")
    assert main(["init", "phi3-emotion"]) == 2
    assert capsys.readouterr().err == (
        "drupe: config.yaml: is there already\n"
        "  Name another folder with -o, or replace with --force.\n"
    )
    assert tree(Path()) == {"config.yaml": b"mine"}
    Path("data").mkdir()
    Path("data/phrases.jsonl").symlink_to("nowhere")
    assert main(["init", "phi3-emotion"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("drupe: data/phrases.jsonl, config.yaml: are there already\n")


def test_force_replaces_those_files_and_no_other(capsys: Captured) -> None:
    Path("config.yaml").write_text("mine")
    Path("other").write_text("mine")
    assert main(["init", "quantize", "--force", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told) == ["written"]
    here = Path.cwd()
    names = sorted(Path(name).relative_to(here).as_posix() for name in told["written"])
    assert names == written("quantize")
    assert Path("config.yaml").read_text().startswith("# Quantize a model")
    assert sorted(tree(Path())) == sorted([*written("quantize"), "other"])
    assert Path("other").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", ""], "drupe: -o: names no folder\n  Write: -o DIR\n"),
        (["-o", "file"], "drupe: -o: is file, but file is a file\n  Name another folder.\n"),
        (["-o", "file/x"], "drupe: -o: is file/x, but file is a file\n  Name another folder.\n"),
        (
            ["-o", "folder", "--force"],
            "drupe: folder/config.yaml: is a folder, and no file\n  Name another folder with -o.\n",
        ),
        (
            ["-o", "taken"],
            "drupe: -o: is taken/data, but taken/data is a file\n  Name another folder.\n",
        ),
    ],
)
def test_a_place_that_cannot_be_written(words: list[str], told: str, capsys: Captured) -> None:
    Path("file").write_text("")
    Path("folder/config.yaml").mkdir(parents=True)
    Path("taken").mkdir()
    Path("taken/data").write_text("")
    before = tree(Path())
    assert main(["init", "qlora", *words]) == 2
    assert capsys.readouterr().err == told
    assert tree(Path()) == before


def test_an_unknown_template_is_told_with_the_nearest(capsys: Captured) -> None:
    assert main(["init", "quantise"]) == 2
    assert capsys.readouterr().err == (
        'drupe init: "quantise" is not a template; did you mean "quantize"?\n'
        "  Known: phi3-emotion, quantize, qlora, azureml.\n"
    )


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_without_a_name_and_a_terminal_the_templates_are_listed(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drupe", "init", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    first, second, *lines = done.stderr.splitlines()
    assert first == "drupe init: needs a template"
    assert second == "  Write: drupe init TEMPLATE"
    assert [line.split()[0] for line in lines] == list(TEMPLATES)
    assert tree(Path()) == {}


def asked(*answers: bytes, words: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run `drupe init` in a terminal with these answers; return its exit status and words.

    A Ctrl-C that comes between Python's prompt and its waiting for input is heard with the next
    key only (Python's own way): the last answer is given again after a while.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "drupe", "init", *words])
    shown, left, tries = "", list(answers), 20
    while tries:
        if not select.select([terminal], [], [], 3)[0]:
            tries -= 1
            if not left:
                os.write(terminal, answers[-1])
            continue
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # how Linux tells that the other side is closed
            break
        if shown.endswith("] ") and left:
            os.write(terminal, left.pop(0))
    os.close(terminal)
    if not tries:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, shown.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ((b"\n",), "phi3-emotion"),
        ((b"2\n",), "quantize"),
        ((b"qlora\n",), "qlora"),
        ((b"0\n", b"quantiz\n", b" 2 \n"), "quantize"),
    ],
)
def test_a_terminal_is_asked(answers: tuple[bytes, ...], name: str) -> None:
    status, shown = asked(*answers)
    assert status == 0, shown
    lines = shown.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["1", "phi3-emotion"], ["2", "quantize"], ["3", "qlora"],
    ]  # fmt: skip
    assert sorted(tree(Path())) == written(name)
    if len(answers) > 1:
        assert '"0" is none of them (Ctrl-C ends)\n' in shown
        assert '"quantiz" is none of them; did you mean "quantize"? (Ctrl-C ends)\n' in shown


@pytest.mark.parametrize(
    ("key", "status", "end"),
    [
        (b"\x03", 130, "\nNothing was written.\n"),
        (
            b"\x04",
            2,
            (
                "\ndrupe init: was given no answer; nothing was written\n"
                "  Write: drupe init TEMPLATE\n"
            ),
        ),
    ],
)
def test_the_question_is_left_calmly(key: bytes, status: int, end: str) -> None:
    found, shown = asked(key)
    assert (found, shown.endswith(end)) == (status, True), shown
    assert "Traceback" not in shown
    assert tree(Path()) == {}


def test_the_samples_are_what_the_script_makes_and_no_row_is_on_both_sides(tmp_path: Path) -> None:
    script = EXAMPLE / "make" / "samples.py"
    out = tmp_path / "samples"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True)
    main(["init", "phi3-emotion"])
    rows = {}
    for name, count in (("phrases.jsonl", 200), ("held-out.jsonl", 100)):
        assert (out / name).read_bytes() == Path("data", name).read_bytes()
        rows[name] = [json.loads(line) for line in Path("data", name).read_text().splitlines()]
        assert len(rows[name]) == count
        assert {row["tone"] for row in rows[name]} == {"joy", "sadness", "fear", "surprise"}
    trained = {row["phrase"] for row in rows["phrases.jsonl"]}
    assert not trained & {row["phrase"] for row in rows["held-out.jsonl"]}


def test_the_templates_are_small() -> None:
    folder = Path(files.__file__).parents[1] / "templates"
    assert sum(len(data) for data in tree(folder).values()) < 100_000


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_files_are_written_together_or_not_at_all(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    contents = {folder / "new" / "deep" / "a": b"a", folder / "old": b"new"}  # 3 renamings
    replace, calls = os.replace, []

    def fail(source: Path, destination: Path) -> None:
        calls.append(destination)
        if len(calls) == fails_at:
            raise PermissionError(13, "Permission denied", str(destination))
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(PermissionError, match="Permission denied"):
        write_together(contents)
    assert tree(tmp_path) == {"out/old": b"old"}
    assert [path.name for path in folder.iterdir()] == ["old"]
    monkeypatch.undo()
    write_together(contents)
    assert tree(tmp_path) == {"out/old": b"new", "out/new/deep/a": b"a"}


def test_azureml_leaves_placeholders_that_are_named_one_by_one(capsys: Captured) -> None:
    assert main(["init", "azureml"]) == 0
    shown = capsys.readouterr().out
    assert sorted(tree(Path())) == written("azureml")
    assert max(map(len, Path("config.yaml").read_text().splitlines())) <= 100
    unready = load(Path("config.yaml")).unready
    assert len(unready) == len(QUESTIONS)
    for blank, question in QUESTIONS.items():
        assert f"  {blank:<26}{question}\n" in shown
        assert any(f'is still a placeholder ("{blank}")' in fault.what for fault in unready)
    assert main(["plan", "config.yaml"]) == 2
    told = capsys.readouterr().err
    assert all(f'("{blank}")' in told for blank in QUESTIONS)


def test_azureml_filled_in_has_a_job_environment_with_nothing_wrong(capsys: Captured) -> None:
    main(["init", "azureml"])
    fill_in()
    workflow = load(Path("config.yaml"), strict=True)
    assert workflow.unready == ()
    assert workflow.notes == ()
    assert (workflow.host.name, workflow.target.provider) == ("aml", "CUDAExecutionProvider")
    planned = draft(workflow)
    told = " ".join(f"{fault.where} {fault.what}" for fault in planned.blockers)
    assert "conda" not in told
    assert "needs " not in told, "every library that a step needs is there"
    for step in planned.steps:
        for library, version in step.parts.get("libraries", {}).items():
            assert not str(version).startswith(PINNED), f"{library} is pinned"
    here = {
        library: version
        for step in planned.steps
        for library, version in step.parts.get("libraries", {}).items()
        if library in ("transformers", "peft", "onnx-ir") and library_version(library)
    }
    assert here == {library: library_version(library) for library in here}


def test_what_the_azureml_template_says_is_the_default_is_the_default() -> None:
    main(["init", "azureml"])
    fill_in()
    before = load(Path("config.yaml"))
    text = Path("config.yaml").read_text()
    taken_in, count = re.subn(r"^( +)# (?!max_steps)(\w+: )", r"\1\2", text, flags=re.MULTILINE)
    assert count >= 6
    Path("config.yaml").write_text(taken_in)
    after = load(Path("config.yaml"), strict=True)
    assert (after.passes, after.engine, after.host) == (before.passes, before.engine, before.host)


def test_the_pins_are_those_of_constraints_where_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("drupe.cli.init.installed_version", lambda name: None)
    monkeypatch.setattr("drupe.cli.init.library_version", lambda name: None)
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().lower().split()
    lines = content("azureml")["conda.yaml"].decode().splitlines()
    pins = [line.split()[1].lower() for line in lines if "==" in line]
    assert len(pins) == 17
    assert [pin for pin in pins if pin not in constraints] == []


def test_the_pins_are_of_what_is_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.9.1+cpu", "transformers": "5.20.100"}
    monkeypatch.setattr("drupe.cli.init.installed_version", versions.get)
    monkeypatch.setattr("drupe.cli.init.library_version", lambda name: "0.19.0")
    text = content("azureml")["conda.yaml"].decode()
    assert "      - torch==2.9.1                       # what training needs\n" in text
    assert "      - transformers==5.20.100\n" in text
    assert "      - onnxruntime-genai-cuda==0.19.0 " in text


def test_azureml_with_a_model_of_the_hub() -> None:
    main(["init", "azureml", "--model", "owner/a-model"])
    assert load(Path("config.yaml")).input_model.model_path == "owner/a-model"
    assert "registry_name" not in Path("config.yaml").read_text()


def test_a_terminal_is_asked_what_azureml_needs() -> None:
    answers = [answer.encode() + b"\n" for answer in ANSWERS.values()]
    answers[1] = b"\n"  # left for later
    status, shown = asked(*answers, words=("azureml",))
    assert status == 0, shown
    assert "The id of the Azure subscription: [<subscription id>] subscription-id\n" in shown
    assert "To be filled in, in config.yaml:\n  <resource group>" in shown
    [fault] = load(Path("config.yaml")).unready
    assert fault.what == 'is still a placeholder ("<resource group>")'
