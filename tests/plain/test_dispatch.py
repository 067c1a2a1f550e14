"""Steps worked off: side by side where a system allows it, joined where they travel as one job."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import drupe
from drupe import dispatch
from drupe.config.load import load
from drupe.core.cache import WAITING
from drupe.core.errors import ConfigError, DrupeError, StepError
from drupe.core.executor import Batch
from drupe.core.journal import read_journal
from drupe.core.locks import locked
from drupe.plan import make
from drupe.systems.local import LocalExecutor
from tests.plain.conftest import Heard, Workspace, tree

MINUTES = 600.0  # what is to be stopped would take; to stop it takes a tenth of a second


@pytest.fixture
def pool(workspace: Workspace) -> Workspace:
    """Four metrics that wait for each other, on a system that runs two steps at once."""
    workspace.config["systems"] = {"pool": {"type": "Pool", "workers": 2}}
    workspace.config["engine"] |= {"host": "pool", "evaluate": "every-step"}
    workspace.passes(back={"type": "Reverse"})
    metrics = [
        {"name": f"pair{n}", "type": "PairedLength", "place": str(workspace.folder), "number": n}
        for n in range(4)
    ]
    workspace.config["evaluators"] = {"all": {"metrics": metrics}}
    return workspace


def test_independent_steps_run_side_by_side(pool: Workspace) -> None:
    outcome = pool.run()
    begun = [score.more["began"] for stage in outcome.stages for score in stage.scores.values()]
    ended = [score.more["ended"] for stage in outcome.stages for score in stage.scores.values()]
    overlaps = sum(
        first < other_end and other < end
        for first, end in zip(begun, ended, strict=True)
        for other, other_end in zip(begun, ended, strict=True)
        if first < other
    )
    assert overlaps >= 4, "eight measurements, two at once"
    assert sorted(pool.heard.ran) == sorted(pool.heard.finished_steps)
    assert len(pool.heard.ran) == 9


def test_what_comes_side_by_side_is_what_comes_one_by_one(pool: Workspace) -> None:
    pool.config["evaluators"]["all"]["metrics"] = [{"name": "length", "type": "Length"}]
    there = pool.run()
    keys = [step.key for step in there.plan.steps]
    del pool.config["engine"]["host"]
    pool.config["engine"]["cache_dir"] = "another"
    here = pool.run()
    assert [step.key for step in here.plan.steps] == keys
    assert tree(here.final.model.path) == tree(there.final.model.path)
    assert [stage.scores["length"].value for stage in here.stages] == [8, 8]


def break_beside_a_slow_one(pool: Workspace) -> None:
    """Have one of two metrics fail while the other one, which takes minutes, is at work."""
    begun = str(pool.folder / "begun")
    pool.config["evaluators"]["all"]["metrics"] = [
        {"name": "broken", "type": "BrokenLength", "after": begun},
        {"name": "slow", "type": "SlowLength", "seconds": MINUTES, "begun": begun},
    ]


def test_a_failure_stops_what_runs_beside_it(pool: Workspace) -> None:
    break_beside_a_slow_one(pool)
    began = time.monotonic()
    with pytest.raises(StepError, match="BrokenLength: ValueError: no ruler"):
        pool.run()
    assert time.monotonic() - began < MINUTES / 2
    assert not pool.output.exists()


def test_ctrl_c_stops_all_that_runs(pool: Workspace) -> None:
    class Stop(KeyboardInterrupt):
        pass

    def stop(step: Any, event: Any) -> None:
        raise Stop

    pool.config["evaluators"]["all"]["metrics"] = [
        {"name": "slow", "type": "SlowLength", "seconds": MINUTES},
        {"name": "slow2", "type": "SlowLength", "seconds": MINUTES + 1},
    ]
    began = time.monotonic()
    listener = pool.heard
    listener.event = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        drupe.run(pool.write(), listener=listener)
    assert time.monotonic() - began < MINUTES / 2


@pytest.fixture
def folder(workspace: Workspace) -> Workspace:
    """A chain of two passes, each measured, on a system to which a job's files travel."""
    workspace.config["systems"] = {"away": {"type": "Folder", "folder": "away"}}
    workspace.config["engine"] |= {"host": "away", "evaluate": "every-step"}
    return workspace


def starts(workspace: Workspace) -> list[int]:
    """Return how often each job was started."""
    return [file.read_text().count("\n") for file in workspace.folder.glob("away/*/starts")]


def test_consecutive_steps_travel_as_one_job(folder: Workspace) -> None:
    outcome = folder.run()
    assert starts(folder) == [1]
    assert outcome.scores["length"].value == 10
    assert folder.heard.ran == folder.heard.finished_steps
    assert len(folder.heard.ran) == 5
    assert {"event": "note", "text": "appending 1 characters"} in [
        {key: event[key] for key in event if key != "number"} for event in folder.heard.events
    ]
    keys, made = [step.key for step in outcome.plan.steps], tree(outcome.final.model.path)
    del folder.config["engine"]["host"]
    assert [step.key for step in folder.plan().steps if step.hit] == keys
    folder.config["engine"]["cache_dir"] = "another"
    here = folder.run()
    assert [step.key for step in here.plan.steps] == keys
    assert tree(here.final.model.path) == made


def test_a_job_does_only_what_is_not_there(folder: Workspace) -> None:
    folder.run()
    folder.config["passes"]["more"]["text"] = "?"
    folder.run()
    assert sorted(starts(folder)) == [1, 1]
    assert folder.heard.ran == ["more", "more: length"]


def test_what_ran_elsewhere_says_nothing_of_this_machine(folder: Workspace, tmp_path: Path) -> None:
    folder.run()
    assert read_journal(tmp_path / "journal.jsonl") == []


def test_an_error_there_reads_as_here(folder: Workspace) -> None:
    folder.passes(back={"type": "Reverse"}, broken={"type": "Breaks", "how": "exception"})
    words = r"^Breaks: ValueError: a value that was wrong \(drupe_toys\.py:\d+\)\n  Steps before it"
    with pytest.raises(StepError, match=words) as caught:
        folder.run()
    log = Path(caught.value.remedy.rpartition(": ")[2])
    assert "Traceback" in log.read_text()
    assert "back" in folder.heard.finished_steps
    assert not folder.output.exists()


def test_a_lost_machine_is_told_and_the_job_submitted_again(folder: Workspace) -> None:
    folder.config["systems"]["away"]["lose"] = 1
    outcome = folder.run()
    assert outcome.scores["length"].value == 10
    assert starts(folder) == [2]
    text = "the folder's machine was lost: it is submitted again"
    assert {"event": "warning", "text": text} in folder.heard.events


def test_a_machine_that_is_lost_again_and_again_ends_the_run(folder: Workspace) -> None:
    folder.config["systems"]["away"]["lose"] = 99
    words = r"its machine was lost 4 times: the folder's machine was lost\n  Run again"
    with pytest.raises(StepError, match=words):
        folder.run()
    assert starts(folder) == [4]


def test_metrics_may_run_elsewhere_than_passes(folder: Workspace) -> None:
    """The target measures, the host works: two systems in one run."""
    folder.config["systems"]["here"] = {"type": "LocalSystem"}
    folder.config["engine"]["target"] = "here"
    planned = folder.plan()
    assert {step.role: step.system.name for step in planned.steps} == {
        "pass": "away",
        "metric": "here",
    }
    outcome = folder.run()
    assert starts(folder) == [1]
    assert outcome.scores["length"].value == 10
    told = json.loads((folder.drupe("plan", "config.json", "--json")).stdout)
    assert {step["system"] for step in told["steps"]} == {"away", "here"}


def test_a_pass_may_have_a_host_of_its_own(folder: Workspace) -> None:
    del folder.config["engine"]["host"]
    folder.config["passes"]["more"]["host"] = "away"
    shown = folder.drupe("plan", "config.json").stdout
    assert "The steps run here (LocalSystem), but on away (Folder): more." in shown
    outcome = folder.run()
    assert starts(folder) == [1]
    assert outcome.scores["length"].value == 10
    planned = make(load(folder.write(), system="local"))
    assert {step.system.name for step in planned.steps} == {"here"}


def test_a_host_that_is_not_described(folder: Workspace) -> None:
    folder.config["passes"]["more"]["host"] = "awai"
    words = r'passes\.more\.host names no system: "awai"; did you mean "away"\?\n  Known: away\.'
    with pytest.raises(ConfigError, match=words):
        folder.plan()


def test_what_fails_between_two_steps_stops_the_job_too(folder: Workspace) -> None:
    """The first step is fetched; the listener fails; the second, which takes long, is stopped."""
    folder.passes(back={"type": "Reverse"}, slow={"type": "Slow", "ticks": 600, "seconds": 0.05})
    listener = folder.heard

    def fail(step: Any, result: Any) -> None:
        raise OSError("the terminal is gone")

    listener.finished = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the terminal is gone"):
        drupe.run(folder.write(), listener=listener)
    [job] = folder.folder.glob("away/*")
    pids = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and str(job).encode() in command_line(process)
    ]
    assert pids == []


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_jobs_of_two_systems_never_wait_for_each_other(folder: Workspace) -> None:
    """What is made there from what is made here ends the job that is made here."""
    folder.config["systems"]["there"] = {"type": "Folder", "folder": "there"}
    folder.config["engine"]["target"] = "there"
    folder.passes(
        back={"type": "Reverse"},
        more={"type": "Append", "text": "!", "host": "there"},
        again={"type": "Reverse"},
    )
    outcome = folder.run()
    assert outcome.scores["length"].value == 10
    assert folder.heard.finished_steps == [step.name for step in outcome.plan.steps]


@pytest.fixture
def held(pool: Workspace) -> Iterator[tuple[Workspace, threading.Event]]:
    """The pool, and a step of it in the hands of another process until the event is set."""
    metrics = pool.config["evaluators"]["all"]["metrics"]
    metrics[:] = [
        {"name": "length", "type": "Length"},
        {"name": "slow", "type": "SlowLength", "seconds": MINUTES},
    ]
    [step] = [step for step in pool.plan().steps if step.name == "back: length"]
    begun, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(pool.cache / "locks" / step.key):
            begun.set()
            let_go.wait(MINUTES)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(MINUTES)
    yield pool, let_go
    let_go.set()
    holder.join()


def test_all_is_heard_in_the_callers_thread(
    held: tuple[Workspace, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, let_go = held
    pool.config["evaluators"]["all"]["metrics"][1]["seconds"] = 0.1
    heard_in: dict[str, threading.Thread] = {}

    def hear(listener: Heard, text: str) -> None:
        heard_in[text] = threading.current_thread()
        let_go.set()

    monkeypatch.setattr(Heard, "warning", hear)
    pool.run()
    assert heard_in == {WAITING: threading.current_thread()}


def test_ctrl_c_does_not_wait_for_who_waits_for_another_process(
    held: tuple[Workspace, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, _ = held

    def interrupt(listener: Heard, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Heard, "warning", interrupt)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pool.run()
    assert time.monotonic() - began < MINUTES / 2


def test_a_job_that_cannot_be_stopped_is_told_beside_the_failure(
    pool: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(executor: LocalExecutor, batch: Batch) -> None:
        cancel(executor, batch)
        raise DrupeError("the pool", "does not let go of it", "End it there.")

    cancel = LocalExecutor.cancel
    monkeypatch.setattr(LocalExecutor, "cancel", refuse)
    break_beside_a_slow_one(pool)
    with pytest.raises(StepError, match="BrokenLength: ValueError: no ruler"):
        pool.run()
    told = [event["text"] for event in pool.heard.events if event["event"] == "warning"]
    assert told == ["It may still run: the pool: does not let go of it\n  End it there."]


def test_a_job_that_takes_long_to_stop_is_told(
    pool: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linger(executor: LocalExecutor, batch: Batch) -> None:
        stopped.wait(MINUTES)
        cancel(executor, batch)
        ended.set()

    stopped, ended, cancel = threading.Event(), threading.Event(), LocalExecutor.cancel
    monkeypatch.setattr(LocalExecutor, "cancel", linger)
    monkeypatch.setattr(dispatch, "STOP_SECONDS", 0.2)
    break_beside_a_slow_one(pool)
    try:
        with pytest.raises(StepError, match="BrokenLength: ValueError: no ruler"):
            pool.run()
        [told] = pool.heard.warnings
        assert told.endswith(": slow was to be stopped, and may still run on pool. End it there.")
    finally:
        stopped.set()
        assert ended.wait(MINUTES)
