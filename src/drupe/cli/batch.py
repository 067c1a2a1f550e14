"""Do the steps of a bundle where it has travelled to: what a job on another machine starts."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from drupe.core.errors import DrupeError, Refused
from drupe.core.secrets import redacted
from drupe.core.silence import silence_dependencies
from drupe.resources.hub import fetched
from drupe.resources.remote import read_url
from drupe.resources.token import hub_token
from drupe.systems.batch import MARK, read_batch, run_batch
from drupe.systems.worker import quiet_dependencies

EXAMPLES = """\
  drupe batch --bundle bundle --input model0=/models/phi --results results
"""
PROGRESS_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe batch`."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder with batch.json")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=DIR", help="where a model lies"
    )
    parser.add_argument("--results", type=Path, required=True, help="where the results go")


def run(arguments: argparse.Namespace) -> int:
    """Do the steps, a line on standard output for each event; return 0, or 1 when one failed."""
    silence_dependencies()
    inputs = dict(map(_named, arguments.input))
    told, lines = read_batch(arguments.bundle), _Lines()
    with tempfile.TemporaryDirectory(prefix="drupe-batch-") as work:
        try:
            inputs |= _fetched(told, Path(work))
        except DrupeError as fault:
            where, what = redacted(fault.where), redacted(fault.what)
            failed = {"event": "failed", "where": where, "what": what, "remedy": fault.remedy}
            lines({**failed, "step": told["steps"][0]["key"]})
            raise
        quiet_dependencies()
        done = run_batch(
            arguments.bundle.resolve(), inputs, arguments.results.resolve(), Path(work), lines
        )
    return 0 if done else 1


def _fetched(told: dict[str, Any], work: Path) -> dict[str, Path]:
    """Return what the batch fetches itself: before the network is out of bounds for all steps."""
    token = hub_token() if told["fetch"] else None
    models = {name: fetched(source, token) for name, source in told["fetch"].items()}
    rows = {name: read_url(url, known, work) for name, (url, known) in told["urls"].items()}
    return models | rows


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise Refused("--input", f"is {text}", "Write: --input NAME=DIR")
    return name, Path(folder).resolve()


class _Lines:
    """Writes events as lines of the job's log; of progress and memory, one in a while."""

    def __init__(self) -> None:
        self._number = 0
        self._last: dict[str, float] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        kind, now = event["event"], time.monotonic()
        if kind in ("progress", "memory"):
            if now - self._last.get(kind, 0.0) < PROGRESS_SECONDS:
                return
            self._last[kind] = now
        self._number += 1  # by which who reads the log again knows what it has read
        print(MARK + json.dumps({**event, "number": self._number}), flush=True)
