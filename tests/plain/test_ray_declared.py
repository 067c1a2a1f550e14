"""Ray as a config describes it; nothing of Ray is imported, nor needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drupe.core.errors import ConfigError, Refused
from drupe.systems import declarations
from drupe.systems.declarations import LocalSystem, Ray
from tests.plain.conftest import Workspace


@pytest.fixture
def cluster(workspace: Workspace) -> Workspace:
    workspace.config["systems"] = {"cluster": {"type": "Ray"}}
    workspace.config["engine"]["host"] = "cluster"
    return workspace


def test_without_ray_the_extra_is_named(
    cluster: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "installed_version", lambda name: None)
    words = r'systems\.cluster: needs ray\n  pip install "drupe\[ray\]"'
    with pytest.raises(Refused, match=words):
        cluster.plan()


def test_an_address_of_a_client_server_needs_grpcio(
    cluster: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.config["systems"]["cluster"]["address"] = "ray://head:10001"
    monkeypatch.setattr(declarations, "installed_version", {"ray": "2.60.0"}.get)
    words = (
        r'systems\.cluster: needs grpcio to reach ray://head:10001\n  pip install "drupe\[ray\]"'
    )
    with pytest.raises(Refused, match=words):
        cluster.plan()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("address", "somewhere", "systems.cluster.address"),
        ("memory", "4 apples", 'should be a size with its unit, such as "20GB"'),
        ("num_cpus", 0, "systems.cluster.num_cpus"),
        ("max_parallel", 0, "systems.cluster.max_parallel"),
    ],
)
def test_what_cannot_be_meant_is_a_fault(
    field: str, value: object, words: str, cluster: Workspace
) -> None:
    cluster.config["systems"]["cluster"][field] = value
    with pytest.raises(ConfigError, match=words):
        cluster.plan()


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.1:6379", "ray://head:10001"])
def test_addresses(address: str) -> None:
    assert Ray(address=address).address == address


def test_a_step_has_as_many_threads_as_ray_keeps_cores() -> None:
    assert [Ray(num_cpus=count).threads() for count in (0.5, 1, 3)] == [1, 1, 3]
    assert LocalSystem().threads() >= 1
    assert Ray(memory="4GB").memory_bytes == 4 * 10**9
    assert Ray(memory=5).memory_bytes == 5


def test_ray_is_not_imported_by_its_clients_end() -> None:
    asked = "import sys, drupe.systems.ray.executor; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
