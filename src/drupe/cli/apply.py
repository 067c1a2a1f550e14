"""Apply one pass to one model, with its fields as options: no config is needed.

`drupe passes` lists the passes, `drupe passes PASS` the fields of one.
"""

from __future__ import annotations

import argparse

from drupe.cli.single import add_single_arguments, run_single

EXAMPLES = """\
  drupe apply ModelBuilder models/phi3 -o int4 --precision int4
  drupe apply DoRA models/phi3 -o tuned --data rows.jsonl --r 16
"""
TAKES_FIELDS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe apply`."""
    parser.add_argument("name", metavar="PASS", help="a pass")
    add_single_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Apply the pass; return 0."""
    return run_single(arguments, arguments.name, arguments.name)
