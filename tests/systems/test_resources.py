"""What lies elsewhere comes whole, once, checked; keys know it by its address and its version."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from files_server import FilesServer
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from drupe.core.cache import Cache
from drupe.core.errors import DrupeError, Refused
from drupe.core.housekeeping import collect
from drupe.core.resource import AzureMLClient, Remote
from drupe.resources import fetch as fetching
from drupe.resources import urls
from drupe.resources.place import Entry, listed
from drupe.resources.remote import Resolved, resolve
from tests.plain.conftest import Workspace
from tests.waiting import MOST_SECONDS, until

CONTENT = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FilesServer]:
    monkeypatch.setattr(fetching, "FIRST_SECONDS", 0.01)
    with FilesServer() as serving:
        serving.files["rows.jsonl"] = CONTENT
        yield serving


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def remote(value: Any) -> Remote:
    return Remote.model_validate_json(json.dumps(value))


def resolved(url: str, cache: Path, said: list[str] | None = None) -> Resolved:
    return resolve(remote(url), None, "data_files", cache, (said or []).append)


def test_it_comes_whole_and_once(server: FilesServer, tmp_path: Path) -> None:
    here = resolved(server.url("rows.jsonl"), tmp_path).here()
    assert here.path.name == "rows.jsonl"
    assert here.path.read_bytes() == CONTENT
    server.asked.clear()
    again = resolved(server.url("rows.jsonl"), tmp_path).here()
    assert again == here
    assert {method for method, _, _ in server.asked} == {"HEAD"}, "versions alone are asked for"


def test_in_ranges(server: FilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "CHUNK_BYTES", 100_000)
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path.read_bytes() == CONTENT
    assert server.bodies() == ["bytes=0-99999", "bytes=100000-199999", "bytes=200000-262143"]


def test_a_dropped_connection_is_tried_again(server: FilesServer, tmp_path: Path) -> None:
    server.drops = 2
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path.read_bytes() == CONTENT


def test_a_server_without_ranges(
    server: FilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "CHUNK_BYTES", 100_000)
    server.ranges = False
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path.read_bytes() == CONTENT


def test_what_came_before_a_kill_is_not_asked_for_again(
    server: FilesServer, tmp_path: Path
) -> None:
    server.held = 3
    program = (
        "import sys; from pathlib import Path; from drupe.core.resource import Remote\n"
        "from drupe.resources import urls; from drupe.resources.remote import resolve\n"
        "urls.CHUNK_BYTES = 65536\n"
        "asked = Remote.model_validate(sys.argv[1])\n"
        "print(resolve(asked, None, 'here', Path(sys.argv[2]), print).here().path)\n"
    )
    words = [sys.executable, "-c", program, server.url("rows.jsonl"), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as killed:
        until(lambda: len(server.bodies()) == 3)  # the second piece of four has come
        killed.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("resources/*/listing"))
    server.asked.clear()
    server.held = 0
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == CONTENT
    assert server.bodies()[0] in ("bytes=65536-131071", "bytes=131072-196607")


def test_more_than_there_is_is_no_beginning_of_it(server: FilesServer, tmp_path: Path) -> None:
    asked = resolved(server.url("rows.jsonl"), tmp_path)
    parts = tmp_path / "resources" / asked.digest / "parts"
    parts.mkdir(parents=True)
    (parts / "rows.jsonl.part").write_bytes(CONTENT + b"what another version had behind it")
    assert asked.here().path.read_bytes() == CONTENT


def test_two_processes_fetch_it_once(server: FilesServer, tmp_path: Path) -> None:
    server.seconds = 0.05
    program = (
        "import sys; from pathlib import Path; from drupe.core.resource import Remote\n"
        "from drupe.resources.remote import resolve\n"
        "asked = Remote.model_validate(sys.argv[1])\n"
        "print(resolve(asked, None, 'here', Path(sys.argv[2]), print).here().path)\n"
    )
    words = [sys.executable, "-c", program, server.url("rows.jsonl"), str(tmp_path)]
    two = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=MOST_SECONDS)[0].splitlines() for process in two]
    assert said[0][-1] == said[1][-1]
    assert Path(said[0][-1]).read_bytes() == CONTENT
    assert len(server.bodies()) == 1


def test_other_bytes_than_the_digest_says_are_refused(server: FilesServer, tmp_path: Path) -> None:
    server.md5["rows.jsonl"] = b"0" * 16
    with pytest.raises(DrupeError, match=r"rows\.jsonl arrived with the MD5 [0-9a-f]{32}, not 30"):
        resolved(server.url("rows.jsonl"), tmp_path).here()
    assert not [file for file in tmp_path.rglob("*.part") if file.stat().st_size]
    server.md5.clear()
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path.read_bytes() == CONTENT


def test_a_changed_file_is_another(server: FilesServer, tmp_path: Path) -> None:
    before = resolved(server.url("rows.jsonl"), tmp_path)
    assert before.here().path.read_bytes() == CONTENT
    server.files["rows.jsonl"] = CONTENT[::-1]
    after = resolved(server.url("rows.jsonl"), tmp_path)
    assert after.remote.identity != before.remote.identity
    assert after.here().path.read_bytes() == CONTENT[::-1]
    assert before.here().path.read_bytes() == CONTENT, "the older one is still here"


def test_a_damaged_copy_is_fetched_anew(server: FilesServer, tmp_path: Path) -> None:
    here = resolved(server.url("rows.jsonl"), tmp_path).here().path
    here.write_bytes(b"short")
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path.read_bytes() == CONTENT


def test_progress_is_told(
    server: FilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TOLD_SECONDS", 0.0)
    said: list[str] = []
    resolve(remote(server.url("rows.jsonl")), None, "x", tmp_path, said.append).here()
    assert "Fetching rows.jsonl: 0 of 0 MiB (100 %)." in said


@pytest.mark.parametrize(
    ("status", "fault", "words"),
    [
        (404, Refused, r"data_files: .*gone is not there\n  Mend the address"),
        (403, DrupeError, r"gone is not shown to you \(403\)\n  Log in"),
        (503, DrupeError, r"gone cannot be reached: .*\n  Connect and run again"),
    ],
)
def test_what_cannot_be_had_is_told_in_three_parts(
    status: int, fault: type[DrupeError], words: str, server: FilesServer, tmp_path: Path
) -> None:
    server.status["gone"] = status
    with pytest.raises(fault, match=words):
        resolved(server.url("gone"), tmp_path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("abfs3://x/y", r'begins with "abfs3:", which nothing here can read.*abfs'),
        ("file:///etc/hosts", r'begins with "file:"\n  Write the path alone'),
    ],
)
def test_a_scheme_that_nothing_reads(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words):
        resolved(url, tmp_path)


def test_what_reads_a_scheme_is_asked_for_by_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(scheme: str) -> None:
        raise ImportError("Install adlfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(Refused, match=r'pip install "drupe\[azureml\]"'):
        resolved("abfss://c@a.dfs.core.windows.net/x", tmp_path)


def test_a_name_that_leads_out_of_the_folder_is_refused() -> None:
    with pytest.raises(DrupeError, match=r'holds "\.\./x", which leads out of the folder'):
        listed("here", "uri", iter([Entry("../x", 1, "1")]), is_file=False)


ABFSS = {
    "a data lake": ("files@account.dfs.core.windows.net", "account.blob.core.windows.net"),
    "OneLake": ("space@onelake.dfs.fabric.microsoft.com", "onelake.blob.fabric.microsoft.com"),
}


@pytest.mark.parametrize("kind", ABFSS)
def test_abfss_goes_to_the_account_that_the_address_names(kind: str) -> None:
    authority, host = ABFSS[kind]
    found = urls._options(f"abfss://{authority}/a/b")
    assert found == {"account_name": host.partition(".")[0], "account_host": host}


def test_a_folder_by_abfss(memory: MemoryFileSystem, tmp_path: Path) -> None:
    """fsspec's own file system in the place of the account."""

    class Account(DirFileSystem):
        protocol = "abfss"
        cachable = False

        def __init__(self, account_name: str, account_host: str) -> None:
            super().__init__(f"/{account_host}", MemoryFileSystem())

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            container, _, rest = str(path).removeprefix("abfss://").partition("@")
            return f"{container}/{rest.partition('/')[2]}".rstrip("/") if rest else container

    before = fsspec.get_filesystem_class("abfss")
    fsspec.register_implementation("abfss", Account, clobber=True)
    try:
        below = "/onelake.blob.fabric.microsoft.com/space/house/Files/model"
        memory.pipe({f"{below}/a.txt": b"one", f"{below}/in/b.txt": b"two"})
        url = "abfss://space@onelake.dfs.fabric.microsoft.com/house/Files/model"
        found = resolved(url, tmp_path)
        here = found.here()
        assert (here.path / "a.txt").read_bytes() == b"one"
        assert (here.path / "in" / "b.txt").read_bytes() == b"two"
        assert found.name == "model"
        assert str(found.remote.url).endswith("/model/"), "a folder's address ends in a slash"
        assert resolved(f"{url}/", tmp_path).remote.identity == found.remote.identity
    finally:
        fsspec.register_implementation("abfss", before, clobber=True)


def put(memory: MemoryFileSystem, **files: bytes) -> None:
    memory.pipe({f"/shelf/texts/{name}.txt": content for name, content in files.items()})


def test_a_model_elsewhere_is_run_and_found_again(
    memory: MemoryFileSystem, workspace: Workspace
) -> None:
    put(memory, a=b"one", b=b"three")
    workspace.config["input_model"]["model_path"] = "memory://shelf/texts"
    outcome = workspace.run()
    assert workspace.heard.ran == ["back", "more"]
    assert outcome.path
    assert (outcome.path / "a.txt").read_text() == "eno!"
    workspace.run()
    assert workspace.heard.ran == []
    put(memory, a=b"two")
    workspace.run()
    assert workspace.heard.ran == ["back", "more"]


def test_data_elsewhere_are_read_and_keyed_by_their_version(
    server: FilesServer, workspace: Workspace
) -> None:
    server.files["rows.jsonl"] = b'{"text": "one"}\n{"text": "two"}\n'
    source = {"data_name": "json", "data_files": server.url("rows.jsonl")}
    workspace.config["data_configs"] = [{"name": "rows", "load_dataset_config": source}]
    workspace.passes(count={"type": "Count", "data_config": "rows"})
    outcome = workspace.run()
    assert outcome.path
    assert (outcome.path / "counts.txt").read_text() == "[2]"
    server.asked.clear()
    workspace.run()
    assert workspace.heard.ran == []
    assert server.bodies() == []
    server.files["rows.jsonl"] += b'{"text": "three"}\n'
    workspace.run()
    assert workspace.heard.ran == ["count"]


def test_an_empty_place_and_a_file_are_no_model(
    memory: MemoryFileSystem, workspace: Workspace
) -> None:
    put(memory, a=b"one")
    workspace.config["input_model"]["model_path"] = "memory://shelf/texts/a.txt"
    with pytest.raises(Refused, match=r"memory://shelf/texts/a\.txt is a file\n  Give the folder"):
        workspace.plan()
    workspace.config["input_model"]["model_path"] = "memory://shelf/nothing"
    with pytest.raises(Refused, match=r"memory://shelf/nothing is not there"):
        workspace.plan()


REGISTERED = {
    "type": "azureml_registry_model",
    "registry_name": "shared",
    "name": "phi",
    "version": "3",
}
OF_WORKSPACE = {"type": "azureml_model", "name": "phi", "version": "3"}
TRIPLE = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}


def test_a_version_is_its_own_identity_and_with_a_copy_nobody_is_asked(tmp_path: Path) -> None:
    asked = resolve(remote(REGISTERED), None, "x", tmp_path, print)
    folder = tmp_path / "resources" / asked.digest
    (folder / "files" / "phi").mkdir(parents=True)
    (folder / "files" / "phi" / "config.json").write_bytes(b"{}")
    listing = {"entries": [["config.json", 2, "1", None]], "is_file": False}
    (folder / "listing").write_text(json.dumps(listing))
    again = resolve(remote(REGISTERED), None, "x", tmp_path, print)
    assert again.here().path == folder / "files" / "phi"
    other = resolve(remote({**REGISTERED, "version": "4"}), None, "x", tmp_path, print)
    assert other.remote.identity != again.remote.identity


def test_the_same_name_in_another_workspace_is_another_model(tmp_path: Path) -> None:
    identities = {
        resolve(
            remote(OF_WORKSPACE), AzureMLClient(**{**TRIPLE, **other}), "x", tmp_path, print
        ).remote.identity
        for other in ({}, {"workspace_name": "other"}, {"keyvault_name": "vault"})
    }
    assert len(identities) == 2, "who asks, and with what vault, changes nothing"


@pytest.mark.parametrize(
    ("value", "client", "field"),
    [
        ({**REGISTERED, "registry_name": "Your registry"}, None, "registry_name"),
        (OF_WORKSPACE, {**TRIPLE, "workspace_name": "<workspace>"}, "azureml_client.workspace_nam"),
    ],
)
def test_a_placeholder_is_refused_before_anybody_is_asked(
    value: dict[str, Any], client: dict[str, str] | None, field: str, tmp_path: Path
) -> None:
    given = AzureMLClient(**client) if client else None
    with pytest.raises(Refused, match=rf"is a placeholder in {field}.*\n  Write your own"):
        resolve(remote(value), given, "input_model.model_path", tmp_path, print)


def test_the_azure_libraries_are_imported_for_what_lies_there_alone() -> None:
    program = (
        "import sys, drupe.plan, drupe.engine, drupe.cli.batch\n"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('azure', 'adlfs', 'fsspec', 'aiohttp')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert done.stdout.strip() == "[]"


def test_housekeeping_drops_halves_and_what_nobody_asked_for_in_90_days(
    server: FilesServer, tmp_path: Path
) -> None:
    here = resolved(server.url("rows.jsonl"), tmp_path).here().path
    listing = here.parents[2] / "listing"
    half = tmp_path / "resources" / ("0" * 64) / "parts"
    half.mkdir(parents=True)
    collect(Cache(tmp_path))
    assert here.is_file()
    assert not half.parent.exists()
    long_ago = time.time() - 91 * 86400
    os.utime(listing, (long_ago, long_ago))
    assert resolved(server.url("rows.jsonl"), tmp_path).here().path == here
    collect(Cache(tmp_path))
    assert here.is_file(), "it was asked for"
    os.utime(listing, (long_ago, long_ago))
    collect(Cache(tmp_path))
    assert not here.exists()
