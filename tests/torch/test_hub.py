"""Names on the Hub: pinned to a commit, offline first, refused in words.

The Hub is a server on this machine that speaks as much of its protocol as huggingface_hub asks
for; the client's code and drupe's are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40
FILES = {
    "config.json": b'{"model_type": "phi3"}',
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle, never asked for",
}


class Hub(ThreadingHTTPServer):
    """Serves one model, `owner/tiny`, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.commit = COMMIT


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.asked.append(self.path)
        content, headers = self._content()
        self.send_response(404 if content is None else 200)
        if content is None:
            headers["X-Error-Code"] = "RepoNotFound"
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body:
            self.wfile.write(content or b"")

    def _content(self) -> tuple[bytes | None, dict[str, str]]:
        path = self.path.split("?")[0]
        as_json = {"Content-Type": "application/json"}
        if path.startswith("/api/models/owner/tiny/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for name, content in FILES.items()
            ]
            return json.dumps(tree).encode(), as_json
        if path.startswith("/api/models/owner/tiny"):
            siblings = [{"rfilename": name} for name in FILES]
            return json.dumps(
                {"id": "owner/tiny", "sha": self.server.commit, "siblings": siblings}
            ).encode(), as_json
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/owner/tiny/resolve/") and name in FILES:
            etag = hashlib.sha256(FILES[name]).hexdigest()
            return FILES[name], {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit}
        return None, {}

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return a running Hub."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def plan(folder: Path, endpoint: str, name: str = "owner/tiny") -> subprocess.CompletedProcess[str]:
    """Return what `drupe run --plan` on a model of the Hub says."""
    config = {
        "input_model": {"type": "HfModel", "model_path": name},
        "passes": {"builder": {"type": "ModelBuilder", "precision": "int4"}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    environment = {**os.environ, "HF_HOME": str(folder / "hub"), "HF_ENDPOINT": endpoint}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-m", "drupe", "run", "config.json", "--plan"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def key_of_builder(shown: str) -> str:
    """Return the key that a plan shows for the step `builder`."""
    return next(line.split()[2] for line in shown.splitlines() if line.startswith("builder "))


def endpoint(hub: Hub) -> str:
    """Return the address of a Hub."""
    return f"http://127.0.0.1:{hub.server_port}"


def test_is_fetched_once_and_used_offline_from_then_on(hub: Hub, tmp_path: Path) -> None:
    first = plan(tmp_path, endpoint(hub))
    assert first.returncode == 0, first.stderr
    assert not [path for path in hub.asked if "pytorch_model.bin" in path]
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


def test_an_unknown_name_is_refused(hub: Hub, tmp_path: Path) -> None:
    done = plan(tmp_path, endpoint(hub), "owner/other")
    assert done.returncode == 2
    assert '"owner/other" is neither a folder (' in done.stderr
    assert "for a gated or private model set HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_out_of_reach_is_told(tmp_path: Path) -> None:
    done = plan(tmp_path, "http://127.0.0.1:9")  # the discard port: nothing listens
    assert done.returncode == 1
    assert "the Hub cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
