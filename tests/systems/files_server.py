"""A server of files on loopback: ranges, etags and MD5s, and the ways in which a server fails."""

from __future__ import annotations

import base64
import hashlib
import time
from functools import cache

from tests.http_server import Answer, Server


class FilesServer(Server):
    """Serves `files`, {path: content}; a context manager. What was asked is in `asked`.

    md5: what it tells as a file's MD5, where that is not the true one. drops: the next so many
    bodies are cut after half of them. ranges: whether it knows them. seconds: before each piece.
    status: {path: what it answers instead}.
    """

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.md5: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.drops = 0
        self.ranges = True
        self.seconds = 0.0
        self.held = 0  # the number of the first request whose body is held back; 0: none is

    def url(self, path: str) -> str:
        """Return the address of a file."""
        return f"{self.address}/{path}"

    def bodies(self) -> list[str | None]:
        """Return the ranges that were asked for, file by file."""
        return [range_ for method, _, range_ in self.asked if method == "GET"]


@cache
def _digests(content: bytes) -> tuple[bytes, str]:
    return hashlib.md5(content).digest(), hashlib.sha1(content).hexdigest()


class _Answer(Answer):
    server: FilesServer

    def send(self, *, body: bool) -> None:
        path, asked = self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append((self.command, path, asked))
        content = self.server.files.get(path)
        status = self.server.status.get(path, 404 if content is None else 200)
        if status >= 400 or content is None:
            self.send_error(status)
            return
        true, etag = _digests(content)
        digest = self.server.md5.get(path, true)
        piece, headers = content, {"ETag": f'"{etag}"'}
        if asked and self.server.ranges:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            piece = content[int(start) : int(end) + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status = 206
        else:
            headers["Content-MD5"] = base64.b64encode(digest).decode()
        self.send_response(status)
        if self.server.ranges:
            headers["Accept-Ranges"] = "bytes"
        for name, value in {**headers, "Content-Length": str(len(piece))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self._body(piece)

    def _body(self, piece: bytes) -> None:
        if self.server.drops:
            self.server.drops -= 1
            self.wfile.write(piece[: len(piece) // 2])
            self.close_connection = True
            return
        while 0 < self.server.held <= len(self.server.bodies()):
            time.sleep(0.01)
        step = 64 * 1024
        for start in range(0, len(piece), step):
            time.sleep(self.server.seconds)
            try:
                self.wfile.write(piece[start : start + step])
            except OSError:  # the client went away
                return
