"""What lies on AzureML, in Olive's words: what each type needs, its address, its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from drupe.core.resource import Remote

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "azureml_registry_model": (
        {"registry_name": "r", "name": "n", "version": 3},
        "azureml://registries/r/models/n/versions/3",
    ),
    "azureml_model": ({"name": "n", "version": "3"}, "azureml:n:3"),
    "azureml_datastore": (
        {"datastore_name": "d", "relative_path": "a/b"},
        "azureml://datastores/d/paths/a/b",
    ),
    "azureml_job_output": (
        {"job_name": "j", "output_name": "o", "relative_path": "p"},
        "azureml://jobs/j/outputs/o/paths/p",
    ),
}


def remote(kind: str, **fields: Any) -> Remote:
    return Remote.model_validate_json(json.dumps({"type": kind, **fields}))


@pytest.mark.parametrize("kind", CASES)
def test_its_address_is_azuremls(kind: str) -> None:
    fields, uri = CASES[kind]
    assert remote(kind, **fields).uri == uri


@pytest.mark.parametrize("kind", CASES)
def test_each_field_that_it_needs_is_asked_for(kind: str) -> None:
    fields, _ = CASES[kind]
    for left_out in fields:
        given = {name: value for name, value in fields.items() if name != left_out}
        with pytest.raises(ValidationError, match=rf"{kind} needs .*\b{left_out}\b"):
            remote(kind, **given)


def test_a_datastore_may_be_given_by_its_address() -> None:
    uri = "azureml://datastores/d/paths/x.json"
    assert remote("azureml_datastore", datastore_url=uri).uri == uri


def test_who_asks_is_no_part_of_the_key() -> None:
    fields, uri = CASES["azureml_model"]
    client = {"subscription_id": "secret", "default_auth_params": {"client_secret": "secret"}}
    asked = remote("azureml_model", azureml_client=client, **fields)
    assert asked.key_form(lambda path: str(Path(path))) == {"uri": uri}
