"""A plain server on loopback, for those that tests write: it starts, answers silently, and ends."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

SECONDS = 0.02  # after which a server that is to end looks up


class Server(ThreadingHTTPServer):
    """Answers at a port of its own; a context manager."""

    daemon_threads = True

    def __init__(self, answer: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), answer)
        self._thread = threading.Thread(target=self.serve_forever, args=(SECONDS,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def address(self) -> str:
        """Where it is, without a slash behind it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One request; `send` is what a server's own answer is."""

    def do_HEAD(self) -> None:
        self.send(body=False)

    def do_GET(self) -> None:
        self.send(body=True)

    def send(self, *, body: bool) -> None:
        """Send the answer, whole or without its body."""
        raise NotImplementedError

    def log_message(self, *words: object) -> None:
        """Say nothing."""
