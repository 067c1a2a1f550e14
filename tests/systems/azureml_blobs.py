"""Azure's blobs as files: what the fake storage account answers."""

from __future__ import annotations

import re
import threading
from email.utils import formatdate
from pathlib import Path
from xml.sax.saxutils import escape

from loopback import Answer, Request

META = "x-ms-meta-"
XML = '<?xml version="1.0"?>'


class Blobs:
    """Accounts, containers and blobs below a folder; what a job writes there is seen at once.

    damaged: the end of a path; what is read there has another first byte.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = ""
        self._metadata: dict[Path, dict[str, str]] = {}
        self._blocks: dict[tuple[Path, str], bytes] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Answer a request to an account's host; who asks has to be named."""
        if "Authorization" not in request.headers and "sig" not in request.query:
            return _error(401, "NoAuthenticationInformation")
        file = self.folder / request.host.partition(".")[0] / request.path.lstrip("/")
        if not file.resolve().is_relative_to(self.folder.resolve()):
            return _error(400, "InvalidUri")
        if request.query.get("comp") == "list":
            return self._list(file, request.query.get("prefix", ""))
        if request.query.get("restype") == "container":
            return Answer(200 if request.method != "PUT" else 201)
        if request.method == "PUT":
            with self._lock:
                return self._put(file, request)
        if not file.is_file():
            return _error(404, "BlobNotFound")
        return self._get(file, request)

    def _put(self, file: Path, request: Request) -> Answer:
        told = {
            name.lower(): value for name, value in request.headers.items() if META in name.lower()
        }
        match request.query.get("comp"):
            case "metadata":
                if not file.is_file():
                    return _error(404, "BlobNotFound")
                self._metadata[file] = told
                return Answer(200, _marks(file))
            case "block":
                self._blocks[file, request.query["blockid"]] = request.body
                return Answer(201)
            case "blocklist":
                names = re.findall(r"<Latest>([^<]+)</Latest>", request.body.decode())
                content = b"".join(self._blocks.pop((file, name)) for name in names)
            case _:
                content = request.body
        if request.headers.get("If-None-Match") == "*" and file.is_file():
            return _error(409, "BlobAlreadyExists")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._metadata[file] = told
        return Answer(201, _marks(file))

    def _get(self, file: Path, request: Request) -> Answer:
        content = file.read_bytes()
        if self.damaged and file.as_posix().endswith(self.damaged):
            content = b"?" + content[1:]
        headers = {**_marks(file), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
        headers |= {"Content-Type": "application/octet-stream", **self._metadata.get(file, {})}
        if request.method == "HEAD":
            return Answer(200, {**headers, "Content-Length": str(len(content))})
        asked = request.headers.get("x-ms-range") or request.headers.get("Range")
        if not asked:
            return Answer(200, headers, content)
        start, _, end = asked.removeprefix("bytes=").partition("-")
        piece = content[int(start) : int(end) + 1 if end else None]
        if not piece:
            return _error(416, "InvalidRange")
        last = int(start) + len(piece) - 1
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        return Answer(206, headers, piece)

    def _list(self, container: Path, prefix: str) -> Answer:
        files = sorted(each for each in container.rglob("*") if each.is_file())
        names = [each.relative_to(container).as_posix() for each in files]
        listed = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties>"
            f"<Content-Length>{(container / name).stat().st_size}</Content-Length>"
            "<BlobType>BlockBlob</BlobType></Properties></Blob>"
            for name in names
            if name.startswith(prefix)
        )
        told = f"<EnumerationResults><Blobs>{listed}</Blobs></EnumerationResults>"
        return Answer(200, {"Content-Type": "application/xml"}, f"{XML}{told}".encode())


def _marks(file: Path) -> dict[str, str]:
    at = file.stat()
    return {"ETag": f'"{at.st_size}"', "Last-Modified": formatdate(at.st_mtime, usegmt=True)}


def _error(status: int, code: str) -> Answer:
    body = f"{XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    headers = {"Content-Type": "application/xml", "x-ms-error-code": code}
    return Answer(status, headers, body.encode())
