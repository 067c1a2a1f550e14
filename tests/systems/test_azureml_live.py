"""The same on Azure itself, for whoever has a workspace. What it costs is the owner's.

DRUPE_LIVE_AZUREML=SUBSCRIPTION/GROUP/WORKSPACE/COMPUTE  with a login of azure-identity's
"""

from __future__ import annotations

import os

import pytest

from tests.plain.conftest import Workspace, tree

VARIABLE = "DRUPE_LIVE_AZUREML"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
CONDA = """\
channels: [conda-forge]
dependencies:
  - python=3.12
  - pip
  - pip: [packaging, pydantic, pyyaml, rich]
"""


@pytest.mark.skipif(
    VARIABLE not in os.environ,
    reason=f"{VARIABLE} names no workspace (SUBSCRIPTION/GROUP/WORKSPACE/COMPUTE): never run live",
)
def test_a_run_on_azure_gives_what_a_local_run_gives(workspace: Workspace) -> None:
    subscription, group, name, compute = os.environ[VARIABLE].split("/")
    (workspace.folder / "conda.yaml").write_text(CONDA)
    workspace.config["azureml_client"] = {
        "subscription_id": subscription,
        "resource_group": group,
        "workspace_name": name,
    }
    workspace.config["systems"] = {
        "aml": {
            "type": "AzureML",
            "accelerators": [{"device": "cpu"}],
            "aml_compute": compute,
            "aml_docker_config": {"base_image": IMAGE, "conda_file_path": "conda.yaml"},
        }
    }
    here = tree(workspace.run().final.model.path)
    workspace.config["engine"] |= {"host": "aml", "cache_dir": "cache2", "output_dir": "output2"}
    there = workspace.run()
    assert workspace.heard.ran == ["back", "more"]
    assert tree(there.final.model.path) == here
