"""The Hub's token in a job on AzureML: read from a key vault, in the process that needs it alone.

The job's environment names the vault (DRUPE_KEYVAULT), never the token. Who asks is the job's
identity: the user's where AzureML lends it to the job, else the compute's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from drupe.core.errors import DrupeError
from drupe.core.secrets import keep_untold
from drupe.resources.azure import fault_of, library

VAULT, SECRET = "DRUPE_KEYVAULT", "hf-token"
DOMAIN = "vault.azure.net"
LENT, COMPUTE = "OBO_ENDPOINT", "DEFAULT_IDENTITY_CLIENT_ID"  # set by AzureML


def hub_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token that the job's key vault holds; None where no vault is named.

    It is returned, and put into no environment; what is told from now on is without it.
    """
    vault = environment.get(VAULT)
    if not vault:
        return None
    address = vault if vault.startswith("https://") else f"https://{vault}.{DOMAIN}"
    made = library("azure.keyvault.secrets").SecretClient
    errors = library("azure.core.exceptions")
    try:
        with made(address, _identity(environment)) as client:
            value = client.get_secret(SECRET).value
    except errors.AzureError as fault:
        known = fault_of(f'the secret "{SECRET}" of the key vault {vault}', fault)
        remedy = "Put the token there, and let the job's identity read secrets (Get)."
        raise DrupeError(known.where, known.what, remedy) from fault
    return keep_untold(str(value))


def _identity(environment: Mapping[str, str]) -> Any:
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    default = library("azure.identity").DefaultAzureCredential(
        managed_identity_client_id=environment.get(COMPUTE)
    )
    if LENT not in environment:
        return default
    lent = library("azure.ai.ml.identity").AzureMLOnBehalfOfCredential()
    return library("azure.identity").ChainedTokenCredential(lent, default)
