"""Steps on a Ray cluster of two nodes: side by side, killed in the middle, found again."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drupe_toys import Append, Breaks, Reverse, Slow, SlowLength, Where

from drupe.core.errors import Refused, StepError
from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.core.step import StepSpec
from drupe.systems.follow import Followed, run
from drupe.systems.local import LocalExecutor
from drupe.systems.ray import RayExecutor
from tests.plain.conftest import Workspace, spec_of, tree
from tests.systems.conftest import processes, until

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


def unheard(event: dict[str, Any]) -> None:
    pass


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start some work in a thread; its result, or what it raised, is put into the list."""
    given: list[Any] = []

    def target() -> None:
        try:
            given.append(work())
        except BaseException as fault:  # noqa: BLE001
            given.append(fault)

    thread = threading.Thread(target=target)
    thread.start()
    return thread, given


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
            lambda n=n: run(  # type: ignore[misc]
                executor, keyed(Where(variable="RAY_RAYLET_PID"), n), tmp_path / str(n), unheard
            )
        )
        for n in range(2)
    ]
    for thread, _ in nodes:
        thread.join()
    told = [json.loads((tmp_path / str(n) / "out" / "where.json").read_text()) for n in range(2)]
    assert told[0]["value"] != told[1]["value"]
    assert "/runtime_resources/" in told[0]["drupe"], "the code travels with the client"
