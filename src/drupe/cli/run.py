"""Do the job that a config describes: apply each pass, measure, deliver the model.

Finished steps are kept: run again after a failure or Ctrl-C, it goes on there.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable
from pathlib import Path

from drupe import engine
from drupe.cli.events import EventLog, success
from drupe.cli.fault import failure, fault_of
from drupe.cli.job import add_job_arguments, read_job
from drupe.cli.plan import show
from drupe.cli.progress import Terminal
from drupe.config.schema import Workflow
from drupe.core.errors import DrupeError
from drupe.core.secrets import redacted_values
from drupe.outcome import Outcome

EXAMPLES = """\
  drupe run olive-config.json
  drupe run olive-config.json --target cuda -o models/cuda
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe run`."""
    add_job_arguments(parser)
    add_result_arguments(parser)


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every verb that does a job understands."""
    parser.add_argument("--force", action="store_true", help="work again what is in the cache")
    parser.add_argument("--plan", "--dry-run", action="store_true", help="as drupe plan")
    parser.add_argument(
        "--no-samples", action="store_true", help="quote no prompt and no answer: private data"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--events", metavar="FILE", type=Path, help="write what happens there")


def stop_when_told_to() -> None:
    """Have SIGTERM and a closed terminal end a run as Ctrl-C does: steps are stopped first."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def run(arguments: argparse.Namespace) -> int:
    """Run the config; return 0 (failures are raised)."""
    return execute(arguments, lambda: read_job(arguments, "run"))


def execute(arguments: argparse.Namespace, read: Callable[[], Workflow]) -> int:
    """Do the job that `read` returns, and show it; return 0 (failures are raised)."""
    if arguments.no_samples:
        arguments.settings = [*arguments.settings, "engine.no_samples=true"]
    if arguments.plan:
        return show(read(), as_json=arguments.json)
    terminal = Terminal(aside=arguments.json)
    log = EventLog(terminal, arguments.events)
    stop_when_told_to()
    try:
        told = _run(arguments, terminal, log, read)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, OSError, DrupeError) as error:
        if arguments.json:
            print(json.dumps({**failure(fault_of(error)), "events": _written(log)}))
        elif log.wrote and log.file is not None:
            terminal.events_lie_in(log.file)
        raise
    if arguments.json:
        print(json.dumps(redacted_values(told)))
    return 0


def _written(log: EventLog) -> str | None:
    return str(log.file) if log.wrote else None


def _run(
    arguments: argparse.Namespace, terminal: Terminal, log: EventLog, read: Callable[[], Workflow]
) -> dict[str, object]:
    """Do the job and show it; return its result as JSON values."""
    with log:
        try:
            outcome = _heard(arguments, terminal, log, read)
        except (KeyboardInterrupt, OSError, DrupeError) as error:
            log.failed(fault_of(error))
            raise
        log.delivered(outcome)
    if not arguments.json:
        terminal.outcome(outcome)
    return success(outcome, log.file)


def _heard(
    arguments: argparse.Namespace, terminal: Terminal, log: EventLog, read: Callable[[], Workflow]
) -> Outcome:
    workflow = read()
    with terminal:
        return engine.run(workflow, force=arguments.force, listener=log)
