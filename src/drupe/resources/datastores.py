"""Where AzureML keeps things: a model, a job's output or a path of a datastore as a `Place`.

azure-ai-ml tells where the bytes lie; azure-storage-blob brings them. (azure-ai-ml's own
`models.download` holds each blob in memory whole, and starts anew each time.)
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from drupe.core.errors import DrupeError
from drupe.core.libraries import installed_version
from drupe.core.resource import AzureMLClient, Remote
from drupe.core.secrets import keep_untold
from drupe.resources.azure import credential, library, registry, told, workspace
from drupe.resources.blobs import BlobPlace

ON_DATASTORE = re.compile(r"azureml:.*?/datastores/(?P<name>[^/]+)/paths/(?P<path>.*)")
BLOB = re.compile(
    r"(?P<account>https?://[^/]+)/(?P<container>[^/?]+)/?(?P<path>[^?]*)(?P<sas>\?.*)?"
)
DEFAULT_OUTPUTS = "azureml://datastores/workspaceblobstore/paths/azureml/{job}/{output}/"


def open_azureml(
    remote: Remote, client: AzureMLClient, where: str, transport: Any = None
) -> BlobPlace:
    """Return where the bytes of something on AzureML lie.

    client: the workspace; of a registry's model, who asks. transport: azure-core's, see
    `resources.azure`.
    """
    if remote.type == "azureml_registry_model":
        return _of_registry(remote, client, where, transport)
    asked = workspace(client, transport)
    uri = storage_uri(remote, asked, where)
    found = ON_DATASTORE.fullmatch(uri)
    if found is None:
        what = f"{remote.uri} lies at {uri}, which is no path of a datastore"
        raise DrupeError(where, what, "Register the files themselves as a model, and name that.")
    with told(where):
        store = _datastore(asked, found["name"])
    return _of_datastore(store, found["path"], client, where, remote.uri, transport)


def storage_uri(remote: Remote, asked: Any, where: str) -> str:
    """Return the path of a datastore at which something in a workspace lies.

    asked: azure-ai-ml's client of the workspace.
    """
    with told(where):
        if remote.type == "azureml_model":
            return str(asked.models.get(str(remote.name), str(remote.version)).path)
        if remote.type == "azureml_job_output":
            return output_uri(remote, asked.jobs.get(str(remote.job_name)))
    return remote.uri


def output_uri(remote: Remote, job: Any) -> str:
    """Return the path of a datastore at which the output of a job lies, as azure-ai-ml tells."""
    output = (job.outputs or {}).get(str(remote.output_name))
    default = DEFAULT_OUTPUTS.format(job=remote.job_name, output=remote.output_name)
    base = str(getattr(output, "path", None) or default).replace("${{name}}", job.name)
    return f"{base.rstrip('/')}/{remote.relative_path}"


def _of_registry(remote: Remote, client: AzureMLClient, where: str, transport: Any) -> BlobPlace:
    name, version = str(remote.name), str(remote.version)
    with told(where):
        asked = registry(str(remote.registry_name), client, transport)
        path = str(asked.models.get(name, version).path)
        found = BLOB.fullmatch(path)
        if found is None:
            what = f"{remote.uri} lies at {path}, which is no blob"
            raise DrupeError(where, what, "Copy the model into a workspace, and name it there.")
        address = _shared_address(asked, remote, path, where)
    shared = BLOB.fullmatch(address)
    assert shared is not None
    service = library("azure.storage.blob").ContainerClient
    key = keep_untold((shared["sas"] or "").removeprefix("?")) or None
    container = service(shared["account"], shared["container"], key, **_settings(client, transport))
    return BlobPlace(container, found["path"], where, remote.uri)


def _shared_address(asked: Any, remote: Remote, path: str, where: str) -> str:
    """Return the address by which a registry lets its container be read.

    azure-ai-ml has no documented name for it: this is what its `models.download` calls. What
    Azure's REST interface documents (Registry Data References) wants the subscription and the
    resource group of the registry, which who may read it need not know.
    """
    try:
        inner = importlib.import_module("azure.ai.ml._utils._registry_utils")
        models = asked.models
        address, _ = inner.get_storage_details_for_registry_assets(
            service_client=models._registry_service_client,  # noqa: SLF001
            asset_type="models",
            asset_name=str(remote.name),
            asset_version=str(remote.version),
            rg_name=models._resource_group_name,  # noqa: SLF001
            reg_name=str(remote.registry_name),
            uri=path,
        )
    except (ImportError, AttributeError, TypeError) as fault:
        version = installed_version("azure-ai-ml")
        what = f"azure-ai-ml {version} does not tell where a registry keeps its files: {fault}"
        remedy = "Copy the model into a workspace, and name it there."
        raise DrupeError(where, what, remedy) from fault
    return str(address)


def _datastore(asked: Any, name: str) -> Any:
    """Return a datastore with its secrets, as far as this user may see them."""
    denied = library("azure.core.exceptions").HttpResponseError
    try:
        return asked.datastores.get(name, include_secrets=True)
    except denied as fault:
        if fault.status_code != 403:
            raise
        return asked.datastores.get(name)


def _of_datastore(
    store: Any, path: str, client: AzureMLClient, where: str, uri: str, transport: Any
) -> BlobPlace:
    container = getattr(store, "container_name", None) or getattr(store, "filesystem", None)
    if container is None:
        what = f"{uri} lies on {store.name}, a datastore of the type {store.type}"
        raise DrupeError(where, what, "Blob storage and Data Lake (Gen2) can be read.")
    account = f"{store.protocol or 'https'}://{store.account_name}.blob.{store.endpoint}"
    service = library("azure.storage.blob").ContainerClient
    made = service(
        account, container, _store_credential(store, client), **_settings(client, transport)
    )
    return BlobPlace(made, path, where, uri)


def _store_credential(store: Any, client: AzureMLClient) -> Any:
    """Return what opens a datastore: its own key, token or principal, else who asks."""
    own = store.credentials
    for name in ("account_key", "sas_token"):
        if getattr(own, name, None):
            return keep_untold(str(getattr(own, name)))
    if getattr(own, "client_secret", None):
        return library("azure.identity").ClientSecretCredential(
            own.tenant_id, own.client_id, keep_untold(str(own.client_secret))
        )
    return credential(client)


def _settings(client: AzureMLClient, transport: Any) -> dict[str, Any]:
    settings = {
        "retry_total": client.max_operation_retries,
        "read_timeout": client.read_timeout,
    }
    return settings if transport is None else {**settings, "transport": transport}
