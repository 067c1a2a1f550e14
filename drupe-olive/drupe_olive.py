"""The command `olive`: says whose it is, and hands over to drupe's command line."""

from __future__ import annotations

import sys

import drupe
from drupe.cli import VERBS
from drupe.cli import main as drupe_main

# Verbs of Olive that drupe does not have -> what does their job.
NEAREST = {
    "auto-opt": "`drupe run` with a config whose passes are those wanted",
    "optimize": "`drupe run` with a config whose passes are those wanted",
    "finetune": "`drupe run` with a LoRA pass",
    "capture-onnx-graph": "`drupe run` with the pass ModelBuilder",
    "generate-adapter": "`drupe run` with a LoRA pass",
    "extract-adapters": "`drupe run` with a LoRA pass: its adapter is a result of its own",
    "convert-adapters": "`drupe run` with the pass MergeAdapterWeights",
    "run-pass": "`drupe run` with a config of one pass",
    "tune-session-params": "`drupe run`: the threads of the target are set in its system",
    "benchmark": "`drupe run` with an evaluator",
}


def main(arguments: list[str] | None = None) -> int:
    """Run `olive ARGUMENTS...`; return drupe's exit status, 2 for a verb that only Olive has."""
    words = sys.argv[1:] if arguments is None else arguments
    print(
        f"olive: drupe {drupe.__version__}'s command of that name (drupe-olive); "
        "Microsoft's Olive is olive-ai",
        file=sys.stderr,
    )
    verb = words[0] if words else ""
    if verb and not verb.startswith("-") and verb not in VERBS and verb != "help":
        nearest = NEAREST.get(verb, "`drupe run` with a config of passes")
        print(f"olive: drupe has no verb `{verb}`; nearest is {nearest}.", file=sys.stderr)
        print("  `drupe --help` lists its verbs.", file=sys.stderr)
        return 2
    return drupe_main(words)
