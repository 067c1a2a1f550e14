"""Tune a model on rows: a low-rank adapter of it.

Fields of the pass and of the data are options: --r 16, --max-steps 200.
Rows are read by their columns (text; instruction and output; messages; ...), or
as --text-template says. `drupe passes LoRA` lists the fields of the pass,
`drupe passes QLoRA` those of --method qlora.
"""

from __future__ import annotations

import argparse

from drupe.cli.single import add_single_arguments, run_single
from drupe.core.errors import Refused

EXAMPLES = """\
  drupe finetune models/phi3 --data rows.jsonl -o tuned
  drupe finetune models/phi3 --data rows.jsonl --method qlora --r 16 -o tuned
"""
TAKES_FIELDS = True
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "loftq": "LoftQ"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe finetune`."""
    add_single_arguments(parser)
    parser.add_argument("--method", choices=METHODS, default="lora", help="lora, unless said")


def run(arguments: argparse.Namespace) -> int:
    """Train the adapter; return 0."""
    if arguments.data is None:
        raise Refused("drupe finetune", "needs rows to train on", "Name them: --data FILE")
    return run_single(arguments, METHODS[arguments.method], arguments.method)
