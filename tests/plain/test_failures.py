"""Every way in which a step can end that is not the right one: told, and nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drupe_toys import Breaks, Reverse, Slow

from drupe.cli import main
from drupe.core.cache import Run
from drupe.core.errors import DrupeError, StepError
from drupe.core.model import Model
from drupe.core.process import death
from drupe.systems import follow
from drupe.systems.local import LocalExecutor
from drupe.systems.processes import ForkServer
from tests.plain.conftest import Workspace, spec_of, tree
from tests.waiting import MOST_SECONDS, until

LOG = r"\n  Steps before it are kept; its log: .*/log$"
TOLD = {
    "exception": r"^Breaks: ValueError: a value that was wrong \(drupe_toys\.py:\d+\)" + LOG,
    "error": r"^Breaks, Breaks\.how: is error\n  Choose another\.$",
    "segfault": r"^Breaks: its process crashed \(SIGSEGV, a fault in a native library\)" + LOG,
    "killed": r"^Breaks: its process was killed \(SIGKILL\): by hand, or because the machine ran "
    r"out of memory( \(it held \d+\.\d GB at its peak\))?" + LOG,
    "exit": r"^Breaks: its process ended with exit code 0 without having done the step" + LOG,
    "memory": r"^Breaks: ran out of memory: too much was asked for" + LOG,
    "nothing": r"^Breaks: declares that it gives folder of files, but its output lacks \*\n  Dev",
    "input": r"^Breaks: changed its input .*/input\n  Developer of this pass: write below `out`",
}


@pytest.fixture(params=["forked", "fresh"])
def system(request: pytest.FixtureRequest, forking: LocalExecutor) -> Iterator[LocalExecutor]:
    """The local system, in its two ways."""
    if request.param == "forked":
        yield forking
    else:
        with LocalExecutor(fork=False) as fresh:
            yield fresh


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., Run]:
    """Run one pass on a small input in a folder of its own."""
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.txt").write_text("abc")
    (tmp_path / "work" / "out").mkdir(parents=True)

    def running(system: LocalExecutor, operation: Any, tell: Any = lambda event: None) -> Run:
        spec = spec_of(operation, type(operation).__name__, Model("files", folder, "d"))
        return follow.run(system, spec, tmp_path / "work", tell)

    return running


def test_a_step_runs(system: LocalExecutor, step: Callable[..., Run], tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    gate = tmp_path / "gate"

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "memory":
            gate.touch()

    run = step(system, Slow(ticks=2, seconds=0.11, gate=str(gate)), hear)
    assert (tmp_path / "work" / "out" / "count.txt").read_text() == "0 2"
    assert run.seconds >= 0.2
    assert run.peak_bytes > 2**20
    told = {event["event"] for event in events}
    assert told == {"progress", "memory"}
    assert events[-1]["event"] == "progress" or events[-1]["now"] > 0


@pytest.mark.parametrize("how", TOLD)
def test_each_failure_is_told_in_one_sentence(
    how: str, forking: LocalExecutor, step: Callable[..., Run]
) -> None:
    with pytest.raises(StepError, match=TOLD[how]):
        step(forking, Breaks(how=how))


@pytest.mark.parametrize("how", ["exception", "killed", "exit"])
def test_each_failure_is_told_without_a_fork_server(how: str, step: Callable[..., Run]) -> None:
    with LocalExecutor(fork=False) as fresh, pytest.raises(StepError, match=TOLD[how]):
        step(fresh, Breaks(how=how))


def test_a_failure_does_not_touch_the_next_step(
    forking: LocalExecutor, step: Callable[..., Run], tmp_path: Path
) -> None:
    for how in ("killed", "exception"):
        with pytest.raises(StepError, match="Breaks"):
            step(forking, Breaks(how=how))
    step(forking, Reverse())
    assert (tmp_path / "work" / "out" / "a.txt").read_text() == "cba"


def test_what_a_step_prints_and_its_traceback_are_in_its_log(
    forking: LocalExecutor, step: Callable[..., Run], tmp_path: Path
) -> None:
    with pytest.raises(StepError, match="ValueError"):
        step(forking, Breaks(how="exception"))
    log = (tmp_path / "work" / "log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "a value that was wrong" in log


DRUPE_STEP = [sys.executable, "-m", "drupe", "step"]


class Stop(Exception):  # noqa: N818
    """Stands for Ctrl-C, in the middle of a step."""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_interrupted_step_is_dead_when_its_lock_is_given_up(
    system: LocalExecutor, step: Callable[..., Run], tmp_path: Path
) -> None:
    counter = tmp_path / "work" / "scratch" / "counter"

    def stop(event: dict[str, Any]) -> None:
        if counter.exists():
            raise Stop

    with pytest.raises(Stop):
        step(system, Slow(ticks=100_000, seconds=0.01), stop)
    counted = counter.read_text()
    time.sleep(0.1)
    assert counter.read_text() == counted
    assert step(system, Reverse()).facts == {}, "the next step hears its own messages"


def children(pid: int) -> list[int]:
    """Return all processes below `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    below = [int(word) for word in text.split()]
    return [*below, *(inner for child in below for inner in children(child))]


def test_a_fork_server_that_dies_is_told(step: Callable[..., Run]) -> None:
    with LocalExecutor() as system:
        system.warm_up()
        assert isinstance(system._processes, ForkServer)
        server = system._processes._process

        def kill(event: dict[str, Any]) -> None:
            server.kill()

        words = r"^the local system: its fork server was killed \(SIGKILL\).*\n  Run again"
        with pytest.raises(StepError, match=words):
            step(system, Slow(ticks=100_000, seconds=0.01), kill)
        time.sleep(0.2)  # its child, which holds the other end of the pipe, is gone too
        with pytest.raises(StepError, match=words):
            step(system, Reverse())


def test_a_preload_that_breaks_is_no_end_of_the_server(
    step: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_preload.py").write_text("raise RuntimeError('on import')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with LocalExecutor(("broken_preload", "no_such_module")) as system:
        assert step(system, Reverse()).facts == {}


def test_leaving_does_not_wait_for_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while torch is imported ends at once."""
    (tmp_path / "long_preload.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with LocalExecutor(("long_preload",)) as system:
        system.warm_up()
    assert time.monotonic() - started < 60


def test_a_step_of_another_format_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"format": 99}))
    assert main(["step", "--spec", str(spec), "--out", str(tmp_path / "out")]) == 1
    event = json.loads((tmp_path / "events").read_text())
    assert event["event"] == "failed"
    assert event["what"] == "is of format 99, this drupe reads 2"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "ended with exit code 3"),
        (-signal.SIGBUS, "crashed (SIGBUS, a file was cut short or the disk is full)"),
        (-signal.SIGTERM, "was ended by SIGTERM"),
    ],
)
def test_a_death_in_words(status: int, words: str) -> None:
    assert death(status) == words


# The same, as a user sees it.


def test_a_failed_step_ends_the_run_and_loses_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.passes(back={"type": "Reverse"}, broken={"type": "Breaks", "how": "exception"})
    assert main(["run", str(workspace.write())]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("drupe: Breaks: ValueError: a value that was wrong (drupe_toys.py:")
    assert told.err.count("\n") == 2
    assert "Traceback" not in told.out + told.err
    assert not workspace.output.exists()
    with pytest.raises(StepError, match="a value that was wrong"):
        workspace.run()
    assert workspace.heard.finished_steps == ["back"]
    assert workspace.heard.ran == ["broken"], "back was kept"
    half = [name for name in tree(workspace.cache) if name.endswith("half.txt")]
    assert half == [], "nothing of a failed step is kept but its scratch and its log"


def test_a_traceback_is_shown_when_it_is_asked_for() -> None:
    with pytest.raises(DrupeError, match="there is no such file"):
        main(["run", "absent.json", "--debug"])


TICKS = 12_000  # ten minutes of them


def counters(workspace: Workspace) -> list[Path]:
    return list(workspace.cache.glob("work/*/scratch/counter"))


def count_in_the_background(workspace: Workspace) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a run that counts for long; return it and the processes below it."""
    slow = {"type": "Slow", "ticks": TICKS, "seconds": 0.05}
    workspace.passes(back={"type": "Reverse"}, slow=slow)
    client = workspace.start("run", "config.json")
    until(lambda: counters(workspace))
    below = children(client.pid)
    assert len(below) == 2, "the fork server and the step"
    return client, below


def test_kill_9_leaves_no_orphan_and_the_next_run_goes_on(workspace: Workspace) -> None:
    client, below = count_in_the_background(workspace)
    client.kill()
    client.communicate()
    until(lambda: not any(map(is_alive, below)))
    assert not workspace.output.exists()
    [counter] = counters(workspace)
    counter.write_text(str(TICKS - 2))
    outcome = workspace.run()
    assert workspace.heard.ran == ["slow"], "back was kept"
    assert (outcome.path / "count.txt").read_text() == f"{TICKS - 2} {TICKS}"


def test_ctrl_c_ends_at_once_with_one_sentence(workspace: Workspace) -> None:
    client, below = count_in_the_background(workspace)
    started = time.monotonic()
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=MOST_SECONDS)
    assert time.monotonic() - started < TICKS * 0.05 / 10
    assert client.returncode == 130
    assert err == "drupe: interrupted\n  Run the same command again: it goes on from here.\n"
    assert "Traceback" not in out
    assert not any(map(is_alive, below))
    assert counters(workspace), "the scratch folder is kept"


def test_a_fresh_step_ends_with_its_client(tmp_path: Path) -> None:
    """Where no server forks, `drupe step` itself watches over its starter."""
    done = subprocess.run(
        [*DRUPE_STEP, "--spec", "absent", "--out", "absent", "--with-parent", "1"],
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == [], "its starter was dead already: nothing was begun"
