"""What the tests of metrics share: a checkpoint, its export, rows of phrases with their tone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from drupe.core.dataset import Dataset, LoadDataset, TextPreprocess
from drupe.core.job import Job

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
TONES = ("anger", "fear", "joy", "sadness")
PHRASES = ("The bull charged.", "I felt lonely about the missing pet, as so often.", "Cake!")


def data(folder: Path, rows: list[dict[str, str]], **fields: Any) -> Dataset:
    """Return a data config of these rows, written into `folder`."""
    file = folder / "rows.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Dataset(
        name="rows",
        load_dataset_config=LoadDataset(data_files=file),
        pre_process_data_config=TextPreprocess(**{"text_template": TEMPLATE, **fields}),
    )


def tone_rows(count: int) -> list[dict[str, str]]:
    """Return rows whose phrases hold a number, so that no two are alike."""
    chance = random.Random(0)
    return [
        {"phrase": f"{number} {chance.choice(PHRASES)}", "tone": chance.choice(TONES)}
        for number in range(count)
    ]


def score_of(folder: Path) -> dict[str, Any]:
    """Return what a metric wrote."""
    score: dict[str, Any] = json.loads((folder / "score.json").read_text())
    return score


def items_of(folder: Path) -> list[Any]:
    """Return the rows that a metric wrote."""
    items: list[Any] = json.loads((folder / "items.json").read_text())
    return items


def job(folder: Path, events: list[dict[str, Any]] | None = None) -> Job:
    """Return a job on one thread whose events are kept."""
    return Job(folder / "scratch", send=(events if events is not None else []).append)
