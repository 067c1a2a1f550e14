"""What a config says that will not do what its writer expects: each rule, and its silence."""

from __future__ import annotations

from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.errors import ConfigError
from tests.plain.conftest import Workspace

CLIENT = {"subscription_id": "1", "resource_group": "g", "workspace_name": "w"}


@pytest.fixture
def azure(workspace: Workspace) -> Workspace:
    """A config whose target is an AzureML system that lacks nothing."""
    container = {"base_image": "image", "conda_file_path": "conda.yaml"}
    workspace.config["systems"] = {
        "aml": {
            "type": "AzureML",
            "accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}],
            "aml_compute": "gpus",
            "aml_docker_config": container,
        }
    }
    workspace.config["engine"]["target"] = "aml"
    workspace.config["azureml_client"] = dict(CLIENT)
    (workspace.folder / "conda.yaml").write_text("dependencies:\n  - python=3.11\n")
    return workspace


def warned(workspace: Workspace, **arguments: Any) -> list[str]:
    notes = load(workspace.write(), **arguments).notes
    return [said.text.partition(": ")[2] for said in notes if said.level == "warning"]


def test_what_is_whole_is_not_warned_of(azure: Workspace) -> None:
    assert warned(azure) == []


def test_no_workspace(azure: Workspace) -> None:
    del azure.config["azureml_client"]
    words = 'systems.aml has no workspace: write "azureml_client", or run with --system local'
    assert warned(azure) == [words]


def test_a_token_without_a_key_vault(azure: Workspace) -> None:
    azure.config["systems"]["aml"]["hf_token"] = True
    [text] = warned(azure)
    assert text == (
        "systems.aml.hf_token has no key vault to read the token from: name it in "
        '"azureml_client.keyvault_name"'
    )
    azure.config["azureml_client"]["keyvault_name"] = "vault"
    assert warned(azure) == []


@pytest.mark.parametrize(
    "text",
    ["Your Azure Resource Group", "your token", "<compute name>", "TODO", "xxxx", "[Your x]"],
)
def test_a_placeholder(text: str, azure: Workspace) -> None:
    azure.config["systems"]["aml"]["aml_compute"] = text
    words = f'systems.aml.aml_compute is still a placeholder ("{text}"): write your own'
    assert warned(azure) == [words]


@pytest.mark.parametrize("text", ["yours", "gpu-cluster", "a<b", "youth", "mytodo"])
def test_no_placeholder(text: str, azure: Workspace) -> None:
    azure.config["systems"]["aml"]["aml_compute"] = text
    assert warned(azure) == []


def test_what_is_not_used_is_not_looked_at(azure: Workspace) -> None:
    azure.config["systems"]["aml"]["aml_compute"] = "Your compute"
    azure.config["engine"]["target"] = None
    azure.config["systems"]["here"] = {"type": "LocalSystem"}
    assert warned(azure) == []


def test_a_conda_file_that_is_not_there(azure: Workspace) -> None:
    (azure.folder / "conda.yaml").unlink()
    words = (
        "systems.aml.aml_docker_config.conda_file_path names conda.yaml, which cannot be read: "
        "mend the path"
    )
    assert warned(azure) == [words]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("- python=3.8.13", "python=3.8.13 is older than the Python 3.11 of drupe: leave it out"),
        ("- python=3.10", "python=3.10 is older than the Python 3.11 of drupe: leave it out"),
        ("- git+https://example.org/x/Olive@fix#egg=olive-ai[gpu]", "is a branch of Olive, which"),
        ("- ort-nightly-gpu==1.18.0.dev20240307004", "is a nightly build, and those are removed"),
        ("- onnxruntime==1.19.0.dev20240601", "is a nightly build, and those are removed"),
        ("- olive-ai[gpu]", "is Olive, which no step of drupe needs"),
    ],
)
def test_a_dead_pin(line: str, why: str, azure: Workspace) -> None:
    (azure.folder / "conda.yaml").write_text(f"# {line}\ndependencies:\n  {line}\n")
    [text] = warned(azure)
    assert text.startswith("systems.aml.aml_docker_config.conda_file_path conda.yaml:3: ")
    assert why in text


@pytest.mark.parametrize("line", ["- python=3.11", "- python=3.12.1", "- onnxruntime==1.19.0"])
def test_a_pin_that_lives(line: str, azure: Workspace) -> None:
    (azure.folder / "conda.yaml").write_text(f"dependencies:\n  {line}\n")
    assert warned(azure) == []


def test_a_lint_is_a_fault_under_strict(azure: Workspace) -> None:
    del azure.config["azureml_client"]
    with pytest.raises(ConfigError, match=r"systems\.aml has no workspace: write "):
        load(azure.write(), strict=True)
