"""What lies elsewhere reaches a job by its address: nothing of it comes here, the keys stay.

Outputs of jobs as inputs of the job, at the path of the datastore; a public URL read by the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_fake import GROUP, SUBSCRIPTION, WORKSPACE
from azureml_shelves import PUBLIC, Shelves

from drupe.core.executor import Transient
from drupe.core.resource import AzureMLClient, Remote
from drupe.resources import fetch as fetching
from drupe.systems.azureml import executor
from drupe.systems.azureml.workspace import Workspace as Opened
from tests.plain.conftest import Workspace, tree
from tests.waiting import MOST_SECONDS

NAMES = {
    "subscription_id": SUBSCRIPTION,
    "resource_group": GROUP,
    "workspace_name": WORKSPACE,
}
ROWS = b'{"text": "one of the rows"}\n{"text": "two"}\n'
OUTPUT = {"type": "azureml_job_output", "job_name": "trained", "output_name": "best"}


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelves]:
    with Shelves(tmp_path / "azure") as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(fetching, "FIRST_SECONDS", 0.05)
        monkeypatch.setattr(executor, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(executor, "LATE_SECONDS", 0.3)
        yield fake


def counting(workspace: Workspace, data_files: object) -> None:
    """Have the config turn the model's texts, and count the rows of some data."""
    source = {"data_name": "json", "data_files": data_files}
    workspace.config["data_configs"] = [{"name": "rows", "load_dataset_config": source}]
    workspace.passes(back={"type": "Reverse"}, count={"type": "Count", "data_config": "rows"})


def inputs(azure: Shelves) -> set[tuple[str, str]]:
    """Return the type and the address of each input of the jobs that were sent."""
    sent = [json.loads(request.body) for request in azure.requests("PUT", "jobs/")]
    return {
        (told["jobInputType"], told["uri"])
        for body in sent
        for told in body["properties"]["inputs"].values()
    }


@pytest.mark.parametrize("path", ["rows.jsonl", "rows"])
def test_the_outputs_of_a_job_are_inputs_at_the_path_of_the_datastore(
    path: str, azure: Shelves, elsewhere: Workspace
) -> None:
    azure.put("azureml/trained/best/texts", {"a.txt": b"one"})
    azure.put("azureml/trained/best", {"rows.jsonl": ROWS})
    azure.put("azureml/trained/best/rows", {"a.jsonl": ROWS, "b.jsonl": ROWS[:28]})
    elsewhere.config["input_model"]["model_path"] = {**OUTPUT, "relative_path": "texts"}
    counting(elsewhere, {**OUTPUT, "relative_path": path})
    outcome = elsewhere.run()
    assert elsewhere.heard.ran == ["back", "count"]
    assert outcome.path
    is_file = path.endswith("jsonl")
    assert (outcome.path / "counts.txt").read_text() == ("[2]" if is_file else "[2, 1]")
    there = "azureml://datastores/workspaceblobstore/paths/azureml/trained/best"
    kind, end = ("uri_file", "") if is_file else ("uri_folder", "/")
    wanted = {("uri_folder", f"{there}/texts/"), (kind, f"{there}/{path}{end}")}
    assert inputs(azure) == wanted
    assert not azure.requests("GET", "jsonl$"), "the rows were listed, not read"
    assert not azure.broken
    elsewhere.run(system="local")
    assert elsewhere.heard.ran == []


def test_where_an_output_lies_is_asked_for_and_may_be_asked_again(azure: Shelves) -> None:
    there = Opened(AzureMLClient(**NAMES, max_operation_retries=0))
    azure.fail("GET", "jobs/trained$", 429, headers={"Retry-After": "7"})
    address = "azureml://jobs/trained/outputs/best/paths/phi/"
    with pytest.raises(Transient, match="fault 429") as fault:
        there.source(address)
    assert fault.value.after_seconds == 7
    lies = "azureml://datastores/workspaceblobstore/paths/azureml/trained/best/phi/"
    assert there.source(address) == lies
    assert there.source(lies) == lies
    assert len(azure.requests("GET", "jobs/trained$")) == 2


def test_a_public_file_is_read_by_the_job(azure: Shelves, elsewhere: Workspace) -> None:
    azure.public["data/rows.jsonl"] = ROWS
    counting(elsewhere, f"https://{PUBLIC}/data/rows.jsonl")
    planned = elsewhere.drupe("plan", "config.json")
    assert planned.returncode == 0, planned.stderr
    assert azure.requests("HEAD", PUBLIC)
    assert not azure.requests("GET", PUBLIC), "its version alone is asked for"
    done = elsewhere.drupe("run", "config.json")
    assert done.returncode == 0, done.stderr
    [counts] = elsewhere.output.rglob("counts.txt")
    assert counts.read_text() == "[2]"
    assert azure.requests("GET", PUBLIC), "by the job"
    for held in (elsewhere.folder, azure.blobs.folder):
        assert not [name for name, content in tree(held).items() if b"of the rows" in content]
    local = elsewhere.drupe("plan", "config.json", "--system", "local", "--json")
    assert local.returncode == 0, local.stderr
    assert [step["state"] for step in json.loads(local.stdout)["steps"]] == ["cached"] * 2
    assert not azure.broken


def test_a_public_file_that_changed_since_the_plan_is_not_read(
    azure: Shelves, elsewhere: Workspace
) -> None:
    azure.public["rows.jsonl"] = ROWS
    counting(elsewhere, f"https://{PUBLIC}/rows.jsonl")
    azure.jobs.hold.set()
    running = elsewhere.start("run", "config.json")
    while not azure.jobs.started:
        assert running.poll() is None, running.communicate()
    azure.public["rows.jsonl"] = ROWS * 2
    azure.jobs.hold.clear()
    _, told = running.communicate(timeout=MOST_SECONDS)
    assert running.returncode == 1
    log = "\n".join(
        content.decode(errors="replace") for content in tree(azure.blobs.folder).values()
    )
    words = (
        f"the job, https://{PUBLIC}/rows.jsonl: holds something else than when the run was planned"
    )
    assert words in log
    assert words in told


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://files.example.org/rows.jsonl", True),
        ("https://8.8.8.8/rows.jsonl", True),
        ("http://files.example.org/rows.jsonl", False),
        ("https://files.example.org/rows.jsonl?sig=secret", False),
        ("https://me:word@files.example.org/rows.jsonl", False),
        ("https://localhost/rows.jsonl", False),
        ("https://127.0.0.1/rows.jsonl", False),
        ("https://10.1.2.3/rows.jsonl", False),
        ("https://[fd00::1]/rows.jsonl", False),
        ("https://files.corp/rows.jsonl", False),
        ("https://kept.example.org/rows.jsonl", False),
        ("s3://bucket/rows.jsonl", False),
    ],
)
def test_what_needs_this_machine_is_fetched_here(
    url: str, public: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is reached from here alone, an address or a .netrc that holds a password."""
    (tmp_path / ".netrc").write_text("machine kept.example.org login me password word\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Remote(type="url", url=url).is_public is public
