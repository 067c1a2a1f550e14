"""A batch as AzureML's command job: its code, its inputs and outputs, its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure.ai.ml import Input, Output, command
from azure.ai.ml.constants import AssetTypes, InputOutputModes
from azure.ai.ml.entities import (
    BuildContext,
    Environment,
    JobResourceConfiguration,
    ManagedIdentityConfiguration,
    UserIdentityConfiguration,
)

from drupe.core.errors import Refused
from drupe.core.silence import SILENT
from drupe.systems.azureml.declaration import AzureML, ContainerConfig, EnvironmentConfig
from drupe.systems.bundle import Bundle

EXPERIMENT = "drupe"
# What is installed already under the same version is older code, or the same.
INSTALL = (
    "python -m pip install --no-index --no-deps --force-reinstall --disable-pip-version-check"
    " --quiet wheels/*.whl"
)
KUBERNETES = "kubernetes"
MODEL = re.compile(r"/models/[^/]+/versions/|^azureml:[^/]+:[^/]+$")
# azure-ai-ml tells the repository, branch and commit of the current folder, unless told before.
NO_GIT = {"mlflow.source.git.commit": "not told"}


def job_of(
    name: str,
    bundle: Bundle,
    system: AzureML,
    kind: str,
    results: str,
    properties: Mapping[str, str],
) -> Any:
    """Return the job `name` that does what a bundle holds, for `MLClient.jobs.create_or_update`.

    kind: the compute's. results: the address of the folder to which the results go.
    """
    given = " ".join(f"--input {each}=${{{{inputs.{each}}}}}" for each in bundle.inputs)
    told = f"python -m drupe batch --bundle . {given} --results ${{{{outputs.results}}}}"
    job = command(
        name=name,
        display_name=f"drupe {name[6:18]}",
        experiment_name=EXPERIMENT,
        code=str(bundle.folder),
        command=f"{INSTALL} && {told}",
        inputs={each: input_of(place) for each, place in bundle.inputs.items()},
        # Mounted, so that what a step has made is there while the next one runs.
        outputs={
            "results": Output(
                type=AssetTypes.URI_FOLDER, path=f"{results}/", mode=InputOutputModes.RW_MOUNT
            )
        },
        environment=environment_of(system),
        environment_variables=variables_of(system),
        compute=system.aml_compute,
        tags=dict(system.tags),
        properties={**NO_GIT, **properties},
        identity=identity_of(kind),
    )
    job.resources = JobResourceConfiguration(
        **{"instance_count": system.instance_count, **system.resources}
    )
    return job


def input_of(place: Path | str) -> Any:
    """Return a model, or data, as a job's input: a folder here is uploaded, what lies there stays.

    An address that is no registered model's is a file's, unless it ends in "/".
    """
    kind = AssetTypes.URI_FOLDER
    if isinstance(place, str) and MODEL.search(place):
        kind = AssetTypes.CUSTOM_MODEL
    elif isinstance(place, str) and not place.endswith("/"):
        kind = AssetTypes.URI_FILE
    return Input(type=kind, path=str(place), mode=InputOutputModes.RO_MOUNT)


def identity_of(kind: str) -> Any:
    """Return whose rights a job has: the submitter's; on Arc-attached Kubernetes the compute's.

    There a user's identity does not reach into the job.
    """
    return ManagedIdentityConfiguration() if kind == KUBERNETES else UserIdentityConfiguration()


def variables_of(system: AzureML) -> dict[str, str]:
    """Return what the job finds in its environment: no telemetry, and where the token lies.

    The token itself never leaves its key vault for here: the job reads it with its identity.
    """
    client = system.client()
    if not system.hf_token or client is None or client.keyvault_name is None:
        return dict(SILENT)
    return {
        **SILENT,
        "DRUPE_HF_TOKEN_FROM": "keyvault",
        "DRUPE_KEYVAULT": client.keyvault_name,
    }


def environment_of(system: AzureML) -> Any:
    """Return the job's environment: one of the workspace by its name, or an image with conda."""
    if system.aml_environment_config is not None:
        return _registered(system.aml_environment_config)
    if system.aml_docker_config is not None:
        return _built(system.aml_docker_config)
    raise Refused(
        "aml_docker_config",
        "is missing, and so is aml_environment_config: there is nothing to run the job in",
        'Write "aml_docker_config": {"base_image": ..., "conda_file_path": ...}.',
    )


def _registered(config: EnvironmentConfig) -> str:
    if config.version is not None:
        return f"azureml:{config.name}:{config.version}"
    return f"{config.name}@{config.label or 'latest'}"


def _built(config: ContainerConfig) -> Environment:
    """Return the environment of an image, or of a folder with a Dockerfile.

    Without a name AzureML finds it again by its content; a name without a version gets one by
    its content, so that the same makes no new version each time.
    """
    parts: dict[str, Any] = {}
    if config.build_context_path is not None:
        parts["build"] = BuildContext(
            path=str(config.build_context_path), dockerfile_path=config.dockerfile or "Dockerfile"
        )
    else:
        parts["image"] = config.base_image
    if config.conda_file_path is not None:
        parts["conda_file"] = str(config.conda_file_path)
    if config.name is not None:
        parts |= {"name": config.name, "version": config.version or config.digest[:16]}
    return Environment(**parts)
