"""Wrong inputs, as a user meets them: the sentence, the exit code, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drupe.cli import main
from drupe.output import model_folder
from tests.plain.conftest import Workspace, tree

Change = Callable[[Workspace], object]
Captured = pytest.CaptureFixture[str]


def engine(name: str, value: object) -> Change:
    return lambda workspace: workspace.config["engine"].update({name: value})


def input_is(name: str) -> Change:
    return lambda workspace: workspace.config["input_model"].update(model_path=name)


def passes(**passes: dict[str, object]) -> Change:
    return lambda workspace: workspace.passes(**passes)


def delivered(workspace: Workspace) -> dict[str, bytes]:
    """Return the delivered model; its card aside, which tells what this run cost."""
    files = tree(model_folder(workspace.plan()))
    return {name: content for name, content in files.items() if name != "README.md"}


FAULTS = {
    "output below a file": (engine("output_dir", "config.json/out"), 2, "engine.output_dir: is "),
    "cache is a file": (engine("cache_dir", "config.json"), 2, "engine.cache_dir: is "),
    "no model": (input_is("absent"), 2, '"absent" is not there ('),
    "unknown pass": (passes(back={"type": "Revers"}), 2, 'did you mean "Reverse"?'),
    "misspelt field": (passes(more={"type": "Append", "txt": "!"}), 2, 'did you mean "text"?'),
    "no such file": (passes(more={"type": "Append", "source": "no"}), 2, "no, which is not there"),
    "raises": (passes(broken={"type": "Breaks", "how": "exception"}), 1, "a value that was wrong"),
    "killed": (passes(broken={"type": "Breaks", "how": "killed"}), 1, "was killed (SIGKILL)"),
    "memory": (passes(broken={"type": "Breaks", "how": "memory"}), 1, "ran out of memory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_nothing_is_lost(
    fault: str, workspace: Workspace, capsys: Captured
) -> None:
    workspace.run()
    before = tree(workspace.output) | tree(workspace.input) | tree(workspace.cache / "steps")
    change, code, told = FAULTS[fault]
    change(workspace)
    assert main(["run", str(workspace.write())]) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.startswith("drupe: ")
    assert "Traceback" not in shown
    after = tree(workspace.output) | tree(workspace.input) | tree(workspace.cache / "steps")
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("damage", ["flip", "halve", "delete", "manifest"])
@pytest.mark.parametrize("stage", ["back", "more"])
def test_a_damaged_result_is_never_delivered(
    damage: str, stage: str, workspace: Workspace, capsys: Captured
) -> None:
    workspace.run()
    good = delivered(workspace)
    [key] = [step.key for step in workspace.plan().steps if step.stage == stage]
    result = workspace.cache / "steps" / key
    file = result / "manifest" if damage == "manifest" else result / "files" / "a.txt"
    file.chmod(0o644)
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        file.write_bytes(b"#" + file.read_bytes()[1:])
    else:
        file.write_bytes(file.read_bytes()[:1])
    assert main(["run", str(workspace.write())]) == 0
    assert "It is made anew." in capsys.readouterr().out
    assert delivered(workspace) == good
