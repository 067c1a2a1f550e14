"""Do one step: read its spec, write its result. Every system starts this program."""

from __future__ import annotations

import argparse
from pathlib import Path

from drupe.core.process import die_with_parent
from drupe.systems.worker import quiet_dependencies, run_step

EXAMPLES = """\
  drupe step --spec step.json --out result
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe step`."""
    parser.add_argument("--spec", type=Path, required=True, help="step.json")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the result")
    parser.add_argument("--with-parent", type=int, metavar="PID", help="end when this one ends")


def run(arguments: argparse.Namespace) -> int:
    """Do the step; return 0, or 1 when it failed (its file `events` says why)."""
    quiet_dependencies()
    if arguments.with_parent:
        die_with_parent(arguments.with_parent)
    return run_step(arguments.spec.resolve(), arguments.out.resolve())
