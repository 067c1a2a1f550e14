"""What is still a placeholder of what lies on AzureML, and is used, is in the way; each place."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from drupe.config.load import load
from drupe.core.errors import Refused
from tests.plain.conftest import Workspace
from tests.plain.test_config_lints import CLIENT, on_azure, system, unready, warned


@pytest.fixture
def azure(workspace: Workspace) -> Workspace:
    return on_azure(workspace)


@pytest.mark.parametrize(
    "text",
    [
        *("Your Azure Resource Group", "your token", "<compute name>", "TODO", "xxxx", "[Your x]"),
        *("YOUR_COMPUTE", "gpus-<region>"),
    ],
)
def test_a_placeholder(text: str, azure: Workspace) -> None:
    system(azure)["aml_compute"] = text
    words = f'systems.aml.aml_compute is still a placeholder ("{text}")'
    assert unready(azure) == [words]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("aml_docker_config", "base_image"), "Your Azure docker"),
        (("aml_docker_config", "base_image"), "<registry>.azurecr.io/image"),
        (("aml_docker_config", "name"), "Your environment"),
        (("aml_docker_config", "conda_file_path"), "<folder>/conda.yaml"),
        (("aml_environment_config", "version"), "<version>"),
        (("resources", "instance_type"), "Your size"),
        (("resources", "docker_args", 0), "--volume=<folder>"),
        (("tags", "team"), "Your team"),
        (("azureml_client_config", "keyvault_name"), "<vault>"),
        (("azureml_client_config", "default_auth_params", "tenant"), "<tenant>"),
    ],
)
def test_a_placeholder_in_any_field_of_a_system(
    place: tuple[str | int, ...], value: str, azure: Workspace
) -> None:
    """It is in the way of a plan, and so of a run, before anything is sent."""
    first, *rest = place
    inner: Any = value
    for step in reversed(rest):
        inner = [inner] if step == 0 else {step: inner}
    base = {"azureml_client_config": CLIENT, "aml_docker_config": {"base_image": "image"}}
    system(azure)[first] = {**base.get(str(first), {}), **inner}
    if first == "aml_environment_config":
        del system(azure)["aml_docker_config"]
        system(azure)[first]["name"] = "e"
    where = ".".join(map(str, ("systems.aml", *place)))
    assert f'{where} is still a placeholder ("{value}")' in unready(azure)
    words = (
        rf'{re.escape(where)}: is still a placeholder \("{re.escape(value)}"\)\n  Write your own\.'
    )
    with pytest.raises(Refused) as refused:
        azure.plan()
    assert re.search(words, str(refused.value))


def test_a_system_that_is_not_used_is_told_of(azure: Workspace) -> None:
    azure.config["systems"]["arc"] = {**system(azure), "aml_compute": "Your compute"}
    assert unready(azure) == []
    assert warned(azure) == []
    notes = [said.text for said in load(azure.write(), strict=True).notes]
    assert notes == [f"config.json:{line_of(azure, 'arc')}: systems.arc {UNUSED}"]
    azure.config["engine"]["host"] = "arc"
    assert unready(azure) == ['systems.arc.aml_compute is still a placeholder ("Your compute")']
    assert "systems.arc is not used" not in str(load(azure.write()).notes)


UNUSED = "is not used, and not filled in (aml_compute)"


def line_of(workspace: Workspace, word: str) -> int:
    """Return the line of the written config that begins with a name."""
    lines = workspace.write().read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.strip().startswith(f'"{word}"'))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_path", "azureml://registries/<registry>/models/phi/versions/1"),
        ("model_path", "azureml:<model>:1"),
        ("model_path", "abfss://<container>@account.dfs.core.windows.net/models/phi"),
        ("adapter_path", "azureml://datastores/store/paths/<folder>/adapter"),
        (
            "datastore_url",
            "azureml://subscriptions/<id>/resourcegroups/g/workspaces/w/datastores/d/paths/p",
        ),
    ],
)
def test_a_placeholder_within_an_address(field: str, value: str, azure: Workspace) -> None:
    model = azure.config["input_model"]
    where = f"input_model.{field}"
    if field == "datastore_url":
        model["model_path"] = {"type": "azureml_datastore", field: value}
        where = f"input_model.model_path.{field}"
    else:
        model |= {"type": "HfModel", field: value}
    assert unready(azure) == [f'{where} is still a placeholder ("{value}")']
    assert not [told for told in warned(azure) if "placeholder" in told], "it is told once"
    assert unready(azure, system="local") == unready(azure), "it is read here, too"


def test_a_placeholder_of_the_client_that_a_resource_is_found_by(azure: Workspace) -> None:
    """Of whatever place of the config it comes: a system that is not used, another resource."""
    azure.config["systems"]["aml"]["azureml_client_config"] = {
        **azure.config.pop("azureml_client"),
        "resource_group": "<group>",
    }
    model = {"type": "azureml_model", "name": "phi", "version": 1}
    azure.config["input_model"]["model_path"] = model
    words = 'systems.aml.azureml_client_config.resource_group is still a placeholder ("<group>")'
    assert unready(azure, system="local") == [words]


def test_a_placeholder_in_the_workspaces_own_file(azure: Workspace) -> None:
    del azure.config["azureml_client"]
    folder = azure.folder.resolve() / ".azureml"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CLIENT, "workspace_name": "<workspace>"}))
    [fault] = load(azure.write()).unready
    assert str(fault) == (
        f'{folder / "config.json"}: workspace_name is still a placeholder ("<workspace>")\n'
        "  Write your own."
    )
    assert unready(azure, system="local") == []


def test_a_placeholder_of_a_package_that_is_sent(azure: Workspace) -> None:
    azure.config["engine"]["host"] = None
    azure.config["azureml_client"]["workspace_name"] = "Your workspace"
    server = {"environment_variables": {"WHERE": "Your region"}}
    azure.config["engine"]["packaging_config"] = {
        "type": "AzureMLDeployment",
        "model_description": "Your answers in a word",
        "model_package": server,
        "deployment_config": {"instance_type": "<size>"},
    }
    place = "engine.packaging_config"
    assert unready(azure) == [
        f'{place}.model_package.environment_variables.WHERE is still a placeholder ("Your region")',
        f'{place}.deployment_config.instance_type is still a placeholder ("<size>")',
        'azureml_client.workspace_name is still a placeholder ("Your workspace")',
    ]
    assert warned(azure) == []
    azure.config["engine"]["packaging_config"] = {"type": "Zipfile"}
    assert unready(azure) == []


def test_a_sign_that_is_meant_is_none_on_this_machine(workspace: Workspace) -> None:
    local = {"type": "LocalSystem", "environment_variables": {"END": "say <end> now"}}
    workspace.config["systems"] = {"here": local}
    workspace.config["engine"]["host"] = "here"
    assert unready(workspace) == []


@pytest.mark.parametrize("client", [{"keyvault_name": "v"}, {"aml_config_path": "absent.json"}])
def test_a_client_without_a_workspace(client: dict[str, str], azure: Workspace) -> None:
    del azure.config["azureml_client"]
    system(azure)["azureml_client_config"] = client
    assert unready(azure) == ["systems.aml has no workspace"]


def test_a_system_is_in_the_workspace_of_the_file_that_it_names(azure: Workspace) -> None:
    (azure.folder / "mine.json").write_text(json.dumps({**CLIENT, "workspace_name": "mine"}))
    system(azure)["azureml_client_config"] = {"aml_config_path": "mine.json"}
    client = load(azure.write()).host.system.client()
    assert client
    assert client.workspace_name == "mine", "not that of the top level"


@pytest.mark.parametrize("text", ["yours", "gpu-cluster", "youth", "mytodo"])
def test_no_placeholder(text: str, azure: Workspace) -> None:
    system(azure)["aml_compute"] = text
    assert unready(azure) == []


def test_a_placeholder_of_the_workspace(azure: Workspace) -> None:
    azure.config["azureml_client"]["workspace_name"] = "Your workspace"
    words = 'azureml_client.workspace_name is still a placeholder ("Your workspace")'
    assert unready(azure) == [words]
    assert unready(azure, system="local") == []


def test_a_placeholder_of_a_resource_counts_where_it_is_read(azure: Workspace) -> None:
    files = {"type": "azureml_datastore", "datastore_name": "d", "relative_path": "Your data"}
    azure.config["data_configs"] = [
        {"name": "rows", "load_dataset_config": {"data_files": files}},
    ]
    assert unready(azure) == []
    assert warned(azure) == []
    azure.config["input_model"]["model_path"] = {
        "type": "azureml_model",
        "name": "<model>",
        "version": 1,
    }
    assert unready(azure) == [
        'input_model.model_path.name is still a placeholder ("<model>")',
    ]
