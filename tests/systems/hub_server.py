"""A Hub on loopback that shows its files to who has the token, and what they are to everybody."""

from __future__ import annotations

import hashlib
import json

from tests.http_server import Answer, Server

COMMIT = "c" * 40


class HubServer(Server):
    """Serves a gated model, owner/tiny if no other name is given; a context manager."""

    def __init__(self, files: dict[str, bytes], token: str, name: str = "owner/tiny") -> None:
        super().__init__(_Answer)
        self.files, self.token, self.name = files, token, name
        self.asked: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What leads huggingface_hub here."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HUB_ETAG_TIMEOUT": "60",  # a busy machine is slow to answer
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


class _Answer(Answer):
    server: HubServer

    def send(self, *, body: bool) -> None:
        path, files = self.path.split("?")[0], self.server.files
        about = f"/api/models/{self.server.name}"
        self.server.asked.append(path)
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        headers: dict[str, str] = {}
        if path.startswith(f"{about}/tree/"):
            content, status = self._json(
                [
                    {"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40}
                    for name in files
                ]
            )
        elif path.startswith(about):
            siblings = [{"rfilename": name, "size": len(files[name])} for name in files]
            content, status = self._json(
                {"id": self.server.name, "sha": COMMIT, "siblings": siblings, "gated": "auto"}
            )
        elif self.headers.get("Authorization") != f"Bearer {self.server.token}":
            content, status, headers = b"", 401, {"X-Error-Code": "GatedRepo"}
        elif name in files:
            content, status = files[name], 200
            etag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        else:
            content, status, headers = b"", 404, {"X-Error-Code": "EntryNotFound"}
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _json(self, value: object) -> tuple[bytes, int]:
        return json.dumps(value).encode(), 200
