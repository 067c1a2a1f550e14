"""Do the job that a config describes: each pass in turn, measured, the last model delivered.

Finished steps are kept: run again after a failure or Ctrl-C, and it goes on from there.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from drupe import engine, plan
from drupe.cli.progress import Terminal
from drupe.config.load import load
from drupe.core.errors import Refused
from drupe.output import refuse_foreign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe run`."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the config")
    parser.add_argument("--config", "--run-config", dest="config", metavar="FILE", help="the same")
    parser.add_argument("--system", metavar="local", help="run every step here")
    parser.add_argument("--target", metavar="cpu|cuda|dml|webgpu", help="make the model for this")
    parser.add_argument("-o", "--output", metavar="DIR", help="where the result goes")
    parser.add_argument("--force", action="store_true", help="work again what is in the cache")
    parser.add_argument("--plan", "--dry-run", action="store_true", help="show the steps, run none")


def stop_when_told_to() -> None:
    """Have SIGTERM and a closed terminal end a run as Ctrl-C does: steps are stopped first."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def run(arguments: argparse.Namespace) -> int:
    """Run the config; return 0 (failures are raised)."""
    if bool(arguments.file) == bool(arguments.config):
        raise Refused("drupe run", "needs one config", "Write: drupe run FILE")
    file = Path(arguments.file or arguments.config)
    workflow = load(file, arguments.system, arguments.target, arguments.output)
    terminal = Terminal()
    stop_when_told_to()
    if arguments.plan:
        planned = plan.make(workflow, terminal.warning)
        refuse_foreign(planned)
        terminal.planned(planned)
        terminal.steps(planned)
        return 0
    with terminal:
        outcome = engine.run(workflow, force=arguments.force, listener=terminal)
    terminal.outcome(outcome)
    return 0
