"""What AzureML answers, and what becomes of it: no job runs here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import KEY, SCOPE, FakeAzure
from drupe_toys import Reverse
from job_schema import API_VERSION

from drupe.core.digest import folder_digest
from drupe.core.errors import DrupeError, Refused, StepError
from drupe.core.executor import Batch, Transient
from drupe.core.model import Model
from drupe.core.system import Setting
from drupe.systems.azureml import declaration
from drupe.systems.azureml.declaration import AzureML
from drupe.systems.azureml.executor import AzureMLExecutor
from drupe.systems.batch import MARK, digests
from drupe.systems.bundle import Bundle
from drupe.systems.follow import Followed
from tests.plain.conftest import Workspace, spec_of

FIRST, JOB = "1" * 64, f"drupe-{'1' * 64}"
Make = Callable[..., AzureML]
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(azure|marshmallow)")


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("abc")
    spec = spec_of(Reverse(), "Reverse", Model("files", tmp_path / "model", "d"), FIRST)
    return Batch((spec,), lambda key: tmp_path / "step")


@pytest.fixture
def sent(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> Callable[..., dict[str, Any]]:
    """Submit the batch to a system, and return the body that was sent."""

    def submit(**fields: Any) -> dict[str, Any]:
        azure.jobs.hold.set()
        with system(**fields).open(setting) as executor:
            executor.submit(batch)
        [request] = azure.requests("PUT", f"/jobs/{JOB}$")
        assert request.query["api-version"] == API_VERSION
        told: dict[str, Any] = json.loads(request.body)["properties"]
        return told

    return submit


def test_what_is_sent(sent: Callable[..., dict[str, Any]], azure: FakeAzure) -> None:
    told = sent(
        client={"keyvault_name": "vault"},
        hf_token=True,
        tags={"team": "blue"},
        instance_count=2,
        resources={"instance_type": "Standard_NC6s_v3", "shm_size": "16g"},
    )
    assert told["experimentName"] == "drupe"
    assert told["computeId"] == f"{SCOPE}/computes/cluster"
    assert told["identity"] == {"identityType": "UserIdentity"}
    assert told["tags"] == {"team": "blue"}
    assert told["resources"] == {
        "instanceCount": 2,
        "instanceType": "Standard_NC6s_v3",
        "shmSize": "16g",
        "properties": {},
    }
    variables = told["environmentVariables"]
    assert variables["DRUPE_KEYVAULT"] == "vault"
    assert variables["DRUPE_HF_TOKEN_FROM"] == "keyvault"
    assert variables["AZUREML_SDKV2_TELEMETRY_OPTOUT"] == "1"
    assert told["outputs"]["results"]["mode"] == "ReadWriteMount"
    assert told["properties"] == {
        "mlflow.source.git.commit": "not told",
        "drupe.steps": FIRST,
        "drupe.inputs": "d",
    }
    hosts = {request.host for request in azure.asked}
    assert azure.connected == hosts, "nothing else is asked, telemetry least of all"


def test_no_token_is_asked_for_where_none_is_wanted(sent: Callable[..., dict[str, Any]]) -> None:
    told = sent(client={"keyvault_name": "vault"})
    assert not any(name.startswith("DRUPE") for name in told["environmentVariables"])


@pytest.mark.parametrize("more", [{"version": "3"}, {"label": "latest"}, {}])
def test_an_environment_of_the_workspace(
    more: dict[str, str], sent: Callable[..., dict[str, Any]], azure: FakeAzure
) -> None:
    azure.registered("mine", "3")
    told = sent(aml_docker_config=None, aml_environment_config={"name": "mine", **more})
    assert told["environmentId"] == f"{SCOPE}/environments/mine/versions/3"


def test_an_environment_that_is_not_there(sent: Callable[..., dict[str, Any]]) -> None:
    words = (
        "^the workspace workspace: refuses what it was sent: Asset mine with version label best "
        "does not exist in workspace\\.\n  Mend what it names"
    )
    with pytest.raises(DrupeError, match=words):
        sent(aml_docker_config=None, aml_environment_config={"name": "mine", "label": "best"})


def test_an_environment_of_an_image_is_made_once(
    sent: Callable[..., dict[str, Any]], azure: FakeAzure, tmp_path: Path
) -> None:
    config = {"base_image": "ubuntu", "conda_file_path": tmp_path / "conda.yaml", "name": "mine"}
    told = sent(aml_docker_config=config)
    found = re.fullmatch(
        rf"{SCOPE}/environments/mine/versions/([0-9a-f]{{16}})", told["environmentId"]
    )
    assert found, told["environmentId"]
    [made] = azure.requests("PUT", "/environments/")
    assert json.loads(made.body)["properties"]["image"] == "ubuntu"
    assert "python=3.12" in json.loads(made.body)["properties"]["condaFile"]


def test_a_folder_with_a_dockerfile(
    sent: Callable[..., dict[str, Any]], azure: FakeAzure, tmp_path: Path
) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "Dockerfile").write_text("FROM ubuntu\n")
    config = {"dockerfile": "Dockerfile", "build_context_path": tmp_path / "image"}
    sent(aml_docker_config=config)
    [made] = azure.requests("PUT", "/environments/")
    build = json.loads(made.body)["properties"]["build"]
    assert build["dockerfilePath"] == "Dockerfile"
    assert "LocalUpload" in build["contextUri"]


def test_on_arc_a_job_has_the_identity_of_the_compute(
    sent: Callable[..., dict[str, Any]], azure: FakeAzure
) -> None:
    azure.computes["arc"] = "Kubernetes"
    assert sent(aml_compute="arc")["identity"] == {"identityType": "Managed"}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("azureml://registries/azureml/models/phi/versions/11", "custom_model"),
        ("azureml://datastores/workspaceblobstore/paths/phi/", "uri_folder"),
        ("azureml://datastores/workspaceblobstore/paths/rows.jsonl", "uri_file"),
    ],
)
def test_a_model_that_lies_on_azureml_stays_there(
    address: str, kind: str, system: Make, tmp_path: Path, azure: FakeAzure
) -> None:
    from drupe.systems.azureml import job, workspace

    azure.jobs.hold.set()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "batch.json").write_text("{}")
    client = system().client()
    assert client
    bundle = Bundle(tmp_path / "bundle", {"model0": address})
    made = job.job_of(JOB, bundle, system(), "amlcompute", "azureml://datastores/d/paths/p", {})
    workspace.Workspace(client).create(made, JOB)
    told = azure.jobs[JOB].properties["inputs"]["model0"]
    assert told == {"jobInputType": kind, "uri": address, "mode": "ReadOnlyMount"}


def test_the_same_model_is_uploaded_once(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.jobs.hold.set()
    other = replace(batch.steps[0], key="2" * 64)
    with system().open(setting) as executor:
        for spec in (batch.steps[0], other):
            executor.submit(Batch((spec,), batch.folder))
    assert len(azure.requests("PUT", r"LocalUpload/.*/a\.txt$")) == 2, "the file, its mark"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((401,), r'asks who you are, .*\n  Log in \("az login"\)'),
        ((403,), r"is not shown to you: .*\n  Ask its owner for the role"),
        ((404, "ResourceGroupNotFound"), r"is not there: .*\n  Mend the name"),
        ((400,), r"refuses what it was sent: .*fault 400\n  Mend what it names"),
    ],
)
def test_what_no_retry_mends_is_told(
    fault: tuple[Any, ...],
    words: str,
    system: Make,
    setting: Setting,
    batch: Batch,
    azure: FakeAzure,
) -> None:
    azure.fail("GET", f"/jobs/{JOB}", fault[0], times=9, code=(*fault, "Fault")[1])
    with (
        system().open(setting) as executor,
        pytest.raises(DrupeError, match=f"^the workspace workspace: {words}") as raised,
    ):
        executor.submit(batch)
    assert not isinstance(raised.value, Transient)


def test_a_wrong_login_is_told(
    system: Make,
    setting: Setting,
    batch: Batch,
    azure: FakeAzure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "another")
    with (
        system().open(setting) as executor,
        pytest.raises(DrupeError, match=r'asks who you are.*\n  Log in \("az login"\)'),
    ):
        executor.submit(batch)


def test_a_compute_that_is_not_there_is_told_before_any_upload(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    words = r'^aml_compute: is "big", and the workspace workspace has no such compute\n  Name one'
    with system(aml_compute="big").open(setting) as executor, pytest.raises(Refused, match=words):
        executor.submit(batch)
    assert not azure.requests("PUT", "")


@pytest.mark.parametrize(
    ("status", "headers", "seconds"), [(429, {"Retry-After": "7"}, 7.0), (503, {}, None)]
)
def test_what_may_be_tried_again_is_transient(
    status: int,
    headers: dict[str, str],
    seconds: float | None,
    system: Make,
    setting: Setting,
    batch: Batch,
    azure: FakeAzure,
) -> None:
    azure.fail("GET", f"/jobs/{JOB}", status, headers=headers)
    with system().open(setting) as executor, pytest.raises(Transient) as raised:
        executor.submit(batch)
    assert raised.value.after_seconds == seconds


def test_who_is_silent_for_longer_than_is_waited_is_asked_again(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.stall("GET", f"/jobs/{JOB}", 1.5)
    with (
        system(client={"read_timeout": 1}).open(setting) as executor,
        pytest.raises(Transient, match=r"Read timed out"),
    ):
        executor.submit(batch)


def test_the_ways_to_log_in_are_the_configs(system: Make, setting: Setting, batch: Batch) -> None:
    ways = ("environment", "managed_identity", "developer_cli", "powershell")
    more = ("workload_identity", "shared_token_cache", "visual_studio_code", "broker")
    without = {f"exclude_{way}_credential": True for way in (*ways, *more)}
    with (
        system(client={"default_auth_params": without}).open(setting) as executor,
        pytest.raises(DrupeError, match=r'Log in \("az login"\)'),
    ):
        executor.submit(batch)


def test_the_clients_own_retries_are_silent(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.jobs.hold.set()
    azure.fail("GET", f"/jobs/{JOB}", 503, times=2)
    client = {"max_operation_retries": 2, "operation_retry_interval": 0}
    with system(client=client).open(setting) as executor:
        executor.submit(batch)
    assert len(azure.jobs.started) == 1


def test_what_is_said_elsewhere_while_a_job_is_sent_is_not_held_back(
    sent: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """azure-ai-ml ends each upload with an empty line, which would be all that is told."""
    said, is_sent = 0, threading.Event()

    def speak() -> None:
        nonlocal said
        while not is_sent.wait(0.001):
            sys.stderr.write(f"word {said}\n")
            said += 1

    speaker = threading.Thread(target=speak)
    speaker.start()
    sent()
    is_sent.set()
    speaker.join()
    assert said > 20
    assert capsys.readouterr().err == "".join(f"word {number}\n" for number in range(said))


def test_who_submits_at_the_same_time_attaches(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.jobs.hold.set()
    with system().open(setting) as one, system().open(setting) as other:
        one.submit(batch)
        azure.fail("GET", f"/jobs/{JOB}", 404)  # it looked before the first had sent it
        other.submit(batch)
        assert other.poll(batch, 0).state == "queued"
    assert len(azure.requests("PUT", f"/jobs/{JOB}$")) == 2
    assert len(azure.jobs.started) == 1


def done(folder: Path, **more: Any) -> dict[str, Any]:
    told = {"seconds": 1.0, "peak_bytes": 1, "facts": {}, "machine": {}, "files": digests(folder)}
    return {"event": "done", "step": FIRST, "number": 1, **told, **more}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.txt").write_text("cba")
    return tmp_path / "made"


def test_a_job_that_is_over_is_attached_to_and_what_is_damaged_refused(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure, result: Path
) -> None:
    azure.over(JOB, "Completed", [f"some text {MARK}{json.dumps(done(result))}"], {FIRST: result})
    with system().open(setting) as executor:
        Followed(executor, batch).step(batch.steps[0].key, lambda event: None)
    assert (batch.folder(FIRST) / "out" / "a.txt").read_text() == "cba"
    (batch.folder(FIRST) / "out" / "a.txt").unlink()
    azure.blobs.damaged = f"results/{FIRST}/a.txt"
    words = "^Reverse: its result did not arrive whole: a.txt is damaged"
    with system().open(setting) as executor, pytest.raises(StepError, match=words):
        Followed(executor, batch).step(batch.steps[0].key, lambda event: None)


@pytest.mark.parametrize(
    ("statuses", "force", "name"),
    [
        (["Completed"], False, JOB),
        (["Completed"], True, f"{JOB}-2"),
        (["Failed"], False, f"{JOB}-2"),
        (["Failed", "Canceled"], False, f"{JOB}-3"),
        (["Failed", "Running"], False, f"{JOB}-2"),
        (["NotResponding"], True, JOB),
    ],
)
def test_which_job_is_the_batchs(
    statuses: list[str],
    force: bool,
    name: str,
    system: Make,
    setting: Setting,
    batch: Batch,
    azure: FakeAzure,
) -> None:
    for number, status in enumerate(statuses, 1):
        azure.over(JOB if number == 1 else f"{JOB}-{number}", status)
    azure.jobs.hold.set()
    with system().open(replace(setting, force=force)) as executor:
        executor.submit(batch)
        assert isinstance(executor, AzureMLExecutor)
        assert executor.job_name(batch) == name


@pytest.mark.parametrize(
    ("steps", "inputs", "name"),
    [
        (f"{'0' * 64} {FIRST}", "e d", JOB),  # it does more
        (f"{'0' * 64} {FIRST}", "e", JOB),  # and has made what is read here
        (f"{'0' * 64} {FIRST}", "e f", f"{JOB}-2"),  # no such step is done
        (FIRST, "f", f"{JOB}-2"),
        ("0" * 64, "d", f"{JOB}-2"),
    ],
)
def test_a_job_of_more_steps_is_attached_to_if_it_reads_the_same(
    steps: str,
    inputs: str,
    name: str,
    system: Make,
    setting: Setting,
    batch: Batch,
    azure: FakeAzure,
    result: Path,
) -> None:
    made = Model("files", result, folder_digest(digests(result)))
    reads = made if inputs == "e" else batch.steps[0].models[0]
    earlier = {**done(result), "step": "0" * 64}
    azure.over(JOB, "Running", [MARK + json.dumps(earlier)], steps=steps, inputs=inputs)
    azure.jobs.hold.set()
    spec = replace(batch.steps[0], models=(reads,))
    with system().open(setting) as executor:
        executor.submit(Batch((spec,), batch.folder))
        assert isinstance(executor, AzureMLExecutor)
        assert executor.job_name(Batch((spec,), batch.folder)) == name


def test_a_log_with_a_torn_line_ends_in_an_error(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.over(JOB, "Completed", [f'{MARK}{{"event": "do', "the last words"])
    words = "^Reverse: its process ended with exit code 0 without having done the step"
    with system().open(setting) as executor, pytest.raises(StepError, match=words):
        Followed(executor, batch).step(batch.steps[0].key, lambda event: None)
    assert (batch.folder(FIRST) / "log").read_text() == "the last words\n"


def test_a_job_that_is_gone_is_lost(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.over(JOB, "Running")
    with system().open(setting) as executor:
        executor.submit(batch)
        azure.jobs.started.clear()
        polled = executor.poll(batch, 0)
    assert (polled.state, polled.ending) == ("lost", f"the job {JOB} is gone from the workspace")


def test_a_job_that_was_cancelled_by_another_hand(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure
) -> None:
    azure.over(JOB, "Running")
    with system().open(setting) as executor:
        executor.submit(batch)
        assert executor.poll(batch, 0).state == "running"
        azure.jobs[JOB].statuses.append("Canceled")
        time.sleep(0.06)  # it asks again
        polled = executor.poll(batch, 0)
    assert (polled.state, polled.status) == ("ended", 1)
    assert polled.ending.startswith(
        f"was cancelled on AzureML (job {JOB}, https://ml.azure.com/runs/{JOB}?"
    )


def test_a_datastore_without_a_key_is_read_as_oneself(
    system: Make, setting: Setting, batch: Batch, azure: FakeAzure, result: Path
) -> None:
    azure.over(JOB, "Completed", [MARK + json.dumps(done(result))], {FIRST: result})
    azure.fail("POST", "listSecrets", 403, times=9)
    with system().open(setting) as executor:
        Followed(executor, batch).step(batch.steps[0].key, lambda event: None)
    read = azure.requests("GET", rf"results/{FIRST}/a.txt")
    assert all(KEY not in str(request.query) for request in read)
    assert read[0].headers["Authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"aml_docker_config": None}, "describes no environment"),
        ({"azureml_client_config": None}, "has no workspace"),
        ({"hf_token": True}, "has no key vault to read the token from"),
    ],
)
def test_what_is_missing_is_refused_at_once(
    change: dict[str, Any], what: str, system: Make
) -> None:
    assert not list(system(client={"keyvault_name": "vault"}).faults())
    told = [fault.what for fault in system().model_copy(update=change).faults()]
    assert told == [what]


def test_without_azure_ai_ml_it_is_refused_with_the_extra(
    elsewhere: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declaration, "installed_version", lambda name: None)
    words = r'systems\.aml: needs azure-ai-ml, .*\n  pip install "drupe\[azureml\]"'
    with pytest.raises(Refused, match=words):
        elsewhere.plan()


def test_what_azure_ai_ml_would_leave_out_is_a_fault(elsewhere: Workspace) -> None:
    elsewhere.config["systems"]["aml"]["resources"] = {"instance_typ": "Standard_NC6s_v3"}
    words = r'aml\.resources\.instance_typ: is unknown; did you mean "instance_type"\?\n  Known'
    with pytest.raises(Refused, match=words):
        elsewhere.plan()


def test_opening_asks_nothing_and_imports_nothing_of_azures(tmp_path: Path) -> None:
    asked = (
        "import sys; from pathlib import Path; from drupe.core.system import Setting;"
        "from drupe.systems.azureml.declaration import AzureML; here = Path();"
        "AzureML(aml_compute='c').open(Setting('aml', here, here)).warm_up();"
        "print(sorted(name for name in sys.modules if name.startswith('azure')))"
    )
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
