"""Which AzureML workspace a config means: the one it names, its file's, the environment's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.config.load import load
from drupe.config.source import Map, read
from drupe.config.workspace import NO_WORKSPACE, completed, find_workspace
from drupe.core.errors import Refused
from drupe.core.resource import AzureMLClient
from tests.plain.conftest import Workspace

ONE = {"subscription_id": "s", "resource_group": "g", "workspace_name": "one"}
TWO = {**ONE, "workspace_name": "two"}
MODEL = {"type": "azureml_model", "name": "n", "version": "1"}
VARIABLES = {
    "AZUREML_ARM_SUBSCRIPTION": "s",
    "AZUREML_ARM_RESOURCEGROUP": "g",
    "AZUREML_ARM_WORKSPACE_NAME": "of-the-job",
}


def config(folder: Path, **value: Any) -> Map:
    return read(folder / "config.json", json.dumps(value))


def test_the_top_level_decides(tmp_path: Path) -> None:
    root = config(tmp_path, azureml_client=ONE, systems={"aml": {"azureml_client_config": TWO}})
    found = find_workspace(root, tmp_path, VARIABLES)
    assert found.needed("x").workspace_name == "one"
    assert found.note == "The AzureML workspace is one (azureml_client)."


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ({"systems": {"aml": {"azureml_client_config": ONE}}}, "systems.aml.azureml_client_config"),
        (
            {"data_configs": [{"load_dataset_config": {"data_files": {"azureml_client": ONE}}}]},
            "data_configs[0].load_dataset_config.data_files.azureml_client",
        ),
    ],
)
def test_else_the_one_other_client(value: dict[str, Any], origin: str, tmp_path: Path) -> None:
    found = find_workspace(config(tmp_path, **value), tmp_path, VARIABLES)
    assert found.note == f"The AzureML workspace is one ({origin})."


def test_the_same_client_twice_is_one(tmp_path: Path) -> None:
    root = config(
        tmp_path,
        input_model={"model_path": {"azureml_client": {**ONE, "keyvault_name": "v"}}},
        systems={"aml": {"azureml_client_config": ONE}},
    )
    assert find_workspace(root, tmp_path, {}).needed("x").workspace_name == "one"


def test_of_two_none_is_guessed(tmp_path: Path) -> None:
    root = config(
        tmp_path,
        input_model={"model_path": {"azureml_client": ONE}},
        systems={"aml": {"azureml_client_config": TWO}},
    )
    words = r"model_path: is in no workspace of its own, and the config names one and two\n  Write"
    with pytest.raises(Refused, match=words):
        find_workspace(root, tmp_path, VARIABLES).needed("model_path")


@pytest.mark.parametrize("place", [".azureml/config.json", "aml_config/config.json", "config.json"])
def test_else_the_workspaces_own_file_there_or_above(place: str, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(ONE))
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    found = find_workspace(config(inner), inner, VARIABLES)
    assert found.note == f"The AzureML workspace is one ({file})."


def test_another_config_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "phi3"}')
    assert find_workspace(config(tmp_path), tmp_path, {}).client is None


@pytest.mark.parametrize("dropped", [None, *VARIABLES])
def test_else_the_environment(dropped: str | None, tmp_path: Path) -> None:
    given = {name: value for name, value in VARIABLES.items() if name != dropped}
    found = find_workspace(config(tmp_path), tmp_path, given)
    if dropped is None:
        assert found.needed("x").workspace_name == "of-the-job"
        assert "the environment: AZUREML_ARM_SUBSCRIPTION" in found.note
    else:
        with pytest.raises(Refused, match=r"x: knows no \w+, nor has a config\.json or the env"):
            found.needed("x")


def test_a_client_with_a_vault_alone_is_filled_in(tmp_path: Path) -> None:
    root = config(tmp_path, azureml_client={"keyvault_name": "vault"})
    client = find_workspace(root, tmp_path, VARIABLES).needed("x")
    assert (client.workspace_name, client.keyvault_name) == ("of-the-job", "vault")


def test_a_client_with_a_vault_alone_is_in_the_one_other_clients_workspace(tmp_path: Path) -> None:
    systems = {"aml": {"azureml_client_config": ONE}}
    root = config(tmp_path, azureml_client={"keyvault_name": "vault"}, systems=systems)
    found = find_workspace(root, tmp_path, VARIABLES)
    client = found.needed("x")
    assert (client.workspace_name, client.keyvault_name) == ("one", "vault")
    assert found.origin == "azureml_client and systems.aml.azureml_client_config"


def test_a_file_that_the_client_names(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(ONE))
    client = AzureMLClient(aml_config_path="mine.json", resource_group="mine")
    assert completed(client, tmp_path).triple == ("s", "mine", "one")
    with pytest.raises(Refused, match=r"aml_config_path: is .*none\.json, which is no JSON file"):
        completed(AzureMLClient(aml_config_path="none.json"), tmp_path)


def test_without_any_it_says_so() -> None:
    with pytest.raises(Refused, match=r'x: has no workspace\n  Write "azureml_client"'):
        NO_WORKSPACE.needed("x")


def test_the_plan_names_what_lacks_a_workspace(workspace: Workspace) -> None:
    workspace.config["input_model"]["model_path"] = MODEL
    with pytest.raises(Refused, match=r"input_model\.model_path.*has no workspace"):
        workspace.plan()


def test_a_system_is_in_the_workspace_that_was_found(workspace: Workspace) -> None:
    workspace.config["systems"] = {
        "aml": {
            "type": "AzureML",
            "aml_compute": "cluster",
            "azureml_client_config": {"keyvault_name": "vault"},
        }
    }
    workspace.config["azureml_client"] = ONE
    workspace.config["engine"]["host"] = "aml"
    client = load(workspace.write()).host.system.client()
    assert client
    assert (client.workspace_name, client.keyvault_name) == ("one", "vault")
