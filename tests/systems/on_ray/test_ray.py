"""Steps on a Ray cluster of two nodes: side by side, killed in the middle, found again."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drupe_toys import Append, Breaks, Reverse, Slow, SlowLength, Where
from ray_processes import MARK, processes, until

from drupe.core.cache import Run
from drupe.core.errors import Refused, StepError
from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.core.step import StepSpec
from drupe.outcome import Outcome
from drupe.systems.follow import Followed, run
from drupe.systems.local import LocalExecutor
from drupe.systems.ray.executor import RayExecutor
from tests.plain.conftest import Workspace, spec_of, tree
from tests.waiting import MOST_SECONDS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc"),
]


@pytest.fixture
def source(tmp_path: Path) -> Model:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("abc")
    return Model("files", tmp_path / "model", f"digest of {tmp_path}")


@pytest.fixture
def keyed(source: Model, request: pytest.FixtureRequest) -> Callable[..., StepSpec]:
    """Return the spec of a toy under a key that no other test has."""

    def make(operation: Any, key: int = 0) -> StepSpec:
        return spec_of(operation, type(operation).__name__, source, f"{request.node.name}-{key}")

    return make


def at_work() -> set[int]:
    """Return the workers of all clients, with their fork servers."""
    return set(processes("ray::Worker")) | set(processes("drupe.systems.fork_server"))


def unheard(event: dict[str, Any]) -> None:
    pass


def in_thread(work: Callable[..., Any], *arguments: Any) -> tuple[threading.Thread, list[Any]]:
    """Start some work in a thread; its result, or what it raised, is put into the list."""
    given: list[Any] = []

    def target() -> None:
        try:
            given.append(work(*arguments))
        except BaseException as fault:  # noqa: BLE001  the test looks at it
            given.append(fault)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, given


def started(workspace: Workspace) -> subprocess.Popen[str]:
    """Start `drupe run`, and return it when a step has told its progress."""
    events = workspace.folder / "events.jsonl"
    process = workspace.start("run", "config.json", "--events", str(events))
    until(lambda: events.exists() and '"progress"' in events.read_text())
    return process


def test_a_step_reads_and_writes_what_travels_by_the_object_store(
    executor: RayExecutor, keyed: Callable[..., StepSpec], source: Model, tmp_path: Path
) -> None:
    large = "0123456789" * (7 * 2**20)  # two pieces
    (source.path / "large.txt").write_text(large)
    (source.path / "below").mkdir()
    (source.path / "below" / "empty.txt").touch()
    (tmp_path / "more.txt").write_text("def")
    told: list[dict[str, Any]] = []
    spec = keyed(Append(source=tmp_path / "more.txt"))
    done = run(executor, spec, tmp_path / "there", told.append)
    with LocalExecutor() as local:
        run(local, spec, tmp_path / "here", unheard)
    assert tree(tmp_path / "there" / "out") == tree(tmp_path / "here" / "out")
    assert (tmp_path / "there" / "out" / "large.txt").stat().st_size == len(large) + 3
    assert {"event": "note", "text": "appending 3 characters"} in told
    assert done.facts == {"appended": 3}
    assert done.machine["threads"] == 1
    assert done.peak_bytes > 0


def test_steps_run_on_both_nodes_side_by_side(
    executor: RayExecutor, keyed: Callable[..., StepSpec], tmp_path: Path
) -> None:
    assert executor.slots == 2
    nodes = [
        in_thread(
            run, executor, keyed(Where(variable="RAY_RAYLET_PID"), n), tmp_path / str(n), unheard
        )
        for n in range(2)
    ]
    for _, given in nodes:
        until(lambda given=given: given)
        assert isinstance(given[0], Run), given
    told = [json.loads((tmp_path / str(n) / "out" / "where.json").read_text()) for n in range(2)]
    assert told[0]["value"] != told[1]["value"]
    assert "/runtime_resources/" in told[0]["drupe"], "the code travels with the client"


def test_eight_independent_steps_of_a_config_overlap_and_give_what_they_give_here(
    cluster: str, workspace: Workspace
) -> None:
    metrics = [
        {"name": f"pair{n}", "type": "PairedLength", "place": str(workspace.folder), "number": n}
        for n in range(4)
    ]
    host = {"type": "Ray", "address": cluster, "max_parallel": 2}
    workspace.config["systems"] = {"cluster": host}
    workspace.config["engine"] |= {"host": "cluster", "evaluate": "every-step"}
    workspace.config["evaluators"] = {"all": {"metrics": metrics}}
    workspace.passes(back={"type": "Reverse"})
    there = workspace.run()
    scores = [score.more for stage in there.stages for score in stage.scores.values()]
    assert len(scores) == 8
    overlaps = sum(
        first["began"] < other["began"] < first["ended"] for first in scores for other in scores
    )
    assert overlaps >= 4
    del workspace.config["engine"]["host"]
    workspace.config["engine"] |= {"cache_dir": "another", "evaluate": "none"}
    here = workspace.run()
    assert tree(here.final.model.path) == tree(there.final.model.path)
    assert here.plan.steps[0].key in {step.key for step in there.plan.steps}


def test_a_worker_that_is_killed_is_lost_and_the_step_done_again(
    client: Callable[..., RayExecutor], keyed: Callable[..., StepSpec], tmp_path: Path
) -> None:
    others = at_work()
    sharing = client(storage=tmp_path / "shared", max_parallel=1)
    told: list[dict[str, Any]] = []
    gate = tmp_path / "gate"
    spec = keyed(Slow(ticks=10, seconds=0.02, gate=str(gate)))
    _, given = in_thread(run, sharing, spec, tmp_path / "out", told.append)
    counter = tmp_path / "shared" / "work" / spec.key / "scratch" / "counter"
    until(lambda: counter.exists() and int(counter.read_text() or 0) >= 3)
    for worker in set(processes("ray::Worker")) - others:
        os.kill(worker, signal.SIGKILL)
    gate.touch()
    until(lambda: given)
    assert isinstance(given[0], Run), given
    started_from, done = (tmp_path / "out" / "out" / "count.txt").read_text().split()
    assert done == "10"
    assert int(started_from) >= 3, "its scratch folder is on the shared storage"
    warnings = [event["text"] for event in told if event["event"] == "warning"]
    assert warnings == ["its Ray worker died: it is submitted again"]
    assert not (tmp_path / "shared" / "work" / spec.key).exists()


def test_a_second_client_attaches_to_a_step_that_runs_and_keeps_no_worker_of_the_first(
    executor: RayExecutor,
    client: Callable[..., RayExecutor],
    keyed: Callable[..., StepSpec],
    tmp_path: Path,
) -> None:
    others = at_work()
    gate = tmp_path / "gate"
    spec = keyed(SlowLength(seconds=2 * MOST_SECONDS, gate=str(gate)))
    begun = threading.Event()
    first = client(max_parallel=1)
    _, given = in_thread(run, first, spec, tmp_path / "1", lambda event: begun.set())
    assert begun.wait(MOST_SECONDS), given
    run(executor, spec, tmp_path / "2", lambda event: gate.touch())
    until(lambda: given)
    assert isinstance(given[0], Run), given
    one, two = (tmp_path / name / "out" / "score.json" for name in "12")
    assert one.read_text() == two.read_text(), "the time at which it ran is in it"
    first.__exit__()
    until(lambda: not at_work() - others)


def test_a_client_that_connects_and_one_whose_workers_start_or_wait_for_cores_leave_none(
    client: Callable[..., RayExecutor],
) -> None:
    others = at_work()
    client(max_parallel=1).__exit__()
    leaving = client(num_cpus=2, max_parallel=3)
    assert leaving.slots == 3, "of which the nodes hold two"
    until(lambda: at_work() - others)
    leaving.__exit__()
    until(lambda: not at_work() - others)
    begun = time.monotonic()
    while time.monotonic() < begun + 3:  # as long as one takes to start
        assert not at_work() - others
        time.sleep(0.1)


def test_of_two_clients_that_submit_at_once_one_is_attached_while_files_are_sent(
    executor: RayExecutor,
    client: Callable[..., RayExecutor],
    keyed: Callable[..., StepSpec],
    source: Model,
    tmp_path: Path,
) -> None:
    (source.path / "large.txt").write_text("0123456789" * (7 * 2**20))
    gate = tmp_path / "gate"
    spec = keyed(SlowLength(seconds=2 * MOST_SECONDS, gate=str(gate)))
    both = [executor, client(max_parallel=1)]
    assert [each.slots for each in both] == [2, 1], "both are connected"
    heard: set[int] = set()
    runs = [
        in_thread(run, each, spec, tmp_path / str(n), lambda event, n=n: heard.add(n))
        for n, each in enumerate(both)
    ]
    until(lambda: len(heard) == 2)
    gate.touch()
    for _, given in runs:
        until(lambda given=given: given)
        assert isinstance(given[0], Run), given
    one, two = (tmp_path / name / "out" / "score.json" for name in "01")
    assert one.read_text() == two.read_text(), "the time at which it ran is in it"


def test_a_client_that_was_killed_finds_its_step_again(cluster: str, workspace: Workspace) -> None:
    host = {"type": "Ray", "address": cluster, "max_parallel": 1, "idle_minutes": 0.2}
    workspace.config["systems"] = {"cluster": host}
    workspace.config["engine"] |= {"host": "cluster", "evaluate": "every-step"}
    gate = workspace.folder / "gate"
    seconds = 2 * MOST_SECONDS
    metric = {"name": "slow", "type": "SlowLength", "seconds": seconds, "gate": str(gate)}
    workspace.config["evaluators"] = {"all": {"metrics": [metric]}}
    workspace.passes()
    lost = started(workspace)
    lost.kill()
    lost.communicate()
    killed = time.time()
    _, given = in_thread(workspace.run)
    until(lambda: workspace.heard.events or given)  # those of the step that goes on
    gate.touch()
    until(lambda: given)
    assert isinstance(given[0], Outcome), given
    [stage] = given[0].stages
    assert stage.scores["slow"].more["began"] < killed


def test_ctrl_c_stops_the_step_and_leaves_no_worker(cluster: str, workspace: Workspace) -> None:
    others = at_work()
    host = {"type": "Ray", "address": cluster, "max_parallel": 1, "storage": "shared"}
    workspace.config["systems"] = {"cluster": host}
    workspace.config["engine"]["host"] = "cluster"
    workspace.passes(slow={"type": "Slow", "ticks": 100_000, "seconds": 0.05})
    stopped = started(workspace)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=MOST_SECONDS)
    assert stopped.returncode == 130, said
    [counter] = workspace.folder.glob("shared/work/*/scratch/counter")
    count = counter.read_text()
    time.sleep(0.3)
    assert counter.read_text() == count, "when it is told that it stopped, it stopped"
    until(lambda: not at_work() - others)


def test_the_head_of_an_own_cluster_is_killed_and_the_run_started_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")
    mark = uuid.uuid4().hex  # who else runs this test on this machine keeps its head
    monkeypatch.setenv(MARK, mark)
    workspace.config["systems"] = {"cluster": {"type": "Ray", "max_parallel": 1}}
    workspace.config["engine"]["host"] = "cluster"
    workspace.passes(
        back={"type": "Reverse"}, slow={"type": "Slow", "ticks": 100_000, "seconds": 0.05}
    )
    first = started(workspace)
    own = processes("", mark)
    assert listening(own), "Ray's processes were found"
    assert all(address.startswith("127.") for address in listening(own)), "loopback alone"
    for head in processes("gcs_server", mark):
        os.kill(head, signal.SIGKILL)
    _, said = first.communicate(timeout=MOST_SECONDS)
    assert first.returncode == 1
    assert "systems.cluster: the connection to the Ray cluster has ended" in said
    assert "Run again when its head is up: what was finished is kept." in said
    until(lambda: not processes("", mark))  # Ray's own that still import see it late
    workspace.config["passes"]["slow"] = {"type": "Append", "text": "!"}
    there = workspace.run()
    assert workspace.heard.ran == ["slow"], "the first step is kept"
    del workspace.config["engine"]["host"]
    workspace.config["engine"]["cache_dir"] = "another"
    assert tree(workspace.run().final.model.path) == tree(there.final.model.path)
    until(lambda: not processes("", mark))


def listening(pids: list[int]) -> set[str]:
    """Return the addresses at which these processes listen."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(str(link.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                last = bytes.fromhex(words[1].partition(":")[0][-8:])[::-1]
                found.add(".".join(map(str, last)))  # "::ffff:127.0.0.1" is of IPv4 too
    return found


def test_what_is_cancelled_stops_and_its_worker_is_free(
    client: Callable[..., RayExecutor], keyed: Callable[..., StepSpec], tmp_path: Path
) -> None:
    executor = client(max_parallel=1)
    spec = keyed(SlowLength(seconds=10 * MOST_SECONDS))
    stop = threading.Event()
    batch = Batch((spec,), lambda key: tmp_path)
    followed = Followed(executor, batch, stop.is_set)
    _, given = in_thread(followed.step, spec.key, lambda event: stop.set())
    until(lambda: given)
    assert isinstance(given[0], KeyboardInterrupt)
    _, after = in_thread(run, executor, keyed(Reverse(), 2), tmp_path / "next", unheard)
    until(lambda: after)
    assert isinstance(after[0], Run), after
    executor.__exit__()


@pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="needs grpcio")
def test_a_cluster_is_reached_by_its_client_server(
    addresses: list[str],
    client: Callable[..., RayExecutor],
    keyed: Callable[..., StepSpec],
    tmp_path: Path,
) -> None:
    others = at_work()
    outside = client(address=addresses[1], max_parallel=1)
    told: list[dict[str, Any]] = []

    def tell(event: dict[str, Any]) -> None:
        told.append(event)
        if event["event"] == "progress" and {"event": "killed"} not in told:
            for worker in set(processes("ray::Worker")) - others:
                os.kill(worker, signal.SIGKILL)
            told.append({"event": "killed"})
            gate.touch()

    gate = tmp_path / "gate"
    spec = keyed(Slow(ticks=4, seconds=0.02, gate=str(gate)))
    run(outside, spec, tmp_path, tell)
    assert (tmp_path / "out" / "count.txt").read_text() == "0 4"
    warnings = [event["text"] for event in told if event["event"] == "warning"]
    assert warnings == ["its Ray worker died: it is submitted again"]
    outside.__exit__()
    until(lambda: not at_work() - others)


@pytest.mark.parametrize("how", ["error", "exception", "killed", "segfault", "memory", "nothing"])
def test_an_error_reads_as_it_does_here(
    how: Any, executor: RayExecutor, keyed: Callable[..., StepSpec], tmp_path: Path
) -> None:
    spec = keyed(Breaks(how=how))
    said = []
    with LocalExecutor() as local:
        for system in (executor, local):
            with pytest.raises(StepError) as fault:
                run(system, spec, tmp_path, unheard)
            # A peak is told if memory was looked at before the process died.
            said.append(re.sub(r" \(it held [0-9.]+ GB at its peak\)", "", str(fault.value)))
    assert said[0] == said[1]


def test_other_libraries_there_are_refused(
    executor: RayExecutor, keyed: Callable[..., StepSpec], tmp_path: Path
) -> None:
    spec = replace(keyed(Reverse()), libraries={"pydantic": "0.1"})
    with pytest.raises(StepError, match=r"^Reverse: was planned with pydantic 0\.1, and runs"):
        run(executor, spec, tmp_path, unheard)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_gpus": 3}, r"cluster: asks for 1 CPU, 3 GPU a step, and no node has as much: 3 CPU"),
        (
            {"address": "127.0.0.1:1"},
            r"cluster\.address: is 127\.0\.0\.1:1, and no cluster can be joined",
        ),
        (
            {"address": "ray://127.0.0.1:1"},
            r"cluster\.address: is ray://127\.0\.0\.1:1, and no .*\n.* set RAY_AUTH_MODE=token",
        ),
    ],
)
def test_a_cluster_that_cannot_do_it_is_refused(
    fields: dict[str, Any], words: str, cluster: str, workspace: Workspace
) -> None:
    workspace.config["systems"] = {"cluster": {"type": "Ray", "address": cluster, **fields}}
    workspace.config["engine"]["host"] = "cluster"
    with pytest.raises(Refused, match=rf"systems\.{words}"):
        workspace.run()
