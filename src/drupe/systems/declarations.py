"""The systems that a config can name; what runs their steps is named by a string."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from drupe.core.declared import Declared
from drupe.core.errors import Refused, nearest
from drupe.core.libraries import HERE, Environment, installed_version
from drupe.core.resource import AzureMLClient, Remote
from drupe.core.system import System
from drupe.systems.conda import conda_lints
from drupe.systems.interpreter import InterpreterEnvironment, python_of
from drupe.systems.processes import Interpreter


class LocalSystem(System):
    """The machine that drupe runs on."""

    executor = "drupe.systems.local:open_local"

    type: Literal["LocalSystem"] = "LocalSystem"
    environment_variables: dict[str, str] = Field(default={})
    """What the processes of the steps find in their environment, beside what is there."""

    @property
    def interpreter(self) -> Interpreter:
        """The Python that runs the steps."""
        return Interpreter(sys.executable, self.environment_variables)


class PythonEnvironment(System):
    """Another Python environment on this machine; drupe's own code goes along."""

    executor = "drupe.systems.python_environment:open_environment"

    type: Literal["PythonEnvironment"] = "PythonEnvironment"
    python_environment_path: Path | None = None
    """The environment's folder, its folder of programs, or the Python itself."""
    environment_variables: dict[str, str] = Field(default={})
    """What the processes of the steps find in their environment, beside what is there."""
    prepend_to_path: tuple[Path, ...] = ()
    """Folders that come first in PATH."""

    @model_validator(mode="after")
    def _names_one(self) -> PythonEnvironment:
        if self.python_environment_path is None:
            raise ValueError("python_environment_path is missing: the folder of the environment")
        return self

    @property
    def interpreter(self) -> Interpreter:
        """The Python that runs the steps; raises Refused where there is none."""
        assert self.python_environment_path is not None
        return python_of(
            self.python_environment_path, self.environment_variables, self.prepend_to_path
        )

    def environment(self) -> Environment:
        """Return what is installed there, asked of that Python once."""
        return InterpreterEnvironment.of(self.interpreter)


class ContainerConfig(Declared):
    """`aml_docker_config`."""

    base_image: str | None = None
    dockerfile: str | None = None
    build_context_path: Path | None = None
    conda_file_path: Path | None = None
    name: str | None = None
    version: str | None = None


class EnvironmentConfig(Declared):
    """`aml_environment_config`: an environment that is registered in the workspace."""

    name: str
    version: str | None = None
    label: str | None = None


RESOURCES = (
    *("instance_type", "instance_count", "max_instance_count", "locations"),
    *("docker_args", "shm_size", "properties"),
)


class AzureML(System):
    """An AzureML compute: its steps travel there as jobs."""

    executor = "drupe.systems.azureml.executor:open_workspace"
    elsewhere = True
    reaches_hub = True

    type: Literal["AzureML"] = "AzureML"
    aml_compute: str
    """The name of the compute, in the workspace."""
    aml_docker_config: ContainerConfig | None = None
    aml_environment_config: EnvironmentConfig | None = None
    azureml_client_config: AzureMLClient | None = None
    """The workspace; without it the config's own azureml_client."""
    instance_count: int = Field(default=1, ge=1)
    resources: dict[str, Any] = Field(default={})
    """What AzureML's job gets as its resources."""
    tags: dict[str, str] = Field(default={})

    @field_validator("resources")
    @classmethod
    def _are_known(cls, resources: dict[str, Any]) -> dict[str, Any]:
        for name in resources:  # azure-ai-ml leaves out what it does not know, and says nothing
            if name not in RESOURCES:
                known = f"known are {', '.join(RESOURCES)}"
                raise ValueError(f'has no "{name}"{nearest(name, RESOURCES)}: {known}')
        return resources

    def environment(self) -> Environment:
        """Return what is installed there."""
        return HERE

    def refusal(self) -> Refused | None:
        """Return what is missing here to send a job there."""
        if installed_version("azure-ai-ml") is None:
            what = "needs azure-ai-ml, which is not installed"
            return Refused(self.type, what, 'pip install "drupe[azureml]"')
        client = self.client()
        if client is None:
            what = "has no workspace"
            return Refused(self.type, what, 'Write "azureml_client", or run with --system local.')
        if self.hf_token and client.keyvault_name is None:
            what = "has no key vault to read the token from"
            return Refused(self.type, what, 'Name it in "azureml_client.keyvault_name".')
        if self.aml_docker_config is None and self.aml_environment_config is None:
            what = "has nothing to run a job in: no aml_docker_config, no aml_environment_config"
            remedy = 'Write "aml_docker_config": {"base_image": ..., "conda_file_path": ...}.'
            return Refused(self.type, what, remedy)
        return None

    def reads(self, remote: Remote) -> bool:
        """Return whether a job can have it as an input: what lies in its workspace, a registry."""
        if remote.type in ("azureml_model", "azureml_datastore"):
            own, other = self.client(), remote.azureml_client
            return own is not None and other is not None and own.triple == other.triple
        on_azure = remote.type == "url" and ".dfs.core.windows.net/" in str(remote.url)
        return on_azure or remote.type == "azureml_registry_model"

    def client(self) -> AzureMLClient | None:
        """Return the workspace that is named here."""
        return self.azureml_client_config

    def in_workspace(self, client: AzureMLClient | None) -> Self:
        """Return this system in the workspace of the config, where it names none itself."""
        own = self.azureml_client_config
        if client is None or (own is not None and all(own.triple)):
            return self
        if own is not None:
            names = ("subscription_id", "resource_group", "workspace_name")
            client = own.model_copy(update={name: getattr(client, name) for name in names})
        return self.model_copy(update={"azureml_client_config": client})

    def lints(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what the workspace lacks, and what of the conda file cannot be installed."""
        client = self.client()
        if client is None:
            yield (), 'has no workspace: write "azureml_client", or run with --system local'
        if self.hf_token and (client is None or client.keyvault_name is None):
            why = (
                'has no key vault to read the token from: name it in "azureml_client.keyvault_name"'
            )
            yield ("hf_token",), why
        container = self.aml_docker_config
        if container is not None and container.conda_file_path is not None:
            for text in conda_lints(container.conda_file_path):
                yield ("aml_docker_config", "conda_file_path"), text


class Ray(System):
    """A Ray cluster: independent steps run side by side."""

    executor = "drupe.systems.ray:open_cluster"
    elsewhere = True

    type: Literal["Ray"] = "Ray"
    address: str = "local"
    """A cluster on this machine alone ("local"), the one that runs here ("auto"), or host:port."""

    def refusal(self) -> Refused | None:
        """Refuse to run steps there."""
        return not_yet(self)


def not_yet(system: System) -> Refused:
    """Return why no step runs on a system that can be described alone."""
    what = f"is of type {system.type}, which can be described, not used, in this version"
    return Refused(system.type, what, "Run with --system local.")
