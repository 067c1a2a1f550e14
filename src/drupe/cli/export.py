"""Export a model to ONNX for ONNX Runtime GenAI, and prove that it answers alike.

Fields of ModelBuilder are options: --precision int4, --int4-block-size 64.
`drupe passes ModelBuilder` lists them.
"""

from __future__ import annotations

import argparse

from drupe.cli.single import add_single_arguments, run_single

EXAMPLES = """\
  drupe export models/phi3 --precision int4 -o int4
  drupe export merged --precision fp16 --target cuda -o fp16
"""
TAKES_FIELDS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe export`."""
    add_single_arguments(parser, rows=False)


def run(arguments: argparse.Namespace) -> int:
    """Export; return 0."""
    return run_single(arguments, "ModelBuilder", "export")
