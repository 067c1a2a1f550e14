"""The fake workspace with what lies there: models, a registry, datastores, outputs of jobs."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import azureml_fake as fake
from azureml_blobs import Blobs
from loopback import Answer, Loopback, Request

REGISTRY, SHARED, ACCESS = "shared", "registrystorage", "sv=1&sig=of-the-registry"
PUBLIC = "files.example.org"
DISCOVERY, SERVICE = "eastus.api.azureml.ms", "cert-eastus.experiments.azureml.net"


class VersionedBlobs(Blobs):
    """Blobs that tell etags and MD5s, and honour If-Match, as the service does."""

    def answer(self, request: Request) -> Answer:
        """Answer a request; a listing by a delimiter tells folders too."""
        if request.query.get("comp") != "list":
            return super().answer(request)
        if "Authorization" not in request.headers and "sig" not in request.query:
            return super().answer(request)
        container = self.folder / request.host.partition(".")[0] / request.path.lstrip("/")
        prefix, end = request.query.get("prefix", ""), request.query.get("delimiter")
        files = sorted(each for each in container.rglob("*") if each.is_file())
        names = [each.relative_to(container).as_posix() for each in files]
        told: dict[str, str] = {}
        for name in names:
            below = name.removeprefix(prefix)
            if not name.startswith(prefix):
                continue
            if end and end in below:
                folder = prefix + below.partition(end)[0] + end
                told[folder] = f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>"
            else:
                told[name] = _blob(name, container / name)
        listed = "".join(told.values())
        body = (
            '<?xml version="1.0"?><EnumerationResults ServiceEndpoint="x" '
            f'ContainerName="{container.name}">'
            f"<Blobs>{listed}</Blobs><NextMarker/></EnumerationResults>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())

    def _get(self, file: Path, request: Request) -> Answer:
        wanted = request.headers.get("If-Match")
        if wanted and wanted != f'"{etag(file)}"':
            body = b"<Error><Code>ConditionNotMet</Code><Message>changed</Message></Error>"
            headers = {"Content-Type": "application/xml", "x-ms-error-code": "ConditionNotMet"}
            return Answer(412, headers, body)
        answer = super()._get(file, request)
        answer.headers["ETag"] = f'"{etag(file)}"'
        return answer


def _blob(name: str, file: Path) -> str:
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Etag>{etag(file)}</Etag>"
        f"<Content-Length>{file.stat().st_size}</Content-Length>"
        f"<Content-MD5>{md5(file)}</Content-MD5>"
        "<BlobType>BlockBlob</BlobType></Properties></Blob>"
    )


def etag(file: Path) -> str:
    """Return what changes with a file's content."""
    return f"0x{hashlib.sha1(file.read_bytes()).hexdigest()[:16].upper()}"


def md5(file: Path) -> str:
    """Return a file's MD5 as blob storage tells it."""
    return base64.b64encode(hashlib.md5(file.read_bytes()).digest()).decode()


@dataclass
class Shelves(fake.FakeAzure):
    """The workspace, and a host of files that anybody may read.

    models: {(name, version): path in the default datastore}. public: {path: content}.
    """

    models: dict[tuple[str, str], str] = field(default_factory=dict)
    public: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.blobs = VersionedBlobs(self.folder / "blobs")
        hosts = [*fake.HOSTS, DISCOVERY, SERVICE, PUBLIC]
        self._loopback = Loopback(self._answer, hosts, self.folder)

    def put(self, path: str, files: dict[str, bytes], container: str = fake.CONTAINER) -> Path:
        """Store files below a path of a datastore; return their folder."""
        return self._store(self.blobs.folder / fake.ACCOUNT / container / path, files)

    def put_in_registry(self, path: str, files: dict[str, bytes]) -> Path:
        """Store files in the registry's own container."""
        return self._store(self.blobs.folder / SHARED / "models" / path, files)

    def _store(self, folder: Path, files: dict[str, bytes]) -> Path:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def _route(self, request: Request) -> Answer:
        words = request.path.strip("/").split("/")
        if request.host == DISCOVERY and words[-1] == "discovery":
            return fake._json(
                {
                    "registryName": REGISTRY,
                    "primaryRegion": "eastus",
                    "primaryRegionResourceProviderUri": f"https://{SERVICE}/",
                    "resourceGroup": "of-the-registry",
                    "subscriptionId": fake.SUBSCRIPTION,
                }
            )
        if request.host == PUBLIC:
            return _file(self.public.get(request.path.lstrip("/")), request.headers.get("Range"))
        if request.host == SERVICE:
            return self._registry(request, words[words.index("registries") + 1 :])
        inner = request.path.removeprefix(fake.SCOPE).strip("/").split("/")
        match request.method, inner:
            case "GET", ["models", name, "versions", version]:
                path = self.models.get((name, version))
                if path is None:
                    return fake._error(404, "UserError", f"There is no model {name}:{version}")
                uri = f"azureml://datastores/workspaceblobstore/paths/{path}"
                return _model(name, version, uri)
            case "GET", ["jobs", "trained"]:
                return fake._json(_job())
        return super()._route(request)

    def _place_of(self, uri: str) -> Path:
        """Return where a registered model's files lie, too."""
        found = re.search(r"/models/([^/]+)/versions/([^/]+)$", uri)
        if found is None:
            return super()._place_of(uri)
        if "/registries/" in uri:
            return self.blobs.folder / SHARED / "models" / f"{found[1]}-{found[2]}"
        path = self.models[found[1], found[2]]
        return self.blobs.folder / fake.ACCOUNT / fake.CONTAINER / path

    def _registry(self, request: Request, words: list[str]) -> Answer:
        container = f"https://{SHARED}.blob.core.windows.net/models"
        match request.method, words:
            case "GET", [str(), "models", name, "versions", version]:
                return _model(name, version, f"{container}/{name}-{version}")
            case "POST", [str(), "datarefs", _, "versions", _]:
                given = {"credentialType": "SAS", "sasUri": f"{container}?{ACCESS}"}
                return fake._json({"blobReferenceForConsumption": {"credential": given}})
        return fake._error(404, "UserError", f"There is no {'/'.join(words)}")


def _file(content: bytes | None, asked: str | None) -> Answer:
    if content is None:
        return Answer(404)
    headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
    if asked is None:
        return Answer(200, {**headers, "Content-Length": str(len(content))}, content)
    start, _, end = asked.removeprefix("bytes=").partition("-")
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Answer(206, headers, content[int(start) : int(end) + 1])


def _model(name: str, version: str, uri: str) -> Answer:
    told = {"modelUri": uri, "modelType": "custom_model", "flavors": {}, "isArchived": False}
    return fake._json(
        {**fake._named(f"models/{name}/versions/", version), "properties": told, "systemData": {}}
    )


def _job() -> dict[str, Any]:
    place = "azureml://datastores/workspaceblobstore/paths/azureml/trained/best/"
    output = {"jobOutputType": "uri_folder", "uri": place, "mode": "ReadWriteMount"}
    return {
        **fake._named("jobs/", "trained"),
        "properties": {
            "jobType": "Command",
            "status": "Completed",
            "command": "true",
            "environmentId": "azureml:e:1",
            "experimentName": "e",
            "outputs": {"best": output},
            "services": {},
        },
    }
