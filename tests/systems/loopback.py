"""An HTTPS proxy on loopback that answers itself for the hosts it is asked to reach.

A client that honours HTTPS_PROXY and REQUESTS_CA_BUNDLE (azure-core, azure-identity, requests)
talks to it through its own transport, unchanged; nothing leaves the machine.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.http_server import Server

PIECE = 64 * 1024


@dataclass
class Request:
    """What a client asks for. place: host and path, as it was written in the address."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def place(self) -> str:
        return f"{self.host}{self.path}"


@dataclass
class Answer:
    """What it gets. drop: the connection is cut after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: int | None = None
    seconds_before: float = 0.0
    seconds_a_piece: float = 0.0


class Loopback:
    """The proxy; a context manager. `answer` is called for each request, in threads."""

    def __init__(self, answer: Callable[[Request], Answer], hosts: list[str], folder: Path) -> None:
        self.authority = folder / "authority.pem"
        self._server = _Server(answer, _context(hosts, folder, self.authority))

    def __enter__(self) -> Loopback:
        self._server.__enter__()
        return self

    def __exit__(self, *fault: object) -> None:
        self._server.__exit__(*fault)

    @property
    def connected(self) -> set[str]:
        """All hosts that somebody wanted to reach."""
        return self._server.connected

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment has to hold."""
        proxy = self._server.address
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
            **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(self.authority)),
        }


class _Server(Server):
    """The proxy's socket, with what its handlers need."""

    def __init__(self, answer: Callable[[Request], Answer], context: ssl.SSLContext) -> None:
        super().__init__(_Outside)
        self.connected: set[str] = set()
        self.answer = answer
        self.context = context


class _Outside(BaseHTTPRequestHandler):
    """The proxy's own side: CONNECT alone."""

    server: _Server

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        host = self.path.rpartition(":")[0]
        self.server.connected.add(host)
        with (
            suppress(OSError),  # the client went away, or does not trust us
            self.server.context.wrap_socket(self.connection, server_side=True) as inner,
        ):
            type("Inside", (_Inside,), {"host": host})(inner, self.client_address, self.server)

    def log_message(self, *words: object) -> None:
        pass


class _Inside(BaseHTTPRequestHandler):
    """Requests of one connection, the TLS of which is ended here."""

    protocol_version = "HTTP/1.1"
    server: _Server
    host = ""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client went away
            self.close_connection = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def _any(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        path = unquote(parts.path)
        asked = Request(self.command, self.host, path, query, self.headers, body)
        self._send(self.server.answer(asked))

    def _send(self, given: Answer) -> None:
        time.sleep(given.seconds_before)
        if given.drop == 0:
            self._cut()
            return
        self.send_response(given.status)
        headers = {"Content-Length": str(len(given.body)), **given.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = given.body[: given.drop]
        for start in range(0, len(body), PIECE):
            self.wfile.write(body[start : start + PIECE])
            time.sleep(given.seconds_a_piece)
        if given.drop is not None:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *words: object) -> None:
        pass


def _context(hosts: list[str], folder: Path, authority: Path) -> ssl.SSLContext:
    """Return the server's side of TLS for the hosts; who trusts `authority` trusts it."""
    own, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback of drupe's tests")])
    now = dt.datetime.now(dt.UTC)

    def certificate(name: x509.Name, key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    top = certificate(issuer, own).add_extension(x509.BasicConstraints(True, None), True)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    below = certificate(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")]), leaf
    ).add_extension(names, False)
    pem = serialization.Encoding.PEM
    authority.write_bytes(top.sign(own, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(
        below.sign(own, hashes.SHA256()).public_bytes(pem)
        + leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
