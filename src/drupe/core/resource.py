"""Remote: a model or data that lie elsewhere: on AzureML, in Olive's words, or at an address.

"abfss://files@account.dfs.core.windows.net/models/phi"     any URL that fsspec knows
"azureml://registries/azureml/models/Phi-4/versions/7"      AzureML's addresses, as a text
{"type": "azureml_model", "name": "phi", "version": 3}      the same, in Olive's words
"""

from __future__ import annotations

import ipaddress
import netrc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from drupe.core.declared import Declared

PLACEHOLDER = re.compile(
    r"^\s*(your(\b|_).*|<[^<>]+>|\[your [^\]]+\]|(todo|changeme|xxx+)\b.*)\s*$", re.IGNORECASE
)
BLANK = re.compile(r"<[A-Za-z][^<>]*>")  # of an address a part: no address holds a < of its own
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//|:)|azureml:")
INSIDE = (".local", ".localhost", ".internal", ".intranet", ".lan", ".corp", ".home.arpa")
CLIENT_NAMES = ("subscription_id", "resource_group", "workspace_name")


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

    @property
    def triple(self) -> tuple[str | None, str | None, str | None]:
        """Subscription, resource group, workspace."""
        return (self.subscription_id, self.resource_group, self.workspace_name)


def is_blank(text: str) -> bool:
    """Return whether a text of Azure's was meant to be replaced, or a part of it."""
    return bool(PLACEHOLDER.match(text) or BLANK.search(text))


def is_address(text: str) -> bool:
    """Return whether a text is an address of something elsewhere: it begins with a scheme."""
    return SCHEME.match(text) is not None


def is_public(url: str) -> bool:
    """Return whether a URL can be read anywhere, by anybody, as far as it tells.

    It is https, at a host of the internet; neither it (a query may be a signature) nor this
    user's .netrc holds what opens it.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme != "https" or parts.query or "@" in parts.netloc or _is_inside(host):
        return False
    try:
        return netrc.netrc().authenticators(host) is None
    except (OSError, netrc.NetrcParseError):
        return True


def _is_inside(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(INSIDE)


def kind_of(value: Any) -> str:
    """Return "remote" for an object or a text with a scheme, "local" for a path or a name."""
    address = isinstance(value, str) and is_address(value)
    return "remote" if address or isinstance(value, dict | Remote) else "local"


# What each type needs, one of the alternatives whole.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "azureml_registry_model": (("registry_name", "name", "version"),),
    "azureml_model": (("name", "version"),),
    "azureml_datastore": (("datastore_name", "relative_path"), ("datastore_url",)),
    "azureml_job_output": (("job_name", "output_name", "relative_path"),),
    "url": (("url",),),
}
WORKSPACE = (
    r"(?:subscriptions/(?P<subscription_id>[^/]+)/resource[gG]roups/(?P<resource_group>[^/]+)/"
    r"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace_name>[^/]+)/)?"
)
# AzureML's addresses, as texts.
ADDRESSES = {
    "azureml_registry_model": re.compile(
        r"azureml://registries/(?P<registry_name>[^/]+)/models/(?P<name>[^/]+)"
        r"/versions/(?P<version>[^/]+)/?"
    ),
    "azureml_model": re.compile(
        rf"azureml:(?://{WORKSPACE}models/(?P<name>[^/]+)/versions/(?P<version>[^/]+)/?"
        r"|(?P<short_name>[^/:]+):(?P<short_version>[^/:]+))"
    ),
    "azureml_job_output": re.compile(
        rf"azureml://{WORKSPACE}jobs/(?P<job_name>[^/]+)/outputs/(?P<output_name>[^/]+)"
        r"/paths/(?P<relative_path>.+)"
    ),
    "azureml_datastore": re.compile(
        rf"azureml://{WORKSPACE}datastores/(?P<datastore_name>[^/]+)/paths/(?P<relative_path>.+)"
    ),
}


class Remote(Declared):
    """A resource: a registered model, a path in a datastore, the output of a job, or a URL."""

    type: Literal[
        "azureml_registry_model",
        "azureml_model",
        "azureml_datastore",
        "azureml_job_output",
        "url",
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
    url: str | None = None
    identity: str | None = None
    """What keys know it by. The plan fills it in."""

    @model_validator(mode="before")
    @classmethod
    def _read_address(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _described(value)
        if isinstance(value, dict) and isinstance(value.get("datastore_url"), str):
            described = _described(value["datastore_url"])
            if described["type"] == "azureml_datastore":
                return {**described, **value}
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Remote:
        alternatives = NEEDS[self.type]
        if not any(all(getattr(self, name) for name in names) for names in alternatives):
            wanted = ", or ".join(" and ".join(names) for names in alternatives)
            raise ValueError(f"{self.type} needs {wanted}")
        if self.type == "azureml_datastore" and not self.datastore_name:
            raise ValueError(
                "datastore_url is no address of a datastore: "
                "azureml://subscriptions/.../workspaces/.../datastores/NAME/paths/PATH"
            )
        return self

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the identity, else the address: who asks changes nothing."""
        return {"uri": self.uri} if self.identity is None else {"identity": self.identity}

    @property
    def needs_client(self) -> bool:
        """Whether it lies in a workspace, which has to be named."""
        return self.type in ("azureml_model", "azureml_datastore", "azureml_job_output")

    @property
    def is_public(self) -> bool:
        """Whether it is a URL that any machine on the internet can read."""
        return self.type == "url" and is_public(str(self.url))

    @property
    def is_immutable(self) -> bool:
        """Whether its address alone says what it holds, for good."""
        return self.type in ("azureml_registry_model", "azureml_model", "azureml_job_output")

    @property
    def uri(self) -> str:
        """The address in AzureML's own words, as short as can be; a URL as it is."""
        if self.type == "url":
            return str(self.url)
        if self.type == "azureml_model":
            return f"azureml:{self.name}:{self.version}"
        return self.datastore_url or f"azureml://{self._path}"

    @property
    def address(self) -> str:
        """The address in full, with the workspace: the same wherever it is resolved."""
        if self.type == "url" or self.type == "azureml_registry_model":
            return self.uri
        subscription, group, workspace = (self.azureml_client or AzureMLClient()).triple
        place = f"subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}"
        return f"azureml://{place}/{self._path}"

    @property
    def _path(self) -> str:
        if self.type == "azureml_registry_model":
            return f"registries/{self.registry_name}/models/{self.name}/versions/{self.version}"
        if self.type == "azureml_model":
            return f"models/{self.name}/versions/{self.version}"
        if self.type == "azureml_job_output":
            outputs = f"jobs/{self.job_name}/outputs/{self.output_name}"
            return f"{outputs}/paths/{self.relative_path}"
        return f"datastores/{self.datastore_name}/paths/{self.relative_path}"

    @property
    def source(self) -> str:
        """The address as a job in the same workspace is given it."""
        path = f"azureml://{self._path}"
        return path if self.type == "azureml_datastore" else self.uri

    def placeholders(self) -> Iterator[tuple[str, str]]:
        """Yield (field, value) of each that was meant to be replaced ("Your Azure ...")."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, str) and is_blank(value):
                yield name, value
        client = self.azureml_client or AzureMLClient()
        for name, text in zip(CLIENT_NAMES, client.triple, strict=True):
            if text is not None and is_blank(text):
                yield f"azureml_client.{name}", text


def _described(text: str) -> dict[str, Any]:
    """Return the fields that an address stands for."""
    for kind, pattern in ADDRESSES.items():
        found = pattern.fullmatch(text)
        if found:
            fields = {name: value for name, value in found.groupdict().items() if value}
            for name in ("name", "version"):
                if f"short_{name}" in fields:
                    fields[name] = fields.pop(f"short_{name}")
            client = {name: fields.pop(name) for name in CLIENT_NAMES if name in fields}
            return {"type": kind, **fields, **({"azureml_client": client} if client else {})}
    return {"type": "url", "url": text}
