"""Models, data and outputs on AzureML: found by azure-ai-ml, brought by azure-storage-blob.

The service is the fake on loopback; the clients are the real ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import GROUP, NAMES, SUBSCRIPTION, WORKSPACE, FakeAzure
from azureml_shelves import ACCESS, Shelves

from drupe.core.errors import DrupeError, Refused
from drupe.core.resource import AzureMLClient, Remote
from drupe.core.secrets import redacted
from drupe.resources.remote import Resolved, resolve
from tests.plain.checkpoints import make_checkpoint
from tests.plain.conftest import Workspace, tree
from tests.plain.mlflow_folders import split

FILES = {"config.json": b"{}", "in/weights.bin": bytes(range(256)) * 4000}
OF = {
    "a model of the workspace": {"type": "azureml_model", "name": "phi", "version": "3"},
    "a model of a registry": {
        "type": "azureml_registry_model",
        "registry_name": "shared",
        "name": "phi",
        "version": "3",
    },
    "a path of a datastore": {
        "type": "azureml_datastore",
        "datastore_name": "workspaceblobstore",
        "relative_path": "some/phi",
    },
    "a datastore's address": (
        f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}"
        "/datastores/workspaceblobstore/paths/some/phi"
    ),
    "the output of a job": {
        "type": "azureml_job_output",
        "job_name": "trained",
        "output_name": "best",
        "relative_path": "phi",
    },
}


@pytest.fixture
def azure(tmp_path: Path, log_in: Callable[[FakeAzure], None]) -> Iterator[Shelves]:
    with Shelves(tmp_path / "azure") as fake:
        log_in(fake)
        fake.models["phi", "3"] = "registered/phi"
        for path in ("registered/phi", "some/phi", "azureml/trained/best/phi"):
            fake.put(path, FILES)
        fake.put("some/phi-2", {"config.json": b"of another, whose name begins alike"})
        fake.put_in_registry("phi-3", FILES)
        yield fake


LAKE = "abfss://azureml-blobstore@fakestorage.dfs.core.windows.net/some/phi"


FETCH = """
import sys
from pathlib import Path
from drupe.core.resource import Remote
from drupe.resources.remote import resolve
found = resolve(Remote.model_validate(sys.argv[1]), None, "data_files", Path(sys.argv[2]), print)
print(found.here().path)
"""


def test_adlfs_reads_the_account_that_an_address_names(azure: Shelves, tmp_path: Path) -> None:
    """In a process of its own: aiohttp reads whom it trusts once, as it is imported."""

    def fetched() -> Path:
        words = [sys.executable, "-c", FETCH, LAKE, str(tmp_path / "cache")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    first = fetched()
    assert tree(first) == FILES
    azure.asked.clear()
    assert fetched() == first
    assert not azure.requests("GET", "config.json|weights"), "versions alone are asked for"
    azure.put("some/phi", {"config.json": b"[]"})
    assert tree(fetched()) == {**FILES, "config.json": b"[]"}
    assert not azure.broken


def resolved(value: Any, cache: Path, **client: Any) -> Resolved:
    remote = Remote.model_validate_json(json.dumps(value))
    given = AzureMLClient(**{**NAMES, "max_operation_retries": 0, **client})
    return resolve(remote, given, "input_model.model_path", cache, print)


@pytest.mark.parametrize("what", OF)
def test_its_files_come_whole(what: str, azure: Shelves, tmp_path: Path) -> None:
    here = resolved(OF[what], tmp_path / "cache").here()
    assert tree(here.path) == FILES
    assert here.path.name == "phi"
    assert not azure.broken


def test_an_azure_ai_ml_that_tells_no_address_of_a_registry_is_named(
    azure: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is asked for by a name that azure-ai-ml does not document."""
    monkeypatch.delattr(
        "azure.ai.ml._utils._registry_utils.get_storage_details_for_registry_assets"
    )
    words = (
        r"^input_model\.model_path: azure-ai-ml [\d.]+ does not tell where a registry keeps its "
        r"files: .*\n  Copy the model into a workspace, and name it there\."
    )
    with pytest.raises(DrupeError, match=words):
        resolved(OF["a model of a registry"], tmp_path / "cache").here()


@pytest.mark.parametrize("what", OF)
def test_the_second_time_no_byte_comes(what: str, azure: Shelves, tmp_path: Path) -> None:
    first = resolved(OF[what], tmp_path / "cache")
    first.here()
    azure.asked.clear()
    again = resolved(OF[what], tmp_path / "cache")
    assert again.here() == first.here()
    assert again.remote.identity == first.remote.identity
    asked = [each for each in azure.asked if each.host.endswith("blob.core.windows.net")]
    if first.remote.is_immutable:
        assert azure.asked == [], "a version stands for its bytes"
    else:
        assert [each.query.get("comp") for each in asked] == ["list"]


def test_words_and_address_of_a_datastore_are_one(azure: Shelves, tmp_path: Path) -> None:
    words = resolved(OF["a path of a datastore"], tmp_path)
    address = resolved(OF["a datastore's address"], tmp_path)
    assert words.remote.identity == address.remote.identity


def test_a_dropped_connection_goes_on_where_it_ended(azure: Shelves, tmp_path: Path) -> None:
    azure.drop("GET", "weights", times=1, sent=300_000)
    here = resolved(OF["a path of a datastore"], tmp_path / "cache").here()
    assert tree(here.path) == FILES


def test_a_blob_that_changes_on_the_way_is_a_fault(azure: Shelves, tmp_path: Path) -> None:
    found = resolved(OF["a path of a datastore"], tmp_path / "cache")
    azure.put("some/phi", {"config.json": b"[]"})
    with pytest.raises(DrupeError, match=r"paths/some/phi was changed while it was fetched"):
        found.here()
    again = resolved(OF["a path of a datastore"], tmp_path / "cache")
    assert again.remote.identity != found.remote.identity
    assert tree(again.here().path)["config.json"] == b"[]"


def test_of_a_model_the_small_files_are_enough_to_plan(azure: Shelves, tmp_path: Path) -> None:
    azure.put("registered/phi", {"model.safetensors": b"weights"})
    found = resolved(OF["a model of the workspace"], tmp_path / "cache")
    assert "model.safetensors" not in tree(found.small_files().path)
    assert not azure.requests("GET", r"model\.safetensors")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"type": "azureml_model", "name": "phi", "version": "4"},
            r"model_path: is not there: .*phi:4.*\n  Mend the name or the version",
        ),
        (
            {
                "type": "azureml_datastore",
                "datastore_name": "workspaceblobstore",
                "relative_path": "nothing",
            },
            r"model_path: azureml://datastores/workspaceblobstore/paths/nothing holds no file",
        ),
    ],
)
def test_what_is_not_there_is_told(
    value: dict[str, Any], words: str, azure: Shelves, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=words):
        resolved(value, tmp_path).here()


def test_who_is_not_let_in_is_told(
    azure: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.fail("GET", "blob.core", 403, times=9, code="AuthorizationPermissionMismatch")
    with pytest.raises(DrupeError, match=r"is not shown to you: .*\n  Ask its owner"):
        resolved(OF["a path of a datastore"], tmp_path)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-and-long-enough")
    with pytest.raises(DrupeError, match=r'no credential is accepted: .*\n  Log in \("az login"\)'):
        resolved(OF["a path of a datastore"], tmp_path)


def test_a_datastores_key_that_is_not_shown_is_done_without(azure: Shelves, tmp_path: Path) -> None:
    azure.fail("POST", "listSecrets", 403, times=9)
    here = resolved(OF["a path of a datastore"], tmp_path / "cache").here()
    assert tree(here.path) == FILES
    [listing, *_] = azure.requests("GET", "blob.core")
    assert listing.headers["Authorization"].startswith("Bearer ")


def test_keys_and_signatures_are_not_told(azure: Shelves, tmp_path: Path) -> None:
    resolved(OF["a model of a registry"], tmp_path / "cache").here()
    assert ACCESS not in redacted(f"https://x?{ACCESS}")
    held = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert held
    assert not [file for file in held if b"of-the-registry" in file.read_bytes()]


def test_a_run_on_a_registered_model_and_the_same_offline(
    azure: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.put("registered/phi", {"a.txt": b"one"})
    workspace = Workspace(tmp_path / "workspace")
    workspace.config["input_model"]["model_path"] = OF["a model of the workspace"]
    workspace.config["azureml_client"] = {**NAMES, "max_operation_retries": 0}
    outcome = workspace.run()
    assert workspace.heard.ran == ["back", "more"]
    assert outcome.path
    assert (outcome.path / "a.txt").read_text() == "eno!"
    assert "The AzureML workspace is workspace (azureml_client)." in workspace.plan().notes
    azure.asked.clear()
    workspace.run()
    assert workspace.heard.ran == []
    assert azure.asked == []


ROWS = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize("path", ["some/rows.jsonl", "some/rows"])
def test_on_an_azureml_host_nothing_is_fetched_and_the_keys_are_those_of_a_local_run(
    path: str, azure: Shelves, elsewhere: Workspace
) -> None:
    """The model and the data are inputs of the job; then all of it is found again here."""
    azure.put("some/texts", {"a.txt": b"one"})
    azure.put("some", {"rows.jsonl": ROWS})
    azure.put("some/rows", {"a.jsonl": ROWS, "b.jsonl": ROWS[:16]})
    elsewhere.config["input_model"]["model_path"] = {
        **OF["a path of a datastore"],
        "relative_path": "some/texts",
    }
    stored = {**OF["a path of a datastore"], "relative_path": path}
    source = {"data_name": "json", "data_files": stored}
    elsewhere.config["data_configs"] = [{"name": "rows", "load_dataset_config": source}]
    elsewhere.passes(back={"type": "Reverse"}, count={"type": "Count", "data_config": "rows"})
    outcome = elsewhere.run()
    assert elsewhere.heard.ran == ["back", "count"]
    assert outcome.path
    counted = "[2]" if path.endswith("jsonl") else "[2, 1]"
    assert (outcome.path / "counts.txt").read_text() == counted
    sent = [json.loads(request.body) for request in azure.requests("PUT", "jobs/")]
    uris = {
        (told["jobInputType"], told["uri"].partition("/paths/")[2])
        for body in sent
        for told in body["properties"]["inputs"].values()
    }
    kind = ("uri_file", path) if path.endswith("jsonl") else ("uri_folder", f"{path}/")
    assert {("uri_folder", "some/texts/"), kind} <= uris
    assert not azure.requests("GET", "jsonl$"), "the rows were listed, not read"
    assert not azure.broken
    elsewhere.run(system="local")
    assert elsewhere.heard.ran == []


@pytest.mark.parametrize("what", ["a model of a registry", "a model of the workspace"])
def test_an_mlflow_model_is_read_as_one_checkpoint_here_and_there(
    what: str, azure: Shelves, elsewhere: Workspace, tmp_path: Path
) -> None:
    parts = split(make_checkpoint(tmp_path / "checkpoint"), tmp_path / "mlflow")
    azure.put_in_registry("phi-mlflow-7", tree(parts))
    azure.put("registered/mlflow", tree(parts))
    azure.models["phi-mlflow", "7"] = "registered/mlflow"
    named = {**OF[what], "name": "phi-mlflow", "version": "7"}
    elsewhere.config["input_model"] = {"type": "HfModel", "model_path": named}
    elsewhere.passes(sizes={"type": "Weigh"})
    elsewhere.config["engine"]["evaluator"] = None
    del elsewhere.config["evaluators"]
    outcome = elsewhere.run()
    assert elsewhere.heard.ran == ["sizes"]
    assert outcome.path
    sizes = json.loads((outcome.path / "sizes.txt").read_text())
    assert sizes == {
        file.name: file.stat().st_size for file in sorted((tmp_path / "checkpoint").iterdir())
    }
    weights = azure.requests("GET", r"blob.*safetensors")
    assert not weights, "the job is given the address"
    assert not azure.broken
    elsewhere.run(system="local")
    assert elsewhere.heard.ran == []
    assert azure.requests("GET", r"blob.*safetensors"), "here its bytes are needed"
