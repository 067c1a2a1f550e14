"""AzureML as a system, as a config describes it: the compute, and the environment of its jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from drupe.core.declared import Declared
from drupe.core.digest import file_digest, folder_digest, value_digest
from drupe.core.errors import Refused, nearest
from drupe.core.files import files_below
from drupe.core.libraries import HERE, PINNED, Environment, installed_version
from drupe.core.resource import CLIENT_NAMES, AzureMLClient, Remote
from drupe.core.system import Setting, System, Unfit
from drupe.systems import conda

IMAGE = re.compile(r"[a-zA-Z0-9][\w.:-]*(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
ASSET = re.compile(r"[a-zA-Z0-9][\w.-]{0,254}")
ASSET_IS = "Write letters, digits, _ - and ., without azureml: before it."
COMPUTE = re.compile(r"[a-zA-Z0-9][\w.-]*")
TOKEN_LIBRARIES = ("azure-identity", "azure-keyvault-secrets")
# What a job's resources may say: {key: (types, in words)}.
RESOURCES: dict[str, tuple[tuple[type, ...], str]] = {
    "instance_type": ((str, list), 'the name of a size, "Standard_NC24ads_A100_v4"'),
    "shm_size": ((str,), 'a size, "16g"'),
    "docker_args": ((str, list), "the words for docker run"),
    "locations": ((list,), "a list of regions"),
    "max_instance_count": ((int,), "a number"),
    "properties": ((dict,), "names and values"),
}


class ContainerConfig(Declared):
    """`aml_docker_config`: an image, or what it is built of."""

    base_image: str | None = None
    dockerfile: str | None = None
    """The Dockerfile's name in the build context."""
    build_context_path: Path | None = None
    conda_file_path: Path | None = None
    """What is installed above the base image; `drupe init azureml` writes one."""
    name: str | None = None
    """The name under which the workspace keeps the environment."""
    version: str | None = None

    @property
    def digest(self) -> str:
        """What stands for all that the image holds."""
        named = [path for path in (self.conda_file_path, self.build_context_path) if path]
        content = [_content(path) for path in named if path.exists()]
        return value_digest([self.base_image, self.dockerfile, content])

    def faults(self, providers: Sequence[str], for_token: Sequence[str]) -> Iterator[Unfit]:
        """Yield what is wrong, its place being in here.

        providers: that are to be there. for_token: the libraries that read the Hub's token there.
        """
        if (self.base_image is None) == (self.dockerfile is None):
            what = "names no image" if self.base_image is None else "names two images"
            yield Unfit((), what, "Write either base_image, or dockerfile and build_context_path.")
        if self.base_image is not None and not IMAGE.fullmatch(self.base_image):
            what = f'is no image\'s name ("{self.base_image}")'
            yield Unfit(("base_image",), what, 'Write "registry/name:tag".')
        yield from self._build_faults()
        if self.name is not None and not ASSET.fullmatch(self.name):
            yield Unfit(("name",), f'is no environment\'s name ("{self.name}")', ASSET_IS)
        if self.conda_file_path is not None:
            yield from self._conda_faults(self.conda_file_path, providers, for_token)

    def _build_faults(self) -> Iterator[Unfit]:
        context = self.build_context_path
        if self.dockerfile is None:
            if context is not None:
                what = "is there without a dockerfile"
                yield Unfit(("build_context_path",), what, "Name it, or leave this out.")
        elif context is None:
            yield Unfit(
                ("dockerfile",),
                "is there without build_context_path",
                "Name the folder that it is built in.",
            )
        elif not (context / self.dockerfile).is_file():
            place = ("dockerfile",) if context.is_dir() else ("build_context_path",)
            absent = context / self.dockerfile if context.is_dir() else context
            yield Unfit(place, f"names {absent}, which is not there", "Mend the path.")
        if self.dockerfile is not None and self.conda_file_path is not None:
            what = "has no effect on an image that a dockerfile builds"
            yield Unfit(("conda_file_path",), what, "Install it in the dockerfile.")

    def _conda_faults(self, path: Path, *wanted: Sequence[str]) -> Iterator[Unfit]:
        for wrong in conda.faults(conda.read(path), *wanted):
            place, line = ("conda_file_path",), f"{path.name}:{wrong.number}"
            if wrong.number:
                yield Unfit(place, wrong.what, wrong.remedy, line)
            else:
                yield Unfit(place, f"names {path.name}, which {wrong.what}", wrong.remedy)

    def lints(self) -> Iterator[str]:
        """Yield what of the conda file may not stay as it is."""
        if self.conda_file_path is not None:
            for wrong in conda.warnings(conda.read(self.conda_file_path)):
                remedy = wrong.remedy[:1].lower() + wrong.remedy[1:].removesuffix(".")
                name = f"{self.conda_file_path.name}:{wrong.number}"
                yield f"names {name}, where {wrong.what}: {remedy}"

    def environment(self) -> Environment:
        """Return what is installed in the image."""
        if self.conda_file_path is None or self.dockerfile is not None:
            return Image(self.digest)
        made: Environment = conda.CondaEnvironment(conda.read(self.conda_file_path), self.digest)
        return made


def _content(path: Path) -> str:
    """Return the digest of a file, or of all files of a folder."""
    if not path.is_dir():
        return file_digest(path)
    files = files_below(path)
    return folder_digest({each.relative_to(path).as_posix(): file_digest(each) for each in files})


class EnvironmentConfig(Declared):
    """`aml_environment_config`: an environment that is registered in the workspace."""

    name: str
    version: str | None = None
    label: str | None = None

    def faults(self) -> Iterator[Unfit]:
        """Yield what is wrong, its place being in here."""
        if not ASSET.fullmatch(self.name):
            yield Unfit(("name",), f'is no environment\'s name ("{self.name}")', ASSET_IS)
        for key in ("version", "label"):
            value = getattr(self, key)
            if value is not None and not ASSET.fullmatch(value):
                yield Unfit((key,), f'is no {key} ("{value}")', ASSET_IS)
        if self.version is not None and self.label is not None:
            yield Unfit(("label",), "stands beside a version", "Keep one of them.")

    def environment(self) -> Environment:
        """Return what is installed there: its name and version stand for it."""
        return Image(value_digest([self.name, self.version, self.label]))


@dataclass(frozen=True)
class Image:
    """An environment of which its address or its sources alone are known."""

    digest: str
    remedy: str = "Install it in the environment of the job."

    def version(self, library: str) -> str:
        """Return what stands for the version."""
        return f"{PINNED}{self.digest}"

    def unfit(self, library: str, extra: str) -> None:
        """Return None: nothing is known."""


class AzureML(System):
    """An AzureML compute: its steps travel there as jobs."""

    executor = "drupe.systems.azureml.executor:open_workspace"
    elsewhere = True
    reaches_hub = True

    type: Literal["AzureML"] = "AzureML"
    aml_compute: str
    """The name of the compute, in the workspace; of a Kubernetes cluster (Arc) too."""
    aml_docker_config: ContainerConfig | None = None
    aml_environment_config: EnvironmentConfig | None = None
    azureml_client_config: AzureMLClient | None = None
    """The workspace; without it the config's own azureml_client."""
    instance_count: int = Field(default=1, ge=1)
    resources: dict[str, Any] = Field(default={})
    """What AzureML's job gets as its resources: instance_type (which a Kubernetes compute needs to
    know the size of its pod), shm_size, docker_args, locations, max_instance_count, properties."""
    tags: dict[str, str] = Field(default={})

    def environment(self, setting: Setting) -> Environment:
        """Return what is installed there."""
        if self.aml_environment_config is not None:
            return self.aml_environment_config.environment()
        return self.aml_docker_config.environment() if self.aml_docker_config else HERE

    def threads(self) -> int:
        """Return 0: the compute's machine decides."""
        return 0

    def refusal(self) -> Refused | None:
        """Return what is missing here to send a job there."""
        if installed_version("azure-ai-ml") is None:
            what = "needs azure-ai-ml, which is not installed"
            return Refused(self.type, what, 'pip install "drupe[azureml]"')
        return None

    def reads(self, remote: Remote) -> bool:
        """Return whether a job can have it: of its workspace, of a registry, at a public URL."""
        if remote.needs_client:
            own, other = self.client(), remote.azureml_client
            return own is not None and other is not None and own.triple == other.triple
        on_azure = remote.type == "url" and ".dfs.core.windows.net/" in str(remote.url)
        return on_azure or remote.is_public or remote.type == "azureml_registry_model"

    def client(self) -> AzureMLClient | None:
        """Return the workspace that is named here."""
        return self.azureml_client_config

    def in_workspace(self, client: AzureMLClient | None) -> Self:
        """Return this system in the workspace of the config, where it names none itself."""
        own = self.azureml_client_config
        if client is None or (own is not None and all(own.triple)):
            return self
        if own is not None:
            named = {name: getattr(client, name) for name in CLIENT_NAMES}
            client = own.model_copy(update=named)
        return self.model_copy(update={"azureml_client_config": client})

    def lints(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what may change under a key that stays."""
        registered = self.aml_environment_config
        if registered is not None and registered.version is None:
            named = f"the label {registered.label}" if registered.label else "no version"
            text = f"names {named}: what it means may change, and the keys do not: write a version"
            yield ("aml_environment_config",), text
        if self.aml_docker_config is not None:
            for text in self.aml_docker_config.lints():
                yield ("aml_docker_config", "conda_file_path"), text

    def faults(self) -> Iterator[Unfit]:
        """Yield what the service, or the job itself, would stumble over."""
        yield from self._workspace_faults()
        if not COMPUTE.fullmatch(self.aml_compute):
            what = f'is no compute\'s name ("{self.aml_compute}")'
            yield Unfit(("aml_compute",), what, "Write the name of a compute of the workspace.")
        container, registered = self.aml_docker_config, self.aml_environment_config
        if (container is None) == (registered is None):
            what = "describes no environment" if container is None else "describes two environments"
            yield Unfit((), what, "Write either aml_docker_config or aml_environment_config.")
        described: list[tuple[str, Iterator[Unfit]]] = []
        if container is not None:
            providers = self.providers
            for_token = TOKEN_LIBRARIES if self.hf_token else ()
            described.append(("aml_docker_config", container.faults(providers, for_token)))
        if registered is not None:
            described.append(("aml_environment_config", registered.faults()))
        for key, found in described:
            for each in found:
                yield replace(each, place=(key, *each.place))
        yield from self._resource_faults()

    def _workspace_faults(self) -> Iterator[Unfit]:
        client = self.client()
        if client is None or not all(client.triple):
            remedy = 'Write "azureml_client", or run with --system local.'
            yield Unfit((), "has no workspace", remedy)
        if self.hf_token and (client is None or client.keyvault_name is None):
            remedy = 'Name it in "azureml_client.keyvault_name".'
            yield Unfit(("hf_token",), "has no key vault to read the token from", remedy)

    def _resource_faults(self) -> Iterator[Unfit]:
        for key, value in self.resources.items():
            kinds, wanted = RESOURCES.get(key, ((), ""))
            if not kinds:
                what = f"is unknown{nearest(key, RESOURCES)}"
                yield Unfit(("resources", key), what, f"Known here: {', '.join(RESOURCES)}.")
            elif isinstance(value, bool) or not isinstance(value, kinds):
                what = f"is {json.dumps(value)}"
                yield Unfit(("resources", key), what, f"Write {wanted}.")
        size = self.resources.get("shm_size")
        if isinstance(size, str) and not re.fullmatch(r"\d+[bkmg]", size, re.IGNORECASE):
            yield Unfit(("resources", "shm_size"), f'is "{size}"', 'Write it as "16g".')
