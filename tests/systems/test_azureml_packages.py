"""Packages that go to AzureML, sent by azure-ai-ml to a stand-in on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import (
    NAMES,
    FakeAzure,
    _json,
    _named,
    _place_for_code,
)
from loopback import Answer, Request

from drupe.config.workspace import VARIABLES
from drupe.core.errors import ConfigError, DrupeError, Refused
from tests.plain.conftest import Workspace

KINDS = ("models", "data")
ENDPOINTS = ("onlineEndpoints", "batchEndpoints")


class FakeRegistry(FakeAzure):
    """The workspace with its models, its data and its endpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kept: dict[str, dict[str, Any]] = {}

    def _asset(self, request: Request, words: list[str]) -> Answer:
        place = "/".join(words)
        match request.method, words:
            case "POST", [kind, name, "versions", _, "startPendingUpload"] if kind in KINDS:
                return _json(_place_for_code(name))
            case "PUT", [kind, *_] if kind in (*KINDS, *ENDPOINTS):
                told = json.loads(request.body)
                told["properties"]["provisioningState"] = "Succeeded"
                filled_in = {"flavors": {}, "scaleSettings": {"scaleType": "Default"}}
                told["properties"] = {**filled_in, **told["properties"]}
                self.kept[place] = {**_named(place, ""), **told, "name": words[-1]}
                return _json(self.kept[place], 201 if kind in KINDS else 200)
            case "GET", [kind, *_] if kind in (*KINDS, *ENDPOINTS) and place in self.kept:
                return _json(self.kept[place])
        return super()._asset(request, words)


@pytest.fixture
def azure(tmp_path: Path, log_in: Callable[[FakeAzure], None]) -> Iterator[FakeRegistry]:
    """The service, with this process logged in to it."""
    with FakeRegistry(tmp_path / "azure") as fake:
        log_in(fake)
        yield fake


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A config over toy passes, its workspace being the fake."""
    made = Workspace(tmp_path / "workspace")
    made.config["azureml_client"] = {**NAMES, "max_operation_retries": 0}
    return made


def pack(workspace: Workspace, kind: str, **config: Any) -> None:
    package = {"type": kind, "name": "sent", "config": config}
    workspace.config["engine"]["packaging_config"] = package


@pytest.mark.parametrize("kind", ["AzureMLModels", "AzureMLData"])
def test_the_result_is_registered_once(
    kind: str, workspace: Workspace, azure: FakeRegistry
) -> None:
    word, place = {"AzureMLModels": ("model", "models"), "AzureMLData": ("data", "data")}[kind]
    pack(workspace, kind, version="3", description="turned")
    workspace.run()
    assert f"sent: registered as the {word} sent:3." in workspace.heard.notes
    told = azure.kept[f"{place}/sent/versions/3"]["properties"]
    assert told["description"] == "turned"
    assert len(told["tags"]["drupe"]) == 64
    assert told.get("modelType", told.get("dataType")) in ("custom_model", "uri_folder")
    uri = told.get("modelUri") or told["dataUri"]
    folder = azure._place_of(uri)
    assert (folder / "a.txt").read_text() == "eno!"
    assert not (folder / "report.json").exists(), "what is private to a run stays here"

    workspace.run()
    assert f"sent: the {word} sent:3 is in the workspace as it would be sent." in (
        workspace.heard.notes
    )
    assert len(azure.requests("PUT", f"/{place}/sent/versions/3")) == 1

    workspace.passes(back={"type": "Reverse"})
    words = rf"^the {word} sent:3: is in the workspace, and holds something else\n  Write another"
    with pytest.raises(DrupeError, match=words):
        workspace.run()


def with_script(workspace: Workspace) -> dict[str, Any]:
    folder = workspace.folder / "scoring"
    folder.mkdir()
    (folder / "score.py").write_text("def init(): ...\ndef run(asked): return asked\n")
    return {"code_folder": "scoring", "scoring_script": "score.py"}


def test_an_online_deployment(workspace: Workspace, azure: FakeRegistry) -> None:
    server = with_script(workspace)
    pack(
        workspace,
        "AzureMLDeployment",
        model_name="turned",
        model_package={
            "inferencing_server": {"type": "AzureMLOnline", **server},
            "environment_variables": {"SAID": "hello"},
        },
        deployment_config={"endpoint_name": "answers", "instance_type": "Standard_DS3_v2"},
    )
    workspace.run()
    assert "models/turned/versions/1" in azure.kept
    assert azure.kept["onlineEndpoints/answers"]["properties"]["authMode"].lower() == "key"
    told = azure.kept["onlineEndpoints/answers/deployments/olive-default-deployment"]
    properties = told["properties"]
    assert properties["instanceType"] == "Standard_DS3_v2"
    assert properties["environmentVariables"] == {"SAID": "hello"}
    assert properties["codeConfiguration"]["scoringScript"] == "score.py"
    assert "models/turned" in properties["model"]
    assert (told["sku"]["name"], told["sku"]["capacity"]) == ("Default", 1)
    made = [each for place, each in azure._assets.items() if place.startswith("environments/")]
    assert "azureml-inference-server-http" in made[0]["properties"]["condaFile"]
    assert "sent: served by the endpoint answers (olive-default-deployment)." in (
        workspace.heard.notes
    )


def test_a_batch_deployment(workspace: Workspace, azure: FakeRegistry) -> None:
    server = with_script(workspace)
    pack(
        workspace,
        "AzureMLDeployment",
        model_package={
            "inferencing_server": {"type": "AzureMLBatch", **server},
            "base_environment_id": "azureml:registered:1",
        },
        deployment_config={"endpoint_name": "many", "compute": "cluster", "mini_batch_size": 5},
    )
    azure.registered("registered", "1")
    workspace.run()
    told = azure.kept["batchEndpoints/many/deployments/olive-default-deployment"]["properties"]
    assert told["miniBatchSize"] == 5
    assert told["compute"].endswith("/computes/cluster")
    assert told["environmentId"].endswith("/environments/registered/versions/1")


def test_a_refusal_of_the_service_is_told_and_the_model_is_delivered(
    workspace: Workspace, azure: FakeRegistry
) -> None:
    pack(workspace, "AzureMLModels")
    azure.fail("PUT", "/models/sent/versions/1", 403)
    with pytest.raises(DrupeError, match=r"^the model sent:1: is not shown to you: "):
        workspace.run()
    assert (workspace.output / "report.json").is_file()
    workspace.run()
    assert workspace.heard.ran == []
    assert "sent: registered as the model sent:1." in workspace.heard.notes


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("AzureMLDeployment", {}, r"a deployment \(online\) needs deployment_config.instance_type"),
        (
            "AzureMLDeployment",
            {"model_package": {"inferencing_server": {"type": "AzureMLBatch"}}},
            r"a deployment \(batch\) needs deployment_config.compute",
        ),
        ("AzureMLModels", {"model_name": "m"}, "model_name is for AzureMLDeployment, not for"),
        ("Zipfile", {"version": "2"}, "version is for AzureMLModels and AzureMLData, not for Zip"),
        ("AzureMLData", {"version": "a b"}, "version of an asset has letters, digits, _ - and"),
    ],
)
def test_a_package_that_makes_no_sense(
    kind: str, config: dict[str, Any], words: str, workspace: Workspace
) -> None:
    pack(workspace, kind, **config)
    with pytest.raises(ConfigError, match=words):
        workspace.plan()


def test_what_cannot_be_sent_is_refused_before_any_work(workspace: Workspace) -> None:
    pack(workspace, "AzureMLDeployment", deployment_config={"instance_type": "x"})
    words = r"packaging_config\[0\]: asks for a deployment, and drupe's scoring script answers for "
    with pytest.raises(Refused, match=words):
        workspace.run()
    del workspace.config["azureml_client"]
    pack(workspace, "AzureMLModels")
    words = (
        r"packaging_config\[0\]: has no workspace, nor has a config\.json or the environment\n  W"
    )
    with pytest.raises(Refused, match=words):
        workspace.run()


Tell = Callable[[Workspace, dict[str, Any], pytest.MonkeyPatch], str]


def of_a_system(workspace: Workspace, client: dict[str, Any], patch: pytest.MonkeyPatch) -> str:
    system = {"type": "AzureML", "aml_compute": "c", "azureml_client_config": client}
    workspace.config["systems"] = {"aml": system}
    return "systems.aml.azureml_client_config"


def of_a_file(workspace: Workspace, client: dict[str, Any], patch: pytest.MonkeyPatch) -> str:
    file = workspace.folder.resolve() / ".azureml" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(client))
    return str(file)


def of_the_environment(
    workspace: Workspace, client: dict[str, Any], patch: pytest.MonkeyPatch
) -> str:
    for name in client:
        patch.setenv(VARIABLES[name][0], client[name])
    return f"the environment: {', '.join(VARIABLES[name][0] for name in client)}"


@pytest.mark.parametrize("tell", [of_a_system, of_a_file, of_the_environment])
def test_the_workspace_is_found_as_that_of_a_resource(
    tell: Tell, workspace: Workspace, azure: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = workspace.config.pop("azureml_client")
    del client["max_operation_retries"]
    origin = tell(workspace, client, monkeypatch)
    pack(workspace, "AzureMLModels")
    assert (
        f"The AzureML workspace is {NAMES['workspace_name']} ({origin})." in workspace.plan().notes
    )
    workspace.run()
    assert "models/sent/versions/1" in azure.kept


def test_of_two_workspaces_none_is_guessed(
    workspace: Workspace, azure: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = workspace.config.pop("azureml_client")
    of_a_system(workspace, client, monkeypatch)
    another = {**client, "workspace_name": "another"}
    systems = workspace.config["systems"]
    systems["other"] = {**systems["aml"], "azureml_client_config": another}
    pack(workspace, "AzureMLModels")
    words = (
        r"packaging_config\[0\]: is in no workspace of its own, and the config names another and "
    )
    with pytest.raises(Refused, match=words):
        workspace.run()
    assert azure.asked == []
