"""What the verbs that take a config share: its file, and what is said in place of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from drupe.config.load import load
from drupe.config.schema import Workflow
from drupe.core.errors import Refused


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the config's file and the options that change it."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the config")
    parser.add_argument("--config", "--run-config", dest="config", metavar="FILE", help="the same")
    parser.add_argument("--system", metavar="NAME", help="run every step there (local: here)")
    parser.add_argument("--target", metavar="cpu|cuda|dml|webgpu", help="make the model for this")
    parser.add_argument("-o", "--output", metavar="DIR", help="where the result goes")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="passes.lora.r=16, in place of what the config says there (repeatable)",
    )
    parser.add_argument("--strict", action="store_true", help="take every warning for an error")


def read_job(arguments: argparse.Namespace, verb: str) -> Workflow:
    """Return the workflow that the arguments of `drupe VERB` name, changed as they say."""
    if bool(arguments.file) == bool(arguments.config):
        raise Refused(f"drupe {verb}", "needs one config", f"Write: drupe {verb} FILE")
    if arguments.output == "":
        raise Refused("-o", "names no folder", "Write: -o DIR")
    file = Path(arguments.file or arguments.config)
    return load(
        file,
        arguments.system,
        arguments.target,
        arguments.output,
        arguments.settings,
        strict=arguments.strict,
    )
