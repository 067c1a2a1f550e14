"""A config of toys whose host is the fake workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import NAMES, FakeAzure

from drupe.core.resource import AzureMLClient
from drupe.core.system import Setting
from drupe.resources import fetch
from drupe.systems import follow
from drupe.systems.azureml import executor
from drupe.systems.azureml.declaration import AzureML
from tests.plain.conftest import (  # noqa: F401  fixtures
    Workspace,
    _a_journal_of_its_own,
    _no_waiting_for_the_disk,
    workspace,
)

NEEDED = ("pydantic", "rich", "pyyaml", "packaging", "azure-identity", "azure-keyvault-secrets")
PINS = "".join(f"      - {name}=={version(name)}\n" for name in NEEDED)
CONDA = f"name: drupe\ndependencies:\n  - python=3.12\n  - pip\n  - pip:\n{PINS}"


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeAzure], None]:
    """Return what logs this process in to a service; nobody waits for long then."""

    def to(fake: FakeAzure) -> None:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(executor, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(executor, "ABSENT_SECONDS", 0.05)
        monkeypatch.setattr(executor, "LATE_SECONDS", 0.3)
        monkeypatch.setattr(follow, "FIRST_SECONDS", 0.05)
        monkeypatch.setattr(fetch, "FIRST_SECONDS", 0.05)

    return to


@pytest.fixture
def azure(tmp_path: Path, log_in: Callable[[FakeAzure], None]) -> Iterator[FakeAzure]:
    """The service, with this process logged in to it."""
    with FakeAzure(tmp_path / "azure") as fake:
        log_in(fake)
        yield fake


@pytest.fixture
def elsewhere(workspace: Workspace) -> Workspace:  # noqa: F811  the fixture
    """A config whose steps run in the fake workspace."""
    (workspace.folder / "conda.yaml").write_text(CONDA)
    workspace.config["azureml_client"] = {
        **NAMES,
        "max_operation_retries": 0,
        "keyvault_name": "vault",
    }
    workspace.config["systems"] = {
        "aml": {
            "type": "AzureML",
            "accelerators": [{"device": "cpu"}],
            "aml_compute": "cluster",
            "aml_docker_config": {"base_image": "ubuntu", "conda_file_path": "conda.yaml"},
            "hf_token": True,
        }
    }
    workspace.config["engine"]["host"] = "aml"
    return workspace


@pytest.fixture
def system(azure: FakeAzure, tmp_path: Path) -> Callable[..., AzureML]:
    """The system in Python, any field in place of the usual one."""
    (tmp_path / "conda.yaml").write_text(CONDA)

    def make(client: dict[str, Any] | None = None, **fields: Any) -> AzureML:
        named = AzureMLClient(**{**NAMES, "max_operation_retries": 0, **(client or {})})
        container = {"base_image": "ubuntu", "conda_file_path": tmp_path / "conda.yaml"}
        usual = {"aml_compute": "cluster", "aml_docker_config": container}
        return AzureML.model_validate({**usual, "azureml_client_config": named, **fields})

    return make


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("aml", tmp_path, tmp_path / "cache")
