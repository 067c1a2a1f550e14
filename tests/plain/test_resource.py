"""What lies on AzureML, in Olive's words: what each type needs, its address, its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from drupe.core.dataset import LoadDataset
from drupe.core.resource import Remote, is_address

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


WHERE = "azureml://subscriptions/s/resourceGroups/g/workspaces/w"
TEXTS = {
    "azureml://registries/r/models/n/versions/3": ("azureml_registry_model", None),
    "azureml:n:3": ("azureml_model", None),
    f"{WHERE}/models/n/versions/3": ("azureml_model", ("s", "g", "w")),
    "azureml://datastores/d/paths/a/b": ("azureml_datastore", None),
    f"{WHERE}/datastores/d/paths/a/b": ("azureml_datastore", ("s", "g", "w")),
    "azureml://jobs/j/outputs/o/paths/p": ("azureml_job_output", None),
    "abfss://c@a.dfs.core.windows.net/x": ("url", None),
    "https://example.com/rows.jsonl": ("url", None),
}


@pytest.mark.parametrize("text", TEXTS)
def test_an_address_is_read_as_what_it_names(text: str) -> None:
    kind, triple = TEXTS[text]
    found = Remote.model_validate_json(json.dumps(text))
    assert found.type == kind
    assert (found.azureml_client.triple if found.azureml_client else None) == triple


@pytest.mark.parametrize(
    "text", ["models/phi", "owner/name", "./a:b", "C:\\models\\phi", "C:/models", "a b"]
)
def test_a_path_is_no_address(text: str) -> None:
    assert not is_address(text)


def test_the_words_and_the_address_of_one_thing_have_one_identity() -> None:
    client = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    by_words = remote(
        "azureml_datastore", datastore_name="d", relative_path="a/b", azureml_client=client
    )
    by_url = remote("azureml_datastore", datastore_url=f"{WHERE}/datastores/d/paths/a/b")
    assert by_words.address == by_url.address


def test_an_address_of_no_datastore_is_refused() -> None:
    with pytest.raises(ValidationError, match="datastore_url is no address of a datastore"):
        remote("azureml_datastore", datastore_url="azureml://somewhere")


def test_a_resolved_one_is_known_by_its_identity() -> None:
    fields, _ = CASES["azureml_model"]
    asked = remote("azureml_model", identity="abc", **fields)
    assert asked.key_form(lambda path: str(path)) == {"identity": "abc"}


def test_addresses_are_no_list() -> None:
    files = ["a.json", "abfss://c@a.dfs.core.windows.net/b.json"]
    with pytest.raises(ValidationError, match="an address stands alone, of one file or of a fold"):
        LoadDataset.model_validate_json(json.dumps({"data_files": files}))
