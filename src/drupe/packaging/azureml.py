"""Packages that go to AzureML: the delivered model registered as a model or as data, or served.

    OUTPUT/NAME/          what is sent: the model's files, or an MLflow model's
    OUTPUT/NAME/          of a deployment: model/, code/score.py, conda.yaml

A version in a workspace never changes: one that is there is left alone where it holds what would
be sent, by the stamp in its tags, and is a fault where it does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from drupe.config.packages import PackageConfig
from drupe.config.schema import Workflow
from drupe.core.errors import DrupeError, Refused
from drupe.packaging.archive import Content
from drupe.packaging.companions import program
from drupe.packaging.requirements import python_version
from drupe.resources.azure import library, told, workspace

TAG = "drupe"
SCORE = {"onnx-genai": "score_genai.py"}
SCRIPT = "score.py"
IMAGES = {
    "cpu": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
    "gpu": "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
}
# What the servers of AzureML need in the environment beside what the script does.
SERVERS = {
    "AzureMLOnline": ["azureml-inference-server-http"],
    "AzureMLBatch": ["azureml-core", "azureml-dataset-runtime[fuse]"],
}


def refuse(where: str, package: PackageConfig, kind: str, workflow: Workflow) -> None:
    """Refuse what cannot be sent: no workspace, no client library, nothing that answers."""
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.ai") is None:
        what = f"is {package.type}, which needs azure-ai-ml, and that is not installed"
        raise Refused(where, what, 'pip install "drupe[azureml]"')
    workflow.workspace.needed(where)
    server = package.model_package.inferencing_server
    if package.type == "AzureMLDeployment" and server.code_folder is None and kind not in SCORE:
        raise Refused(
            where,
            f"asks for a deployment, and drupe's scoring script answers for {' or '.join(SCORE)}; "
            f"the last pass gives {kind}",
            "Export the model, or name your own in model_package.inferencing_server.",
        )
    folder = code_folder(package, workflow)
    if folder is not None and not (folder / str(server.scoring_script)).is_file():
        what = f"names {folder / str(server.scoring_script)}, which is not there"
        raise Refused(f"{where}.model_package.inferencing_server", what, "Mend the path.")


def code_folder(package: PackageConfig, workflow: Workflow) -> Path | None:
    """Return the folder of the user's own scoring script, if there is one."""
    named = package.model_package.inferencing_server.code_folder
    return Path(workflow.file).resolve().parent / named if named is not None else None


def deployment_files(package: PackageConfig, kind: str, lines: list[str]) -> dict[str, Content]:
    """Return {name: content} of what a deployment needs beside its model."""
    server = package.model_package.inferencing_server
    conda = {
        "name": package.model_package.target_environment,
        "channels": ["conda-forge"],
        "dependencies": [
            f"python={python_version()}",
            "pip",
            {"pip": [*lines, *SERVERS[server.type]]},
        ],
    }
    found: dict[str, Content] = {"conda.yaml": yaml.safe_dump(conda, sort_keys=False).encode()}
    if server.code_folder is None:
        found[f"code/{SCRIPT}"] = program(SCORE[kind])
    return found


def send(
    package: PackageConfig,
    folder: Path,
    stamp: str,
    device: str,
    workflow: Workflow,
    note: Callable[[str], None],
) -> None:
    """Register, and serve, what lies in `folder`. device: "cpu" or "gpu", for the image.

    Raises DrupeError for what the service does not take.
    """
    client = workspace(workflow.workspace.needed("engine.packaging_config"))
    sent = _Sent(package, folder, stamp, client, note)
    if package.type == "AzureMLModels":
        sent.model(package.name, package.version, package.description, folder)
    elif package.type == "AzureMLData":
        sent.data()
    else:
        model = sent.model(
            package.model_name, package.model_version, package.model_description, folder / "model"
        )
        sent.deployment(model, device, code_folder(package, workflow) or folder / "code")


class _Sent:
    """The calls for one package."""

    def __init__(
        self,
        package: PackageConfig,
        folder: Path,
        stamp: str,
        client: Any,
        note: Callable[[str], None],
    ) -> None:
        self._package = package
        self._folder = folder
        self._stamp = stamp
        self._client = client
        self._note = note
        self._entities = library("azure.ai.ml.entities")

    def model(self, name: str, version: str, description: str | None, folder: Path) -> Any:
        """Return the model of the workspace, registered where it is not."""
        made = self._entities.Model(
            path=str(folder),
            name=name,
            version=version,
            description=description,
            type="mlflow_model" if self._package.export_in_mlflow_format else "custom_model",
            tags={TAG: self._stamp},
        )
        return self._registered("model", self._client.models, made)

    def data(self) -> None:
        """Register the folder as data."""
        made = self._entities.Data(
            path=str(self._folder),
            name=self._package.name,
            version=self._package.version,
            description=self._package.description,
            type="uri_folder",
            tags={TAG: self._stamp},
        )
        self._registered("data", self._client.data, made)

    def deployment(self, model: Any, device: str, code: Path) -> None:
        """Serve the model: an endpoint, and a deployment of it."""
        package, entities = self._package.model_package, self._entities
        asked = self._package.deployment_config
        server = package.inferencing_server
        online = server.type == "AzureMLOnline"
        shared: dict[str, Any] = {
            "name": asked.deployment_name,
            "endpoint_name": asked.endpoint_name,
            "model": model,
            "environment": package.base_environment_id or self._environment(device),
            "code_configuration": entities.CodeConfiguration(
                code=str(code), scoring_script=server.scoring_script or SCRIPT
            ),
            "environment_variables": package.environment_variables,
            "instance_count": asked.instance_count,
            "tags": {TAG: self._stamp},
            **asked.extra_config,
        }
        where = f"the endpoint {asked.endpoint_name}"
        if online:
            endpoints, deployments = self._client.online_endpoints, self._client.online_deployments
            endpoint = entities.ManagedOnlineEndpoint(name=asked.endpoint_name, auth_mode="key")
            mount = package.model_configurations.mount_path
            more = {"model_mount_path": mount} if mount else {}
            made = entities.ManagedOnlineDeployment(
                **shared, instance_type=asked.instance_type, **more
            )
        else:
            endpoints, deployments = self._client.batch_endpoints, self._client.batch_deployments
            endpoint = entities.BatchEndpoint(name=asked.endpoint_name)
            made = entities.BatchDeployment(
                **shared, compute=asked.compute, mini_batch_size=asked.mini_batch_size
            )
        with told(where):
            endpoints.begin_create_or_update(endpoint).result()
        with told(f"{where}, its deployment {asked.deployment_name}"):
            deployments.begin_create_or_update(made).result()
        self._note(f"{self._package.name}: served by {where} ({asked.deployment_name}).")

    def _environment(self, device: str) -> Any:
        package = self._package.model_package
        return self._entities.Environment(
            name=package.target_environment,
            version=package.target_environment_version or self._stamp[:16],
            image=IMAGES[device],
            conda_file=str(self._folder / "conda.yaml"),
        )

    def _registered(self, word: str, operations: Any, made: Any) -> Any:
        where = f"the {word} {made.name}:{made.version}"
        try:
            with told(where):
                known = operations.get(name=made.name, version=made.version)
        except Refused:
            with told(where):
                sent = operations.create_or_update(made)
            self._note(f"{self._package.name}: registered as {where}.")
            return sent
        if (known.tags or {}).get(TAG) != self._stamp:
            what = "is in the workspace, and holds something else"
            raise DrupeError(where, what, "Write another version.")
        self._note(f"{self._package.name}: {where} is in the workspace as it would be sent.")
        return known
