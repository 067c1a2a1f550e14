"""Do the job that a config describes: each pass in turn, measured, the last model delivered.

Finished steps are kept: run again after a failure or Ctrl-C, and it goes on from there.
"""

from __future__ import annotations

import argparse
import signal

from drupe import engine
from drupe.cli.job import add_job_arguments, read_job
from drupe.cli.plan import show
from drupe.cli.progress import Terminal

EXAMPLES = """\
  drupe run olive-config.json
  drupe run olive-config.json --target cuda -o models/cuda
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe run`."""
    add_job_arguments(parser)
    parser.add_argument("--force", action="store_true", help="work again what is in the cache")
    parser.add_argument("--plan", "--dry-run", action="store_true", help="as drupe plan")


def stop_when_told_to() -> None:
    """Have SIGTERM and a closed terminal end a run as Ctrl-C does: steps are stopped first."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def run(arguments: argparse.Namespace) -> int:
    """Run the config; return 0 (failures are raised)."""
    workflow = read_job(arguments, "run")
    if arguments.plan:
        return show(workflow)
    terminal = Terminal()
    stop_when_told_to()
    with terminal:
        outcome = engine.run(workflow, force=arguments.force, listener=terminal)
    terminal.outcome(outcome)
    return 0
