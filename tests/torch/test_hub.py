"""Names on the Hub: pinned to a commit, offline first, refused in words.

The Hub is a server on this machine that speaks as much of its protocol as huggingface_hub asks
for; the client's code and drupe's are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import Answer, Server

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens
# Of a family that drupe does not export itself: of those it would look for every tensor.
CONFIG = b'{"model_type": "olmo", "architectures": ["OlmoForCausalLM"]}'
HEADER = b'{"weight": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + b"ab",
    "tokenizer.json": b"{}",
    "LICENSE": b"Apache-2.0",
    "additional_chat_templates/tool.jinja": b"{{ messages }}",
}
ROWS = {
    "train.jsonl": b'{"text": "one row"}\n{"text": "another one"}\n',
    "test.jsonl": b'{"text": "a row to measure on"}\n',
    "loader.py": b"raise SystemExit",
}
NEVER_ASKED_FOR = {
    "pytorch_model.bin": b"a pickle",
    "tokenizer.pkl": b"another",
    "onnx/config.json": b"{}",
    "picture.png": b"",
}


class Hub(Server):
    """Serves one model, `owner/tiny`, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.asked: list[str] = []
        self.commit = COMMIT
        self.files = {**FILES, **NEVER_ASKED_FOR}
        self.rows = dict(ROWS)


class _Answer(Answer):
    server: Hub

    def send(self, *, body: bool) -> None:
        self.server.asked.append(self.path)
        content, headers = self._content()
        self.send_response(404 if content is None else 200)
        if content is None:
            headers = {"X-Error-Code": "RepoNotFound", **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body:
            self.wfile.write(content or b"")

    def _content(self) -> tuple[bytes | None, dict[str, str]]:
        path = self.path.split("?")[0]
        kind, name = ("models/", "tiny") if "/datasets/" not in path else ("datasets/", "rows")
        prefix = "" if name == "tiny" else "datasets/"
        files = self.server.files if name == "tiny" else self.server.rows
        as_json = {"Content-Type": "application/json"}
        if path.startswith(f"/api/{kind}owner/{name}/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for name, content in files.items()
            ]
            return json.dumps(tree).encode(), as_json
        if path.endswith("/revision/absent"):
            return None, {"X-Error-Code": "RevisionNotFound"}
        if path.startswith(f"/api/{kind}owner/{name}"):
            siblings = [{"rfilename": each} for each in files]
            return json.dumps(
                {"id": f"owner/{name}", "sha": self.server.commit, "siblings": siblings}
            ).encode(), as_json
        _, _, wanted = path.partition("/resolve/")
        file = wanted.partition("/")[2]
        if path.startswith(f"/{prefix}owner/{name}/resolve/") and file in files:
            content = files[file]
            etag = hashlib.sha256(content).hexdigest()
            return content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit}
        return None, {}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return a running Hub."""
    with Hub() as server:
        yield server


def run_config(
    folder: Path, endpoint: str, config: dict[str, Any], *words: str
) -> subprocess.CompletedProcess[str]:
    """Return what `drupe run WORDS...` on a config says, with the Hub at `endpoint`."""
    (folder / "config.json").write_text(json.dumps(config))
    environment = {**os.environ, "HF_HOME": str(folder / "hub"), "HF_ENDPOINT": endpoint}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-m", "drupe", "run", "config.json", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def run(
    folder: Path, endpoint: str, *words: str, model: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Return what `drupe run WORDS...` on a model of the Hub says."""
    config = {
        "input_model": {"type": "HfModel", "model_path": "owner/tiny", **(model or {})},
        "passes": {"builder": {"type": "ModelBuilder", "precision": "fp32"}},
        "engine": {"evaluate": "none"},
    }
    return run_config(folder, endpoint, config, *words)


def plan(folder: Path, endpoint: str, **model: Any) -> subprocess.CompletedProcess[str]:
    """Return what `drupe run --plan` says."""
    return run(folder, endpoint, "--plan", model=model)


def snapshot(folder: Path) -> Path:
    """Return where the Hub's library has put the files of the model."""
    return folder / "hub" / "hub" / "models--owner--tiny" / "snapshots" / COMMIT


def key_of_builder(shown: str) -> str:
    """Return the key that a plan shows for the step `builder`."""
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("builder "))


def endpoint(hub: Hub) -> str:
    """Return the address of a Hub."""
    return f"http://127.0.0.1:{hub.server_port}"


def test_is_fetched_once_and_used_offline_from_then_on(hub: Hub, tmp_path: Path) -> None:
    first = plan(tmp_path, endpoint(hub))
    assert first.returncode == 0, first.stderr
    fetched = {path for path in snapshot(tmp_path).rglob("*") if path.is_file()}
    assert {path.relative_to(snapshot(tmp_path)).as_posix() for path in fetched} == set(FILES)
    assert not [path for path in hub.asked if path.endswith(tuple(NEVER_ASKED_FOR))]
    hub.asked.clear()
    second = plan(tmp_path, endpoint(hub))
    assert second.returncode == 0, second.stderr
    assert hub.asked == []
    assert key_of_builder(first.stdout) == key_of_builder(second.stdout)


def test_the_commit_is_in_the_key(hub: Hub, tmp_path: Path) -> None:
    keys = []
    for commit in (COMMIT, OTHER_COMMIT):
        hub.commit = commit
        folder = tmp_path / commit
        folder.mkdir()
        done = plan(folder, endpoint(hub))
        assert done.returncode == 0, done.stderr
        keys.append(key_of_builder(done.stdout))
    assert keys[0] != keys[1]


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_fetched_again(name: str, hub: Hub, tmp_path: Path) -> None:
    first = plan(tmp_path, endpoint(hub))
    assert first.returncode == 0, first.stderr
    (snapshot(tmp_path) / name).unlink()
    second = plan(tmp_path, endpoint(hub))
    assert second.returncode == 0, second.stderr
    assert (snapshot(tmp_path) / name).read_bytes() == FILES[name]
    assert key_of_builder(first.stdout) == key_of_builder(second.stdout)


def test_a_shard_that_is_missing_is_told_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    """As another program may have left it, or an older version of the Hub's library."""
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(shards).encode()
    done = plan(tmp_path, endpoint(hub))
    assert done.returncode == 2
    assert "lacks model-2.safetensors, which model.safetensors.index.json names" in done.stderr


def test_what_is_here_in_part_is_told_when_the_hub_is_out_of_reach(
    hub: Hub, tmp_path: Path
) -> None:
    assert plan(tmp_path, endpoint(hub)).returncode == 0
    (snapshot(tmp_path) / "LICENSE").unlink()
    done = plan(tmp_path, NOWHERE)
    assert done.returncode == 1
    assert '"owner/tiny" is here in part only, and the Hub cannot be reached: ' in done.stderr


def test_an_unknown_name_is_refused(hub: Hub, tmp_path: Path) -> None:
    done = plan(tmp_path, endpoint(hub), model_path="owner/other")
    assert done.returncode == 2
    assert '"owner/other" is neither a folder (' in done.stderr
    assert "for a gated or private model set HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_the_hub_does_not_allow_is_refused(tmp_path: Path) -> None:
    done = plan(tmp_path, NOWHERE, model_path="owner/a--b")
    assert done.returncode == 2
    assert "and no name on the Hub" in done.stderr


def test_an_unknown_revision_is_refused(hub: Hub, tmp_path: Path) -> None:
    done = plan(tmp_path, endpoint(hub), load_kwargs={"revision": "absent"})
    assert done.returncode == 2
    words = 'input_model.load_kwargs.revision: is "absent", which "owner/tiny" does not have'
    assert words in done.stderr


def test_a_hub_out_of_reach_is_told(tmp_path: Path) -> None:
    done = plan(tmp_path, NOWHERE)
    assert done.returncode == 1
    assert "the Hub cannot be reached: [Errno 111] Connection refused" in " ".join(
        done.stderr.split()
    )
    assert "internet connection" not in done.stderr, "no essay"
    assert "Traceback" not in done.stderr


def test_a_model_of_the_hub_runs_to_its_end(hub: Hub, tmp_path: Path, tiny_phi3: Path) -> None:
    """The files of the Hub's cache are links to files beside it."""
    hub.files = {file.name: file.read_bytes() for file in tiny_phi3.iterdir()}
    done = run(tmp_path, endpoint(hub))
    assert done.returncode == 0, done.stderr
    assert (snapshot(tmp_path) / "model.safetensors").is_symlink()
    output = tmp_path / "drupe-output"
    assert list(output.rglob("genai_config.json"))
    report = json.loads(next(output.rglob("report.json")).read_text())
    sizes = sum(map(len, hub.files.values()))
    assert report["stages"][0]["size_bytes"] == sizes
    hub.asked.clear()
    again = run(tmp_path, endpoint(hub))
    assert again.returncode == 0, again.stderr
    assert hub.asked == []


# Data sets of the Hub


def tune(folder: Path, endpoint: str, model: Path, *words: str, **source: Any) -> Any:
    """Return what `drupe run WORDS...` of a LoRA on the Hub's rows says."""
    data = {
        "name": "rows",
        "load_dataset_config": {"data_name": "owner/rows", **source},
        "pre_process_data_config": {"strategy": "line-by-line", "max_seq_len": 32},
    }
    lora = {"type": "LoRA", "train_data_config": "rows", "training_args": {"max_steps": 1}}
    config = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "data_configs": [data],
        "passes": {"lora": {**lora, "target_modules": ["o_proj"]}},
        "engine": {"evaluate": "none"},
    }
    return run_config(folder, endpoint, config, *words)


def test_rows_of_the_hub_are_fetched_once_and_trained_on(
    hub: Hub, tmp_path: Path, tiny_phi3: Path
) -> None:
    done = tune(tmp_path, endpoint(hub), tiny_phi3, split="train")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "drupe-output" / "report.json").read_text())
    assert report["stages"][-1]["facts"]["samples"] == 2
    assert not any("loader.py" in path for path in hub.asked), "no code is fetched"
    again = tune(tmp_path, NOWHERE, tiny_phi3, "--plan", split="train")
    assert again.returncode == 0, again.stderr
    assert "0 of 1 steps to run" in again.stdout, "offline, and from the cache"
    other = tune(tmp_path, NOWHERE, tiny_phi3, "--plan", split="test")
    assert "1 of 1 steps to run" in other.stdout, "another split is another key"
    hub.rows["train.jsonl"] = b'{"text": "changed"}\n'
    hub.commit = OTHER_COMMIT
    moved = tune(tmp_path, endpoint(hub), tiny_phi3, "--plan", split="train", revision=OTHER_COMMIT)
    assert moved.returncode == 0, moved.stderr
    assert "1 of 1 steps to run" in moved.stdout, "another commit is another key"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"data_name": "owner/none"}, '"owner/none" is neither a format of files (json, csv, par'),
        ({"revision": "absent"}, 'revision: is "absent", which "owner/rows" does not have'),
        ({"split": "nowhere"}, 'cannot read "owner/rows"'),
        ({"data_name": "jsom"}, "json, csv, parquet, or a data set of the Hub: owner/name"),
        ({"data_files": "a.json"}, "data_files are local files: leave them out beside a name"),
    ],
)
def test_rows_that_the_hub_does_not_have(
    source: dict[str, Any], words: str, hub: Hub, tmp_path: Path, tiny_phi3: Path
) -> None:
    done = tune(tmp_path, endpoint(hub), tiny_phi3, **source)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
