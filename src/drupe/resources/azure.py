"""AzureML's own client, of the workspace or the registry that a config names.

Who asks is found by azure-identity: a login (`az login`), a managed identity, environment
variables. Nothing is sent but what is asked for: azure-ai-ml's telemetry is off.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drupe.core.errors import DrupeError, Refused
from drupe.core.resource import CLIENT_NAMES, AzureMLClient

PASSING = frozenset((408, 429, 500, 502, 503, 504))  # what a later call may not answer any more
LOGIN_FAULTS = ("ClientAuthenticationError", "CredentialUnavailableError")
INSTALL = 'pip install "drupe[azureml]"'


def workspace(client: AzureMLClient, transport: Any = None) -> Any:
    """Return azure-ai-ml's MLClient of a workspace. It asks nothing before its first operation.

    transport: azure-core's, through which all requests go; None: its own.

    Raises Refused where the workspace is not named in full, or azure-ai-ml is not installed.
    """
    missing = [name for name in CLIENT_NAMES if not getattr(client, name)]
    if missing:
        raise Refused(
            "azureml_client",
            f"lacks {', '.join(missing)}",
            'Write them, or name the workspace\'s config.json as "aml_config_path".',
        )
    return library("azure.ai.ml").MLClient(
        credential(client),
        client.subscription_id,
        client.resource_group,
        client.workspace_name,
        **_settings(client, transport),
    )


def registry(name: str, client: AzureMLClient, transport: Any = None) -> Any:
    """Return azure-ai-ml's MLClient of a registry; it asks at once where the registry is."""
    made = library("azure.ai.ml").MLClient
    with told(f"the registry {name}"):
        return made(credential(client), registry_name=name, **_settings(client, transport))


def credential(client: AzureMLClient) -> Any:
    """Return azure-identity's DefaultAzureCredential, as the config wants it."""
    # What it logs is twenty lines on each way to log in; the fault says it in one.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    return library("azure.identity").DefaultAzureCredential(**client.default_auth_params)


def library(name: str) -> Any:
    """Return a module of Azure's, asked for only where a config uses AzureML."""
    try:
        return importlib.import_module(name)
    except ImportError as fault:
        raise Refused(name, "is not installed", INSTALL) from fault


@contextmanager
def told(where: str) -> Iterator[None]:
    """Raise what fails within, at Azure or on the way, as a fault in three parts about `where`."""
    try:
        yield
    except library("azure.core.exceptions").AzureError as fault:
        raise fault_of(where, fault) from fault
    except library("azure.ai.ml.exceptions").MlException as fault:
        raise DrupeError(where, _first_line(fault), "Mend the config and run again.") from fault


def fault_of(where: str, fault: Any) -> DrupeError:
    """Return an error of azure-core's in three parts."""
    status = getattr(fault, "status_code", None)
    if status is None and type(fault).__name__ in LOGIN_FAULTS:
        status = 401
    if status == 401:
        what = f"asks who you are, and no credential is accepted: {_first_line(fault)}"
        return DrupeError(where, what, 'Log in ("az login"), or set AZURE_CLIENT_ID and the like.')
    if status == 403:
        what = f"is not shown to you: {_first_line(fault)}"
        return DrupeError(where, what, "Ask its owner for the role of a reader (of blobs, too).")
    if status == 404:
        what = f"is not there: {_first_line(fault)}"
        return Refused(where, what, "Mend the name or the version.")
    what = f"cannot be reached: {_first_line(fault)}"
    return DrupeError(where, what, "Connect and run again: what is here is kept.")


def asked_seconds(fault: BaseException) -> float | None:
    """Return how long the other side asks to be left alone (Retry-After), if it says a number."""
    headers = getattr(getattr(fault, "response", None), "headers", None) or {}
    said = str(headers.get("Retry-After", ""))
    return float(said) if said.isdigit() else None


def _settings(client: AzureMLClient, transport: Any) -> dict[str, Any]:
    settings = {
        "enable_telemetry": False,
        "show_progress": False,
        "retry_total": client.max_operation_retries,
        "retry_backoff_factor": client.operation_retry_interval,
        "read_timeout": client.read_timeout,
    }
    return settings if transport is None else {**settings, "transport": transport}


def _first_line(fault: BaseException) -> str:
    text = str(getattr(fault, "message", "") or fault).strip()
    return (text.partition("\n")[0] or type(fault).__name__)[:200]
