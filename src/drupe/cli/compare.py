"""Compare two results: their configs, and their numbers item by item.

A and B: output folders of drupe run, finetune, export, evaluate, ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from drupe.core.errors import Refused
from drupe.core.goal import Number
from drupe.core.paired import Difference, difference
from drupe.outcome import Score
from drupe.output import ITEMS, LOCK, REPORT
from drupe.report.words import difference_text, duration, estimate_text, size

EXAMPLES = """\
  drupe compare models/int4 models/int8
  drupe compare before after --json
"""
LEGEND = "In ( ) the 95 % interval, in [ ] that of B less A on the same rows."
ABSENT = "-"
NOT_PAIRED = "not paired"  # other rows, or a number that is no mean of rows


@dataclass(frozen=True)
class Made:
    """What an output folder tells of its last stage."""

    folder: Path
    config: dict[str, Any]
    stage: dict[str, Any]
    items: dict[str, Any]

    @property
    def scores(self) -> dict[str, Score]:
        """What was measured."""
        return {name: Score.from_json(dict(each)) for name, each in self.stage["scores"].items()}


@dataclass(frozen=True)
class Compared:
    """One number of both. found: B less A on the same rows, None where they are not the same."""

    name: str
    score: Score
    first: Number | None
    second: Number | None
    found: Difference | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe compare`."""
    parser.add_argument("first", metavar="A", type=Path, help="an output folder")
    parser.add_argument("second", metavar="B", type=Path, help="another one")
    parser.add_argument("--json", action="store_true", help="print it as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Compare; return 0."""
    first, second = (made(folder) for folder in (arguments.first, arguments.second))
    settings = list(differing(first.config, second.config))
    numbers = list(compared(first, second))
    if arguments.json:
        print(json.dumps(_as_json(first, second, settings, numbers)))
        return 0
    console = Console(highlight=False)
    _show_settings(console, settings)
    _show_numbers(console, first, second, numbers)
    return 0


def made(folder: Path) -> Made:
    """Return what lies in an output folder; raises Refused for one that no run wrote."""
    try:
        report, lock = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (REPORT, LOCK)
        )
        config, stage = lock["config"], report["stages"][-1]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as fault:
        what = f"holds no result of drupe ({REPORT} and {LOCK})"
        raise Refused(str(folder), what, "Give the output folder of a run.") from fault
    items = folder / ITEMS
    return Made(
        folder,
        config,
        stage,
        json.loads(items.read_text(encoding="utf-8"))["items"] if items.is_file() else {},
    )


def differing(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, A's value, B's) of what two configs say otherwise; None is left out there."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            inner = f"{path}.{key}" if path else str(key)
            yield from differing(first.get(key), second.get(key), inner)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differing(one, other, f"{path}[{index}]")
    elif first != second:
        yield path, first, second


def compared(first: Made, second: Made) -> Iterator[Compared]:
    """Yield each number that one of the two has, A's order first."""
    ours, theirs = first.scores, second.scores
    for metric in dict.fromkeys([*ours, *theirs]):
        both = [each[metric] for each in (ours, theirs) if metric in each]
        names = [name for score in both for name in score.more.get("sub_types", {})]
        score = both[-1]
        if any(each.value is not None for each in both) or not names:
            values = [_own(each.get(metric)) for each in (ours, theirs)]
            if any(value is not None for value in values):
                found = _difference(first, second, metric, "")
                yield Compared(metric, score, values[0], values[1], found)
        own = names[0] if names and score.value is not None else None
        for name in dict.fromkeys(name for name in names if name != own):
            values = [each[metric].number(name) if metric in each else None
                      for each in (ours, theirs)]  # fmt: skip
            found = _difference(first, second, metric, name)
            yield Compared(f"{metric} {name}", score, values[0], values[1], found)


def _own(score: Score | None) -> Number | None:
    known = score is not None and score.value is not None
    return Number(score.value, score.low, score.high) if known and score else None  # type: ignore[arg-type]


def _difference(first: Made, second: Made, metric: str, number: str) -> Difference | None:
    """Return B less A where both were asked the same rows."""
    one, other = (each.items.get(metric) for each in (first, second))
    if not one or not other or one["rows"] != other["rows"] or one["how"] != other["how"]:
        return None
    how, theirs, ours = one["how"], one["items"], other["items"]
    if isinstance(how, dict):
        number = number or next(iter(how), "")
        if not all(isinstance(each, dict) and number in each for each in (how, theirs, ours)):
            return None
        how, theirs, ours = how[number], theirs[number], ours[number]
    elif number:
        return None
    return difference(how, ours, theirs)


def _show_settings(console: Console, settings: list[tuple[str, Any, Any]]) -> None:
    if not settings:
        console.print("The two configs say the same.\n")
        return
    grid = Table("config", "A", "B", box=None, pad_edge=False, header_style="bold")
    for path, one, other in settings:
        grid.add_row(path, _short(one), _short(other))
    console.print(grid)
    console.print()


def _show_numbers(console: Console, first: Made, second: Made, numbers: list[Compared]) -> None:
    grid = Table("", "A", "B", "B less A", box=None, pad_edge=False, header_style="bold")
    for each in numbers:
        share = each.score.metric == "accuracy" and " " not in each.name
        one, other = (
            ABSENT if value is None else estimate_text(value, "share" if share else "")
            for value in (each.first, each.second)
        )
        told = NOT_PAIRED if each.found is None else difference_text(each.found, each.score)
        grid.add_row(each.name, one, other, told if each.first and each.second else "")
    for name, key, words in (("size", "size_bytes", size), ("time", "seconds", duration),
                             ("peak memory", "peak_bytes", size)):  # fmt: skip
        cells = [words(made.stage[key]) if made.stage[key] else ABSENT for made in (first, second)]
        grid.add_row(name, *cells, "")
    console.print(grid)
    if any(each.found for each in numbers):
        console.print(LEGEND, style="dim")


def _short(value: Any) -> str:
    text = ABSENT if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_json(
    first: Made, second: Made, settings: list[tuple[str, Any, Any]], numbers: list[Compared]
) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "a": str(first.folder),
        "b": str(second.folder),
        "config": [{"path": path, "a": one, "b": other} for path, one, other in settings],
        "numbers": [
            {
                "name": each.name,
                "a": asdict(each.first) if each.first else None,
                "b": asdict(each.second) if each.second else None,
                "difference": asdict(each.found) if each.found else None,
            }
            for each in numbers
        ],
        "size_bytes": {"a": first.stage["size_bytes"], "b": second.stage["size_bytes"]},
    }
