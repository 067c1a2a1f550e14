"""Fold an adapter into its base model, and prove it. MODEL is the adapter.

What drupe finetune gave tells its base; for another adapter, --base names it.
A QLoRA adapter is folded into the 4-bit weights that it was trained on;
--set passes.merge.base=original takes the checkpoint's own.
"""

from __future__ import annotations

import argparse

from drupe.cli.single import add_single_arguments, run_single

EXAMPLES = """\
  drupe merge tuned -o merged
  drupe merge adapters/mine --base models/phi3 -o merged
"""
TAKES_FIELDS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe merge`."""
    add_single_arguments(parser, rows=False)


def run(arguments: argparse.Namespace) -> int:
    """Merge; return 0."""
    return run_single(arguments, "MergeAdapterWeights", "merge")
