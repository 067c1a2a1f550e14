"""The process in which one step is done: its environment, its output, its last words."""

from __future__ import annotations

import gc
import json
import os
import time
import traceback
from pathlib import Path

from drupe.catalog import find
from drupe.core.errors import DrupeError, PassRefused
from drupe.core.job import Job, event_line
from drupe.core.libraries import library_version
from drupe.core.machine import machine_class
from drupe.core.secrets import known_secrets, redacted_values
from drupe.core.silence import SILENT
from drupe.core.step import StepSpec, execute

# What dependencies send (core/silence.py) or print by themselves is off; Hub access is the client's
# business, so that a step works on files alone. An OpenMP pool that spins long is 4-10x slower on
# busy cores, one that never spins is slower on idle ones. Training on two threads, seconds by
# GOMP_SPINCOUNT:
#                         0     1000    5000    one thread
#   cores idle            4.5   3.4     3.3     4.8
#   both cores busy       9.0   7.2     20.9    5.2
ENVIRONMENT = {
    **SILENT,
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "warning",
    "GOMP_SPINCOUNT": "1000",
    "KMP_BLOCKTIME": "0",
}


def quiet_dependencies() -> None:
    """Set the worker's environment; before the first heavy import."""
    os.environ.update(ENVIRONMENT)


def redirect_output(log: Path) -> None:
    """Send standard output and error of this process, C++ libraries included, to `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def run_step(spec_file: Path, out: Path) -> int:
    """Do the step of `spec_file` into `out`; return the exit code.

    Beside the spec lie its scratch folder and the file `events`, to which a line is added for
    each thing to tell. The last line says how it ended.
    """
    secrets = known_secrets()
    gc.freeze()  # after a fork: do not touch (and so copy) the pages of what is preloaded
    with (spec_file.parent / "events").open("a", encoding="utf-8") as events:

        def send(event: dict[str, object]) -> None:
            told = {**redacted_values(event, secrets), "event": event["event"]}
            events.write(event_line(told))
            events.flush()

        try:
            spec = StepSpec.read(spec_file)
            os.environ["OMP_NUM_THREADS"] = str(spec.threads)
            job = Job(spec_file.parent / "scratch", spec.threads, send)
            started = time.monotonic()
            execute(spec, find, out, job)
            seconds = time.monotonic() - started
            json.dumps(job.facts, allow_nan=False)  # what is no JSON is this step's fault
            libraries = {name: library_version(name) for name in spec.libraries}
            machine = machine_class(spec.threads, libraries)
            send({"event": "done", "facts": job.facts, "seconds": seconds, "machine": machine})
            return 0
        except DrupeError as fault:
            traceback.print_exc()
            send(
                {
                    "event": "failed",
                    "where": fault.where,
                    "what": fault.what,
                    "remedy": fault.remedy,
                    "refused": isinstance(fault, PassRefused),
                }
            )
        except MemoryError as fault:
            traceback.print_exc()
            send({"event": "failed", "what": f"ran out of memory: {fault}"})
        except BaseException as fault:  # noqa: BLE001  whatever it is, the client must hear of it
            traceback.print_exc()
            last = traceback.extract_tb(fault.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            send({"event": "failed", "what": f"{type(fault).__name__}: {fault} ({place})"})
        return 1
