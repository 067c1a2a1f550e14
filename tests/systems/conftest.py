"""A cluster of two nodes on this machine, a client of it, and what of its processes is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drupe.core.system import Setting
from drupe.systems.declarations import Ray
from drupe.systems.ray import ALONE, RayExecutor
from tests.plain.conftest import Workspace

MARK = "DRUPE_TEST_CLUSTER"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session", autouse=True)
def _a_mark_by_which_our_processes_are_known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, uuid.uuid4().hex)
        for name, value in ALONE.items():  # as for the cluster that they join
            patch.setenv(name, value)
        yield


def processes(words: str, mark: str | None = None) -> list[int]:
    """Return our processes whose command line has these words."""
    known = f"{MARK}={mark or os.environ[MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words in command and known in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def until(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes."""
    started = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert started.stdout
    assert started.stdin
    try:
        yield started.stdout.readline().strip()
    finally:
        started.stdin.close()
        started.wait(60)


@pytest.fixture(scope="module")
def client(
    cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RayExecutor]]:
    """Return a function that connects another client to the cluster."""
    folder = tmp_path_factory.mktemp("clients")
    made: list[RayExecutor] = []

    def connect(**fields: Any) -> RayExecutor:
        system = Ray(address=cluster, **fields)
        executor = RayExecutor(system, Setting("cluster", folder, folder / "cache"))
        executor.warm_up()
        made.append(executor)
        return executor

    yield connect
    for executor in made:
        executor.__exit__()
    until(lambda: not processes("ray::Worker"))
    assert not processes("drupe.systems.fork_server")


@pytest.fixture(scope="module")
def executor(client: Callable[..., RayExecutor]) -> RayExecutor:
    """A client without a folder that is shared: files travel by Ray's store."""
    return client(max_parallel=2)
