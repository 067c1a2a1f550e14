"""List what was made here: the output folders below a folder, the newest first.

For what the cache holds: drupe cache ls.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from drupe.core.errors import Refused
from drupe.outcome import Score
from drupe.output import REPORT
from drupe.report.words import score_text, size

EXAMPLES = """\
  drupe ls
  drupe ls models --json
"""
DEEPEST = 4  # levels below the folder
PASSED_OVER = ("node_modules", "site-packages", "__pycache__")


@dataclass(frozen=True)
class Made:
    """An output folder, and what its report tells."""

    folder: Path
    report: dict[str, Any]

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages, the input model first."""
        return list(self.report["stages"])

    @property
    def scores(self) -> dict[str, str]:
        """The numbers of the last stage in words."""
        scores = {
            name: Score.from_json(dict(each)) for name, each in self.stages[-1]["scores"].items()
        }
        return {name: score_text(each) for name, each in scores.items() if each.value is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe ls`."""
    parser.add_argument("folder", nargs="?", metavar="DIR", type=Path, default=Path(), help="(.)")
    parser.add_argument("--json", action="store_true", help="print it as one JSON array")


def run(arguments: argparse.Namespace) -> int:
    """List; return 0."""
    if not arguments.folder.is_dir():
        raise Refused(str(arguments.folder), "is no folder that is there", "Name one: drupe ls DIR")
    found = sorted(outputs(arguments.folder), key=lambda made: made.report["written"], reverse=True)
    if arguments.json:
        print(json.dumps([_as_json(made, arguments.folder) for made in found]))
        return 0
    if not found:
        print(f"Nothing that drupe made lies in {arguments.folder.resolve()}.")
        return 0
    grid = Table(
        "output", "from", "passes", "size", "measured", "written", box=None, pad_edge=False,
        header_style="bold",
    )  # fmt: skip
    for made in found:
        measured = "\n".join(f"{name} {text}" for name, text in made.scores.items())
        passes = ", ".join(stage["name"] for stage in made.stages[1:])
        grid.add_row(
            str(made.folder.relative_to(arguments.folder)),
            made.report["input_model"]["name"],
            passes or "none",
            size(made.stages[-1]["size_bytes"]),
            measured or "not measured",
            made.report["written"][:16].replace("T", " "),
        )
    Console(highlight=False).print(grid)
    return 0


def outputs(folder: Path, depth: int = 0) -> Iterator[Made]:
    """Yield the output folders at `folder` and below it; what cannot be read is passed over."""
    report = _report(folder / REPORT)
    if report is not None:
        yield Made(folder, report)
    if depth == DEEPEST:
        return
    try:
        below = sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return
    for each in below:
        hidden = each.name.startswith(".") or each.name in PASSED_OVER
        if not (hidden or each.is_symlink() or (each / "config.json").is_file()):
            yield from outputs(each, depth + 1)


def _report(file: Path) -> dict[str, Any] | None:
    """Return a report that drupe wrote, or None."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        told = (found["drupe"], found["written"], found["input_model"]["name"], found["stages"][-1])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return found if all(told) else None


def _as_json(made: Made, below: Path) -> dict[str, Any]:
    """Return what is told of an output folder as JSON values."""
    last = made.stages[-1]
    return {
        "output": str(made.folder.relative_to(below)),
        "input_model": made.report["input_model"]["name"],
        "passes": [stage["name"] for stage in made.stages[1:]],
        "model": made.report.get("model"),
        "size_bytes": last["size_bytes"],
        "scores": last["scores"],
        "written": made.report["written"],
    }
