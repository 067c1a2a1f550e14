"""The fork server: one process that has the heavy imports loaded and forks a child a step.

A child starts in 20 ms instead of the 5 s that importing torch, transformers and PEFT takes; its
memory goes back when it ends, and its crash is not the end of the run. The server speaks one
JSON object a line on standard input and output:

    <- {"preload": ["torch", ...]}
    <- {"run": {"spec": PATH, "out": DIR}}      -> {"started": PID}, then
              -> {"ended": EXIT CODE OR -SIGNAL, "pid": PID, "peak_bytes": N}
    <- {"kill": PID}
    <- end of input: children are killed, the server ends

It runs in a session of its own, so that Ctrl-C reaches the client alone; it ends with it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from drupe.core.process import die_with_parent, kill_group
from drupe.systems.worker import quiet_dependencies, redirect_output, run_step


def main() -> None:
    """Serve until standard input ends."""
    quiet_dependencies()
    protocol_in, protocol_out = os.dup(0), os.dup(1)
    # What a preloaded library prints must not mix with the protocol.
    with open(os.devnull, "r+b") as nowhere:
        for descriptor in (0, 1):
            os.dup2(nowhere.fileno(), descriptor)
    ended_in, ended_out = os.pipe()
    os.set_blocking(ended_out, False)
    signal.set_wakeup_fd(ended_out, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: set[int] = set()
    buffer = b""
    try:
        while True:
            readable, _, _ = select.select([protocol_in, ended_in], [], [])
            if ended_in in readable:
                os.read(ended_in, 4096)
                _report_ended(children, protocol_out)
            if protocol_in in readable:
                data = os.read(protocol_in, 65536)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    _serve(json.loads(line), children, protocol_out)
    except BrokenPipeError:
        pass  # the client is gone: as at the end of input
    finally:
        for child in children:
            kill_group(child)
            os.waitpid(child, 0)
    os._exit(0)  # tearing down torch and the rest takes seconds, and there is nothing to save


def _serve(request: dict[str, Any], children: set[int], protocol_out: int) -> None:
    if "preload" in request:
        for name in request["preload"]:
            _preload(name)
    elif "run" in request:
        spec, out = Path(request["run"]["spec"]), Path(request["run"]["out"])
        child = _fork(spec, out, protocol_out)
        children.add(child)
        _say(protocol_out, {"started": child})
    elif "kill" in request and request["kill"] in children:
        kill_group(request["kill"])


def _preload(name: str) -> None:
    """Import "module" or "module:attribute" (the latter has a lazy package load that part).

    What cannot be imported here is an error of the step that needs it, with its words.
    """
    module, _, attribute = name.partition(":")
    with contextlib.suppress(Exception):
        imported = importlib.import_module(module)
        if attribute:
            getattr(imported, attribute)


def _fork(spec: Path, out: Path, protocol_out: int) -> int:
    if threading.active_count() > 1:
        raise RuntimeError(f"a preloaded module started threads: {threading.enumerate()}")
    server = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):  # the child does it too: whoever comes first
            os.setpgid(child, child)
        return child
    status = 1
    try:
        os.setpgid(0, 0)  # so that what the step starts is killed with it
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent(server)
        os.close(protocol_out)  # so that the client sees the server's end
        redirect_output(spec.parent / "log")
        status = run_step(spec, out)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # no clean-up of what belongs to the server


def _report_ended(children: set[int], protocol_out: int) -> None:
    for child in list(children):
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if not ended:
            continue
        children.discard(child)
        unit = 1 if sys.platform == "darwin" else 1024
        _say(
            protocol_out,
            {
                "ended": os.waitstatus_to_exitcode(status),
                "pid": child,
                "peak_bytes": usage.ru_maxrss * unit,
            },
        )


def _say(protocol_out: int, message: dict[str, Any]) -> None:
    os.write(protocol_out, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
