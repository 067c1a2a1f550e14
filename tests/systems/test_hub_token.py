"""The Hub's token in a job: read from the key vault where it is needed, and told nowhere."""

from __future__ import annotations

import json
import secrets
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_fake import FakeAzure
from drupe_toys import Slow
from hub_server import COMMIT, HubServer
from planted import environment, holding, seen_processes, telling

from drupe.core.executor import Batch
from drupe.core.model import Model
from drupe.systems.bundle import pack
from tests.plain.conftest import Workspace, spec_of
from tests.waiting import MOST_SECONDS

HEADER = b'{"weight": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'
FILES = {
    "config.json": b'{"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}',
    "model.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + b"ab",
    "tokenizer.json": b"{}",
    "a.txt": b"one",
    "pytorch_model.bin": b"a pickle",
}
SOURCE = f"hub:owner/tiny@{COMMIT}"
KEY = "1" * 64


@pytest.fixture
def token() -> str:
    return f"hf_{secrets.token_hex(17)}"


@pytest.fixture
def hub(token: str) -> Iterator[HubServer]:
    with HubServer(FILES, token) as serving:
        yield serving


@pytest.fixture
def azure(tmp_path: Path, token: str) -> Iterator[FakeAzure]:
    with FakeAzure(tmp_path / "azure") as fake:
        fake.secrets["vault/hf-token"] = token
        yield fake


def command(bundle: Path, results: Path) -> list[str]:
    words = ["batch", "--bundle", str(bundle), "--results", str(results)]
    return [sys.executable, "-m", "drupe", *words]


def packed(tmp_path: Path) -> Path:
    """Pack a step on a model of the Hub, of which nothing is here."""
    model = Model("files", tmp_path / "nowhere", "d", source=SOURCE)
    spec = spec_of(Slow(ticks=8, seconds=0.1), "Slow", model, KEY)
    bundle = pack(Batch((spec,), lambda key: tmp_path / key), tmp_path / "bundle")
    assert bundle.fetch == {"model0": SOURCE}
    assert bundle.inputs == {}
    return bundle.folder


def test_it_comes_from_the_vault_and_is_nowhere(
    hub: HubServer, azure: FakeAzure, token: str, tmp_path: Path
) -> None:
    bundle, home = packed(tmp_path), tmp_path / "home"
    words = command(bundle, tmp_path / "results")
    given = environment(hub, azure, home, DRUPE_KEYVAULT="vault")
    seen = b""
    with subprocess.Popen(
        words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while running.poll() is None:
            seen += seen_processes()
            time.sleep(0.05)
        assert running.stdout
        said = running.stdout.read()
    assert running.returncode == 0, said
    assert (tmp_path / "results" / KEY / "count.txt").is_file()
    assert b"DRUPE_KEYVAULT=vault" in seen, "what is searched is there"
    leaked = token.encode() in seen  # not to be shown: it holds the environment of all processes
    assert not leaked
    assert token not in said
    assert not azure.broken
    assert telling(token, azure) == []
    assert any("snapshots" in file.parts for file in tmp_path.rglob("*"))
    assert holding(token, tmp_path) == []


def test_without_a_vault_the_hub_does_not_show_it(
    hub: HubServer, azure: FakeAzure, tmp_path: Path
) -> None:
    given = environment(hub, azure, tmp_path / "home")
    done = subprocess.run(
        command(packed(tmp_path), tmp_path / "results"), env=given, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "for a gated or private model set HF_TOKEN" in done.stderr


def test_a_secret_that_is_not_there_is_told(
    hub: HubServer, azure: FakeAzure, tmp_path: Path
) -> None:
    given = environment(hub, azure, tmp_path / "home", DRUPE_KEYVAULT="another")
    done = subprocess.run(
        command(packed(tmp_path), tmp_path / "results"), env=given, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert 'the secret "hf-token" of the key vault another: is not there' in done.stderr
    assert "let the job's identity read secrets" in done.stderr


PLAN = """
import sys, json
from pathlib import Path
from drupe.config.load import load
from drupe.plan import draft
planned = draft(load(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
print(*planned.blockers, file=sys.stderr, sep="\\n")  # why, where no model is found
model = planned.source.model
print(json.dumps([model.digest, model.source, planned.source.is_shown, planned.source.size_bytes,
                  sorted(file.name for file in model.path.glob("*"))]))
"""


def test_a_plan_knows_a_gated_model_without_its_bytes(
    hub: HubServer, azure: FakeAzure, token: str, tmp_path: Path
) -> None:
    """On AzureML by what the Hub tells, here by its files: the same digest, so the same keys."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.config["input_model"] = {"type": "HfModel", "model_path": "owner/tiny"}
    workspace.config["systems"] = {"aml": {"type": "AzureML", "aml_compute": "cluster"}}
    workspace.config["engine"] |= {"host": "aml", "evaluator": None}
    del workspace.config["evaluators"]
    given = environment(hub, azure, tmp_path / "home")
    found = []
    for words, more in (([], {}), (["local"], {"HF_TOKEN": token}), ([], {"HF_TOKEN": token})):
        done = subprocess.run(
            [sys.executable, "-c", PLAN, str(workspace.write()), *words],
            env={**given, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    blind, here, there = found
    size = sum(len(FILES[name]) for name in FILES if not name.endswith(".bin"))
    assert blind == [here[0], SOURCE, False, size, []]
    assert here[1:4] == [None, True, size]
    assert there == [here[0], SOURCE, True, size, here[4]]


def test_a_job_reads_a_gated_model_that_nobody_here_may_see(
    hub: HubServer, azure: FakeAzure, token: str, elsewhere: Workspace, tmp_path: Path
) -> None:
    """The whole way: planned by what the Hub tells, sent, fetched there, the result back here."""
    elsewhere.config["input_model"] = {"type": "HfModel", "model_path": "owner/tiny"}
    elsewhere.passes(sizes={"type": "Weigh"})
    elsewhere.config["engine"]["evaluator"] = None
    del elsewhere.config["evaluators"]
    elsewhere.write()
    azure.jobs.environment = environment(hub, azure, tmp_path / "home-of-the-job")
    done = subprocess.run(
        elsewhere.command("run", "config.json"),
        cwd=elsewhere.folder,
        env=environment(hub, azure, tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    [sizes] = elsewhere.output.rglob("sizes.txt")
    assert json.loads(sizes.read_text())["model.safetensors"] == len(FILES["model.safetensors"])
    assert not list((tmp_path / "home").rglob("*.safetensors")), "no byte of it came here"
    assert azure.requests("GET", "vault.azure.net/secrets/hf-token")
    assert token not in done.stdout + done.stderr
    bodies = [request.body for request in azure.asked]
    assert any(b"DRUPE_KEYVAULT" in body for body in bodies), "what is searched is there"
    assert telling(token, azure) == []
    assert any("user_logs" in file.parts for file in tmp_path.rglob("*"))
    assert holding(token, tmp_path) == []
    assert not azure.broken
