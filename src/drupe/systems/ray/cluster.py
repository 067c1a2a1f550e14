"""How a process joins a Ray cluster, or starts one of this machine alone; what the nodes hold."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from drupe.core.errors import Refused
from drupe.core.process import usable_cores
from drupe.core.silence import SILENT

NAMESPACE = "drupe"
JOIN_SECONDS = 10.0
HEAD_LOST = "Run again when its head is up: what was finished is kept."
STORE_BYTES = 100 * 2**20  # a cluster of this machine alone sends no files
QUIET: dict[str, Any] = {
    "namespace": NAMESPACE,
    "log_to_driver": False,
    "logging_level": logging.ERROR,
}


def start_own(session: str | None) -> None:
    """Start a cluster of this machine alone, whose workers inherit this process's environment.

    session: the folder for its sockets and logs.
    """
    token = Path.home() / ".ray" / "auth_token"
    known = token.exists()
    ray.init(
        "local",
        num_cpus=usable_cores(),
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        _temp_dir=session,
        **QUIET,
    )
    if not known and token.exists():  # Ray has just made it, for all to read
        token.chmod(0o600)


def join(where: str, address: str, code: str) -> None:
    """Join the cluster at an address, with drupe's code in the folder `code` for its workers.

    Raises Refused, with the place `where` in the config.
    """
    if ":" in address:
        _check_answers(where, address)
    environment = {"working_dir": code, "env_vars": SILENT}
    try:
        ray.init(address, runtime_env=environment, **QUIET)
    except AuthenticationError as fault:
        raise Refused(
            f"{where}.address",
            f"is {address}, whose cluster wants a token: {first_line(fault)}",
            "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or see: ray get-auth-token --help",
        ) from fault
    except (ConnectionError, RuntimeError, ValueError) as fault:
        raise _no_cluster(where, address, fault) from fault


def capacity(where: str, wanted: dict[str, float]) -> int:
    """Return how many steps the nodes that are there hold at once; raises Refused for none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(
        min(int(node.get(name, 0) // amount) for name, amount in wanted.items() if amount)
        for node in nodes
    )
    if count == 0:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
        have = "; ".join(
            ", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in nodes
        )
        raise Refused(
            where,
            f"asks for {asked} a step, and no node has as much: {have}",
            "Ask for less, or set max_parallel to wait for nodes to come.",
        )
    return count


def first_line(fault: BaseException) -> str:
    """Return what a fault says, without what Ray writes below it."""
    lines = str(fault).strip().splitlines()
    return lines[0].strip() if lines else type(fault).__name__


def _check_answers(where: str, address: str) -> None:
    """Raise Refused where nothing listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS).close()
    except OSError as fault:
        raise _no_cluster(where, address, fault) from fault


def _no_cluster(where: str, address: str, fault: BaseException) -> Refused:
    remedy = 'Start one there (ray start --head), mend the address, or write "local".'
    if address.startswith("ray://"):  # all that Ray says without the token is that time is up
        remedy += " One that wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
    return Refused(
        f"{where}.address",
        f"is {address}, and no cluster can be joined there: {first_line(fault)}",
        remedy,
    )
