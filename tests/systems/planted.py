"""A secret that is planted, and the places in which it must not be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from azureml_fake import FakeAzure
from hub_server import HubServer


def environment(hub: HubServer, azure: FakeAzure, home: Path, **more: str) -> dict[str, str]:
    """Return what a process has that knows the Hub and Azure: no token."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")
    }
    return {**given, **azure.environment, **hub.environment, "HF_HOME": str(home), **more}


def seen_processes() -> bytes:
    """Return the command lines and environments of all processes that can be read."""
    seen = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                seen.append((process / name).read_bytes())
    return b"\n".join(seen)


def holding(token: str, folder: Path) -> list[Path]:
    """Return the files below a folder that hold the secret."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if token.encode() in file.read_bytes()]


def telling(token: str, azure: FakeAzure) -> list[str]:
    """Return the requests that held the secret, in their address, their headers or their body."""
    return [
        each.place
        for each in azure.asked
        if token.encode() in each.body
        or any(token in text for text in _texts(each.place, each.query.values(), each.headers))
    ]


def _texts(place: str, query: Iterable[str], headers: object) -> list[str]:
    return [place, *query, str(headers)]
