"""A cluster of two nodes on this machine, a client of it, and what of its processes is there."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_processes import MARK, processes, until

from drupe.core.system import Setting
from drupe.systems.declarations import Ray
from drupe.systems.ray.executor import ALONE, RayExecutor
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS


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


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    """The address of a cluster of two nodes, and that of its client server."""
    started = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_prestart_worker_first_driver": "0",  # idle ones: ours have an environment
        },
    )
    assert started.stdout
    assert started.stdin
    try:
        yield started.stdout.readline().split()
    finally:
        started.stdin.close()
        started.wait(MOST_SECONDS)


@pytest.fixture(scope="module")
def cluster(addresses: list[str]) -> str:
    """The address of the cluster."""
    return addresses[0]


@pytest.fixture(scope="module")
def client(
    cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RayExecutor]]:
    """Return a function that connects another client to the cluster."""
    folder = tmp_path_factory.mktemp("clients")
    made: list[RayExecutor] = []

    def connect(**fields: Any) -> RayExecutor:
        system = Ray(**{"address": cluster, **fields})
        executor = RayExecutor(system, Setting("cluster", folder, folder / "cache"))
        executor.warm_up()
        made.append(executor)
        return executor

    yield connect
    for executor in made:
        executor.__exit__()
    until(lambda: not processes("ray::Worker") and not processes("drupe.systems.fork_server"))


@pytest.fixture(scope="module")
def executor(client: Callable[..., RayExecutor]) -> RayExecutor:
    """A client without a folder that is shared: files travel by Ray's store."""
    sends = client(max_parallel=2)
    until(lambda: len(processes("drupe.systems.fork_server")) == 2)  # its workers are there
    return sends
