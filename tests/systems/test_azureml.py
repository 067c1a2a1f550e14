"""Steps as jobs on AzureML, against a fake of the service that runs the command it is sent."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import PASSWORD, FakeAzure
from drupe_toys import Append, Breaks, Reverse, Slow

from drupe.core.errors import StepError
from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.core.step import StepSpec
from drupe.core.system import Setting
from drupe.systems.azureml.declaration import AzureML
from drupe.systems.follow import Followed
from tests.plain.conftest import Workspace, spec_of, tree

TOKEN = "hf_" + "planted" * 4
FIRST, SECOND, THIRD = "1" * 64, "2" * 64, "3" * 64
# Of the faults on the way, in order; what azure-storage-blob mends itself is not told.
TOLD = (
    "fault 500",
    "fault 503",
    "fault 429; tried again in 1 s",
    "Remote end closed connection",
    "Remote end closed connection",
    f"a.txt of the job drupe-{FIRST} is not in its output yet",
)
# What azure-ai-ml does with marshmallow is its own business.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(azure|marshmallow)")
Make = Callable[..., AzureML]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("abc")
    return Model("files", tmp_path / "model", "d")


def made_by(key: str) -> Model:
    return Model("files", Path(), "", step=key)


def batch_of(folder: Path, *specs: StepSpec) -> Batch:
    return Batch(specs, lambda key: folder / key[:4])


def test_a_run_gives_what_a_local_run_gives_under_the_same_keys(
    elsewhere: Workspace, azure: FakeAzure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there = elsewhere.run()
    assert elsewhere.heard.ran == ["back", "more"]
    assert {"event": "note", "text": "appending 1 characters"} in elsewhere.heard.events
    texts = [event["text"] for event in elsewhere.heard.events if event["event"] == "note"]
    [job] = azure.jobs.started
    assert re.match(rf"AzureML: {job.name}, \w+ \(https://ml\.azure\.com/", texts[0])
    results = tree(there.final.model.path)
    keys = [step.key for step in elsewhere.plan().steps]
    assert (job.name, job.status) == (f"drupe-{keys[-1]}", "Completed")

    asked = len(azure.asked)
    again = elsewhere.run()
    assert elsewhere.heard.ran == []
    assert len(azure.asked) == asked, "what is cached needs no Azure"
    assert tree(again.final.model.path) == results

    elsewhere.config["engine"] |= {"cache_dir": "cache2", "output_dir": "output2"}
    here = elsewhere.run(system="local")
    assert tree(here.final.model.path) == results
    assert [step.key for step in elsewhere.plan().steps] == keys
    for secret in (TOKEN, PASSWORD):
        for request in azure.asked:
            if request.host != "login.microsoftonline.com":
                assert secret.encode() not in request.body
        for content in [*tree(elsewhere.folder).values(), *tree(azure.blobs.folder).values()]:
            assert secret.encode() not in content
    for request in azure.requests("PUT", "/jobs/"):
        assert str(tmp_path).encode() not in request.body


def test_an_error_reads_as_it_does_here(elsewhere: Workspace, azure: FakeAzure) -> None:
    elsewhere.passes(breaks={"type": "Breaks", "how": "exception"})
    with pytest.raises(StepError) as there:
        elsewhere.run()
    [log] = elsewhere.cache.rglob("log")
    assert "ValueError: a value that was wrong" in log.read_text()
    with pytest.raises(StepError) as here:
        elsewhere.run(system="local")
    assert (there.value.where, there.value.what) == (here.value.where, here.value.what)
    assert there.value.remedy == f"Steps before it are kept; its log: {log}"


def test_steps_travel_as_one_job_and_those_before_a_failure_are_kept(
    system: Make, setting: Setting, model: Model, tmp_path: Path, azure: FakeAzure
) -> None:
    first = spec_of(Append(text="def"), "Append", model, FIRST)
    second = spec_of(Reverse(), "Reverse", made_by(FIRST), SECOND)
    third = spec_of(Breaks(how="error"), "Breaks", made_by(SECOND), THIRD)
    with system().open(setting) as executor:
        followed = Followed(executor, batch_of(tmp_path, first, second, third))
        facts = [followed.step(spec.key, lambda event: None).facts for spec in (first, second)]
        assert facts == [{"appended": 3}, {}]
        assert (tmp_path / "1111" / "out" / "a.txt").read_text() == "abcdef"
        assert (tmp_path / "2222" / "out" / "a.txt").read_text() == "fedcba"
        with pytest.raises(StepError, match=r"^Breaks, Breaks\.how: is error\n  Choose another\."):
            followed.step(third.key, lambda event: None)
    assert "Traceback" in (tmp_path / "3333" / "log").read_text()
    assert len(azure.jobs.started) == 1


def test_ctrl_c_cancels_the_job(
    system: Make, setting: Setting, model: Model, tmp_path: Path, azure: FakeAzure
) -> None:
    spec = spec_of(Slow(ticks=100_000), "Slow", model, FIRST)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            raise KeyboardInterrupt

    with system().open(setting) as executor, pytest.raises(KeyboardInterrupt):
        Followed(executor, batch_of(tmp_path, spec)).step(spec.key, interrupt)
    [job] = azure.jobs.started
    assert job.statuses[-2:] == ["CancelRequested", "Canceled"]
    assert job.process
    assert job.process.poll() == -signal.SIGTERM


def test_a_client_that_was_killed_finds_its_job_again(
    elsewhere: Workspace, azure: FakeAzure
) -> None:
    elsewhere.passes(slow={"type": "Slow", "ticks": 20})
    client = elsewhere.start("run", "--config", "config.json")
    while not azure.jobs.started or "Running" not in azure.jobs.started[0].statuses:
        time.sleep(0.05)
        assert client.poll() is None, client.communicate()
    client.kill()
    client.communicate()
    outcome = elsewhere.run()
    [job] = azure.jobs.started
    texts = [event["text"] for event in elsewhere.heard.events if event["event"] == "note"]
    assert texts[0].startswith(f"AzureML: attached to {job.name}, ")
    assert (outcome.final.model.path / "count.txt").read_text() == "0 20"


def test_what_is_transient_on_the_way_is_survived(
    system: Make, setting: Setting, tmp_path: Path, azure: FakeAzure
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "a.txt").write_text("ab" * 200_000)
    azure.fail("GET", "/computes/", 503)
    azure.fail("PUT", "/jobs/", 429, headers={"Retry-After": "1"})
    azure.drop("PUT", "/jobs/", after=True)  # it was done: its answer is lost
    azure.fail("GET", r"/jobs/drupe-1+$", 500, times=1)
    azure.drop("GET", "std_log.txt")
    azure.drop("GET", rf"results/{FIRST}/a.txt", sent=70_000)
    azure.fail("GET", rf"results/{FIRST}/a.txt", 404, code="BlobNotFound")
    azure.slow(rf"results/{FIRST}/a.txt", 0.05)
    spec = spec_of(Reverse(), "Reverse", Model("files", tmp_path / "large", "d"), FIRST)
    told: list[dict[str, Any]] = []
    with system().open(setting) as executor:
        Followed(executor, batch_of(tmp_path, spec)).step(spec.key, told.append)
    assert (tmp_path / "1111" / "out" / "a.txt").read_text() == "ba" * 200_000
    assert len(azure.jobs.started) == 1
    notes = [event["text"] for event in told if "tried again" in event.get("text", "")]
    assert len(notes) == len(TOLD), notes
    assert [words in note for words, note in zip(TOLD, notes, strict=True)] == [True] * len(TOLD)


def test_a_job_that_never_came_to_run_a_step_is_told(
    system: Make, setting: Setting, model: Model, tmp_path: Path, azure: FakeAzure
) -> None:
    """As when an image cannot be built, or the environment has no Python."""
    spec = spec_of(Reverse(), "Reverse", model, FIRST)
    azure.jobs.command = "echo no such interpreter >&2; exit 127"
    words = rf"^Reverse: its process failed on AzureML \(job drupe-{FIRST}, https://ml.azure.com/"
    with system().open(setting) as executor, pytest.raises(StepError, match=words) as raised:
        Followed(executor, batch_of(tmp_path, spec)).step(spec.key, lambda event: None)
    assert raised.value.what.endswith(": no such interpreter")


def test_the_base_of_an_adapter_is_an_input_of_its_own(
    system: Make, setting: Setting, model: Model, tmp_path: Path, azure: FakeAzure
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.txt").write_text("base")
    adapter = replace(model, base=Model("files", tmp_path / "base", "e"))
    azure.jobs.hold.set()
    spec = spec_of(Reverse(), "Reverse", adapter, FIRST)
    with system().open(setting) as executor:
        executor.submit(batch_of(tmp_path, spec))
    [job] = azure.jobs.started
    assert sorted(job.properties["inputs"]) == ["model0", "model1"]
    uploaded = [json.dumps(each) for each in job.properties["inputs"].values()]
    assert any("/base/" in each for each in uploaded)
