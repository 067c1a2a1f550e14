"""Where rows come from: local files, or a data set of the Hub as a folder of files here."""

from __future__ import annotations

from pathlib import Path

from drupe.core.dataset import Dataset
from drupe.core.errors import Refused
from drupe.resources.hub import Asked, snapshot

# Of a data set its rows and its card, which says the configurations: no code, no pickle.
ROWS = ("*.json", "*.jsonl", "*.csv", "*.parquet", "*.json.gz", "*.jsonl.gz", "README.md")


def located(dataset: Dataset) -> Dataset:
    """Return `dataset` with the Hub's files here; as it is where its files are local.

    Raises Refused for a name that the Hub does not have or that has no files of rows, DrupeError
    where it cannot be reached.
    """
    source = dataset.load_dataset_config
    if not source.of_hub or source.snapshot is not None:
        return dataset
    where = f"{dataset.name}.load_dataset_config"
    asked = Asked(
        kind="dataset",
        name=source.data_name,
        revision=source.revision,
        where=f"{where}.data_name",
        revision_field=f"{where}.revision",
        instead="format of files (json, csv, parquet)",
        files={"allow_patterns": list(ROWS)},
    )
    found = snapshot(asked, lambda folder: _check_rows(folder, asked))
    source = source.model_copy(update={"snapshot": found})
    return dataset.model_copy(update={"load_dataset_config": source})


def _check_rows(folder: Path, asked: Asked) -> None:
    if not any(file.name != "README.md" for file in folder.rglob("*") if file.is_file()):
        what = f'"{asked.name}" has no files of rows ({", ".join(ROWS[:4])})'
        raise Refused(asked.where, what, "Name a data set that is stored as such.")
