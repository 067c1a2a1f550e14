"""A stand-in for AzureML on loopback: a workspace that keeps what it is sent, and runs its jobs.

A job's command is run as a process of this machine, word for word, in a copy of its code; inputs
and outputs are put in place of ${{...}}. `pip install` goes into a folder of the job's own. What
is stored lies in files below `folder`, as blobs do in their containers.

    management.azure.com           jobs, codes, environments, computes, datastores (ARM)
    login.microsoftonline.com      tokens, for the client that the environment names
    ACCOUNT.blob.core.windows.net  blobs
    NAME.vault.azure.net           secrets of a key vault

Faults are switched on by `fail`, `drop` and `slow`.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
import traceback
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
from azureml_blobs import Blobs
from azureml_jobs import LOG, FakeJob, Jobs
from job_schema import job_schema
from loopback import Answer, Loopback, Request

SUBSCRIPTION, GROUP, WORKSPACE = "11111111-2222-3333-4444-555555555555", "group", "workspace"
NAMES = {
    "subscription_id": SUBSCRIPTION,
    "resource_group": GROUP,
    "workspace_name": WORKSPACE,
}
TENANT, CLIENT = "99999999-2222-3333-4444-555555555555", "77777777-2222-3333-4444-555555555555"
PASSWORD = "the-password-of-the-fake"
ACCOUNT, CONTAINER, ARTIFACTS = "fakestorage", "azureml-blobstore", "azureml"
KEY = base64.b64encode(b"a key of no account").decode()
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)
HOSTS = [
    *("management.azure.com", "login.microsoftonline.com"),
    *("*.blob.core.windows.net", "*.vault.azure.net"),
]


@dataclass
class Fault:
    """What happens to the next `times` requests of that method, at a place that matches."""

    method: str
    place: re.Pattern[str]
    times: int
    answer: Answer | None = None
    after: bool = False
    seconds_a_piece: float = 0.0


@dataclass
class FakeAzure:
    """The workspace and all around it. A context manager; what it was asked is in `asked`."""

    folder: Path
    computes: dict[str, str] = field(default_factory=lambda: {"cluster": "AmlCompute"})
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.asked: list[Request] = []
        self.broken: list[str] = []
        self.blobs = Blobs(self.folder / "blobs")
        self.jobs = Jobs(self.folder / "jobs", self.blobs, self._place_of)
        self._faults: list[Fault] = []
        self._assets: dict[str, dict[str, Any]] = {}
        self._loopback = Loopback(self._answer, HOSTS, self.folder)

    def __enter__(self) -> FakeAzure:
        self._loopback.__enter__()
        self.jobs.environment = self.environment
        return self

    def __exit__(self, *fault: object) -> None:
        self.jobs.close()
        self._loopback.__exit__()
        assert not self.broken, "\n".join(self.broken)

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a client holds that is logged in."""
        return {
            **self._loopback.environment,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": PASSWORD,
        }

    def fail(
        self,
        method: str,
        place: str,
        status: int,
        times: int = 1,
        headers: dict[str, str] | None = None,
        code: str = "Fault",
    ) -> None:
        """Answer with an error."""
        body = json.dumps({"error": {"code": code, "message": f"fault {status}"}}).encode()
        told = {"Content-Type": "application/json", "x-ms-error-code": code, **(headers or {})}
        answer = Answer(status, told, body)
        self._faults.append(Fault(method, re.compile(place), times, answer))

    def drop(
        self, method: str, place: str, times: int = 1, after: bool = False, sent: int = 0
    ) -> None:
        """Cut the connection: at once, or after it was done, or with so many bytes sent."""
        answer = Answer(drop=sent)
        self._faults.append(Fault(method, re.compile(place), times, answer, after or sent > 0))

    def stall(self, method: str, place: str, seconds: float) -> None:
        """Be silent for so long, and fail then."""
        answer = Answer(503, seconds_before=seconds)
        self._faults.append(Fault(method, re.compile(place), 1, answer))

    def slow(self, place: str, seconds_a_piece: float) -> None:
        """Send the body in pieces of 64 KiB, with a rest after each."""
        fault = Fault("GET", re.compile(place), 10**6, None, True, seconds_a_piece)
        self._faults.append(fault)

    @property
    def connected(self) -> set[str]:
        """All hosts that somebody wanted to reach, whether there is an answer for them or not."""
        return self._loopback.connected

    def registered(self, name: str, version: str) -> None:
        """Have an environment in the workspace."""
        place = f"environments/{name}/versions/"
        properties = {"image": "ubuntu", "isArchived": False}
        self._assets[place + version] = {**_named(place, version), "properties": properties}

    def over(
        self,
        name: str,
        status: str,
        log: list[str] | None = None,
        results: dict[str, Path] | None = None,
        steps: str = "1" * 64,
        inputs: str = "d",
    ) -> None:
        """Have a job in the workspace that was sent before, with its log and its output."""
        outputs = f"azureml://datastores/workspaceblobstore/paths/azureml/{name}/results"
        told = {
            "jobType": "Command",
            "command": "-",
            "codeId": f"{SCOPE}/codes/c/versions/1",
            "environmentId": f"{SCOPE}/environments/e/versions/1",
            "computeId": f"{SCOPE}/computes/cluster",
            "properties": {"drupe.steps": steps, "drupe.inputs": inputs},
            "inputs": {},
            "outputs": {"results": {"jobOutputType": "uri_folder", "uri": f"{outputs}/"}},
        }
        self.jobs.started.append(FakeJob(name, told, self.folder, ["Queued", status]))
        for key, folder in (results or {}).items():
            shutil.copytree(folder, self._place_of(f"{outputs}/{key}"))
        if log is not None:
            artifacts = f"azureml://datastores/workspaceartifactstore/paths/{LOG.format(name)}"
            file = self._place_of(artifacts)
            file.parent.mkdir(parents=True)
            file.write_text("\n".join([*log, ""]))

    def requests(self, method: str, place: str) -> list[Request]:
        """Return what was asked by that method, at a place that matches."""
        return [
            each for each in self.asked if each.method == method and re.search(place, each.place)
        ]

    def _answer(self, request: Request) -> Answer:
        self.asked.append(request)
        try:
            return self._answer_with_faults(request)
        except Exception:  # noqa: BLE001  told at the end
            self.broken.append(traceback.format_exc())
            return _error(501, "Broken", "the fake itself")

    def _answer_with_faults(self, request: Request) -> Answer:
        fault = next((each for each in self._faults if self._is_on(each, request)), None)
        if fault is None:
            return self._route(request)
        fault.times -= 1
        if not fault.after:
            assert fault.answer
            return fault.answer
        answer = self._route(request)
        answer.drop = fault.answer.drop if fault.answer else None
        answer.seconds_a_piece = fault.seconds_a_piece
        return answer

    def _is_on(self, fault: Fault, request: Request) -> bool:
        fits = fault.method == request.method and fault.place.search(request.place)
        return bool(fits and fault.times > 0)

    def _route(self, request: Request) -> Answer:
        if request.host == "login.microsoftonline.com":
            return _login(request)
        if request.host.endswith(".vault.azure.net"):
            return self._secret(request)
        if request.host.endswith(".blob.core.windows.net"):
            return self.blobs.answer(request)
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _error(401, "InvalidAuthenticationToken", "no token")
        if not request.path.startswith(SCOPE):
            return _error(404, "ResourceNotFound", f"There is no workspace at {request.path}")
        return self._workspace(request, request.path.removeprefix(SCOPE).strip("/").split("/"))

    def _workspace(self, request: Request, words: list[str]) -> Answer:
        match request.method, words:
            case "GET", [""]:
                properties = {"workspaceId": str(uuid.UUID(int=7)), "storageAccount": "none"}
                return _json({**_named("", WORKSPACE), "location": "x", "properties": properties})
            case "GET", ["computes", name] if name in self.computes:
                kind = {"computeType": self.computes[name], "properties": {}}
                return _json({**_named("computes/", name), "location": "x", "properties": kind})
            case "GET", ["datastores"]:
                return _json({"value": [_datastore("workspaceblobstore")]})
            case "GET", ["datastores", name] if name in DATASTORES:
                return _json(_datastore(name))
            case "POST", ["datastores", name, "listSecrets"] if name in DATASTORES:
                return _json({"secretsType": "Sas", "sasToken": f"sig={quote(KEY)}"})
            case "GET", ["jobs", name] if name in self.jobs:
                return _json(self._job(name))
            case "PUT", ["jobs", name]:
                return self._submit(name, json.loads(request.body))
            case "POST", ["jobs", name, "cancel"] if name in self.jobs:
                return self._cancel(name)
        return self._asset(request, words)

    def _asset(self, request: Request, words: list[str]) -> Answer:
        match request.method, words:
            case "POST", ["codes", name, "versions", _, "startPendingUpload"]:
                return _json(_place_for_code(name))
            case "GET", [("codes" | "environments") as kind, name, "versions"]:
                inside = f"{kind}/{name}/versions/"
                found = [each for place, each in self._assets.items() if place.startswith(inside)]
                return _json({"value": found})
            case "PUT", [("codes" | "environments") as kind, name, "versions", version]:
                place = f"{kind}/{name}/versions/"
                told = {**_named(place, version), **json.loads(request.body)}
                self._assets[place + version] = told
                return _json(told, 201)
            case "GET", [("codes" | "environments"), _, "versions", _] if (
                "/".join(words) in self._assets
            ):
                return _json(self._assets["/".join(words)])
        return _error(404, "ResourceNotFound", f"There is no {'/'.join(words)}")

    def _submit(self, name: str, body: dict[str, Any]) -> Answer:
        if name in self.jobs:
            return _error(409, "Conflict", f"A job of the name {name} is there")
        told = body["properties"]
        wrong = [
            f"{fault.json_path}: {fault.message}"
            for fault in jsonschema.Draft202012Validator(job_schema()).iter_errors(body)
        ]
        compute = told["computeId"].rpartition("/")[2]
        if compute not in self.computes:
            wrong.append(f"there is no compute {compute}")
        wrong += [
            f"there is no {asset}"
            for asset in (told["codeId"], told["environmentId"])
            if asset.startswith("/") and asset.removeprefix(f"{SCOPE}/") not in self._assets
        ]
        if wrong:
            return _error(400, "UserError", "; ".join(wrong))
        self.jobs.start(name, told, self._folder_of_code(told["codeId"]))
        return _json(self._job(name), 201)

    def _job(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        artifacts = f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}"
        default = {"jobOutputType": "uri_folder", "uri": artifacts, "mode": "ReadWriteMount"}
        studio = {
            "jobServiceType": "Studio",
            "endpoint": f"https://ml.azure.com/runs/{name}?wsid={SCOPE}",
        }
        told = {
            **job.properties,
            "status": job.status,
            "services": {"Studio": studio},
            "outputs": {**job.properties["outputs"], "default": default},
        }
        return {**_named("jobs/", name), "properties": told}

    def _cancel(self, name: str) -> Answer:
        if self.jobs[name].is_over:
            return _error(400, "UserError", f"The job {name} is over")
        self.jobs[name].cancel()
        return Answer(202, _location(name))

    def _secret(self, request: Request) -> Answer:
        name = request.path.split("/")[2]
        vault = request.host.partition(".")[0]
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            asks = 'Bearer authorization="https://login.microsoftonline.com/{}", resource="{}"'
            told = asks.format(TENANT, "https://vault.azure.net")
            return Answer(401, {"WWW-Authenticate": told})
        if f"{vault}/{name}" not in self.secrets:
            return _error(404, "SecretNotFound", f"There is no secret {name}")
        place = f"https://{request.host}/secrets/{name}/1"
        return _json({"value": self.secrets[f"{vault}/{name}"], "id": place, "attributes": {}})

    def _place_of(self, uri: str) -> Path:
        """Return where on this machine's disk an address of AzureML's lies."""
        found = re.match(r"azureml://(?:.*/)?datastores/([^/]+)/(?:paths/)?(.*)", uri)
        assert found, f"{uri} is no address of a datastore"
        return self.blobs.folder / ACCOUNT / DATASTORES[found[1]] / found[2].strip("/")

    def _folder_of_code(self, asset: str) -> Path:
        uri = self._assets[asset.removeprefix(f"{SCOPE}/")]["properties"]["codeUri"]
        host, _, path = uri.removeprefix("https://").partition("/")
        return self.blobs.folder / host.partition(".")[0] / path


DATASTORES = {"workspaceblobstore": CONTAINER, "workspaceartifactstore": ARTIFACTS}


def _named(place: str, name: str) -> dict[str, str]:
    return {"id": f"{SCOPE}/{place}{name}" if place else SCOPE, "name": name, "type": "fake"}


def _datastore(name: str) -> dict[str, Any]:
    properties = {
        "datastoreType": "AzureBlob",
        "accountName": ACCOUNT,
        "containerName": DATASTORES[name],
        "endpoint": "core.windows.net",
        "protocol": "https",
        "isDefault": name == "workspaceblobstore",
        "credentials": {"credentialsType": "AccountKey"},
    }
    return {**_named("datastores/", name), "properties": properties}


def _place_for_code(name: str) -> dict[str, Any]:
    container = f"https://{ACCOUNT}.blob.core.windows.net/code-{name[:40]}"
    sas = {"credentialType": "SAS", "sasUri": f"{container}?sig={quote(KEY)}"}
    told = {"blobUri": container, "storageAccountArmId": "x", "credential": sas}
    return {
        "blobReferenceForConsumption": told,
        "pendingUploadId": "1",
        "pendingUploadType": "TemporaryBlobReference",
    }


def _location(name: str) -> dict[str, str]:
    return {"Location": f"https://management.azure.com{SCOPE}/jobs/{name}"}


def _login(request: Request) -> Answer:
    home = f"https://login.microsoftonline.com/{TENANT}"
    if "discovery/instance" in request.path:
        return _json({"tenant_discovery_endpoint": f"{home}/v2.0/.well-known/openid-configuration"})
    if request.method == "GET":
        return _json(
            {
                "issuer": f"{home}/v2.0",
                "authorization_endpoint": f"{home}/oauth2/v2.0/authorize",
                "token_endpoint": f"{home}/oauth2/v2.0/token",
            }
        )
    told = request.body.decode()
    if PASSWORD not in told:
        return _json({"error": "invalid_client", "error_description": "AADSTS7000215"}, 401)
    scope = re.search(r"scope=https%3A%2F%2F([\w.]+)", told)
    assert scope
    who = re.search(r"client_id=([\w-]+)", told)
    claims = {"aud": f"https://{scope[1]}", "tid": TENANT, "exp": int(time.time()) + 3600}
    claims["appid"] = who[1] if who else "nobody"
    parts = [{"alg": "none", "typ": "JWT"}, claims, {}]
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
    return _json({"token_type": "Bearer", "expires_in": 3600, "access_token": token})


def asker(request: Request) -> str:
    """Return the client whose token a request carries; nobody's without one."""
    if "Authorization" not in request.headers:
        return "nobody"
    token = request.headers["Authorization"].removeprefix("Bearer ").split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))["appid"])


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _error(status: int, code: str, message: str) -> Answer:
    answer = _json({"error": {"code": code, "message": message}}, status)
    answer.headers["x-ms-error-code"] = code
    return answer
