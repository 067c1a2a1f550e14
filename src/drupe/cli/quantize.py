"""Export a model with weights in int4 or int8, and prove that it answers alike.

Fields of ModelBuilder are options: --int4-block-size 64, --quantize-embeddings.
`drupe passes ModelBuilder` lists them.
"""

from __future__ import annotations

import argparse

from drupe.cli.run import execute
from drupe.cli.single import add_single_arguments, single_job
from drupe.config.schema import Workflow
from drupe.core.errors import Refused

EXAMPLES = """\
  drupe quantize models/phi3 -o int4
  drupe quantize merged --precision int8 --target cuda -o int8
"""
TAKES_FIELDS = True
USUAL = "int4"
PRECISIONS = (USUAL, "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe quantize`."""
    add_single_arguments(parser, rows=False)


def run(arguments: argparse.Namespace) -> int:
    """Quantize; return 0."""
    return execute(arguments, lambda: quantizing(arguments))


def quantizing(arguments: argparse.Namespace) -> Workflow:
    """Return the workflow; raises Refused for a precision that is no quantization."""
    workflow = single_job(arguments, "ModelBuilder", "quantize", {"precision": USUAL})
    precision = dict(workflow.passes[0].step)["precision"]
    if precision not in PRECISIONS:
        raise Refused(
            "--precision",
            f"is {precision}, which keeps the weights as floats; drupe quantize writes "
            f"{' or '.join(PRECISIONS)}",
            f"Write: drupe export {arguments.model} --precision {precision} -o {arguments.output}",
        )
    return workflow
