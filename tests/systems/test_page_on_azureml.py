"""The page's two configs, their names filled in, to their ends on the fake workspace.

No GPU is here: the target is the CPU, and the job's command runs as a process of this machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from azureml_fake import NAMES, FakeAzure, asker
from azureml_shelves import REGISTRY, SHARED, Shelves
from hub_server import HubServer
from planted import environment, holding, seen_processes, telling

import drupe
from drupe.config.load import load
from drupe.plan import make
from tests.plain.conftest import Heard, tree
from tests.plain.mlflow_folders import split

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "phi3-emotion"
OF_A_JOB = (
    *("pydantic", "rich", "pyyaml", "packaging", "torch", "transformers", "tokenizers", "peft"),
    *("accelerate", "datasets", "safetensors", "onnxruntime", "onnxruntime-genai", "onnx-ir"),
    *("azure-identity", "azure-keyvault-secrets"),
)
PINS = "".join(f"      - {name}=={version(name)}\n" for name in OF_A_JOB)
TOKEN = "hf_" + "planted" * 4
PHI, OF_THE_JOB = "microsoft/Phi-3-mini-4k-instruct", "55555555-2222-3333-4444-555555555555"
CLIENT = {**NAMES, "keyvault_name": "vault"}
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(azure|marshmallow)")


@pytest.fixture
def azure(tmp_path: Path, log_in: Callable[[FakeAzure], None]) -> Iterator[Shelves]:
    with Shelves(tmp_path / "azure") as fake:
        log_in(fake)
        fake.secrets["vault/hf-token"] = TOKEN
        yield fake


def filled_in(name: str, folder: Path, client: dict[str, Any] | None) -> dict[str, Any]:
    """Return one of the page's configs with a compute, an image and an environment that are."""
    config: dict[str, Any] = json.loads((EXAMPLES / "page" / name).read_text())
    for system in config["systems"].values():
        system["config"]["accelerators"] = ["cpu"]
        system["config"]["aml_compute"] = "cluster"
        system["config"]["aml_docker_config"]["base_image"] = "ubuntu"
    config["engine"]["execution_providers"] = ["CPUExecutionProvider"]
    if client is not None:
        config["azureml_client"] = client
    pins = f"dependencies:\n  - python=3.11\n  - pip\n  - pip:\n{PINS}"
    (folder / "conda.yaml").write_text(pins)
    return config


def run(config: dict[str, Any], folder: Path, heard: Heard) -> drupe.Outcome:
    file = folder / "olive-config.json"
    file.write_text(json.dumps(config))
    return drupe.run(file, listener=heard)


def test_its_local_model_and_data_as_a_job(tmp_path: Path, azure: Shelves) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    shutil.copytree(DEMO / "model", folder / "model-cache" / "microsoft" / "phi-3-mini")
    write_phrases(folder)
    config = filled_in("olive-config.json", folder, CLIENT)
    heard = Heard()
    outcome = run(config, folder, heard)
    assert [stage.kind for stage in outcome.stages] == ["hf", "hf-adapter", "hf", "onnx-genai"]
    assert [job.status for job in azure.jobs.started] == ["Completed"], "all steps as one job"
    assert heard.ran == heard.finished_steps == [step.name for step in outcome.plan.steps]
    assert {step.system.words for step in outcome.plan.steps} == {"on aml (AzureML)"}
    model = outcome.path
    assert model is not None
    assert json.loads((model / "genai_config.json").read_text())["model"]["type"] == "phi3"
    local = make(load(folder / "olive-config.json", system="local"))
    assert [step.hit for step in local.steps] == [True] * len(local.steps), "the keys are the same"
    planted_nowhere(folder, azure)


def test_its_registry_model_its_datastore_and_its_key_vault(tmp_path: Path, azure: Shelves) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    config = filled_in("olive-config-cloud.json", folder, None)
    model = config["input_model"]["config"]["model_path"]["config"]
    model |= {"name": "Phi-3-mini-4k-instruct", "registry_name": REGISTRY, "version": "11"}
    azure.put_in_registry(
        "Phi-3-mini-4k-instruct-11", tree(split(DEMO / "model", tmp_path / "mlflow"))
    )
    data = config["data_configs"][0]["load_dataset_config"]["params"]["data_files"]["config"]
    data |= {"azureml_client": CLIENT, "relative_path": "data/train.json"}
    rows = [json.loads(line) for line in phrases()]
    asked = [{"Question": row["phrase"], "Best Answer": row["tone"]} for row in rows]
    text = "".join(json.dumps(row) + "\n" for row in asked)
    azure.put("data", {"train.json": text.encode()})
    heard = Heard()
    outcome = run(config, folder, heard)
    assert [stage.kind for stage in outcome.stages] == ["hf", "hf-adapter", "hf", "onnx-genai"]
    [job] = azure.jobs.started
    uris = sorted(each["uri"] for each in job.properties["inputs"].values())
    assert any("datastores/workspaceblobstore/paths/data/train.json" in uri for uri in uris)
    assert any("registries" in uri for uri in uris)
    fetched = [each.path for each in azure.requests("GET", "safetensors")]
    assert not any(SHARED in each.host for each in azure.requests("GET", "safetensors")), fetched
    assert outcome.path is not None
    assert (outcome.path / "genai_config.json").is_file()
    planted_nowhere(folder, azure)


def test_its_model_from_the_hub_by_the_token_of_its_key_vault(
    tmp_path: Path, azure: Shelves
) -> None:
    """The page's `hf_token: true`: the job reads the secret by its own identity, nobody else does.

    The model is gated, and nobody here has a token: it is planned by what the Hub tells of it,
    and fetched by the job. The secret is looked for in all that is written, sent or seen.
    """
    folder = tmp_path / "page"
    folder.mkdir()
    write_phrases(folder)
    config = filled_in("olive-config.json", folder, CLIENT)
    config["input_model"]["config"]["hf_config"]["model_name"] = PHI
    file = folder / "olive-config.json"
    file.write_text(json.dumps(config))
    with HubServer(tree(DEMO / "model"), TOKEN, PHI) as hub:
        azure.jobs.environment = environment(
            hub, azure, tmp_path / "home-of-the-job", AZURE_CLIENT_ID=OF_THE_JOB
        )
        words = [sys.executable, "-m", "drupe", "run", str(file)]
        given = environment(hub, azure, tmp_path / "home")
        seen = b""
        with (tmp_path / "said").open("wb") as said:
            running = subprocess.Popen(words, env=given, stdout=said, stderr=said, cwd=folder)
            while running.poll() is None:
                seen += seen_processes()
                time.sleep(0.5)
    told = (tmp_path / "said").read_text()
    assert running.returncode == 0, told
    [job] = azure.jobs.started
    assert job.status == "Completed"
    assert list(tmp_path.rglob("genai_config.json")), "to its end"
    asked = [asker(each) for each in azure.requests("GET", "vault.azure.net/secrets/hf-token")]
    assert asked == ["nobody", OF_THE_JOB], "the vault tells nobody whom it wants, then the job"
    here = [each for each in (tmp_path / "home").rglob("*") if each.name == "model.safetensors"]
    assert here == [], "no byte of the model came here"
    assert b"DRUPE_KEYVAULT=vault" in seen, "what is searched is there"
    leaked = TOKEN.encode() in seen  # not to be shown: it holds the environment of all processes
    assert not leaked
    assert TOKEN not in told
    assert telling(TOKEN, azure) == []
    for name in ("manifest", "report.html", "batch.json", "std_log.txt", "events.jsonl"):
        assert list(tmp_path.rglob(name)), f"{name} is searched"
    assert holding(TOKEN, tmp_path) == []
    assert not azure.broken


def phrases() -> list[str]:
    """Return the first of the rows: what is asked here is how a job goes, not what it learns."""
    rows = (DEMO / "dataset" / "dataset-classification.json").read_text()
    return rows.splitlines(keepends=True)[:400]


def write_phrases(folder: Path) -> None:
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset-classification.json").write_text("".join(phrases()))


def planted_nowhere(folder: Path, azure: Shelves) -> None:
    """Look for the vault's secret in all that was written and sent."""
    for content in [*tree(folder).values(), *tree(azure.blobs.folder).values()]:
        assert TOKEN.encode() not in content
    for request in azure.asked:
        assert TOKEN.encode() not in request.body
