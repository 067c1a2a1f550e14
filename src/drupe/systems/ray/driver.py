"""The process that is connected to a Ray cluster: the calls that the client asks for.

It reads requests as JSON lines from standard input and answers on standard output; each is served
in a thread of its own (see `drupe.systems.ray.executor`). End of input without "close": the client
is gone, and its workers go on.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.exceptions import RayActorError

from drupe.core.errors import DrupeError, Refused, StepError
from drupe.core.executor import Transient
from drupe.core.process import kill_group
from drupe.systems.ray.cluster import HEAD_LOST, first_line
from drupe.systems.ray.placement import Placement, ending


def serve(placement: Placement, lines: Any, say: Callable[[dict[str, Any]], None]) -> None:
    """Work on requests until their end, then end this process, and the cluster if it is ours."""
    opens: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def answer(request: dict[str, Any]) -> None:
        try:
            told = {"value": getattr(placement, request["call"])(**request["arguments"])}
        except BaseException as fault:  # noqa: BLE001  whatever it is, the client must hear of it
            told = {"fault": _in_words(fault)}
        say({"id": request["id"], **told})

    def read() -> None:
        with ThreadPoolExecutor(max_workers=64) as pool:
            for line in lines:
                request = json.loads(line)
                if request["call"] == "open":
                    opens.put(request)
                else:
                    pool.submit(answer, request)
        if placement.alone:  # Ray's own end takes 5 s, and leaves two of its processes for a minute
            kill_group(os.getpid())
        os._exit(0)

    # Ray connects in the main thread alone; that it is asked to close is heard meanwhile.
    threading.Thread(target=read, daemon=True).start()
    while True:
        answer(opens.get())


def _in_words(fault: BaseException) -> list[str]:
    """Return the kind of error that the client is to raise, and its three parts."""
    if isinstance(fault, DrupeError):
        kinds = (Transient, Refused, StepError, DrupeError)
        kind = next(each.__name__ for each in kinds if isinstance(fault, each))
        return [kind, fault.where, fault.what, fault.remedy]
    if isinstance(fault, RayActorError):
        return ["StepError", "Ray", ending(fault), "Run again."]
    if isinstance(fault, ConnectionError):  # of Ray's client; else a lost head ends this process
        what = f"the connection to the Ray cluster has ended: {first_line(fault)}"
        return ["StepError", "Ray", what, HEAD_LOST]
    what = f"{type(fault).__name__}: {first_line(fault)}"
    return ["StepError", "Ray", what, "Run again: what was finished is kept."]


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints must not mix with the answers
    lock = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message).encode() + b"\n")
            out.flush()

    serve(Placement(), sys.stdin.buffer, say)


if __name__ == "__main__":
    main()
