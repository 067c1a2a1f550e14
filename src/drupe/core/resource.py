"""Remote: a model or data that lie on AzureML, in Olive's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from drupe.core.declared import Declared


class AzureMLClient(Declared):
    """Which workspace; who asks is found by azure-identity, no secret is written here."""

    subscription_id: str | None = None
    resource_group: str | None = None
    workspace_name: str | None = None
    aml_config_path: str | None = None
    """A JSON file with the three, as the Azure portal gives it."""
    keyvault_name: str | None = None
    """The key vault that holds the Hugging Face token, under the name "hf-token"."""
    read_timeout: int = Field(default=60, ge=1)
    """Seconds."""
    max_operation_retries: int = Field(default=3, ge=0)
    operation_retry_interval: int = Field(default=5, ge=0)
    """Seconds before the first retry; doubled before each further one."""
    default_auth_params: dict[str, Any] = Field(default={})
    """Handed to azure-identity's DefaultAzureCredential."""


def kind_of(value: Any) -> str:
    """Return "remote" for what is described by an object, "local" for a path or a name."""
    return "remote" if isinstance(value, dict | Remote) else "local"


# What each type needs, one of the alternatives whole.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "azureml_registry_model": (("registry_name", "name", "version"),),
    "azureml_model": (("name", "version"),),
    "azureml_datastore": (("datastore_name", "relative_path"), ("datastore_url",)),
    "azureml_job_output": (("job_name", "output_name", "relative_path"),),
}


class Remote(Declared):
    """A resource of AzureML: a registered model, a path in a datastore, the output of a job."""

    type: Literal[
        "azureml_registry_model", "azureml_model", "azureml_datastore", "azureml_job_output"
    ]
    azureml_client: AzureMLClient | None = None
    registry_name: str | None = None
    name: str | None = None
    version: str | int | None = None
    datastore_name: str | None = None
    relative_path: str | None = None
    datastore_url: str | None = None
    job_name: str | None = None
    output_name: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Remote:
        alternatives = NEEDS[self.type]
        if not any(all(getattr(self, name) for name in names) for names in alternatives):
            wanted = ", or ".join(" and ".join(names) for names in alternatives)
            raise ValueError(f"{self.type} needs {wanted}")
        return self

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the address alone: who asks changes nothing, and is nobody's business."""
        return {"uri": self.uri}

    @property
    def uri(self) -> str:
        """The address in AzureML's own words."""
        if self.type == "azureml_registry_model":
            registry = f"azureml://registries/{self.registry_name}"
            return f"{registry}/models/{self.name}/versions/{self.version}"
        if self.type == "azureml_model":
            return f"azureml:{self.name}:{self.version}"
        if self.type == "azureml_job_output":
            outputs = f"azureml://jobs/{self.job_name}/outputs"
            return f"{outputs}/{self.output_name}/paths/{self.relative_path}"
        return self.datastore_url or (
            f"azureml://datastores/{self.datastore_name}/paths/{self.relative_path}"
        )
