"""The plan: order, keys, hits; what cannot work is refused before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drupe import Job, Model, Pass
from drupe.core.errors import DrupeError, Refused
from tests.plain.checkpoints import make_checkpoint
from tests.plain.conftest import Workspace, tree


def keys(workspace: Workspace) -> dict[str, str]:
    return {step.name: step.key for step in workspace.plan().steps}


def test_the_order_of_steps(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    steps = workspace.plan().steps
    assert [(step.name, step.role, step.stage, step.reads) for step in steps] == [
        ("input model: length", "metric", "input model", ("input model",)),
        ("back", "pass", "back", ("input model",)),
        ("back: length", "metric", "back", ("back",)),
        ("more", "pass", "more", ("back",)),
        ("more: length", "metric", "more", ("more",)),
    ]


@pytest.mark.parametrize(
    ("evaluate", "measured"),
    [
        ("every-step", ["input model: length", "back: length", "more: length"]),
        ("ends", ["input model: length", "more: length"]),
        ("none", []),
    ],
)
def test_how_much_is_measured(evaluate: str, measured: list[str], workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = evaluate
    assert [step.name for step in workspace.plan().steps if step.role == "metric"] == measured


def test_every_key_is_known_before_any_work(workspace: Workspace) -> None:
    workspace.config["engine"]["evaluate"] = "every-step"
    planned = keys(workspace)
    assert all(len(key) == 64 for key in planned.values())
    assert len(set(planned.values())) == 5
    assert not workspace.cache.exists(), "a plan writes nothing"
    assert not workspace.output.exists()


def test_a_changed_field_changes_the_keys_of_what_follows(workspace: Workspace) -> None:
    before = keys(workspace)
    workspace.config["passes"]["more"]["text"] = "?"
    after = keys(workspace)
    assert before["back"] == after["back"]
    assert before["more"] != after["more"]


def test_a_changed_input_changes_every_key(workspace: Workspace) -> None:
    before = keys(workspace)
    (workspace.input / "a.txt").write_text("two")
    after = keys(workspace)
    assert all(before[name] != after[name] for name in before)


def test_a_renamed_input_file_changes_every_key(workspace: Workspace) -> None:
    before = keys(workspace)
    (workspace.input / "a.txt").rename(workspace.input / "c.txt")
    assert not set(before.values()) & set(keys(workspace).values())


def test_a_name_or_a_place_changes_no_key(workspace: Workspace, tmp_path: Path) -> None:
    before = list(keys(workspace).values())
    workspace.passes(
        front={"type": "Reverse"}, rear={"type": "Append", "text": "!", "source": None}
    )
    workspace.input.rename(workspace.folder / "renamed")
    workspace.config["input_model"]["model_path"] = "renamed"
    assert list(keys(workspace).values()) == before
    shutil.copytree(workspace.folder, tmp_path / "elsewhere" / "deep")
    workspace.folder = tmp_path / "elsewhere" / "deep"
    assert list(keys(workspace).values()) == before


def test_a_data_file_is_in_the_key_by_its_content(workspace: Workspace) -> None:
    (workspace.folder / "more.txt").write_text("more")
    (workspace.folder / "same.txt").write_text("more")
    workspace.passes(more={"type": "Append", "source": "more.txt"})
    before = keys(workspace)
    workspace.passes(more={"type": "Append", "source": "same.txt"})
    assert keys(workspace) == before
    (workspace.folder / "same.txt").write_text("other")
    assert keys(workspace) != before


def test_a_data_file_that_is_not_there_is_refused(workspace: Workspace) -> None:
    workspace.passes(more={"type": "Append", "source": "absent.txt"})
    words = r"^config\.json:\d+: more: names .*absent\.txt, which is not there\n  Mend the path\.$"
    with pytest.raises(Refused, match=words):
        workspace.plan()


def test_a_chain_that_does_not_fit_is_refused_before_any_work(workspace: Workspace) -> None:
    workspace.passes(back={"type": "Reverse"}, merge={"type": "MergeAdapterWeights"})
    words = (
        r"^config\.json:\d+: merge \(MergeAdapterWeights\): works on hf-adapter, "
        r"but what comes before gives files\n  Mend the order of the passes\.$"
    )
    with pytest.raises(Refused, match=words):
        workspace.run()
    assert tree(workspace.folder).keys() == {"config.json", "input/a.txt", "input/b.txt"}


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "a\\b", "n" * 99, "a\nb"])
def test_a_name_that_is_no_folders_is_refused(name: str, workspace: Workspace) -> None:
    workspace.config["passes"] = {name: {"type": "Reverse"}}
    with pytest.raises(Refused, match="cannot be a part of the output folder's name"):
        workspace.plan()


def test_a_pass_may_not_be_called_like_the_input(workspace: Workspace) -> None:
    workspace.config["passes"] = {"input model": {"type": "Reverse"}}
    with pytest.raises(
        Refused, match=r"^config\.json:\d+: passes.input model: is a stage's own name"
    ):
        workspace.plan()


def test_an_input_that_is_not_there_is_refused(workspace: Workspace) -> None:
    workspace.config["input_model"]["model_path"] = "absent"
    with pytest.raises(Refused, match=r"input_model.model_path: \"absent\" is not there \("):
        workspace.plan()


def test_an_input_with_a_link_that_leads_out_is_refused(workspace: Workspace) -> None:
    (workspace.input / "c.txt").symlink_to(workspace.write())
    with pytest.raises(DrupeError, match=r"c\.txt: is a link to .*config\.json, which lies out"):
        workspace.plan()


@pytest.mark.parametrize("key", ["cache_dir", "output_dir"])
def test_a_run_may_not_write_into_its_input(key: str, workspace: Workspace) -> None:
    workspace.config["engine"][key] = "input/below"
    with pytest.raises(
        Refused, match=rf"^config\.json:\d+: engine\.{key}: .*lies in the input model's folder"
    ):
        workspace.plan()


def test_a_pickle_is_refused_with_the_remedy(workspace: Workspace) -> None:
    (workspace.input / "pytorch_model.bin").write_text("")
    workspace.config["input_model"]["type"] = "HfModel"
    words = r"holds its weights as a pickle \(pytorch_model\.bin\), which can run any code"
    with pytest.raises(Refused, match=words):
        workspace.plan()


def test_a_model_that_is_neither_here_nor_a_hub_name(workspace: Workspace) -> None:
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "no/such/folder"}
    words = r'model_path: "no/such/folder" is no folder .*, and no name on the Hub'
    with pytest.raises(Refused, match=words):
        workspace.plan()


class Checkpointed(Pass):
    takes, gives = ("hf",), "hf"

    def run(self, model: Model, out: Path, job: Job) -> None: ...


def test_remote_code_is_in_the_keys(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own code and transformers' may give other results from the same files."""
    place = {"Checkpointed": f"{__name__}:Checkpointed"}
    monkeypatch.setattr("drupe.catalog.PASSES._built_in", place)
    make_checkpoint(workspace.input)
    workspace.passes(step={"type": "Checkpointed"})
    found = set()
    for remote_code in (False, True):
        workspace.config["input_model"] = {
            "type": "HfModel",
            "model_path": "input",
            "load_kwargs": {"trust_remote_code": remote_code},
        }
        found.add(keys(workspace)["step"])
    assert len(found) == 2
