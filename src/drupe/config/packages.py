"""`engine.packaging_config`: how the result is packed, and what of it is sent to AzureML."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from drupe.config.section import Section

PACKAGE_NAME = re.compile(r"\w(?:[\w .+-]{0,60}[\w+-])?")
TAKEN_ENDINGS = (".zip", ".json", ".html")
ASSET = re.compile(r"[a-zA-Z0-9][\w.-]{0,254}")
# What is said of one type alone.
OWN_FIELDS = {
    "AzureMLModels": ("version", "description"),
    "AzureMLData": ("version", "description"),
    "AzureMLDeployment": (
        *("model_name", "model_version", "model_description"),
        *("model_package", "deployment_config"),
    ),
}


class InferencingServer(Section):
    """What answers: an online endpoint for single requests, or a batch one for files of them."""

    type: Literal["AzureMLOnline", "AzureMLBatch"] = "AzureMLOnline"
    code_folder: str | None = None
    """A folder with a scoring script of your own; without one, drupe's."""
    scoring_script: str | None = None
    """Its file in that folder."""

    @model_validator(mode="after")
    def _is_whole(self) -> InferencingServer:
        if (self.code_folder is None) != (self.scoring_script is None):
            raise ValueError("code_folder and scoring_script go together")
        return self


class ModelConfigurations(Section):
    """How the model comes to the deployment."""

    mode: Literal["download"] = "download"
    mount_path: str | None = None
    """Where it lies there; by default where AzureML puts it."""


class ModelPackage(Section):
    """What the deployment runs in."""

    target_environment: str = "olive-target-environment"
    """The name of the environment that is registered for it."""
    target_environment_version: str | None = None
    inferencing_server: InferencingServer = InferencingServer()
    base_environment_id: str | None = None
    """A registered environment in its place, "azureml:NAME:VERSION"."""
    model_configurations: ModelConfigurations = ModelConfigurations()
    environment_variables: dict[str, str] = Field(default={})


class DeploymentConfig(Section):
    """Where it is served."""

    endpoint_name: str = "olive-default-endpoint"
    deployment_name: str = "olive-default-deployment"
    instance_type: str | None = None
    """The size of an online deployment's machines, "Standard_DS3_v2"."""
    compute: str | None = None
    """The cluster of a batch deployment."""
    instance_count: int = Field(default=1, ge=1)
    mini_batch_size: int = Field(default=10, ge=1)
    """How many files a batch deployment reads at once."""
    extra_config: dict[str, Any] = Field(default={})
    """More arguments of azure-ai-ml's deployment."""


def _a_file_name(name: str) -> str:
    if not PACKAGE_NAME.fullmatch(name) or name.endswith(TAKEN_ENDINGS):
        raise ValueError(
            "must be the name of a file: letters, digits, blanks, _ . + -, and no ending .zip, "
            ".json, .html"
        )
    return name


class PackageConfig(Section):
    """An entry of `packaging_config`: the result once more, as it is sent or served."""

    type: Literal[
        "Zipfile", "Dockerfile", "MLflow", "AzureMLModels", "AzureMLData", "AzureMLDeployment"
    ] = "Zipfile"
    """Zipfile: NAME.zip. Dockerfile, MLflow: a folder. The others are sent to AzureML."""
    name: Annotated[str, AfterValidator(_a_file_name)] = "OutputModels"
    """What the file or folder is called in the output folder."""
    export_in_mlflow_format: bool = False
    """Put the model into the zip as MLflow has it."""
    include_runtime_packages: bool = True
    """Name the exact versions of what runs the model, in a requirements.txt."""
    include_sample_code: bool = True
    """Add a program that loads the model and answers."""

    version: str = "1"
    """Of the model or the data in the workspace."""
    description: str | None = None
    model_name: str = "olive-deployment-model"
    """Under which a deployment's model is registered."""
    model_version: str = "1"
    model_description: str | None = None
    model_package: ModelPackage = ModelPackage()
    deployment_config: DeploymentConfig = DeploymentConfig()

    @property
    def is_sent(self) -> bool:
        """Whether it goes to AzureML."""
        return self.type in OWN_FIELDS

    @model_validator(mode="after")
    def _is_for_its_type(self) -> PackageConfig:
        for name in self.model_fields_set & {each for own in OWN_FIELDS.values() for each in own}:
            if name not in OWN_FIELDS.get(self.type, ()):
                kinds = " and ".join(kind for kind, own in OWN_FIELDS.items() if name in own)
                raise ValueError(f"{name} is for {kinds}, not for {self.type}")
        if self.type == "AzureMLDeployment":
            batch = self.model_package.inferencing_server.type == "AzureMLBatch"
            wanted = "compute" if batch else "instance_type"
            if getattr(self.deployment_config, wanted) is None:
                kind = "batch" if batch else "online"
                raise ValueError(f"a deployment ({kind}) needs deployment_config.{wanted}")
        for name in ("name", "version") if self.is_sent else ():
            if not ASSET.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} of an asset has letters, digits, _ - and . alone")
        return self

    @model_validator(mode="after")
    def _has_effect(self) -> PackageConfig:
        if self.type == "Dockerfile":
            if self.export_in_mlflow_format:
                raise ValueError("export_in_mlflow_format is not for a Dockerfile: write MLflow")
            for name in ("include_runtime_packages", "include_sample_code"):
                if not getattr(self, name):
                    raise ValueError(f"a Dockerfile needs what {name} brings: leave it out")
        return self

    @property
    def file_name(self) -> str:
        """The name of its file or folder in the output folder."""
        return f"{self.name}.zip" if self.type == "Zipfile" else self.name
